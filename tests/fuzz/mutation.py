"""Bytes made from other bytes: broken, spliced, repeated, with numbers and words that nobody expects."""

import random
import re
from collections.abc import Callable, Sequence

MAXIMUM = 1 << 16
"""Bytes of the longest input."""

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_NUMBERS = (
    *(b"0", b"-0", b"1", b"-1", b"0.0", b"1e308", b"1e309", b"-1e309", b"1e-320", b"NaN", b"Infinity", b"null"),
    *(b"9007199254740991", b"9007199254740992", b"9223372036854775807", b"18446744073709551616", b"1" * 400),
    *(b"9" * 5000, b"0" * 5000, b"1.7e308", b"1.8e308", b'""', b"[]", b"{}", b'"1"', b"true"),
)
_PIECES = (b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b"\r\n")
_DEPTHS = (200, 1500, 20_000)

Mutation = Callable[[random.Random, bytes, Sequence[bytes], Sequence[bytes]], bytes]


def mutated(rng: random.Random, corpus: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of the corpus after one to six changes."""
    data = rng.choice(corpus)
    for _ in range(min(6, 1 + int(rng.expovariate(0.7)))):
        data = rng.choice(_MUTATIONS)(rng, data, corpus, words)
    return data[:MAXIMUM]


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(rng.expovariate(1 / 16)) + 1)


def _put(data: bytes, start: int, end: int, piece: bytes) -> bytes:
    return data[:start] + piece + data[end:]


def _flip(rng: random.Random, data: bytes, *_: object) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return _put(data, at, at + 1, bytes([data[at] ^ 1 << rng.randrange(8)]))


def _scramble(rng: random.Random, data: bytes, *_: object) -> bytes:
    start, end = _span(rng, data)
    return _put(data, start, end, rng.randbytes(rng.randrange(1, 9)))


def _insert(rng: random.Random, data: bytes, *_: object) -> bytes:
    start, _end = _span(rng, data)
    return _put(data, start, start, rng.choice(_PIECES) * rng.choice((1, 1, 1, 2, 60)))


def _delete(rng: random.Random, data: bytes, *_: object) -> bytes:
    return _put(data, *_span(rng, data), b"")


def _cut(rng: random.Random, data: bytes, *_: object) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _repeat(rng: random.Random, data: bytes, *_: object) -> bytes:
    start, end = _span(rng, data)
    return _put(data, end, end, data[start:end] * rng.choice((1, 2, 40)))


def _splice(rng: random.Random, data: bytes, corpus: Sequence[bytes], _: object) -> bytes:
    other = rng.choice(corpus)
    start, end = _span(rng, other)
    start = rng.choice((0, start))
    return data[: rng.randrange(len(data) + 1)] + other[start : rng.choice((end, len(other)))]


def _number(rng: random.Random, data: bytes, *_: object) -> bytes:
    """Another number in place of one."""
    found = list(_NUMBER.finditer(data, rng.randrange(len(data) + 1)))[:20] or list(_NUMBER.finditer(data))[:20]
    if not found:
        return data
    match = rng.choice(found)
    near = b"%d" % (int(match[0]) + rng.choice((-1, 1, 2, 100))) if match[0].isdigit() and len(match[0]) < 20 else b"7"
    return _put(data, *match.span(), rng.choice((near, near, rng.choice(_NUMBERS))))


def _exchange_numbers(rng: random.Random, data: bytes, *_: object) -> bytes:
    found = list(_NUMBER.finditer(data))
    if len(found) < 2:
        return data
    first, second = sorted(rng.sample(found, 2), key=re.Match.start)
    return data[: first.start()] + second[0] + data[first.end() : second.start()] + first[0] + data[second.end() :]


def _word(rng: random.Random, data: bytes, _: object, words: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    return _put(data, start, rng.choice((start, end)), rng.choice(words)) if words else data


def _lines(rng: random.Random, data: bytes, *_: object) -> bytes:
    """Lines left out, doubled or in another order."""
    lines = data.split(b"\n")
    position = rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            del lines[position]
        case 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[position])
        case _:
            other = rng.randrange(len(lines))
            lines[position], lines[other] = lines[other], lines[position]
    return b"\n".join(lines)


def _nest(rng: random.Random, data: bytes, *_: object) -> bytes:
    """Deeper than a parser may follow."""
    if rng.random() < 0.9:
        return data
    start, end = _span(rng, data)
    return _put(data, start, end, rng.choice((b"[", b'{"a":', b"\x91", b"*1\r\n")) * rng.choice(_DEPTHS))


_MUTATIONS: tuple[Mutation, ...] = (
    *(_flip, _scramble, _insert, _delete, _cut, _repeat, _splice, _number, _number),
    *(_exchange_numbers, _word, _word, _lines, _nest),
)
