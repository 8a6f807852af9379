"""`audit`: results of the feeders' comparisons of their books with the exchange's snapshots."""

import asyncio
from math import floor

import typer
from rich.console import Console
from rich.table import Table

from bookbus.command_line import PREFIX_DEFAULT, REDIS_DEFAULT, Prefix, RedisUrl, fail
from bookbus.feeders.bus.heartbeat import read_heartbeats
from bookbus.feeders.bus.servers import CONTROL_ERRORS
from bookbus.schemas.heartbeat import AuditReport, SymbolAudit, parse_heartbeat_fields
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import masked, redacted, secrets_of

_FIELDS = ("exchange", "feeder", "host", "audit")


def audit(redis: RedisUrl = REDIS_DEFAULT, prefix: Prefix = PREFIX_DEFAULT) -> None:
    """The result of each running feeder's comparisons of its books with the exchange's snapshots, since its start.

    How many were equal level by level at the same update id, what differed, and how often a best price was missed.
    Exit code 0 if there are feeders and no book differed.

    \b
      python -m feeders audit
      python -m feeders audit --redis redis://10.0.0.5:6379/0 --prefix paper
    """
    try:
        reports = asyncio.run(_reports(redis, RedisNames(prefix)))
    except ValueError as error:
        fail(str(error))
    except CONTROL_ERRORS as error:
        fail(f"no reply from {masked(redis)}: {redacted(error, secrets_of(redis))}")
    if not reports:
        fail("no feeder is running: start one with `python -m feeders run`")
    for title, report in sorted(reports.items()):
        _show(title, report)
    different = sum(report.total.mismatched for report in reports.values() if report is not None)
    if different:
        fail(f"comparisons that found a difference: {different}; each of these books was synchronised again")


async def _reports(url: str, names: RedisNames) -> dict[str, AuditReport | None]:
    """Reports by exchange, feeder and host. Raises ValueError for a heartbeat that cannot be decoded."""
    reports = {}
    for fields in (await read_heartbeats(url, names, *_FIELDS)).values():
        beat = parse_heartbeat_fields(_FIELDS, fields)
        if beat.get("feeder"):  # else the hash expired after the scan
            reports[f"{beat.get('exchange')}: feeder {beat['feeder']} on {beat.get('host')}"] = beat.get("audit")
    return reports


def _show(title: str, report: AuditReport | None) -> None:
    if report is None:
        typer.echo(f"{title}\n  its books are not audited")
        return
    total = report.total
    typer.echo(
        f"{title}\n"
        f"  books   {total.matched} equal, {total.mismatched} different, {total.unmatched} not comparable; "
        f"{report.symbols} symbols compared\n"
        f"  levels  {total.levels} compared, {_share(total)} equal: "
        f"{total.ghosts} ghosts, {total.missing} missing, {total.wrong} with another quantity\n"
        f"  prices  {report.prices} best prices checked, {total.misses} missed"
    )
    if report.worst:
        table = Table("symbol", "equal", "different", "levels equal", "ghosts", "missing", "wrong", "missed")
        for symbol, found in report.worst.items():
            numbers = (found.ghosts, found.missing, found.wrong, found.misses)
            table.add_row(symbol, str(found.matched), str(found.mismatched), _share(found), *map(str, numbers))
        Console().print(table)


def _share(found: SymbolAudit) -> str:
    """Rounded down, so that 100 % means no difference at all."""
    ratio = found.match_ratio
    return "-" if ratio is None else f"{floor(ratio * 1e6) / 1e4:g} %"
