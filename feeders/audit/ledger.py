"""What the audits of one feeder found, symbol by symbol, and whose turn is next."""

from collections import deque
from collections.abc import Mapping, Sequence

from bookbus.schemas.heartbeat import AuditReport, SymbolAudit

WORST = 20
"""Symbols told one by one in a heartbeat at most, since there is one a second."""

_NOTHING = SymbolAudit()


class AuditLedger:
    """Sums by symbol and over all."""

    def __init__(self) -> None:
        self._found: dict[str, SymbolAudit] = {}
        self._total = _NOTHING
        self._prices = 0

    def add(self, native: str, found: SymbolAudit) -> None:
        """Something was found of this symbol."""
        self._found[native] = self._found.get(native, _NOTHING) + found
        self._total += found

    def add_prices(self, count: int) -> None:
        """The best prices of so many symbols were looked at."""
        self._prices += count

    def report(self, symbols: Mapping[str, str]) -> AuditReport:
        """For a heartbeat. `symbols` has the standard symbol of each native one."""
        bad = {native: found for native, found in self._found.items() if found.mismatched}
        worst = sorted(bad, key=lambda native: _badness(bad[native]), reverse=True)[:WORST]
        return AuditReport(
            symbols=sum(bool(found.matched or found.mismatched) for found in self._found.values()),
            prices=self._prices,
            total=self._total,
            worst={symbols[native]: bad[native] for native in worst if native in symbols},
        )


def _badness(found: SymbolAudit) -> tuple[int, int]:
    return found.mismatched, found.ghosts + found.missing + found.wrong


class AuditTurns:
    """Everybody in rounds, and every other turn for those that are wanted sooner."""

    def __init__(self) -> None:
        self._round: deque[str] = deque()
        self._soon: dict[str, None] = {}
        self._soon_next = False

    def want_soon(self, native: str) -> None:
        """There is a reason to look at this symbol, which is asked for once however many there are."""
        self._soon[native] = None

    def next(self, natives: Sequence[str]) -> str | None:
        """Whose turn it is among these; None if there are none."""
        if not natives:
            return None
        present = set(natives)
        self._soon = {native: None for native in self._soon if native in present}
        self._soon_next = not self._soon_next
        if self._soon_next and self._soon:
            native = next(iter(self._soon))
            del self._soon[native]
            return native
        while True:
            self._round = self._round or deque(natives)
            native = self._round.popleft()
            if native in present:
                self._soon.pop(native, None)
                return native
