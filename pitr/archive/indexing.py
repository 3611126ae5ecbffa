"""The index that goes into a segment's object, built when the object is written and once for all repositories."""

from __future__ import annotations

import threading

from pitr.codec.frames import MAX_INDEX_PAYLOAD
from pitr.core.errors import Interrupted
from pitr.core.events import Report, silent, warn
from pitr.core.files import Buffer
from pitr.pg.segments import SegmentName


class IndexOf:
    """Called, it gives the index payload of a finished segment. Thread-safe.

    Nothing that is wrong with an index keeps a segment from the archive: it is stored without one and a warning says
    so; readers build what is missing.
    """

    def __init__(self, name: SegmentName, data: Buffer, report: Report = silent) -> None:
        self._name = name
        self._data = data
        self._report = report
        self._lock = threading.Lock()
        self._payload: bytes | None = None

    def __call__(self) -> bytes:
        with self._lock:
            if self._payload is None:
                self._payload = self._build()
            return self._payload

    def _build(self) -> bytes:
        from pitr.wal.index import encode_index
        from pitr.wal.indexing import build_index

        try:
            payload = encode_index(build_index(self._data, self._name))
            if len(payload) > MAX_INDEX_PAYLOAD:
                raise ValueError(f"it has {len(payload)} bytes")
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - archiving goes on whatever happens here, and the warning names it
            warn(self._report, f"WAL segment {self._name} is archived without index: {type(error).__name__}: {error}")
            return b""
        return payload
