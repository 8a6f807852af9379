"""One line of a recording."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.schemas.capture import CaptureError, CaptureFrame, decode_frame, encode_frame

texts = st.text('aZ0-_:/{}[]"\\ \n\r\t\0\x7f\x85\u2028é币\U0001f600')
frames = st.builds(
    CaptureFrame,
    t=st.floats(min_value=0, max_value=1e11),
    venue=texts,
    kind=st.sampled_from(["ws", "http"]),
    url=texts,
    raw=texts,
)


def test_line_is_one_json_object_in_the_order_of_the_format() -> None:
    line = encode_frame(CaptureFrame(t=1.5, venue="upbit", kind="ws", url="wss://a/b", raw='{"é":"\n"}'))

    assert line == '{"t":1.5,"venue":"upbit","kind":"ws","url":"wss://a/b","raw":"{\\"é\\":\\"\\n\\"}"}\n'.encode()


@given(frames)
def test_frame_survives_its_line(frame: CaptureFrame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(frames)
def test_frame_takes_one_line_whatever_it_holds(frame: CaptureFrame) -> None:
    assert encode_frame(frame).count(b"\n") == 1


def test_keys_of_later_versions_are_ignored() -> None:
    line = b'{"t": 1, "venue": "a", "kind": "http", "url": "u", "raw": "r", "more": [1]}\n'

    assert decode_frame(line) == CaptureFrame(t=1.0, venue="a", kind="http", url="u", raw="r")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}",
        b"[]",
        b"not JSON",
        b'{"t":1,"venue":"a","kind":"ws","url":"u","raw":"cut sh',
        b'{"t":"1","venue":"a","kind":"ws","url":"u","raw":"r"}',
        b'{"t":1,"venue":"a","kind":"udp","url":"u","raw":"r"}',
        b'{"t":1,"venue":"a","kind":"ws","url":"u","raw":{"a":1}}',
        b'{"t":1,"venue":"a","kind":"ws","url":"u","raw":"\xff"}',
        b"[" * 100_000,
        b'{"t":1,"venue":"a","kind":"ws","url":"u","raw":"r","more":' + b"[" * 100_000,
    ],
)
def test_line_that_is_no_frame_is_refused(line: bytes) -> None:
    with pytest.raises(CaptureError):
        decode_frame(line)


@given(st.binary())
def test_random_line_is_refused(line: bytes) -> None:
    with pytest.raises(CaptureError):
        decode_frame(line)
