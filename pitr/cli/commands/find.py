"""pitr find."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click

from pitr.api.find import FindOptions, find_events
from pitr.cli.command import Context, command
from pitr.cli.render import moment, table
from pitr.core.errors import UsageError
from pitr.core.events import info
from pitr.core.times import parse_moment
from pitr.find.engine import DEFAULT_MIN_ROWS, FindResult
from pitr.find.events import OPS, Event, Op, Table

_TABLES_SHOWN = 6


def render(result: FindResult) -> Iterator[str]:
    if result.events:
        headers = ("commit", "xid", "LSN", "what", "database", "tables", "to stop just before it")
        yield from table(headers, map(_row, result.events), right=(1,))
        if any(event.restore for event in result.events):
            yield 'the last column goes to "pitr restore base --to DIR"'
    else:
        yield "nothing of the kind was found"
    reach = "" if result.to_time is None else f", last commit {moment(result.to_time)}"
    yield f"timeline {result.timeline}, {result.segments} segments from {result.from_lsn} to {result.to_lsn}{reach}"


def _row(event: Event) -> tuple[object, ...]:
    what = event.op if event.is_certain else f"{event.op} ({event.note})"
    database = event.database or (f"OID {event.database_oid}" if event.database_oid else None)
    tables = event.name if event.op == "restore-point" else _tables(event)
    when = None if event.time is None else event.time.isoformat(" ", "milliseconds")
    return when, event.xid, event.lsn, what, database, tables or None, _stop(event)


def _tables(event: Event) -> str:
    shown = [_counted(event.op, one) for one in event.tables[:_TABLES_SHOWN]]
    left = len(event.tables) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")


def _counted(op: Op, one: Table) -> str:
    if op in ("delete", "update"):
        return f"{one.shown} {one.deleted if op == 'delete' else one.updated} rows"
    if op == "truncate" and one.inserted:
        return f"{one.shown} (then {one.inserted} rows inserted)"
    return one.shown


def _stop(event: Event) -> str:
    """The target of the restore arguments."""
    if event.restore is None:
        return "before the oldest backup"
    target = event.restore[event.restore.index("DIR") + 1 :]
    return " ".join(target)


@command(schema="pitr.find/1", render=render)
@click.option("--since", metavar="T", help='Commits from then on: ISO 8601, or "-2h". Without a zone: local time.')
@click.option("--until", metavar="T", help="Commits up to then.")
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only with this table. Repeatable; * and ?.")
@click.option("--database", metavar="DB", help="Only in this database, by name or OID.")
@click.option("--op", "ops", multiple=True, metavar="OP", help=f"Only these: {', '.join(OPS)}.")
@click.option(
    "--min-rows",
    type=click.IntRange(1),
    default=DEFAULT_MIN_ROWS,
    metavar="N",
    help=f"DELETE and UPDATE of at least so many rows of a table (default: {DEFAULT_MIN_ROWS}).",
)
@click.option("--xid", type=click.IntRange(3), metavar="N", help="All that this transaction did.")
@click.option("--timeline", type=click.IntRange(1), metavar="N", help="Follow this timeline.")
def find(
    context: Context,
    since: str | None,
    until: str | None,
    tables: tuple[str, ...],
    database: str | None,
    ops: tuple[str, ...],
    min_rows: int,
    xid: int | None,
    timeline: int | None,
) -> FindResult:
    """Find what happened: dropped databases and tables, TRUNCATE, mass DELETE and UPDATE, rewrites, ALTER.

    Reads the indexes of the archived WAL, from the newest backup before --since (default: the oldest) to the end of the
    archive. Each event is a committed transaction, with the target that restores the state just before it. What is
    fresher than the archive is not seen: the last line says how far it reaches.
    """
    now = context.now()
    options = FindOptions(
        since=_moment(context, "--since", since, now),
        until=_moment(context, "--until", until, now),
        tables=tables,
        database=database,
        ops=_ops(ops),
        min_rows=min_rows,
        xid=xid,
        timeline=timeline,
    )
    return find_events(context.settings(), options, report=context.report)


def _moment(context: Context, option: str, text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    found = parse_moment(text, now=now)
    if found.assumed_local:
        info(context.report, f"{option} {text} is taken as local time: {moment(found.value)}")
    return found.value


def _ops(words: tuple[str, ...]) -> tuple[Op, ...]:
    known: dict[str, Op] = {op: op for op in OPS}
    chosen = [word.strip() for text in words for word in text.split(",")]
    for word in chosen:
        if word not in known:
            raise UsageError(f"--op: not an operation: {word!r}", hint=f"one of {', '.join(OPS)}")
    return tuple(known[word] for word in chosen)
