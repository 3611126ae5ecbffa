"""A store whose faults are scripted as data, for tests of everything that must survive them.

A script is a comma-separated list of ``operation:fault``; each operation (put, get, stat, list, delete) takes its own
faults in turn and works after the last one.

====================  ==================================================================================================
``ok``                works
``fail``              transient StoreUnavailable before anything happens
``denied``, ``full``  StoreDenied, NoSpace
``missing``           ObjectNotFound
``torn``              put: some of the body is taken, then StoreUnavailable; nothing is stored
``lost``              put, delete: done, but the answer is StoreUnavailable
``flip@N``            put, get: bit 0 of byte N of the object is inverted on the way
``short@N``           get: the connection breaks (StoreUnavailable) when N bytes were delivered
``cut@N``             get: ends after N bytes as if that were all
====================  ==================================================================================================
"""

from __future__ import annotations

import os
import signal
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from pitr.core.errors import NoSpace, ObjectNotFound, StoreDenied, StoreUnavailable
from pitr.core.files import Buffer
from pitr.store.base import ObjectInfo, ObjectStore, StoreCaps

Moment = Literal["before", "during", "after"]


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    position: int = 0


OK = Fault("ok")


def parse_script(script: str) -> dict[str, deque[Fault]]:
    faults: dict[str, deque[Fault]] = defaultdict(deque)
    for item in filter(None, script.split(",")):
        operation, _, fault = item.strip().partition(":")
        kind, _, position = fault.partition("@")
        faults[operation].append(Fault(kind, int(position or 0)))
    return faults


class FaultyStore:
    """An ObjectStore around another. Besides the script:

    fail_at     the operation of this number (from 1, all kinds counted) raises a transient StoreUnavailable
    kill_at     at the operation of this number the process kills itself with SIGKILL: before it, in the middle of a
                put's body (other operations: before), or after it was done but before the caller hears of it
    only        counts for fail_at and kill_at only operations for which it is true: ``only(operation, name)``
    """

    def __init__(
        self,
        store: ObjectStore,
        script: str = "",
        *,
        fail_at: int | None = None,
        kill_at: int | None = None,
        moment: Moment = "before",
        only: Callable[[str, str], bool] = lambda operation, name: True,
    ) -> None:
        self._store = store
        self._faults = parse_script(script)
        self._fail_at = fail_at
        self._kill_at = kill_at
        self._moment = moment
        self._only = only
        self._lock = threading.Lock()
        self.operations: list[tuple[str, str]] = []
        """Every counted operation as (kind, name), in order."""

    @property
    def caps(self) -> StoreCaps:
        return self._store.caps

    @property
    def url(self) -> str:
        return self._store.url

    def put(self, name: str, body: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        fault, last = self._begin("put", name)
        if last and self._moment == "during":
            self._store.put(name, _then(body, _kill), if_absent=if_absent)
        if fault.kind == "torn":
            return self._store.put(name, _then(body, _break), if_absent=if_absent)
        if fault.kind == "flip":
            body = _flipped(body, fault.position)
        info = self._store.put(name, body, if_absent=if_absent)
        self._end(fault, last)
        return info

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        fault, last = self._begin("get", name)
        chunks = self._store.get(name, offset=offset, length=length)
        if fault.kind == "flip":
            chunks = (bytes(chunk) for chunk in _flipped(chunks, fault.position - offset))
        elif fault.kind in ("short", "cut"):
            chunks = _first(chunks, fault.position)
        yield from chunks
        if fault.kind == "short":
            raise StoreUnavailable(f"connection broke: {name}")
        self._end(fault, last)

    def stat(self, name: str) -> ObjectInfo:
        fault, last = self._begin("stat", name)
        info = self._store.stat(name)
        self._end(fault, last)
        return info

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        fault, last = self._begin("list", prefix)
        yield from self._store.list(prefix, after=after)
        self._end(fault, last)

    def delete(self, names: Iterable[str]) -> None:
        kept = [*names]
        fault, last = self._begin("delete", " ".join(kept))
        self._store.delete(kept)
        self._end(fault, last)

    def close(self) -> None:
        self._store.close()

    def _begin(self, operation: str, name: str) -> tuple[Fault, bool]:
        """The fault to act out, and whether this is the operation to die in."""
        with self._lock:
            queue = self._faults[operation]
            fault = queue.popleft() if queue else OK
            counted = self._only(operation, name)
            if counted:
                self.operations.append((operation, name))
            number = len(self.operations) if counted else None
        if number is not None and number == self._fail_at:
            raise StoreUnavailable(f"scripted failure of operation {number}: {operation} {name}")
        last = number is not None and number == self._kill_at
        if last and (self._moment == "before" or (self._moment == "during" and operation != "put")):
            _kill()
        _raise(fault, f"{operation} {name}")
        return fault, last

    def _end(self, fault: Fault, last: bool) -> None:
        if last:
            _kill()
        if fault.kind == "lost":
            _break()


def _raise(fault: Fault, what: str) -> None:
    match fault.kind:
        case "fail":
            raise StoreUnavailable(f"scripted failure: {what}")
        case "denied":
            raise StoreDenied(f"scripted denial: {what}")
        case "full":
            raise NoSpace(f"scripted lack of space: {what}")
        case "missing":
            raise ObjectNotFound(f"scripted absence: {what}")
        case "ok" | "torn" | "lost" | "flip" | "short" | "cut":
            return
    raise ValueError(f"no such fault: {fault.kind}")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _break() -> None:
    raise StoreUnavailable("scripted loss of the connection")


def _then(body: Iterable[Buffer], end: Callable[[], None]) -> Iterator[Buffer]:
    """The first half of a list, or the first chunk of a stream, and then the end."""
    taken = max(1, len(body) // 2) if isinstance(body, list) else 1
    yield from islice(body, taken)
    end()


def _flipped(chunks: Iterable[Buffer], position: int) -> Iterator[Buffer]:
    for chunk in chunks:
        if 0 <= position < len(chunk):
            damaged = bytearray(chunk)
            damaged[position] ^= 1
            yield bytes(damaged)
        else:
            yield chunk
        position -= len(chunk)


def _first(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    for chunk in chunks:
        if count <= 0:
            return
        yield chunk[:count]
        count -= len(chunk)
