"""What audits found, summed, and whose turn is next."""

from bookbus.feeders.audit import WORST, AuditLedger, AuditTurns
from bookbus.schemas.heartbeat import AuditReport, SymbolAudit

EQUAL = SymbolAudit(matched=1, levels=200)
DIFFERENT = SymbolAudit(mismatched=1, levels=200, ghosts=2, missing=1, wrong=1)
UNMATCHED = SymbolAudit(unmatched=1)
MISSED = SymbolAudit(misses=1)
SYMBOLS = {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT"}


def take(turns: AuditTurns, count: int, *natives: str) -> list[str | None]:
    return [turns.next(natives) for _ in range(count)]


def test_nothing_is_reported_before_the_first_audit() -> None:
    assert AuditLedger().report(SYMBOLS) == AuditReport(symbols=0, prices=0, total=SymbolAudit())
    assert SymbolAudit().match_ratio is None


def test_findings_add_up() -> None:
    ledger = AuditLedger()
    for native, found in (("BTCUSDT", EQUAL), ("BTCUSDT", DIFFERENT), ("ETHUSDT", UNMATCHED), ("ETHUSDT", EQUAL)):
        ledger.add(native, found)
    ledger.add_prices(2)

    report = ledger.report(SYMBOLS)

    assert report.total == SymbolAudit(matched=2, mismatched=1, unmatched=1, levels=600, ghosts=2, missing=1, wrong=1)
    assert (report.symbols, report.prices) == (2, 2)
    assert report.worst == {"BTC-USDT": EQUAL + DIFFERENT}
    assert report.worst["BTC-USDT"].match_ratio == 0.99


def test_what_says_nothing_and_a_missed_price_are_summed_but_name_no_symbol() -> None:
    ledger = AuditLedger()
    ledger.add("BTCUSDT", UNMATCHED)
    ledger.add("ETHUSDT", MISSED)

    assert ledger.report(SYMBOLS) == AuditReport(symbols=0, prices=0, total=SymbolAudit(unmatched=1, misses=1))


def test_the_worst_come_first_and_not_all_are_told() -> None:
    ledger = AuditLedger()
    symbols = {f"{number}USDT": f"{number}-USDT" for number in range(2 * WORST)}
    for native in symbols:
        ledger.add(native, DIFFERENT)
    ledger.add("7USDT", SymbolAudit(levels=1, wrong=1))
    ledger.add("8USDT", DIFFERENT)

    worst = list(ledger.report(symbols).worst)

    assert worst[:2] == ["8-USDT", "7-USDT"]
    assert len(worst) == WORST


def test_a_symbol_that_is_gone_is_counted_and_not_named() -> None:
    ledger = AuditLedger()
    ledger.add("OLDUSDT", DIFFERENT)

    report = ledger.report(SYMBOLS)

    assert report.worst == {}
    assert report.total == DIFFERENT


def test_without_symbols_it_is_nobodys_turn() -> None:
    assert AuditTurns().next([]) is None


def test_everybody_has_a_turn_in_each_round() -> None:
    assert take(AuditTurns(), 5, "A", "B") == ["A", "B", "A", "B", "A"]


def test_who_is_wanted_soon_takes_every_other_turn() -> None:
    turns = AuditTurns()
    take(turns, 3, "A", "B", "C", "D", "E", "F")
    for native in ("F", "A", "F"):
        turns.want_soon(native)

    assert take(turns, 5, "A", "B", "C", "D", "E", "F") == ["D", "F", "E", "A", "F"]


def test_a_turn_in_the_round_settles_what_was_wanted() -> None:
    turns = AuditTurns()
    turns.next(["A", "B"])
    turns.want_soon("B")

    assert take(turns, 3, "A", "B") == ["B", "A", "B"]


def test_a_symbol_that_is_gone_has_no_turn_and_a_new_one_has() -> None:
    turns = AuditTurns()
    take(turns, 1, "A", "B")
    turns.want_soon("B")

    assert take(turns, 3, "A", "C") == ["A", "C", "A"]
