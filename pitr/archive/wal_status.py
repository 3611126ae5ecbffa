"""How the archive and the server's archiver stand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pitr.archive.configure import is_ours
from pitr.core.units import format_duration
from pitr.pg.lsn import Lsn
from pitr.pg.replication import is_received
from pitr.pg.segments import SegmentName
from pitr.pg.server import server_errors
from pitr.repo.identity import Identity, current_identity
from pitr.repo.repository import Repository
from pitr.repo.walruns import read_archived_wal

if TYPE_CHECKING:
    from pitr.pg.server import Connection


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing segments between two that are there; both ends are missing ones."""

    first: str
    last: str
    count: int


@dataclass(frozen=True, slots=True)
class TimelineWal:
    """What the archive has of one timeline. ``gaps`` lie between ``first`` and ``last``."""

    timeline: int
    begins_at: Lsn | None
    first: str | None
    last: str | None
    end_lsn: Lsn | None
    segments: int
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class Archiver:
    """The server's side: settings and pg_stat_archiver. ``oldest_unarchived`` and ``waiting`` are the backlog;
    ``waiting`` counts .ready files, or segments by position where the directory cannot be read."""

    archive_mode: str
    received: bool
    """pitr wal receive streams from the server."""
    archive_command: str
    archive_library: str | None
    is_ours: bool
    current_lsn: Lsn | None
    last_archived: str | None
    last_archived_at: datetime | None
    last_failed: str | None
    last_failed_at: datetime | None
    archived_count: int
    failed_count: int
    failing: bool
    waiting: int | None
    oldest_unarchived: str | None
    oldest_age: timedelta | None


@dataclass(frozen=True, slots=True)
class WalStatus:
    repository: str
    cluster: str
    system_id: str | None
    timelines: tuple[TimelineWal, ...]
    stored_bytes: int
    archiver: Archiver | None
    warnings: tuple[str, ...]


def wal_status(
    repository: Repository,
    cluster: str,
    connection: Connection | None = None,
    *,
    data_directory: Path | None = None,
    rpo: timedelta | None = None,
) -> WalStatus:
    """Look at the repository, and through a connection at the server. ``rpo``: warn when WAL waits longer.

    Raises StoreError, ServerUnreachable.
    """
    identity = current_identity(repository, cluster)
    timelines: tuple[TimelineWal, ...] = ()
    stored = 0
    if identity is not None:
        timelines, stored = _timelines(repository, identity)
    archiver = None if connection is None else read_archiver(connection, data_directory)
    warnings = [*_archive_warnings(cluster, identity, timelines)]
    warnings += [] if archiver is None else _archiver_warnings(archiver, rpo)
    system_id = None if identity is None else identity.system_id
    return WalStatus(repository.name, cluster, system_id, timelines, stored, archiver, tuple(warnings))


def _timelines(repository: Repository, identity: Identity) -> tuple[tuple[TimelineWal, ...], int]:
    wal = read_archived_wal(repository, identity.names, identity.segment_size_bytes)
    found = []
    for timeline in sorted({*wal.runs, *wal.histories}):
        runs = wal.runs.get(timeline, ())
        gaps = tuple(
            Gap(str(left.last_segment.next()), str(right.first_segment.previous()), right.first - left.last - 1)
            for left, right in itertools.pairwise(runs)
        )
        history = wal.histories.get(timeline)
        found.append(
            TimelineWal(
                timeline,
                None if history is None else history.begin_of(timeline),
                str(runs[0].first_segment) if runs else None,
                str(runs[-1].last_segment) if runs else None,
                runs[-1].last_segment.end if runs else None,
                sum(run.count for run in runs),
                gaps,
            )
        )
    return tuple(found), wal.stored_bytes


def read_archiver(connection: Connection, data_directory: Path | None = None) -> Archiver:
    """Ask the server. Its backlog is counted in its data directory, if that can be read here."""
    with server_errors("cannot read the state of the archiver"):
        row = connection.execute(
            "SELECT last_archived_wal, last_archived_time, last_failed_wal, last_failed_time, archived_count,"
            " failed_count, CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn()::text END"
            " FROM pg_stat_archiver"
        ).fetchone()
        settings: dict[str, str] = dict(
            connection.execute(
                "SELECT name, CASE name WHEN 'archive_command' THEN reset_val ELSE setting END FROM pg_settings"
                " WHERE name IN ('archive_mode', 'archive_command', 'archive_library', 'wal_segment_size')"
            ).fetchall()
        )
    assert row is not None
    last, last_at, failed, failed_at, archived_count, failed_count, current = row
    current_lsn = None if current is None else Lsn.parse(current)
    waiting, oldest, age = _backlog(data_directory, current_lsn, last, int(settings["wal_segment_size"]))
    return Archiver(
        archive_mode=settings["archive_mode"],
        received=is_received(connection),
        archive_command=settings["archive_command"] or "",
        archive_library=settings.get("archive_library") or None,
        is_ours=is_ours(settings["archive_command"] or "") and not settings.get("archive_library"),
        current_lsn=current_lsn,
        last_archived=last,
        last_archived_at=last_at,
        last_failed=failed,
        last_failed_at=failed_at,
        archived_count=int(archived_count),
        failed_count=int(failed_count),
        failing=failed_at is not None and (last_at is None or failed_at > last_at),
        waiting=waiting,
        oldest_unarchived=oldest,
        oldest_age=age,
    )


def _backlog(
    data_directory: Path | None, current: Lsn | None, last: str | None, segment_size: int
) -> tuple[int | None, str | None, timedelta | None]:
    """How many files wait, the oldest, and how long that has been finished."""
    if data_directory is not None:
        try:
            ready = sorted((data_directory / "pg_wal" / "archive_status").glob("*.ready"))
            if not ready:
                return 0, None, None
            finished = min(datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in ready)
            return len(ready), ready[0].name.removesuffix(".ready"), datetime.now(UTC) - finished
        except OSError:
            pass  # archived meanwhile, or not ours to read: by position then
    if current is None or last is None or len(last) != 24:
        return None, None, None
    archived = SegmentName.parse(last, segment_size)
    behind = int(current) // segment_size - archived.number - 1
    return max(behind, 0), str(archived.next()) if behind > 0 else None, None


def _archive_warnings(cluster: str, identity: Identity | None, timelines: Sequence[TimelineWal]) -> list[str]:
    if identity is None:
        return [f'nothing of cluster "{cluster}" is in the archive yet']
    return [
        f"timeline {timeline.timeline}: {gap.count} segment{'s' if gap.count > 1 else ''} missing, "
        f"{gap.first} to {gap.last}"
        for timeline in timelines
        for gap in timeline.gaps
    ]


def _archiver_warnings(archiver: Archiver, rpo: timedelta | None) -> list[str]:
    found = []
    if archiver.archive_mode == "off" and archiver.received:
        pass  # the receiver archives
    elif archiver.archive_mode == "off":
        found.append('archiving is off: "pitr wal configure" shows the settings')
    elif not archiver.is_ours:
        what = archiver.archive_library or archiver.archive_command or "nothing"
        found.append(f'the server archives with {what}, not with pitr: "pitr wal configure" shows the settings')
    if archiver.failing:
        found.append(f"archiving {archiver.last_failed} failed at {archiver.last_failed_at:%Y-%m-%d %H:%M:%S%z}")
    if rpo is not None and archiver.oldest_age is not None and archiver.oldest_age > rpo:
        waited = format_duration(archiver.oldest_age.total_seconds())
        found.append(f"WAL has been waiting to be archived for {waited}, {archiver.waiting} files")
    return found
