"""The archived WAL of one history as a source of segments: proven by listing, read ahead, verified when opened."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from pitr.core.errors import ObjectNotFound, PitrError, WalGap
from pitr.core.events import Advanced, Report
from pitr.core.files import Buffer
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.repo.names import HistoryNames, split_partial
from pitr.repo.repository import Repository
from pitr.repo.walobjects import contiguous_until, get_wal, get_wal_object, list_segments
from pitr.wal.stream import Segment

_AHEAD_BYTES = 48 << 20
_AHEAD_SEGMENTS = 3
SCAN_PHASE = "scan"


@dataclass(frozen=True, slots=True)
class Archive:
    """The WAL of one cluster along one history."""

    repository: Repository
    names: HistoryNames
    history: History
    segment_size: int

    def segment_at(self, lsn: int) -> SegmentName:
        number = int(lsn) // self.segment_size
        return SegmentName(self.history.owner(number, self.segment_size), number, self.segment_size)

    def segment_ending(self, lsn: int) -> SegmentName:
        """The segment that holds the last byte before lsn."""
        return self.segment_at(int(lsn) - 1)

    def unbroken_until(self, start: Lsn) -> SegmentName | None:
        return contiguous_until(self.repository, self.names, self.history, start, self.segment_size)

    def following(self, segment: SegmentName) -> SegmentName:
        return self.segment_at(segment.end)

    def first_behind(self, segment: SegmentName) -> SegmentName | None:
        """The lowest archived segment that shows that the archive goes on behind ``segment``: a later one of this
        history, or, where a timeline's first segment is missing, its parent's version, alike up to the switch."""
        found: list[SegmentName] = []
        for timeline in self.history.timelines:
            first = SegmentName(timeline, segment.number + 1, self.segment_size)
            for archived in list_segments(self.repository, self.names, timeline, self.segment_size, first=first):
                if self.history.owner(archived.segment.number, self.segment_size) == timeline:
                    found.append(archived.segment)
                    break
                end = self.history.end_of(timeline)
                if end is not None and archived.segment.start > end:
                    break
        found += self._of_parents(self.following(segment))
        return min(found, key=lambda each: each.number, default=None)

    def _of_parents(self, missing: SegmentName) -> list[SegmentName]:
        """The same segment, or a part of it, of the timelines before: then its content did exist, up to the switch."""
        if self.history.begin_of(missing.timeline) < missing.start:
            return []  # no part of it is shared
        found = []
        for timeline in self.history.timelines[: self.history.timelines.index(missing.timeline)]:
            same = missing.at_timeline(timeline)
            prefix = self.names.wal_directory(same) + str(same)
            if next(self.repository.store.list(prefix), None) is not None:
                found.append(same)
        return found

    def partial(self, segment: SegmentName) -> bytes | None:
        """The longest stored partial of an unfinished segment."""
        best: tuple[Lsn, str] | None = None
        for info in self.repository.store.list(self.names.partial_prefix(segment)):
            parsed = split_partial(info.name, self.segment_size)
            if parsed is not None and (best is None or parsed[1] > best[0]):
                best = parsed[1], info.name
        return None if best is None else get_wal_object(self.repository, best[1])


class SegmentSource:
    """Hands segments to a RecordReader in order while the next ones are fetched and opened in the background."""

    def __init__(self, archive: Archive, last: SegmentName, report: Report, executor: ThreadPoolExecutor) -> None:
        """``last``: up to which the archive is unbroken; a stored partial may follow."""
        self._archive = archive
        self._last = last
        self._report = report
        self._executor = executor
        self._ahead = max(1, min(_AHEAD_SEGMENTS, _AHEAD_BYTES // archive.segment_size))
        self._pending: dict[int, Future[bytes]] = {}
        self.partial_used: SegmentName | None = None

    def fetch(self, name: SegmentName) -> Buffer | Segment | None:
        if name.number > self._last.number + 1:
            return None
        if name.number == self._last.number + 1:
            return self._partial(name)
        self._request(name.number)
        for number in range(name.number + 1, min(name.number + self._ahead, self._last.number) + 1):
            self._request(number)
        data = self._pending.pop(name.number).result()
        for number in [number for number in self._pending if number < name.number]:
            del self._pending[number]
        self._report(Advanced(SCAN_PHASE, len(data)))
        return data

    def _request(self, number: int) -> None:
        if number not in self._pending:
            self._pending[number] = self._executor.submit(
                self._get, self._archive.segment_at(number * self._last.size_bytes)
            )

    def _get(self, name: SegmentName) -> bytes:
        archive = self._archive
        try:
            return get_wal(archive.repository, archive.names, name)
        except ObjectNotFound as error:
            raise WalGap(f"WAL segment {name} has gone from the archive while it was read") from error

    def _partial(self, name: SegmentName) -> Segment | None:
        data = self._archive.partial(name)
        if data is None:
            return None
        try:
            segment = Segment.read(data, name, complete=False)
        except PitrError:
            return None  # not even its first page was finished
        self.partial_used = name
        return segment


@contextmanager
def reading(archive: Archive, last: SegmentName, report: Report) -> Iterator[SegmentSource]:
    executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="pitr-wal")
    try:
        yield SegmentSource(archive, last, report, executor)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
