"""Where streaming begins, so that the archive has no hole: judged by what is stored, never by what was remembered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pitr.core.errors import ObjectNotFound
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository
from pitr.repo.walobjects import contiguous_until, list_segments


class Resume(NamedTuple):
    """``start``: the beginning of a segment; every repository has all segments from its last hole up to there.

    ``behind``: the segment that the archive ends with, when the server's slot keeps WAL from a later place only.
    """

    start: Lsn
    behind: SegmentName | None = None


def find_resume(
    repositories: Sequence[Repository],
    names: HistoryNames,
    history: History,
    kept_from: Lsn,
    segment_size: int,
    *,
    skip_gap: bool = False,
) -> Resume:
    """The earliest place from which any of the repositories needs WAL.

    ``kept_from``: the slot's restart_lsn. Where the archive ends before it, the missing segments are asked for all the
    same: the server may have them still. ``skip_gap`` gives them up. Segments that archive_command stored ahead count.
    """
    return min(_in_one(repository, names, history, kept_from, segment_size, skip_gap) for repository in repositories)


def _in_one(
    repository: Repository, names: HistoryNames, history: History, kept_from: Lsn, size: int, skip_gap: bool
) -> Resume:
    number = int(kept_from) // size
    behind: SegmentName | None = None
    if not skip_gap:
        behind = _last_before(repository, names, history, number, size)
        if behind is not None and behind.number == number - 1:
            behind = None
        if behind is not None:
            number = behind.number + 1
    start = Lsn(number * size)
    last = contiguous_until(repository, names, history, start, size)
    return Resume(start if last is None else last.end, behind)


def _last_before(
    repository: Repository, names: HistoryNames, history: History, number: int, size: int
) -> SegmentName | None:
    """The last archived segment of the history before this number; None when there is none."""
    if number == 0:
        return None
    previous = SegmentName(history.owner(number - 1, size), number - 1, size)
    try:
        repository.store.stat(names.wal_file(previous))
    except ObjectNotFound:
        pass
    else:
        return previous
    last: SegmentName | None = None
    for timeline in history.timelines:
        for archived in list_segments(repository, names, timeline, size):
            segment = archived.segment
            if segment.number >= number:
                break
            if history.owner(segment.number, size) == timeline and (last is None or segment.number > last.number):
                last = segment
    return last
