"""Objects in a dictionary, for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from pitr.core.clock import Clock, utc_now
from pitr.core.errors import ObjectExists, ObjectNotFound
from pitr.core.files import Buffer
from pitr.store.base import ObjectInfo, StoreCaps
from pitr.store.names import check_name, check_prefix
from pitr.store.ranges import checked_range

CHUNK_BYTES = 1 << 20


class MemoryStore:
    """An ObjectStore that dies with the process. ``clock`` gives the modification times."""

    def __init__(self, name: str = "", *, clock: Clock = utc_now) -> None:
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, ObjectInfo]] = {}

    @property
    def caps(self) -> StoreCaps:
        return StoreCaps()

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    def put(self, name: str, body: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        check_name(name)
        gathered = bytearray()
        for chunk in body:
            gathered += chunk
        content = bytes(gathered)
        info = ObjectInfo(name, len(content), self._clock())
        with self._lock:
            if if_absent and name in self._objects:
                raise ObjectExists(f"object exists: {name}")
            self._objects[name] = (content, info)
        return info

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        check_name(name)
        content, _ = self._find(name)
        start, end = checked_range(name, len(content), offset, length)
        for position in range(start, end, CHUNK_BYTES):
            yield content[position : min(position + CHUNK_BYTES, end)]

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        return self._find(name)[1]

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._lock:
            found = sorted(name for name in self._objects if name.startswith(prefix) and name > after)
        for name in found:
            with self._lock:
                entry = self._objects.get(name)
            if entry is not None:
                yield entry[1]

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            check_name(name)
            with self._lock:
                self._objects.pop(name, None)

    def close(self) -> None:
        """Nothing to release; the objects stay."""

    def _find(self, name: str) -> tuple[bytes, ObjectInfo]:
        with self._lock:
            entry = self._objects.get(name)
        if entry is None:
            raise ObjectNotFound(f"no such object: {name}")
        return entry
