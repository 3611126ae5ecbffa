"""A bounded thread pool: back-pressure on submission, first error cancels the rest, Ctrl-C is honoured.

zstd, AES-GCM, SHA-256 and I/O release the GIL, so threads use all cores; there are no async twins and no processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")


class Cancelled(Exception):
    """Raised inside a worker that asks ``Stop.check()`` after another one failed or the user interrupted."""


class Stop:
    """Shared flag of the workers of one run: long-running workers call check() between chunks."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        if self._event.is_set():
            raise Cancelled


def run_parallel(
    jobs: Iterable[Item], work: Callable[[Item, Stop], None], *, threads: int, queued: int | None = None
) -> None:
    """Call ``work(job, stop)`` for every job in ``threads`` threads and return when all are done.

    At most ``queued`` (default: twice the threads) jobs are taken from ``jobs`` ahead of need, so the iterable may be
    lazy and endless in size. The first exception sets ``stop``, waits for the running workers and is raised. An
    exception in the calling thread (KeyboardInterrupt, Interrupted) does the same.
    """
    stop = Stop()
    limit = queued if queued is not None else threads * 2
    executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pitr")
    pending: set[Future[None]] = set()
    failure: BaseException | None = None
    try:
        for job in jobs:
            pending.add(executor.submit(work, job, stop))
            if len(pending) >= limit:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                failure = _first_failure(done)
                if failure is not None:
                    break
        while pending and failure is None:
            done, pending = wait(pending, return_when=FIRST_EXCEPTION)
            failure = _first_failure(done)
    except BaseException:
        stop.set()
        raise
    finally:
        if failure is not None:
            stop.set()
        executor.shutdown(wait=True, cancel_futures=True)
    if failure is not None:
        raise failure


def _first_failure(done: Iterable[Future[None]]) -> BaseException | None:
    found: BaseException | None = None
    for future in done:
        error = future.exception()
        if error is not None and (found is None or isinstance(found, Cancelled)):
            found = error
    return found
