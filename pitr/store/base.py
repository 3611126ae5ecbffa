"""The contract of an object store. Drivers: posix, s3, memory. Wrappers: retrying, throttled, read-only, counting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from pitr.core.files import Buffer


@dataclass(frozen=True, slots=True)
class StoreCaps:
    """What a store can do; callers ask this, never the driver's name.

    if_absent     put(if_absent=True) is atomic against other writers (as far as the driver knows; see probe_if_absent)
    can_delete    deletion is possible at all (False for a read-only wrapper)
    local_path    objects are files of this machine (posix)
    """

    if_absent: bool = True
    can_delete: bool = True
    local_path: bool = False


class ObjectInfo(NamedTuple):
    """``modified`` is by the store's own clock (never this host's), aware UTC."""

    name: str
    size_bytes: int
    modified: datetime


class ObjectStore(Protocol):
    """Named immutable blobs. Thread-safe.

    Names are ``/``-separated ASCII segments of ``[A-Za-z0-9._+=-]``, no empty, ``.`` or ``..``
    segment, at most 900 bytes.
    put() is atomic and durable when it returns: a name is absent or complete, whatever fails, the body itself included
    (an exception raised by iterating ``body`` aborts the upload and is re-raised as it is).
    Errors are StoreError subclasses with ``transient`` set by the driver; nothing here retries but uploads of what a
    caller cannot give again (parts, bodies that come once), the rest of a broken ranged read (litestream's resumable
    reader) and the later pages of a listing.
    """

    @property
    def caps(self) -> StoreCaps: ...

    @property
    def url(self) -> str:
        """For messages; holds no secret."""
        ...

    def put(self, name: str, body: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        """Store an object. With if_absent, an existing one raises ObjectExists and is left as it is; it is durable.

        ``body`` may be a generator (streamed once) or a list of buffers (re-iterable, so a wrapper may retry it).
        Buffers may be reused by the caller after the next() call that follows, so a driver that keeps one copies it.
        """
        ...

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from offset on, in chunks of the driver's choice. A short read raises; reading behind the end
        raises IntegrityError; a missing object raises ObjectNotFound on the first next() at the latest."""
        ...

    def stat(self, name: str) -> ObjectInfo:
        """Raises ObjectNotFound."""
        ...

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose name starts with prefix and sorts behind ``after``, in byte order of the names, lazily."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Remove; a missing one is fine. Raises after trying all, naming the first refusal."""
        ...

    def close(self) -> None:
        """Release connections. Idempotent."""
        ...
