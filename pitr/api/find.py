"""What happened to tables. Needs the store and the key; changes nothing but the local cache of indexes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pitr.api.opening import cluster_name, open_repo
from pitr.config.settings import Settings
from pitr.core.events import Report, silent
from pitr.find.engine import DEFAULT_MIN_ROWS, FindRequest, FindResult, find
from pitr.find.events import Op
from pitr.find.patterns import parse_table


@dataclass(frozen=True, slots=True, kw_only=True)
class FindOptions:
    """What a caller asks for; see FindRequest. ``tables``: TABLE words."""

    since: datetime | None = None
    until: datetime | None = None
    tables: tuple[str, ...] = ()
    database: str | None = None
    ops: tuple[Op, ...] = ()
    min_rows: int = DEFAULT_MIN_ROWS
    xid: int | None = None
    timeline: int | None = None


def find_events(settings: Settings, options: FindOptions, *, report: Report = silent) -> FindResult:
    """Events in the archived WAL of the selected cluster, in the order of their commits. Raises PitrError."""
    repository = open_repo(settings.one_repo(), report)
    request = FindRequest(
        cluster=cluster_name(settings, repository),
        since=options.since,
        until=options.until,
        tables=tuple(map(parse_table, options.tables)),
        database=options.database,
        ops=options.ops,
        min_rows=options.min_rows,
        xid=options.xid,
        timeline=options.timeline,
        spool=settings.cluster.spool_directory,
    )
    return find(repository, request, report)
