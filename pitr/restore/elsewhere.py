"""Is a transaction or restore point on a timeline that the chosen history left, or never saw?"""

from __future__ import annotations

from pitr.core.errors import PitrError
from pitr.core.events import Report
from pitr.pg.lsn import Lsn
from pitr.pg.timelines import History
from pitr.repo.walobjects import get_history, list_timelines
from pitr.restore.archive import Archive, reading
from pitr.wal.targets import NameTarget, WalRange, XidTarget, resolve


def timelines_with(archive: Archive, wanted: XidTarget | NameTarget, report: Report) -> list[int]:
    """Timelines whose own part, outside of the archive's history, holds the target. Damage there is passed over."""
    found = []
    for timeline in list_timelines(archive.repository, archive.names):
        try:
            history = get_history(archive.repository, archive.names, timeline)
            if _has(archive, history, wanted, report):
                found.append(timeline)
        except PitrError:
            continue
    return found


def _has(archive: Archive, history: History, wanted: XidTarget | NameTarget, report: Report) -> bool:
    """Only what the chosen history does not share is read."""
    start = _parting(archive.history, history)
    if start is None:
        return False
    other = Archive(archive.repository, archive.names, history, archive.segment_size)
    last = other.unbroken_until(start)
    if last is None:
        return False
    with reading(other, last, report) as source:
        wal = WalRange(source.fetch, start, history, archive.segment_size, system_id=archive.names.system_id)
        result = resolve(wal, wanted)
    return result.resolved is not None or result.top_xid is not None


def _parting(chosen: History, other: History) -> Lsn | None:
    """Where ``other`` parts from ``chosen``; None when it is part of it."""
    if other.timeline == chosen.timeline:
        return None
    end = chosen.end_of(other.timeline) if other.timeline in chosen.timelines else None
    if end is not None:
        return end if end > 0 else None
    shared = [timeline for timeline in other.timelines if timeline in chosen.timelines]
    if not shared:
        return None
    ends = [lsn for history in (other, chosen) if (lsn := history.end_of(shared[-1])) is not None]
    return min(ends, default=None)
