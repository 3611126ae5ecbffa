"""The bounded pool that sends parts, for all uploads of one store."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pitr.core.errors import StoreError

Result = TypeVar("Result")

ATTEMPTS = 4
FIRST_DELAY_S = 0.3
MAX_DELAY_S = 20.0


class PartSender:
    """At most ``parts_in_flight`` requests at a time; submit() waits for a free place, which bounds memory."""

    def __init__(self, parts_in_flight: int) -> None:
        self._executor = ThreadPoolExecutor(parts_in_flight, thread_name_prefix="pitr-s3-part")
        self._places = threading.Semaphore(parts_in_flight)

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        self._places.acquire()
        try:
            future = self._executor.submit(work)
        except BaseException:
            self._places.release()
            raise
        future.add_done_callback(lambda _: self._places.release())
        return future

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def with_resends(work: Callable[[int], Result], *, attempts: int = ATTEMPTS, for_s: float = 0.0) -> Result:
    """Call ``work(attempt)`` (from 0), again after transient errors: ``attempts`` times, and until for_s are over.

    Only for what is harmless to repeat.
    """
    until = time.monotonic() + for_s
    attempt = 0
    while True:
        try:
            return work(attempt)
        except StoreError as error:
            if not error.transient or (attempt + 1 >= attempts and time.monotonic() >= until):
                raise
            pause(attempt)
        attempt += 1


def pause(attempt: int) -> None:
    time.sleep(min(FIRST_DELAY_S * 2 ** min(attempt, 10), MAX_DELAY_S) * random.uniform(0.5, 1.0))
