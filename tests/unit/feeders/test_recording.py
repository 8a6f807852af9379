"""What an exchange sends, kept in a file as it came."""

import asyncio
import contextlib
import gzip
from pathlib import Path

import pytest

from bookbus.feeders.recording import CaptureFile, Recorder, unused_path
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.schemas.capture import CaptureFrame, encode_frame


@pytest.mark.parametrize("name", ["frames.jsonl", "frames.jsonl.gz"])
def test_what_is_recorded_is_read_back_in_order(tmp_path: Path, name: str) -> None:
    times = iter((1.5, 2.5))
    recorder = Recorder(tmp_path / name, "binance", lambda: next(times))

    recorder.on_frame("wss://x", b'{"a":"\xc3\xa9"}')
    recorder.on_answer("https://x/depth", b"[1]\n")
    recorder.close()

    assert list(CaptureFile(tmp_path / name)) == [
        CaptureFrame(1.5, "binance", "ws", "wss://x", '{"a":"é"}'),
        CaptureFrame(2.5, "binance", "http", "https://x/depth", "[1]\n"),
    ]
    assert recorder.frames == 2
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") is name.endswith(".gz")


def test_a_frame_that_is_no_text_is_counted_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    recorder = Recorder(path, "binance")

    recorder.on_frame("wss://x", b"\xff\xfe")
    recorder.on_frame("wss://x", b"{}")
    recorder.close()

    assert (recorder.frames, recorder.not_text) == (1, 1)
    assert [frame.raw for frame in CaptureFile(path)] == ["{}"]


def test_a_file_that_exists_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    path.write_text("precious")

    with pytest.raises(FileExistsError):
        Recorder(path, "binance")

    assert path.read_text() == "precious"


async def test_a_stop_writes_the_rest(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "frames.jsonl", "binance")
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)
    recorder.on_frame("wss://x", b"{}")

    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert len(list(CaptureFile(tmp_path / "frames.jsonl"))) == 1


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "frames.jsonl.gz", "binance")

    recorder.close()
    recorder.close()

    assert list(CaptureFile(tmp_path / "frames.jsonl.gz")) == []


@pytest.mark.parametrize(
    "url",
    [
        "wss://user:s3cret@stream.example:9443/stream",
        "wss://s3cret@stream.example/ws",
        "wss://stream.example/ws?token=s3cret",
        "wss://user:s3cret/@stream.example/ws",
    ],
)
def test_no_secret_of_an_address_is_recorded(tmp_path: Path, url: str) -> None:
    path = tmp_path / "frames.jsonl"
    recorder = Recorder(path, "binance")
    rest = RestClient(url.replace("wss", "https"), WeightBudget(1000))

    recorder.on_frame(url, b"{}")
    recorder.on_frame(url, b"{}")
    recorder.on_answer(rest.url("/depth", {"symbol": "BTCUSDT"}), b"{}")
    recorder.close()

    assert "s3cret" not in path.read_text()
    assert [frame.raw for frame in CaptureFile(path)] == ["{}", "{}", "{}"]
    assert all(frame.url for frame in CaptureFile(path))


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
async def test_a_file_that_cannot_be_written_ends_the_recording_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    # A device on which there is never room.
    monkeypatch.setattr(Path, "open", lambda *_: open("/dev/full", "wb"))  # noqa: SIM115
    path = tmp_path / f"frames.{suffix}"
    recorder = Recorder(path, "binance")
    recorder.on_frame("wss://x", b"{}" * 100_000)

    await asyncio.wait_for(recorder.run(), 5)
    recorder.on_frame("wss://x", b"{}")
    recorder.close()

    assert recorder.error == "no space left on device"
    assert recorder.frames == 1
    assert caplog.messages == [f"the recording in {path} ended: no space left on device"]


@pytest.mark.parametrize(
    ("existing", "unused"),
    [
        ([], "btc.jsonl.gz"),
        (["btc.jsonl.gz"], "btc-2.jsonl.gz"),
        (["btc.jsonl.gz", "btc-2.jsonl.gz", "btc-4.jsonl.gz"], "btc-3.jsonl.gz"),
        (["btc-2.jsonl.gz"], "btc.jsonl.gz"),
    ],
)
def test_a_name_that_exists_gets_the_first_free_number(tmp_path: Path, existing: list[str], unused: str) -> None:
    for name in existing:
        (tmp_path / name).touch()

    assert unused_path(tmp_path / "btc.jsonl.gz") == tmp_path / unused


def test_a_name_without_an_ending_gets_a_number_too(tmp_path: Path) -> None:
    (tmp_path / "capture").symlink_to(tmp_path / "gone")

    assert unused_path(tmp_path / "capture") == tmp_path / "capture-2"


@pytest.mark.parametrize("name", ["frames.jsonl", "frames.jsonl.gz"])
@pytest.mark.parametrize("length", [4_999, 5_000, 5_001, 200_000, 1_000_000])
def test_a_line_without_end_is_one_bad_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, length: int
) -> None:
    monkeypatch.setattr("bookbus.schemas.capture.LONGEST_LINE", 5_000)
    path = tmp_path / name
    good = encode_frame(CaptureFrame(1.0, "binance", "ws", "wss://x", "{}"))
    content = good + b'"' * length + b"\n" + good
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    capture = CaptureFile(path)

    assert [frame.raw for frame in capture] == ["{}", "{}"]
    assert (capture.bad_lines, capture.cut_off) == (1, False)
