"""The corpus, which holds all that once broke something, and some mutations of it."""

import logging
import random
from collections.abc import Iterator

import pytest

from tests.fuzz import engine
from tests.fuzz.engine import Trials, fuzz
from tests.fuzz.mutation import MAXIMUM, mutated
from tests.fuzz.target import CORPUS, Target
from tests.fuzz.targets import TARGETS

MUTATIONS = 150


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()  # what goes wrong is expected here
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def trials() -> Iterator[Trials]:
    with Trials() as opened:
        yield opened


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_no_bytes_make_a_reader_do_what_it_must_not_do(target: Target, trials: Trials) -> None:
    rng = random.Random(target.name)
    inputs = [*target.corpus, *(mutated(rng, target.corpus, target.words) for _ in range(MUTATIONS))]

    wrong = {data: told for data in inputs if (told := trials.run(target, data).wrong)}

    assert wrong == {}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_the_corpus_holds_something_that_is_taken(target: Target, trials: Trials) -> None:
    assert any(trials.run(target, data).accepted for data in target.corpus)


def test_every_folder_of_the_corpus_has_its_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


def test_a_failure_is_found_made_small_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(data: bytes) -> None:
        if b"7" in data:
            raise KeyError("seven")

    target = _of(run, b"a long text with 7 in the middle of it")

    result = fuzz(target, 200, 1, lambda _: None)

    assert [(crash.data, crash.reason.partition(" ")[0]) for crash in result.crashes] == [(b"7", "KeyError")]
    assert result.executions == 200
    assert 0 < result.accepted < 200


def test_what_takes_too_long_is_interrupted_and_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TIME_LIMIT", 0.02)

    def run(data: bytes) -> None:
        while data:
            pass

    with Trials() as trials:
        assert trials.run(_of(run, b""), b"x").wrong.startswith("HangError")


def test_a_documented_error_is_no_failure() -> None:
    def run(data: bytes) -> None:
        raise ValueError("no")

    with Trials() as trials:
        assert trials.run(_of(run, b"", ValueError), b"") == (False, "")
        assert trials.run(_of(run, b""), b"").wrong


def test_one_seed_gives_the_same_mutations_each_time() -> None:
    corpus = (b'{"a":1}\n[2]', b"other")

    def some(seed: int) -> list[bytes]:
        rng = random.Random(seed)
        return [mutated(rng, corpus, (b"word",)) for _ in range(300)]

    assert some(1) == some(1)
    assert some(1) != some(2)
    assert len(set(some(1))) > 150
    assert max(map(len, some(1))) <= MAXIMUM


def _of(run, data: bytes, *errors: type[Exception]) -> Target:  # type: ignore[no-untyped-def]
    """A target of its own with a corpus of one."""
    target = Target("of_its_own", run, errors)
    target.__dict__["corpus"] = (data,)
    return target
