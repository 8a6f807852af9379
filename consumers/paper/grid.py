"""Parameters to be varied, as they are written on the command line."""

from collections.abc import Callable, Mapping
from itertools import product

import msgspec

from consumers.paper.settings import RunSettings

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

_Change = Callable[[RunSettings], RunSettings]


def grid(settings: RunSettings, text: str) -> list[RunSettings]:
    """The settings of every combination in `tp-bps=8,12 sl-bps=6,12`. Raises ValueError."""
    axes = [_axis(part) for part in text.split()]
    found = []
    for changes in product(*axes):
        changed = settings
        for change in changes:
            changed = change(changed)
        found.append(changed)
    if len(set(map(msgspec.json.encode, found))) < len(found):
        raise ValueError(f"--grid {text}: two combinations are the same run")
    return found


def _axis(text: str) -> list[_Change]:
    name, equals, values = text.partition("=")
    name = name.removeprefix("--")
    if not equals or name not in PARAMETERS:
        raise ValueError(f"--grid {text}: write parameter=value,value with any of {', '.join(PARAMETERS)}")
    return [_change(name, value) for value in values.split(",")]


def _change(name: str, text: str) -> _Change:
    def change(settings: RunSettings) -> RunSettings:
        plain = msgspec.to_builtins(settings)
        if name in _ENTRY:
            plain["entry"][_ENTRY[name]] = text
        else:
            plain[name.replace("-", "_")] = text
        try:
            return msgspec.convert(plain, RunSettings, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(f"--grid {name}={text}: {error}") from None

    return change
