"""Indexes of archived segments: read from the objects, built where an object has none, kept in a local directory."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pitr.core.errors import FormatTooNew, IntegrityError, PitrError
from pitr.core.events import Advanced, PhaseEnded, PhaseStarted, Report
from pitr.core.files import make_directory, write_file_durably
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.repo.walobjects import get_wal, get_wal_index
from pitr.restore.archive import Archive
from pitr.wal.index import FORMAT, SegmentIndex, decode_index, encode_index
from pitr.wal.indexing import build_index
from pitr.wal.reader import RecordReader
from pitr.wal.records import Record
from pitr.wal.stream import Segment

PHASE = "indexes"
_THREADS = 8
_AHEAD = 32
_AHEAD_BYTES = 128 << 20
_KEPT = 4096
"""Files in the cache; the oldest go first."""


class IndexCache:
    """Indexes that had to be built, one file each; they hold names of tables, so the directory is private."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, name: SegmentName) -> SegmentIndex | None:
        """None when it is not there, or damaged, or of another version: then it is built anew."""
        with contextlib.suppress(OSError, PitrError):
            return decode_index(self._path(name).read_bytes(), str(name))
        return None

    def put(self, index: SegmentIndex) -> None:
        """A cache that cannot be written is none."""
        with contextlib.suppress(OSError, PitrError):
            make_directory(self._directory)
            write_file_durably(self._path(index.name), [encode_index(index)])
            self._prune()

    def _path(self, name: SegmentName) -> Path:
        return self._directory / f"{name}.{FORMAT}"

    def _prune(self) -> None:
        files = list(os.scandir(self._directory))
        if len(files) > _KEPT:
            files.sort(key=lambda entry: entry.stat().st_mtime)
            for entry in files[: _KEPT // 8]:
                Path(entry).unlink(missing_ok=True)


def cache_of(spool: Path | None, archive: Archive) -> IndexCache | None:
    if spool is None:
        return None
    names = archive.names
    return IndexCache(
        spool / "index" / archive.repository.descriptor.repository_id / f"{names.cluster}-{names.system_id}"
    )


class IndexSource:
    """Reads the indexes of one history, several at a time. ``built``: how many segments had to be read whole."""

    def __init__(self, archive: Archive, cache: IndexCache | None, report: Report, *, threshold: int | None) -> None:
        """``threshold``: a finer one than that of the stored indexes, by reading every segment whole."""
        self._archive = archive
        self._cache = cache
        self._report = report
        self._threshold = threshold
        self.built = 0

    def indexes(self, segments: Iterable[SegmentName], total: int) -> Iterator[SegmentIndex]:
        """In order."""
        size = self._archive.segment_size
        ahead = _AHEAD if self._threshold is None else max(1, min(_AHEAD, _AHEAD_BYTES // size))
        executor = ThreadPoolExecutor(max_workers=min(_THREADS, ahead), thread_name_prefix="pitr-index")
        pending: deque[Future[SegmentIndex]] = deque()
        self._report(PhaseStarted(PHASE, total * size))
        try:
            for segment in segments:
                pending.append(executor.submit(self.index, segment))
                if len(pending) >= ahead:
                    yield self._next(pending)
            while pending:
                yield self._next(pending)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
            self._report(PhaseEnded(PHASE, 0.0))

    def _next(self, pending: deque[Future[SegmentIndex]]) -> SegmentIndex:
        index = pending.popleft().result()
        self._report(Advanced(PHASE, self._archive.segment_size))
        return index

    def index(self, name: SegmentName) -> SegmentIndex:
        """Raises ObjectNotFound, IntegrityError (the segment is damaged)."""
        if self._threshold is not None:
            return self.build(name, self._threshold)
        payload = get_wal_index(self._archive.repository, self._archive.names, name)
        if payload:
            with contextlib.suppress(FormatTooNew):  # of a later version: what this one knows is built
                index = decode_index(payload, str(name))
                if index.name != name:
                    raise IntegrityError(f"the index of {name} is that of {index.name}")
                return index
        known = None if self._cache is None else self._cache.get(name)
        if known is not None and known.name == name:
            return known
        index = self.build(name)
        if self._cache is not None:
            self._cache.put(index)
        return index

    def build(self, name: SegmentName, threshold: int | None = None) -> SegmentIndex:
        data = get_wal(self._archive.repository, self._archive.names, name)
        self.built += 1
        system_id = self._archive.names.system_id
        if threshold is None:
            return build_index(data, name, system_id=system_id)
        return build_index(data, name, system_id=system_id, threshold=threshold)

    def exact(self, index: SegmentIndex) -> SegmentIndex:
        """The same with every transaction listed."""
        return self.build(index.name, 0) if index.complete else index

    def unfinished_behind(self, last: SegmentName) -> SegmentIndex | None:
        """Of what is stored of the segment behind ``last``, every transaction listed; None when nothing of use is."""
        name = self._archive.following(last)
        data = self._archive.partial(name)
        if data is None:
            return None
        try:
            return build_index(Segment.read(data, name, complete=False), name, threshold=0)
        except PitrError:
            return None  # not even its first page was finished

    def record(self, lsn: Lsn) -> Record | None:
        """The record that begins there and goes on in later segments, from the segments themselves."""
        archive = self._archive
        reader = RecordReader(
            lambda name: get_wal(archive.repository, archive.names, name),
            lsn,
            archive.history,
            archive.segment_size,
            system_id=archive.names.system_id,
            trust_start=True,
        )
        record = next(iter(reader), None)
        return record if record is not None and record.start == lsn else None
