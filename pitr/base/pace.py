"""What the workers of a copy share: the rate limit and the progress report."""

from __future__ import annotations

import threading
import time

from pitr.core.events import Advanced, Report
from pitr.core.pool import Stop

_REPORT_S = 0.25
_NAP_S = 0.2


class RateLimit:
    """At most so many bytes a second over all threads; None: no limit. A second's worth may be taken in a burst."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._rate = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, size_bytes: int, stop: Stop) -> None:
        """Wait until the bytes are allowed. Raises Cancelled when the copy is stopped meanwhile."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 1.0) + size_bytes / self._rate
            until = self._free_at
        while (left := until - time.monotonic()) > 0:
            stop.check()
            time.sleep(min(left, _NAP_S))


class Progress:
    """One worker's progress, passed on a few times a second."""

    def __init__(self, report: Report, phase: str) -> None:
        self._report = report
        self._phase = phase
        self._pending = 0
        self._next = time.monotonic() + _REPORT_S
        self.total_bytes = 0

    def add(self, size_bytes: int) -> None:
        self.total_bytes += size_bytes
        self._pending += size_bytes
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self._report(Advanced(self._phase, self._pending))
        self._pending = 0
        self._next = time.monotonic() + _REPORT_S
