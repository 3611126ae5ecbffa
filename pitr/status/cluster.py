"""The moments that can be reached, by timeline, from backups and the archive; judged by the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pitr.core.units import format_duration
from pitr.pg.lsn import Lsn
from pitr.pg.timelines import History
from pitr.repo.identity import list_identities
from pitr.repo.manifest import BackupManifest
from pitr.repo.repository import Repository
from pitr.repo.walruns import ArchivedWal
from pitr.status.backups import Backup, Generation, backup_row, gap_text, read_generation


@dataclass(frozen=True, slots=True)
class Window:
    """Every moment from ``from_lsn`` to ``to_lsn`` can be reached: WAL without a gap behind a usable backup.

    ``from_time`` is the end of the first backup by the server's clock. ``to_lsn`` ends the last archived segment.
    """

    from_lsn: Lsn
    from_time: datetime
    to_lsn: Lsn
    backups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TimelineStatus:
    """``gaps``: missing between the oldest backup's start and the last archived segment of this history."""

    timeline: int
    begins_at: Lsn
    last_segment: str | None
    windows: tuple[Window, ...]
    gaps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """``warnings``: what is amiss; ``needs_look``: the command ends with exit code 3."""

    repository: str
    cluster: str
    system_id: str | None
    older_system_ids: tuple[str, ...]
    timelines: tuple[TimelineStatus, ...]
    newest_backup: Backup | None
    newest_backup_age: timedelta | None
    wal_stored_bytes: int
    warnings: tuple[str, ...]

    @property
    def needs_look(self) -> bool:
        return bool(self.warnings)


def cluster_status(
    repository: Repository,
    cluster: str,
    *,
    now: datetime,
    base_policy: timedelta | None = None,
) -> ClusterStatus:
    """Status of the current generation of a cluster, from the repository alone. Raises StoreError, ManifestInvalid."""
    identities = list_identities(repository, cluster)
    if not identities:
        missing = (f'nothing of cluster "{cluster}" is in the repository yet',)
        return ClusterStatus(repository.name, cluster, None, (), (), None, None, 0, missing)
    identity = identities[-1]
    generation = read_generation(repository, identity)
    timelines = tuple(timeline_status(generation, history) for _, history in sorted(generation.wal.histories.items()))
    newest = max(generation.manifests, key=lambda manifest: manifest.ended_at, default=None)
    row = None if newest is None else backup_row(newest, generation.wal)
    age = None if newest is None else now - newest.ended_at
    return ClusterStatus(
        repository.name,
        cluster,
        identity.system_id,
        tuple(older.system_id for older in identities[:-1]),
        timelines,
        row,
        age,
        generation.wal.stored_bytes,
        tuple(_warnings(generation, timelines, row, age, base_policy)),
    )


def timeline_status(generation: Generation, history: History) -> TimelineStatus:
    wal = generation.wal
    mine = sorted(
        (manifest for manifest in generation.manifests if manifest.lies_on(history)),
        key=lambda manifest: manifest.wal.stop_lsn,
    )
    last = wal.last_on(history)
    gaps = [] if last is None or not mine else wal.missing(history, mine[0].wal.start_lsn, last.end)
    return TimelineStatus(
        history.timeline,
        history.begin_of(history.timeline),
        None if last is None else str(last),
        tuple(_windows(mine, wal, history)),
        tuple(map(gap_text, gaps)),
    )


def _windows(manifests: Sequence[BackupManifest], wal: ArchivedWal, history: History) -> list[Window]:
    """Backups whose unbroken WAL ends at the same place share a window."""
    windows: list[Window] = []
    for manifest in manifests:
        end = wal.contiguous_end(history, manifest.wal.start_lsn)
        if end is None or end < manifest.wal.stop_lsn:
            continue
        if windows and windows[-1].to_lsn == end:
            first = windows[-1]
            windows[-1] = Window(first.from_lsn, first.from_time, end, (*first.backups, manifest.id))
        else:
            windows.append(Window(manifest.wal.stop_lsn, manifest.ended_at, end, (manifest.id,)))
    return windows


def _warnings(
    generation: Generation,
    timelines: Sequence[TimelineStatus],
    newest: Backup | None,
    age: timedelta | None,
    base_policy: timedelta | None,
) -> list[str]:
    found = [
        f"timeline {timeline} has WAL in the archive, but no history file: it cannot be recovered to"
        for timeline in generation.wal.unknown
    ]
    found += [f"timeline {timeline.timeline}: WAL is missing: {gap}" for timeline in timelines for gap in timeline.gaps]
    if newest is None:
        return [*found, 'there is no base backup yet: "pitr backup base" makes one']
    if not newest.usable:
        found.append(f"the newest backup {newest.id} cannot be restored: {newest.problem}")
    if newest.bad_pages:
        found.append(f"the newest backup {newest.id} holds {newest.bad_pages} bad pages")
    if base_policy is not None and age is not None and age > base_policy:
        found.append(
            f"the newest backup is {format_duration(age.total_seconds())} old, "
            f"the policy says {format_duration(base_policy.total_seconds())}"
        )
    return found
