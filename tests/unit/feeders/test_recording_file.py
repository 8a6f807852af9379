"""A recording read back, and what was wrong with it."""

import gzip
import random
from pathlib import Path

import pytest

from bookbus.feeders.recording import CaptureFile
from bookbus.schemas.capture import CaptureFrame, encode_frame


def frame(number: int) -> CaptureFrame:
    """One whose text does not compress, so that a cut falls among the frames."""
    noise = random.Random(number).randbytes(200).hex()
    return CaptureFrame(float(number), "binance", "ws", "wss://x", noise)


FRAMES = [frame(number) for number in range(1000)]
LINES = [encode_frame(each) for each in FRAMES]


def write(path: Path, data: bytes) -> CaptureFile:
    path.write_bytes(data)
    return CaptureFile(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_whole_file_is_read_whole(tmp_path: Path, compressed: bool) -> None:
    data = b"".join(LINES)
    capture = write(tmp_path / "c", gzip.compress(data) if compressed else data)

    assert list(capture) == FRAMES
    assert (capture.frames, capture.bad_lines, capture.first_bad, capture.cut_off) == (1000, 0, "", False)


def test_a_line_without_its_end_is_a_cut_off_tail(tmp_path: Path) -> None:
    capture = write(tmp_path / "c", b"".join(LINES)[:-10])

    assert list(capture) == FRAMES[:-1]
    assert capture.cut_off
    assert capture.bad_lines == 0


@pytest.mark.parametrize("lost", [1, 8, 20, 5_000])
def test_a_compression_that_breaks_off_gives_what_came_before(tmp_path: Path, lost: int) -> None:
    capture = write(tmp_path / "c", gzip.compress(b"".join(LINES))[:-lost])

    frames = list(capture)

    assert frames == FRAMES[: len(frames)]
    assert len(frames) > 900
    assert capture.cut_off


def test_a_damaged_compression_gives_what_came_before(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"".join(LINES)))
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    capture = write(tmp_path / "c", bytes(data))

    frames = list(capture)

    assert frames[:400] == FRAMES[:400]
    assert len(frames) < 1000
    assert capture.cut_off


def test_lines_that_are_no_frames_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    capture = write(tmp_path / "c", LINES[0] + b"nonsense\n\n" + b"\xff\n" + LINES[1] + b'{"t":"late"}\n')

    assert list(capture) == FRAMES[:2]
    assert (capture.frames, capture.bad_lines, capture.cut_off) == (2, 4, False)
    assert capture.first_bad.startswith("line 2: not a recorded frame")


@pytest.mark.parametrize("data", [b"", b"\x1f", gzip.compress(b"", mtime=0)])
def test_an_empty_file_holds_nothing(tmp_path: Path, data: bytes) -> None:
    assert list(write(tmp_path / "c", data)) == []


def test_a_file_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CaptureFile(tmp_path / "none")
