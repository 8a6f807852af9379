"""One mutant's trial: its tests in a process of their own, which has the mutant in place of the module."""

import contextlib
import gc
import importlib.util
import io
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

Outcome = Literal["killed", "timed out", "survived"]
Install = Callable[[str], None]
"""Puts a changed text in the place of the right one, in this process."""

_PASSED, _FAILED, _BROKEN = 0, 1, 2
# What is loaded already cannot be rewritten; the tests themselves are.
_ARGUMENTS = ("-p", "no:xdist", "-W", "ignore::pytest.PytestAssertRewriteWarning")
_processes = multiprocessing.get_context("fork")


def preload() -> None:
    """Import what no mutant changes, which every trial then has at once."""
    for name in ("pytest", "hypothesis", "hypothesis.strategies", "msgspec", "fakeredis", "hiredis", "redis", "lupa"):
        importlib.import_module(name)
    with contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module("pytest").main(["--markers", "--noconftest", *_ARGUMENTS])  # loads its plugins
    gc.freeze()


def attempt(text: str, install: Install, tests: Sequence[str], timeout: float) -> Outcome:
    """Whether the tests notice the changed text."""
    process = _processes.Process(target=_run, args=(text, install, tests))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        return "timed out"
    if process.exitcode not in (_PASSED, _FAILED, _BROKEN):
        raise RuntimeError(f"the tests could not be run: exit code {process.exitcode}")
    return "survived" if process.exitcode == _PASSED else "killed"


def _run(text: str, install: Install, tests: Sequence[str]) -> None:
    import pytest
    from hypothesis import Phase, settings

    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    # A failing example is enough; nobody reads the smallest one.
    settings.register_profile("mutation", phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("mutation")
    try:
        install(text)
    except Exception:
        os._exit(_FAILED)
    os._exit(pytest.main(["-q", "-x", *_ARGUMENTS, *tests]))


def install_module(name: str, text: str) -> None:
    """Have this text imported as the module."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    package, _, attribute = name.rpartition(".")
    setattr(sys.modules[package], attribute, module)
    exec(compile(text, name, "exec"), module.__dict__)  # noqa: S102


def install_script(text: str) -> None:
    """Have this text read as the publish script."""
    read_bytes = Path.read_bytes
    Path.read_bytes = lambda self: text.encode() if self.name == "publish.lua" else read_bytes(self)  # type: ignore[method-assign]
