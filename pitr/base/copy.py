"""The copy: workers that pull jobs from one queue and stream packs into the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pitr.base.extents import ExtentLog
from pitr.base.jobs import Job, Slice, cut_jobs
from pitr.base.notes import Notes
from pitr.base.pace import Progress, RateLimit
from pitr.base.plan import Plan
from pitr.base.read import ByteReader, PageReader, Taken
from pitr.core.events import Report
from pitr.core.pool import Stop, run_parallel
from pitr.pg.control import ControlData, read_control_file
from pitr.repo.maps import Extents, FileKind
from pitr.repo.names import HistoryNames
from pitr.repo.packs import PackBody, PackNumbers, StoredPack
from pitr.repo.repository import Repository

PHASE = "copy"


@dataclass(frozen=True, slots=True)
class Copied:
    """``owners[i]`` is the file (index in the plan) of extent i. ``packs`` by their numbers, none missing."""

    owners: npt.NDArray[np.uint32]
    extents: Extents
    notes: Notes
    packs: tuple[StoredPack, ...]
    read_bytes: int


@dataclass(frozen=True, slots=True)
class CopyTask:
    """Everything the workers of one copy share."""

    repository: Repository
    names: HistoryNames
    backup_id: str
    plan: Plan
    jobs: int
    pack_bytes: int
    slice_bytes: int
    max_rate_bytes_per_s: int | None
    report: Report


class _Worker:
    """One thread's part. Its packs are in the store when run() returned."""

    def __init__(self, task: CopyTask, queue: deque[Job], numbers: PackNumbers, limit: RateLimit) -> None:
        self._task = task
        self._queue = queue
        self._numbers = numbers
        self._limit = limit
        self.extents = ExtentLog()
        self.notes = Notes()
        self.packs: list[StoredPack] = []
        self.progress = Progress(task.report, PHASE)

    def run(self, stop: Stop) -> None:
        taken = Taken(self.extents, self.notes, lambda size_bytes: self._account(size_bytes, stop))
        pages, others = PageReader(self._task.plan.source, taken), ByteReader(self._task.plan.source, taken)
        while (job := self._next()) is not None:
            stop.check()
            task = self._task
            pack = PackBody(task.repository, task.names, task.backup_id, self._numbers.take())
            task.repository.store.put(pack.name, self._body(pack, job, pages, others, stop), if_absent=True)
            self.packs.append(pack.stored())
        self.progress.flush()

    def _next(self) -> Job | None:
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def _account(self, size_bytes: int, stop: Stop) -> None:
        stop.check()
        self.progress.add(size_bytes)
        self._limit.take(size_bytes, stop)

    def _body(self, pack: PackBody, first: Job, pages: PageReader, others: ByteReader, stop: Stop) -> Iterator[bytes]:
        yield pack.begin()
        job: Job | None = first
        while job is not None:
            reader = pages if self._is_relation(job) else others
            frames = reader.slice(pack, job) if isinstance(job, Slice) else reader.bundle(pack, job)
            for frame in frames:
                stop.check()
                yield frame
            job = self._next() if pack.stored_bytes < self._task.pack_bytes else None
        yield pack.finish()

    def _is_relation(self, job: Job) -> bool:
        if isinstance(job, Slice):
            return self._task.plan.entries[job.file].kind is FileKind.RELATION
        return job.relation


def copy_files(task: CopyTask, numbers: PackNumbers) -> Copied:
    """Copy everything of the plan but pg_control. The first error, and an interrupt, ends all workers and is raised."""
    queue = cut_jobs(task.plan.entries, task.plan.copied_by_workers(), task.slice_bytes)
    limit = RateLimit(task.max_rate_bytes_per_s)
    workers = [_Worker(task, queue, numbers, limit) for _ in range(min(task.jobs, max(1, len(queue))))]
    run_parallel(workers, _Worker.run, threads=len(workers))
    owners, extents = ExtentLog.joined(worker.extents for worker in workers)
    packs = sorted((pack for worker in workers for pack in worker.packs), key=lambda pack: pack.ref.number)
    read_bytes = sum(worker.progress.total_bytes for worker in workers)
    return Copied(owners, extents, Notes.joined(worker.notes for worker in workers), tuple(packs), read_bytes)


@dataclass(frozen=True, slots=True)
class CopiedControl:
    """pg_control as it is stored, in a pack of its own."""

    data: ControlData
    size: int
    extents: Extents
    pack: StoredPack


def copy_control(task: CopyTask, numbers: PackNumbers) -> CopiedControl:
    """pg_control, after everything else and before pg_backup_stop.

    On a standby it says where recovery from this backup becomes consistent.
    """
    path = task.plan.source.path_of(task.plan.entries[task.plan.control])
    data, control = read_control_file(Path(path))
    pack = PackBody(task.repository, task.names, task.backup_id, numbers.take())
    body = [pack.begin(), pack.frame(data), pack.finish()]
    task.repository.store.put(pack.name, body, if_absent=True)
    extents = Extents.rows([(0, len(data), pack.number, 0, 0, 0)])
    return CopiedControl(control, len(data), extents, pack.stored())
