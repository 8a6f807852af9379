"""Fixtures for all tests: a real Redis server, private to the run."""

import signal
from collections.abc import Generator, Iterator

import pytest
import redis
from hypothesis import settings

from bookbus.feeders.redis_server import LocalServer
from tests.support.captures import NOT_AT_HAND

pytest.register_assert_rewrite("tests.support.publish_script_rules")

# A shell starts background jobs with SIGINT ignored, and the processes of tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# So does `nohup` with SIGHUP.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The time of an example is meaningless on a machine with other work.
settings.register_profile("bookbus", settings(), deadline=None)
settings.load_profile("bookbus")


@pytest.fixture(scope="session")
def session_redis_server() -> Iterator[LocalServer]:
    """The server of this run; tests use `redis_server` or `redis_url`, which empty it first."""
    with LocalServer() as server:
        yield server


@pytest.fixture
def redis_server(session_redis_server: LocalServer) -> LocalServer:
    """An empty real server, shared by all tests: to kill, pause or configure one, use `own_redis_server`."""
    with redis.Redis.from_url(session_redis_server.url) as client:
        client.flushall()
        client.script_flush()
    return session_redis_server


@pytest.fixture
def redis_url(redis_server: LocalServer) -> str:
    """URL of an empty real server."""
    return redis_server.url


@pytest.fixture
def own_redis_server() -> Iterator[LocalServer]:
    """A real server for one test, to be killed, paused, restarted or configured."""
    with LocalServer() as server:
        yield server


def pytest_addoption(parser: pytest.Parser) -> None:
    """Continuous integration has all that tests need, so a skipped test there hides a missing installation."""
    parser.addoption("--fail-on-skip", action="store_true", help="fail if any test but a long form is skipped")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`long(asked, reason)` marks a test that runs only if it is asked for."""
    mark = item.get_closest_marker("long")
    if mark is not None and not mark.args[0]:
        pytest.skip(mark.args[1])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With `--fail-on-skip`, a skipped test fails unless it is marked `long` or needs what nobody can install."""
    report = yield
    if report.skipped and item.config.getoption("--fail-on-skip") and item.get_closest_marker("long") is None:
        _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, "")
        if not reason.removeprefix("Skipped: ").startswith((NOT_AT_HAND, "this machine has no")):
            report.outcome = "failed"
    return report
