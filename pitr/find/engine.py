"""pitr find: reads the indexes along one history and tells what happened to tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pitr.core.errors import NoSuitableBackup
from pitr.core.events import Report, warn
from pitr.find.classify import classify
from pitr.find.databases import Databases
from pitr.find.events import SHOWN, Event, Op
from pitr.find.names import Names
from pitr.find.patterns import TablePattern
from pitr.find.source import IndexSource, cache_of
from pitr.find.transactions import Happening, Marked, Transaction, Unfinished, happenings
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.repo.catalog import load_backups, load_relation_maps
from pitr.repo.identity import Identity
from pitr.repo.manifest import BackupManifest
from pitr.repo.repository import Repository
from pitr.repo.walobjects import get_history, list_timelines
from pitr.repo.walruns import read_archived_wal
from pitr.restore.archive import Archive
from pitr.restore.candidates import choose_history, find_identity
from pitr.wal.index import ROW_THRESHOLD, SegmentIndex
from pitr.wal.stitch import stitched
from pitr.wal.storage import MappedFiles
from pitr.wal.xlog import RestorePoint, timestamp

DEFAULT_MIN_ROWS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FindRequest:
    """``since`` and ``until``: commit times. ``tables``: at least one table of the event matches one of them.

    ``min_rows``: of a DELETE or UPDATE, in one table; below the threshold of the indexes every segment is read whole.
    ``xid``: what this transaction did, in full; a subtransaction's is that of its transaction. ``spool``: where indexes
    that had to be built are kept.
    """

    cluster: str
    since: datetime | None = None
    until: datetime | None = None
    tables: tuple[TablePattern, ...] = ()
    database: str | None = None
    ops: tuple[Op, ...] = ()
    min_rows: int = DEFAULT_MIN_ROWS
    xid: int | None = None
    timeline: int | None = None
    spool: Path | None = None


@dataclass(frozen=True, slots=True)
class FindResult:
    """``events`` in the order of their commits. ``to_lsn``, ``to_time``: how far the archive reaches (last commit).

    ``segments``: indexes read; ``built``: of those, built from the whole segment.
    """

    cluster: str
    system_id: str
    timeline: int
    from_lsn: Lsn
    to_lsn: Lsn
    to_time: datetime | None
    segments: int
    built: int
    events: tuple[Event, ...]
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reach:
    """How far the indexes go."""

    lsn: Lsn
    time: int | None = None
    segments: int = 0

    def note(self, index: SegmentIndex) -> None:
        self.lsn = max(self.lsn, index.end)
        if index.commits is not None:
            self.time = max(self.time or index.commits.latest, index.commits.latest)


def find(repository: Repository, request: FindRequest, report: Report) -> FindResult:
    """Raises NoSuitableBackup (nothing of the cluster), HistoryMismatch (timeline), IntegrityError, StoreError."""
    identity = find_identity(repository, request.cluster, None)
    archive, backups, warnings = _open(repository, identity, request)
    names = Names()
    for manifest in backups:
        names.add_backup(manifest, load_relation_maps(repository, manifest))
    segments, gaps = _segments(archive, _begin(backups, request.since))
    warnings += gaps
    for text in warnings:
        warn(report, text)
    threshold = None if request.min_rows >= ROW_THRESHOLD or request.xid is not None else request.min_rows
    source = IndexSource(archive, cache_of(request.spool, archive), report, threshold=threshold)
    reach = _Reach(segments[0].start)
    events = list(_events(source, segments, request, names, reach))
    oldest = min((manifest.wal.stop_lsn for manifest in backups), default=None)
    return FindResult(
        cluster=request.cluster,
        system_id=identity.system_id,
        timeline=archive.history.timeline,
        from_lsn=segments[0].start,
        to_lsn=reach.lsn,
        to_time=None if reach.time is None else timestamp(reach.time),
        segments=reach.segments,
        built=source.built,
        events=tuple(_with_restore(event, request, oldest) for event in events),
        warnings=tuple(warnings),
    )


def _open(
    repository: Repository, identity: Identity, request: FindRequest
) -> tuple[Archive, list[BackupManifest], list[str]]:
    names = identity.names
    backups = load_backups(repository, names)
    warnings: tuple[str, ...] = ()
    if backups:
        history, warnings = choose_history(
            repository, names, backups[-1], request.timeline, identity.segment_size_bytes
        )
    else:
        timelines = list_timelines(repository, names)
        if not timelines:
            raise NoSuitableBackup(f'there is no WAL of cluster "{request.cluster}" in {repository.store.url}')
        history = get_history(repository, names, request.timeline or timelines[-1])
        warnings = ("there is no backup: tables have no names, and nothing that is found can be restored",)
    archive = Archive(repository, names, history, identity.segment_size_bytes)
    return archive, [manifest for manifest in backups if manifest.lies_on(history)], list(warnings)


def _begin(backups: Sequence[BackupManifest], since: datetime | None) -> Lsn | None:
    """Where the newest backup that ended before ``since`` starts: from there on new relations are seen being born."""
    early = [manifest for manifest in backups if since is not None and manifest.ended_at <= since]
    chosen = early or list(backups[:1])
    starts = [manifest.wal.start_lsn for manifest in chosen]
    return max(starts) if early else min(starts, default=None)


def _segments(archive: Archive, begin: Lsn | None) -> tuple[list[SegmentName], list[str]]:
    """All archived segments of the history from ``begin`` on (None: all), and what is missing between them."""
    size, history = archive.segment_size, archive.history
    wal = read_archived_wal(archive.repository, archive.names, size)
    last = wal.last_on(history)
    if last is None:
        raise NoSuitableBackup(f"timeline {history.timeline} has no WAL in {archive.repository.store.url}")
    if begin is None:
        begin = min(run.first_segment.start for runs in wal.runs.values() for run in runs)
    gaps = wal.missing(history, begin, last.end)
    missing = {number for gap in gaps for number in range(gap.first, gap.last + 1)}
    numbers = range(int(begin) // size, last.number + 1)
    found = [archive.segment_at(number * size) for number in numbers if number not in missing]
    if not found:
        raise NoSuitableBackup(f"timeline {history.timeline} has no WAL from {begin} on")
    return found, [
        f"WAL is missing from {gap.first_segment} to {gap.last_segment}: what happened there is not seen"
        for gap in gaps
    ]


def _events(
    source: IndexSource, segments: Sequence[SegmentName], request: FindRequest, names: Names, reach: _Reach
) -> Iterator[Event]:
    min_rows = 1 if request.xid is not None else request.min_rows
    databases = Databases(names)
    indexes = stitched(_read(source, segments, request, reach), source.record)
    for happening in happenings(indexes, source.exact, request.xid):
        for event in _told(happening, names, databases, min_rows):
            if _is_wanted(event, happening, request):
                yield event


def _read(
    source: IndexSource, segments: Sequence[SegmentName], request: FindRequest, reach: _Reach
) -> Iterator[SegmentIndex]:
    """Up to the first segment of which all commits are later than ``until``."""
    for index in source.indexes(segments, len(segments)):
        reach.segments += 1
        reach.note(index)
        yield index
        commits = index.commits
        if request.until is not None and commits is not None and timestamp(commits.earliest) > request.until:
            return
    partial = source.unfinished_behind(segments[-1])
    if partial is not None:
        reach.segments += 1
        reach.note(partial)
        yield partial


def _told(happening: Happening, names: Names, databases: Databases, min_rows: int) -> list[Event]:
    match happening:
        case Transaction():
            return databases.of_transaction(happening) + classify(happening, names, min_rows)
        case Unfinished():
            return databases.of_unfinished(happening)
        case Marked():
            databases.mark(happening)
        case MappedFiles():
            for oid, file in happening.files:
                names.learn_file(happening.database, file, oid)
        case RestorePoint():
            return [
                Event("restore-point", happening.lsn, None, happening.time, None, None, (), None, name=happening.name)
            ]
        case _:
            databases.note(happening)
    return []


def _is_wanted(event: Event, happening: Happening, request: FindRequest) -> bool:
    if request.xid is not None:
        if not isinstance(happening, Transaction) or request.xid not in (happening.xid, *happening.commit.subxacts):
            return False
    elif event.op not in (request.ops or SHOWN):
        return False
    if request.ops and event.op not in request.ops:
        return False
    if event.time is not None and request.since is not None and event.time < request.since:
        return False
    if event.time is not None and request.until is not None and event.time > request.until:
        return False
    if request.database is not None and request.database not in (event.database, str(event.database_oid)):
        return False
    return not request.tables or any(
        pattern.matches(event.database, table.schema, table.name) or pattern.text == str(table.oid)
        for pattern in request.tables
        for table in event.tables
    )


def _with_restore(event: Event, request: FindRequest, oldest: Lsn | None) -> Event:
    """The arguments that stop just before it. A restore point is a place to come to, so it is included."""
    if oldest is None or event.lsn < oldest:
        return event
    if event.op == "restore-point":
        target: tuple[str, ...] = ("--lsn", str(event.lsn))
    elif event.stop_before is not None:
        target = ("--lsn", str(event.stop_before), "--exclusive")
    else:
        target = ("--xid", str(event.xid), "--exclusive")
    timeline = () if request.timeline is None else ("--timeline", str(request.timeline))
    argv = ("pitr", "restore", "base", "--cluster", request.cluster, "--to", "DIR", *target, *timeline)
    return replace(event, restore=argv)
