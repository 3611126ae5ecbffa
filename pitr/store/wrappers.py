"""Stores around a store: throttled, read-only, counting."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NoReturn, TypeVar

from pitr.core.errors import StoreDenied
from pitr.core.files import Buffer
from pitr.store.base import ObjectInfo, ObjectStore, StoreCaps

Chunk = TypeVar("Chunk", bytes, Buffer)


class TokenBucket:
    """Bytes at a rate, shared by threads. take() may overdraw and then waits for the debt to be paid, so that chunks
    larger than the bucket pass too; ``burst_bytes`` can be taken at once after a pause."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        burst_bytes: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = bytes_per_s
        self._burst = burst_bytes if burst_bytes is not None else bytes_per_s / 4
        self._sleep = sleep
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._balance = self._burst
        self._filled_at = monotonic()

    def take(self, size_bytes: int) -> None:
        with self._lock:
            now = self._monotonic()
            self._balance = min(self._burst, self._balance + (now - self._filled_at) * self._rate)
            self._filled_at = now
            self._balance -= size_bytes
            wait_s = -self._balance / self._rate
        if wait_s > 0:
            self._sleep(wait_s)


class _Around:
    """Hands every operation on."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    def caps(self) -> StoreCaps:
        return self._store.caps

    @property
    def url(self) -> str:
        return self._store.url

    def put(self, name: str, body: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        return self._store.put(name, body, if_absent=if_absent)

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._store.get(name, offset=offset, length=length)

    def stat(self, name: str) -> ObjectInfo:
        return self._store.stat(name)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        return self._store.list(prefix, after=after)

    def delete(self, names: Iterable[str]) -> None:
        self._store.delete(names)

    def close(self) -> None:
        self._store.close()


class Throttled(_Around):
    """Holds the bytes of bodies and reads to a rate; either bucket may be None. Requests themselves are free."""

    def __init__(self, store: ObjectStore, *, up: TokenBucket | None = None, down: TokenBucket | None = None) -> None:
        super().__init__(store)
        self._up = up
        self._down = down

    def put(self, name: str, body: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        return self._store.put(name, _metered(body, self._up), if_absent=if_absent)

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        yield from _metered(self._store.get(name, offset=offset, length=length), self._down)


def _metered(chunks: Iterable[Chunk], bucket: TokenBucket | None) -> Iterator[Chunk]:
    for chunk in chunks:
        if bucket is not None:
            bucket.take(memoryview(chunk).nbytes)
        yield chunk


class ReadOnly(_Around):
    """Refuses to change anything, whatever the credentials allow."""

    @property
    def caps(self) -> StoreCaps:
        return replace(self._store.caps, if_absent=False, can_delete=False)

    def put(self, name: str, body: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        self._refuse(f"write {name}")

    def delete(self, names: Iterable[str]) -> None:
        self._refuse("delete")

    def _refuse(self, what: str) -> NoReturn:
        raise StoreDenied(f"the repository is opened read-only: {self.url}", detail=what)


@dataclass(frozen=True, slots=True)
class Counts:
    """What went through a Counting store; operations by kind (put, get, stat, list, delete), deletes by object."""

    operations: dict[str, int]
    sent_bytes: int
    received_bytes: int


class Counting(_Around):
    """Counts operations as they begin and bytes as they pass. Put it below Retrying to count every attempt."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self._operations: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def counts(self) -> Counts:
        with self._lock:
            return Counts(dict(self._operations), self._bytes["sent"], self._bytes["received"])

    def put(self, name: str, body: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        self._count("put")
        return self._store.put(name, self._passing(body, "sent"), if_absent=if_absent)

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        self._count("get")
        yield from self._passing(self._store.get(name, offset=offset, length=length), "received")

    def stat(self, name: str) -> ObjectInfo:
        self._count("stat")
        return self._store.stat(name)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        self._count("list")
        return self._store.list(prefix, after=after)

    def delete(self, names: Iterable[str]) -> None:
        kept = [*names]
        self._count("delete", len(kept))
        self._store.delete(kept)

    def _count(self, kind: str, number: int = 1) -> None:
        with self._lock:
            self._operations[kind] += number

    def _passing(self, chunks: Iterable[Chunk], direction: str) -> Iterator[Chunk]:
        for chunk in chunks:
            with self._lock:
                self._bytes[direction] += memoryview(chunk).nbytes
            yield chunk
