"""Which WAL is in the archive, as unbroken runs of segments, and what is missing along a history."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from pitr.core.errors import ObjectNotFound
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository
from pitr.repo.walobjects import get_history, list_segments, list_timelines


@dataclass(frozen=True, slots=True)
class Run:
    """Segments of one timeline without a gap, both ends included."""

    timeline: int
    first: int
    last: int
    segment_size: int

    @property
    def first_segment(self) -> SegmentName:
        return SegmentName(self.timeline, self.first, self.segment_size)

    @property
    def last_segment(self) -> SegmentName:
        return SegmentName(self.timeline, self.last, self.segment_size)

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class ArchivedWal:
    """Everything archived of one cluster: runs by timeline, ascending, and the histories of the timelines.

    ``unknown``: timelines that have segments but no readable history file.
    """

    segment_size: int
    runs: Mapping[int, tuple[Run, ...]]
    histories: Mapping[int, History]
    unknown: tuple[int, ...]
    stored_bytes: int

    def last_on(self, history: History) -> SegmentName | None:
        """The highest archived segment that its history owns; None when there is none at all."""
        found: SegmentName | None = None
        for timeline in history.timelines:
            first_owned = int(history.begin_of(timeline)) // self.segment_size
            for run in self.runs.get(timeline, ()):
                number = min(run.last, self._last_owned(history, timeline))
                if number >= max(run.first, first_owned) and (found is None or number > found.number):
                    found = SegmentName(timeline, number, self.segment_size)
        return found

    def missing(self, history: History, start: Lsn, end: Lsn) -> list[Run]:
        """The gaps in [start, end) along the history, by owner."""
        if end <= start:
            return []
        gaps: list[Run] = []
        last = (int(end) - 1) // self.segment_size
        number = int(start) // self.segment_size
        while number <= last:
            owner = history.owner(number, self.segment_size)
            until = min(last, self._last_owned(history, owner))
            run = self._run_at(owner, number)
            if run is not None:
                number = min(run.last, until) + 1
                continue
            later = [other.first for other in self.runs.get(owner, ()) if other.first > number]
            stop = min([until, *(first - 1 for first in later[:1])])
            if gaps and gaps[-1].timeline == owner and gaps[-1].last == number - 1:
                gaps[-1] = Run(owner, gaps[-1].first, stop, self.segment_size)
            else:
                gaps.append(Run(owner, number, stop, self.segment_size))
            number = stop + 1
        return gaps

    def contiguous_end(self, history: History, start: Lsn) -> Lsn | None:
        """Behind the last segment of the unbroken run that holds ``start``; None when that segment is missing."""
        number = int(start) // self.segment_size
        end: Lsn | None = None
        while True:
            owner = history.owner(number, self.segment_size)
            run = self._run_at(owner, number)
            if run is None:
                return end
            number = min(run.last, self._last_owned(history, owner)) + 1
            end = Lsn(number * self.segment_size)

    def _run_at(self, timeline: int, number: int) -> Run | None:
        runs = self.runs.get(timeline, ())
        position = bisect_right(runs, number, key=lambda run: run.first) - 1
        return runs[position] if position >= 0 and runs[position].last >= number else None

    def _last_owned(self, history: History, timeline: int) -> int:
        """The number of the last segment that the timeline owns; without an end for the newest."""
        end = history.end_of(timeline)
        # The segment of the switch point belongs to the younger timeline: also when it lies on a segment's border.
        return 1 << 63 if end is None else int(end) // self.segment_size - 1


def read_archived_wal(repository: Repository, names: HistoryNames, segment_size: int) -> ArchivedWal:
    """One listing of the whole archive of a cluster (a request per thousand segments) and its history files."""
    runs: dict[int, tuple[Run, ...]] = {}
    histories: dict[int, History] = {}
    unknown: list[int] = []
    stored = 0
    for timeline in list_timelines(repository, names):
        found: list[Run] = []
        for archived in list_segments(repository, names, timeline, segment_size):
            number = archived.segment.number
            stored += archived.stored_bytes
            if found and found[-1].last == number - 1:
                found[-1] = Run(timeline, found[-1].first, number, segment_size)
            else:
                found.append(Run(timeline, number, number, segment_size))
        if found:
            runs[timeline] = tuple(found)
        try:
            histories[timeline] = get_history(repository, names, timeline)
        except ObjectNotFound:
            unknown.append(timeline)
    return ArchivedWal(segment_size, runs, histories, tuple(unknown), stored)
