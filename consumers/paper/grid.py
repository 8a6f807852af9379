"""Parameters to be varied, as they are written on the command line."""

from collections.abc import Mapping
from itertools import product

import msgspec

from bookbus.consumers.paper.settings import RunSettings

_ENTRY: Mapping[str, str] = {
    "entry-bps-mode": "mode",
    "entry-bps-min": "minimum",
    "entry-bps-max": "maximum",
    "entry-bps-seed": "seed",
    "tp-bps": "tp_bps",
}
_RUN = (
    *("trade-interval", "max-hold", "sl-bps", "order-quantity", "order-notional", "fill-model", "fillmodel-mode"),
    *("calibrated-mode", "min-fill-probability", "calibration-path"),
)
PARAMETERS = (*_ENTRY, *_RUN)


def grid(settings: RunSettings, text: str) -> dict[str, RunSettings]:
    """The settings of every combination in `tp-bps=8,12 sl-bps=6,12`, by how it is written. Raises ValueError."""
    found: dict[str, RunSettings] = {}
    for combination in product(*(_axis(part) for part in text.split())):
        changed = settings
        for name, value in combination:
            changed = _changed(changed, name, value)
        found[" ".join(f"{name}={value}" for name, value in combination)] = changed
    if len(set(map(msgspec.json.encode, found.values()))) < len(found):
        raise ValueError(f"--grid {text}: two combinations are the same run")
    return found


def _axis(text: str) -> list[tuple[str, str]]:
    name, equals, values = text.partition("=")
    name = name.removeprefix("--")
    if not equals or name not in PARAMETERS:
        raise ValueError(f"--grid {text}: write parameter=value,value with any of {', '.join(PARAMETERS)}")
    return [(name, value) for value in dict.fromkeys(values.split(","))]


def _changed(settings: RunSettings, name: str, value: str) -> RunSettings:
    plain = msgspec.to_builtins(settings)
    if name in _ENTRY:
        plain["entry"][_ENTRY[name]] = value
    else:
        plain[name.replace("-", "_")] = value
    try:
        return msgspec.convert(plain, RunSettings, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"--grid {name}={value}: {error}") from None
