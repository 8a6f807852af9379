"""Targets: files and texts that people hand over."""

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path

from bookbus.command_line import split_names
from bookbus.consumers.analysis.run_files import RunFileError, read_run
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.commands.arbitrage import parse_fees
from bookbus.consumers.paper.calibration.table import CalibrationError, decode_table, parse_zones
from bookbus.feeders.markets import parse_selection, parse_shard
from bookbus.feeders.recording import CaptureFile
from bookbus.schemas.capture import CaptureError, decode_frame, encode_frame
from bookbus.schemas.instruments import EXCHANGES, Instrument, InstrumentRegistry, SymbolError
from bookbus.schemas.redis_url import masked, parse_redis_url, secrets_of, with_password
from tests.fuzz.target import Target

_REGISTRY = InstrumentRegistry(
    EXCHANGES["binance"],
    [
        Instrument("binance", "BTC", "USDT", "BTCUSDT", status="trading"),
        Instrument("binance", "ETH", "BTC", "ETHBTC", status="trading"),
    ],
)
_SEPARATOR = b"\n--\n"


def _text(data: bytes) -> str:
    """As an argument of a command line comes."""
    return data.decode(errors="surrogateescape")


def _capture_line(data: bytes) -> None:
    frame = decode_frame(data)
    assert decode_frame(encode_frame(frame)) == frame


class _Files:
    """A directory of its own, in memory where there is such a place, gone with the process."""

    def __init__(self) -> None:
        shared = Path("/dev/shm")  # noqa: S108 - only a place that is fast
        self._kept = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None, prefix="bookbus-fuzz-")
        self.path = Path(self._kept.name)


_files = _Files()


def _capture_file(data: bytes) -> None:
    path = _files.path / "capture"
    # What does not begin as a compressed file does is compressed here half of the time: bytes seldom are by chance.
    path.write_bytes(gzip.compress(data[1:], 1, mtime=0) if data[:1] == b"z" else data)
    for frame in CaptureFile(path):
        assert isinstance(frame.raw, str)


def _run_files(data: bytes) -> None:
    """Fill events, KPI, mark-outs and decisions of a paper run."""
    parts = data.split(_SEPARATOR)
    names = ("fill_events_x.jsonl", "kpi_x.json", "markouts_x.jsonl", "decisions_x.jsonl")
    for name, part in zip(names, parts, strict=False):
        (_files.path / name).write_bytes(part)
    for name in names[len(parts) :]:
        (_files.path / name).unlink(missing_ok=True)
    read_run(_files.path / names[0])


def _calibration(data: bytes) -> None:
    decode_table(data).expect(1.0, 3.0)


def _url(data: bytes) -> None:
    url = _text(data)
    shown = masked(url)
    # What stands in the URL twice may be the user's name too; line ends are no part of a URL.
    bare = url.translate(dict.fromkeys(b"\t\r\n"))
    assert not any(len(word) > 8 and bare.count(word) == 1 and word in shown for word in secrets_of(url))
    with_password(url, "s3cret/@:")
    for server in parse_redis_url(url).servers:
        server.client_arguments(1.0)


def _selection(data: bytes) -> None:
    parse_selection(split_names(_text(data))).choose(_REGISTRY, {"BTCUSDT": 1.0})


def _symbol(data: bytes) -> None:
    """The exchange, and the name in the rest."""
    exchange = list(EXCHANGES)[data[0] % len(EXCHANGES)] if data else "binance"
    names = SymbolNames(exchange)
    symbol = names.standard(_text(data[1:]))
    names.learn([symbol, _text(data[1:])])
    names.near(_text(data[1:]))


def _options(data: bytes) -> None:
    """Each of the small languages of the command lines."""
    text = _text(data)
    for parse in _PARSERS:
        _tried(parse, text)


def _tried(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except ValueError:
        return


_PARSERS: tuple[Callable[[str], object], ...] = (parse_shard, parse_fees, parse_zones)


_URL_WORDS = (
    b"redis://",
    b"redis+sentinel://",
    b"redis+cluster://",
    b"unix://",
    b"@",
    b":",
    b"?read=nearest",
    b"[::1]",
)

TARGETS = (
    Target("capture_line", _capture_line, (CaptureError,), (b'"kind":"ws"', b'"t":', b'"raw":""')),
    Target("capture_file", _capture_file, (), (b"\x1f\x8b\x08\x00", b"\n", b'"kind":"http"')),
    Target("run_files", _run_files, (RunFileError,), (_SEPARATOR, b'"timestamp":"', b"+00:00", b'"order_quantity":')),
    Target("calibration", _calibration, (CalibrationError,), (b'"zones":[]', b'"usable":true', b'"tapes":[]')),
    Target("url", _url, (ValueError,), _URL_WORDS),
    Target("selection", _selection, (SymbolError,), (b"all:USDT", b"top:50", b"top:50:BTC", b",", b"\xc2\xb2", b"BTC")),
    Target("symbol", _symbol, (SymbolError,), (b"BTC-USDT", b"KRW-BTC", b"-", b"\xc3\x9f", b"\xc4\xb0")),
    Target("options", _options, (), (b"1/2", b"=", b"binance=7.5", b"0-1/2-5", b",", b"nan", b"inf", b"1e400")),
)
