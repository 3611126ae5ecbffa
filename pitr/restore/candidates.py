"""Which timeline to restore on, and which backups lie on it."""

from __future__ import annotations

from collections.abc import Sequence

from pitr.core.errors import HistoryMismatch, NoSuitableBackup, ObjectNotFound, RepositoryMissing
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.repo.identity import Identity, current_identity, list_identities
from pitr.repo.manifest import BackupManifest
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository
from pitr.repo.walobjects import get_history, list_segments, list_timelines


def find_identity(repository: Repository, cluster: str, system_id: int | None) -> Identity:
    """Raises NoSuitableBackup (nothing of that cluster is there) or HistoryMismatch (not that system id)."""
    if system_id is None:
        found = current_identity(repository, cluster)
        if found is None:
            raise NoSuitableBackup(
                f'there is nothing of cluster "{cluster}" in {repository.store.url}',
                hint='check --cluster and --repo; "pitr list --all" shows what is there',
            )
        return found
    identities = list_identities(repository, cluster)
    for identity in identities:
        if int(identity.system_id) == system_id:
            return identity
    if not identities:
        raise RepositoryMissing(f'there is nothing of cluster "{cluster}" in {repository.store.url}')
    raise HistoryMismatch(
        f'cluster "{cluster}" has no system identifier {system_id} in the repository',
        detail="known: " + ", ".join(identity.system_id for identity in identities),
    )


def choose_history(
    repository: Repository,
    names: HistoryNames,
    newest: BackupManifest,
    timeline: int | None,
    segment_size: int,
) -> tuple[History, tuple[str, ...]]:
    """The history to recover along, and warnings.

    With ``timeline``, that one. Without: the highest timeline of which the archive has a history file and that descends
    from the newest backup, so the one on which the cluster went on after its last promotion. Whether its WAL is there
    does not matter here: falling back to the timeline that was left would replay an abandoned history.

    A timeline that left the backup's before the backup ended (a copy that was promoted, while production went on) is
    never chosen by itself. Other timelines that descend from the backup are named in a warning. PostgreSQL always gets
    the number, never "latest".
    """
    if timeline is not None:
        return _history(repository, names, timeline), ()
    own = newest.wal.timeline_history()
    descending: list[History] = []
    for number in list_timelines(repository, names):
        if number <= own.timeline:
            continue
        try:
            history = get_history(repository, names, number)
        except ObjectNotFound:
            continue
        if newest.lies_on(history):
            descending.append(history)
    if not descending:
        return own, ()
    chosen = descending[-1]
    others = [history.timeline for history in descending[:-1] if history.timeline not in chosen.timelines]
    warnings = [
        f"timeline {number} also descends from backup {newest.id}; "
        f"timeline {chosen.timeline} is used, --timeline chooses"
        for number in others
    ]
    warnings += [
        f"timeline {left} went on behind the point where timeline {chosen.timeline} left it; "
        f"timeline {chosen.timeline} is used, --timeline chooses"
        for left in chosen.timelines[:-1]
        if left >= own.timeline and goes_on(repository, names, chosen, left, segment_size)
    ]
    return chosen, tuple(warnings)


def goes_on(repository: Repository, names: HistoryNames, history: History, timeline: int, segment_size: int) -> bool:
    """Whether an ancestor has archived segments that begin behind the point where the history left it."""
    end = history.end_of(timeline)
    if end is None:
        return False
    first = SegmentName.containing(timeline, end, segment_size)
    return any(
        archived.segment.start >= end
        for archived in list_segments(repository, names, timeline, segment_size, first=first)
    )


def _history(repository: Repository, names: HistoryNames, timeline: int) -> History:
    try:
        return get_history(repository, names, timeline)
    except ObjectNotFound as error:
        known = ", ".join(map(str, list_timelines(repository, names))) or "none"
        raise HistoryMismatch(
            f"timeline {timeline} has no history file in the archive",
            detail=f"timelines in the archive: {known}",
            hint='"pitr status" shows the timelines',
        ) from error


def candidates(backups: Sequence[BackupManifest], history: History, backup_id: str | None) -> list[BackupManifest]:
    """Backups on the history, newest first; with ``backup_id`` that one only.

    Raises HistoryMismatch, NoSuitableBackup.
    """
    found = sorted(
        (manifest for manifest in backups if manifest.lies_on(history)),
        key=lambda manifest: (manifest.wal.stop_lsn, manifest.id),
        reverse=True,
    )
    if backup_id is not None:
        found = [manifest for manifest in found if manifest.id == backup_id]
    if found:
        return found
    if backup_id is not None:
        other = next(manifest for manifest in backups if manifest.id == backup_id)
        raise HistoryMismatch(
            f"backup {backup_id} is not part of the history of timeline {history.timeline}",
            detail=f"it ended on timeline {other.wal.timeline} at {other.wal.stop_lsn}",
            hint=f"--timeline {other.wal.timeline}, or another backup",
        )
    raise NoSuitableBackup(
        f"no backup lies on timeline {history.timeline}",
        detail=f"{len(backups)} on other timelines" if backups else "there is no backup at all",
        hint='"pitr status" shows backups and timelines' if backups else '"pitr backup base" makes one',
    )
