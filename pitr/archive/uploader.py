"""Makes received WAL durable in the background: finished segments in order, and the unfinished one as partials."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from pitr.archive.indexing import IndexOf
from pitr.archive.remote import Remote, on_each
from pitr.codec import content_digest
from pitr.core.errors import PitrError, StoreDenied, StoreError
from pitr.core.events import Message, Report, info, warn
from pitr.core.files import Buffer
from pitr.pg.lsn import Lsn
from pitr.pg.segments import PartialName, SegmentName
from pitr.pg.timelines import History
from pitr.repo.names import HistoryNames, split_partial
from pitr.repo.repository import Repository
from pitr.repo.walobjects import Index, get_wal, put_wal, put_wal_object
from pitr.wal.segment import check_segment

DEFAULT_INTERVAL_S = 0.5
KEPT_INTERVAL_S = 10.0
"""Between partials when a repository does not let superseded ones be deleted: each of them stays."""
_BUSY_SHARE = 2.0
_SWEEP = 4
"""Superseded partials are deleted when so many have come together."""
_FIRST_DELAY_S = 0.25
_MAX_DELAY_S = 10.0
_TELL_AGAIN_S = 60.0
_QUEUE_BYTES = 64 << 20
_LARGEST_PAGE = 64 << 10
"""Of configure --with-wal-blocksize."""


class _Job(NamedTuple):
    """WAL of one segment up to ``end``, to be made durable. ``data`` is not written to below that any more."""

    segment: SegmentName
    data: memoryview
    end: Lsn
    history: History

    @property
    def whole(self) -> bool:
        return self.end == self.segment.end


class Uploader:
    """``durable`` rises when every required repository has the WAL up to there. One thread of its own, a daemon.

    A store that fails is tried again for ever. What no retry can mend (other content under a segment's name, WAL that
    is damaged) ends up in ``failure``. ``wake_fd`` becomes readable when either changes.
    """

    def __init__(
        self,
        remotes: Sequence[Remote],
        names: HistoryNames,
        *,
        interval_s: float | None = None,
        report: Report,
    ) -> None:
        """``interval_s``: least time between two partials; None chooses."""
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.durable = Lsn(0)
        self.failure: BaseException | None = None
        self.segments = 0
        self.partials = 0
        self.at_once = False
        """Partials without a pause: somebody waits for each commit."""
        self._remotes = remotes
        self._required = [remote for remote in remotes if remote.required]
        self._names = names
        self._interval_s = interval_s
        self._report = report
        self._condition = threading.Condition()
        self._finished: deque[_Job] = deque()
        self._unfinished: _Job | None = None
        self._urgent = False
        self._busy = False
        self._closed = False
        self._next_partial = 0.0
        self._trouble_since: float | None = None
        self._told_at = 0.0
        self._superseded: dict[str, list[str]] = {}
        self._undeletable: set[str] = set()
        self._partial_of: memoryview | None = None
        self._thread = threading.Thread(target=self._run, name="pitr-upload", daemon=True)
        self._thread.start()

    # For the receiving thread

    def begin(self, position: Lsn) -> None:
        """All WAL before ``position`` is durable already. Only while idle."""
        with self._condition:
            assert self._is_idle()
            self._unfinished = None
            self.durable = position

    def finish(self, segment: SegmentName, data: memoryview, end: Lsn, history: History) -> None:
        """WAL up to ``end``, the segment's or that of its timeline; nothing more will come of this segment."""
        with self._condition:
            self._unfinished = None
            self._finished.append(_Job(segment, data, end, history))
            self._condition.notify_all()

    def offer(self, segment: SegmentName, data: memoryview, end: Lsn, history: History, *, urgent: bool) -> None:
        """The unfinished segment has WAL up to ``end`` by now. ``urgent``: make it durable without waiting."""
        with self._condition:
            self._unfinished = _Job(segment, data, end, history)
            self._urgent = self._urgent or urgent
            self._condition.notify_all()

    def hurry(self) -> None:
        """Do not wait for the interval with what was offered."""
        with self._condition:
            self._urgent = True
            self._condition.notify_all()

    @property
    def has_room(self) -> bool:
        """Whether more WAL may be received: what waits for a slow store is bounded."""
        waiting = len(self._finished)
        return waiting < 2 or sum(job.segment.size_bytes for job in list(self._finished)) < _QUEUE_BYTES

    @property
    def idle(self) -> bool:
        """Whether everything that was handed over is durable."""
        with self._condition:
            return self._is_idle()

    def wait_idle(self, timeout_s: float) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: self._is_idle() or self.failure is not None, timeout_s)

    def drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_fd)

    def close(self, timeout_s: float) -> None:
        """Begin nothing new. What is being stored when the time is over may still appear."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join(timeout_s)

    def _is_idle(self) -> bool:
        unfinished = self._unfinished is not None and self._unfinished.end > self.durable
        return not self._finished and not self._busy and not unfinished

    # The thread

    def _run(self) -> None:
        delay = _FIRST_DELAY_S
        while (job := self._next()) is not None:
            try:
                self._store(job)
            except StoreError as error:
                self._tell_trouble(error)
                self._done(None)
                with self._condition:
                    self._condition.wait_for(lambda: self._closed, delay)
                delay = min(delay * 2, _MAX_DELAY_S)
            except BaseException as error:  # noqa: BLE001 (raised again in the receiving thread)
                return self._fail(error)
            else:
                delay = _FIRST_DELAY_S
                self._tell_recovery()
                self._done(job)
                self._sweep(job)
        return None

    def _next(self) -> _Job | None:
        with self._condition:
            while not self._closed:
                if self._finished:
                    self._busy = True
                    return self._finished[0]
                wait: float | None = None
                if self._unfinished is not None and self._unfinished.end > self.durable:
                    wait = 0.0 if self.at_once or self._urgent else self._next_partial - time.monotonic()
                    if wait <= 0:
                        self._busy, self._urgent = True, False
                        return self._unfinished
                else:
                    self._urgent = False
                self._condition.wait(wait)
        return None

    def _done(self, job: _Job | None) -> None:
        with self._condition:
            self._busy = False
            if job is not None:
                if self._finished and self._finished[0] is job:
                    self._finished.popleft()
                self.durable = max(self.durable, job.end)
            self._condition.notify_all()
        os.eventfd_write(self.wake_fd, 1)

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self._done(None)

    def _store(self, job: _Job) -> None:
        begun = time.monotonic()
        if job.whole:
            check_segment(job.data, job.segment, system_id=self._names.system_id, history=job.history)
            self._on_each(self._remotes, job)
            self.segments += 1
            self._report(Message("debug", f"{job.segment} archived"))
            return
        self._on_each(self._required, job)
        self.partials += 1
        ended = time.monotonic()
        self._next_partial = begun + max(self._interval(), _BUSY_SHARE * (ended - begun))
        self._report(Message("debug", f"{job.segment} durable up to {job.end} in {(ended - begun) * 1000:.0f} ms"))

    def _interval(self) -> float:
        if self._interval_s is not None:
            return self._interval_s
        return KEPT_INTERVAL_S if self._undeletable else DEFAULT_INTERVAL_S

    def _on_each(self, remotes: Sequence[Remote], job: _Job) -> None:
        if not job.whole and self._partial_of is not job.data:
            self._partial_of, self._superseded = job.data, {}
        index = IndexOf(job.segment, job.data, self._report) if job.whole else b""
        outcomes = on_each(remotes, lambda repository: self._put(repository, job, index))
        failed = [outcome for outcome in outcomes if outcome.error is not None]
        for outcome in failed:
            if not outcome.remote.required:
                warn(self._report, f"repository {outcome.remote.name}: {job.segment}: {outcome.error}")
        error = next((outcome.error for outcome in failed if outcome.remote.required), None)
        if error is not None:
            raise error

    def _put(self, repository: Repository, job: _Job, index: Index) -> None:
        if job.whole:
            put_wal(repository, self._names, job.segment, job.data, index=index)
            return
        content = partial_content(job.segment, job.data, job.end)
        name = partial_name(repository, self._names, job.segment, content, job.end)
        put_wal_object(repository, name, content)
        kept = self._superseded.setdefault(repository.name, [])
        if name not in kept:
            kept.append(name)

    # Partials that are not needed any more

    def _sweep(self, job: _Job) -> None:
        for remote in self._required:
            with contextlib.suppress(StoreError):
                self._sweep_one(remote.open(), job)

    def _sweep_one(self, repository: Repository, job: _Job) -> None:
        if repository.name in self._undeletable:
            return
        if job.whole:
            old = contained_partials(repository, self._names, job.segment, job.data)
        else:  # all of the same stream, each the beginning of the next
            kept = self._superseded.get(repository.name, [])
            old = kept[:-1] if len(kept) > _SWEEP else []
        if not old:
            return
        try:
            if not repository.store.caps.can_delete:
                raise StoreDenied("the store deletes nothing")
            repository.store.delete(old)
        except StoreDenied as error:
            self._undeletable.add(repository.name)
            info(self._report, f"repository {repository.name}: partial segments stay where they are: {error}")
        else:
            kept = self._superseded.get(repository.name, [])
            kept[:] = [name for name in kept if name not in old]

    # What is said

    def _tell_trouble(self, error: PitrError) -> None:
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
        elif now - self._told_at < _TELL_AGAIN_S:
            return
        self._told_at = now
        warn(self._report, f"WAL behind {self.durable} cannot be stored, trying again: {error}")

    def _tell_recovery(self) -> None:
        if self._trouble_since is not None:
            lasted = time.monotonic() - self._trouble_since
            self._trouble_since = None
            info(self._report, f"WAL is stored again, after {lasted:.1f} s")


def partial_content(segment: SegmentName, data: Buffer, end: Lsn) -> bytes:
    """The segment up to ``end``, filled up with zeros to a whole page of any size: readers take whole pages."""
    length = end - segment.start
    return b"".join((memoryview(data)[:length], bytes(-length % _LARGEST_PAGE)))


def partial_name(repository: Repository, names: HistoryNames, segment: SegmentName, content: bytes, end: Lsn) -> str:
    """Of the object with that content, which holds the segment up to ``end``."""
    return names.partial(segment, end, content_digest(repository.keyring, str(PartialName(segment)), [content]))


def contained_partials(repository: Repository, names: HistoryNames, segment: SegmentName, data: Buffer) -> list[str]:
    """Stored partials that hold nothing but a beginning of ``data``, the whole segment: a name tells the content."""
    found = []
    for stored in repository.store.list(names.partial_prefix(segment)):
        split = split_partial(stored.name, segment.size_bytes)
        if split is not None and segment.start < split[1] <= segment.end:
            content = partial_content(segment, data, split[1])
            name = partial_name(repository, names, segment, content, split[1])
            found += [name] if name == stored.name else []
    return found


def remove_leftovers(repository: Repository, names: HistoryNames, segment: SegmentName) -> None:
    """Delete the partials of a segment that is stored whole: of a receiver that was killed, or outrun by
    archive_command. What the store refuses stays."""
    with contextlib.suppress(StoreError):
        if not repository.store.caps.can_delete or not any(repository.store.list(names.partial_prefix(segment))):
            return
        old = contained_partials(repository, names, segment, get_wal(repository, names, segment))
        repository.store.delete(old)
