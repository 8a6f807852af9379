"""Error replies by kind, each reported once."""

import hiredis
import pytest

from bookbus.feeders.bus.publisher import ErrorLog, error_kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'. script: abc, on @user_script:71.", "OOM"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value script: abc", "WRONGTYPE"),
        ("ERR Error running script (call to f_abc): @user_script:71: -OOM command not allowed", "OOM"),
        ("ERR Error running script (call to f_abc): @user_script:14: WRONG -WRONGTYPE Operation against", "WRONGTYPE"),
        ("ERR unknown command 'EVALSHA'", "ERR"),
        ("odd words without a kind", "ERR"),
    ],
)
def test_an_error_is_known_by_its_first_word_wherever_the_server_puts_it(text: str, kind: str) -> None:
    assert error_kind(hiredis.ReplyError(text)) == kind


def test_each_kind_is_reported_once_until_nothing_fails(caplog: pytest.LogCaptureFixture) -> None:
    log = ErrorLog("redis://h")
    for _ in range(2):
        log.add("a", hiredis.ReplyError("OOM full"))
        log.add("b", hiredis.ReplyError("WRONGTYPE other"))
    log.healthy()
    log.healthy()
    log.add("b", hiredis.ReplyError("OOM full"))

    assert [record.getMessage() for record in caplog.records] == [
        "redis://h refuses a: OOM full",
        "redis://h refuses b: WRONGTYPE other",
        "redis://h takes everything again (was: OOM, WRONGTYPE)",
        "redis://h refuses b: OOM full",
    ]
    assert log.by_kind == {"OOM": 3, "WRONGTYPE": 2}
