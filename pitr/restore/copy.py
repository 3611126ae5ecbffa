"""Fetch every frame that is needed once, open it, and write its parts to the files."""

from __future__ import annotations

import threading

from pitr.core.events import Advanced, Report
from pitr.core.pool import Stop, run_parallel
from pitr.repo.maps import BackupMap
from pitr.repo.names import HistoryNames
from pitr.repo.packs import PackReader
from pitr.repo.repository import Repository
from pitr.restore.files import Buffer, FileWriter
from pitr.restore.slices import Holes, Job, Slices, jobs_of

COPY_PHASE = "copy"


class _ThreadBuffer(threading.local):
    def __init__(self) -> None:
        self.buffer: Buffer | None = None


class FrameCopier:
    """The work of one restore; a frame's tag is verified before any of its bytes is written."""

    def __init__(
        self, repository: Repository, names: HistoryNames, built: BackupMap, columns: Slices, report: Report
    ) -> None:
        self._readers = [PackReader(repository, names, pack) for pack in built.packs]
        self._built = built
        self._columns = columns
        self._report = report
        self._thread = _ThreadBuffer()
        self.buffer_size = max((pack.params.frame_size for pack in built.packs), default=1)

    def run(self, writer: FileWriter, threads: int) -> None:
        """Raises IntegrityError, StoreError, NoSpace."""

        def work(job: Job, stop: Stop) -> None:
            self._job(job, writer, stop)

        run_parallel(jobs_of(self._built, self._columns), work, threads=threads)

    def _job(self, job: Job, writer: FileWriter, stop: Stop) -> None:
        reader, buffer, columns = self._readers[job.pack], self._buffer(), self._columns
        window = slice(job.start, job.stop)
        frames = columns.frame[window].tolist()
        files, positions = columns.file[window].tolist(), columns.position[window].tolist()
        offsets, lengths = columns.offset[window].tolist(), columns.length[window].tolist()
        at = 0
        for number, sealed in reader.frames(job.first, job.last):
            stop.check()
            if frames[at] != number:
                continue  # fetched because it lies between two that are needed
            reader.open_into(number, sealed, buffer.view)
            done = 0
            while at < len(frames) and frames[at] == number:
                writer.write(files[at], positions[at], buffer, offsets[at], lengths[at])
                done += lengths[at]
                at += 1
            self._report(Advanced(COPY_PHASE, done))

    def _buffer(self) -> Buffer:
        if self._thread.buffer is None:
            self._thread.buffer = Buffer(self.buffer_size)
        return self._thread.buffer


def clear_holes(holes: Holes, writer: FileWriter, threads: int) -> None:
    """With --delta: ranges that are zero in the backup must be zero in a file that was there."""

    def work(index: int, stop: Stop) -> None:
        stop.check()
        writer.clear(int(holes.file[index]), int(holes.position[index]), int(holes.length[index]))

    run_parallel(range(len(holes.file)), work, threads=threads)
