"""Sealed objects in a store: the meeting of codec (bytes to bytes) and store (names to bytes)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pitr.codec import (
    FrameOpener,
    Keyring,
    ObjectKind,
    ObjectParams,
    ObjectTail,
    Sealer,
    fetch_tail,
    open_whole,
    seal_chunks,
)
from pitr.core.errors import IntegrityError
from pitr.core.files import Buffer
from pitr.store.base import ObjectStore

DOCUMENT_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A sealed object of a backup: the attempt with this salt and this stored digest, no other."""

    name: str
    salt: bytes
    size_bytes: int
    sha256: bytes


class Written(NamedTuple):
    """What was stored: enough to refer to exactly this attempt later."""

    ref: ObjectRef
    plain_bytes: int
    content_digest: bytes


def put_sealed(
    store: ObjectStore,
    keyring: Keyring,
    name: str,
    kind: ObjectKind,
    chunks: Iterable[Buffer],
    *,
    if_absent: bool = True,
    level: int = 3,
) -> Written:
    """Stream chunks into one sealed object. Raises ObjectExists when if_absent and it is there."""
    sealer = Sealer(keyring, name, kind, level=level)
    store.put(name, seal_chunks(sealer, chunks), if_absent=if_absent)
    return written(sealer, name)


def put_document(store: ObjectStore, keyring: Keyring, name: str, kind: ObjectKind, data: bytes) -> Written:
    """Put a small document, only if absent, from a replayable body (so a retry sends identical bytes)."""
    sealer = Sealer(keyring, name, kind)
    body = list(seal_chunks(sealer, [data]))
    store.put(name, body, if_absent=True)
    return written(sealer, name)


def written(sealer: Sealer, name: str) -> Written:
    ref = ObjectRef(name, sealer.params.salt, sealer.stored_bytes, sealer.stored_sha256)
    return Written(ref, sealer.plain_bytes, sealer.content_digest)


def read_document(store: ObjectStore, keyring: Keyring, name: str, kind: ObjectKind) -> bytes:
    """The whole plain content of a small object, verified. Raises ObjectNotFound, IntegrityError, KeyUnavailable."""
    parts: list[bytes] = []
    size = 0
    for chunk in open_whole(keyring, name, kind, store.get(name)):
        size += len(chunk)
        if size > DOCUMENT_LIMIT:
            raise IntegrityError(f"{name} is larger than a document may be")
        parts.append(bytes(chunk))
    return b"".join(parts)


class SealedObject:
    """Random access to one sealed object: its index payload and single frames by ranged reads. Thread-safe."""

    def __init__(self, store: ObjectStore, keyring: Keyring, name: str, tail: ObjectTail) -> None:
        self._store = store
        self.name = name
        self.tail = tail
        self._offsets = tail.frame_offsets
        self._opener = FrameOpener(keyring, name, tail.params)

    @property
    def params(self) -> ObjectParams:
        return self.tail.params

    def frame(self, number: int) -> bytes:
        offset = self._offsets[number]
        length = self._offsets[number + 1] - offset
        return self._opener.open(number, b"".join(self._store.get(self.name, offset=offset, length=length)))

    def plain(self, offset: int, length: int) -> bytes:
        """A range of the plain content of a stream object (all frames full but the last)."""
        size = self.tail.params.frame_size
        first, last = offset // size, (offset + max(length, 1) - 1) // size
        data = b"".join(self.frame(number) for number in range(first, last + 1))
        start = offset - first * size
        if len(data) < start + length:
            raise IntegrityError(f"{self.name} ends before plain byte {offset + length}")
        return data[start : start + length]


def open_sealed(
    store: ObjectStore, keyring: Keyring, name: str, kind: ObjectKind, *, size_bytes: int | None = None
) -> SealedObject:
    """Read trailer and index, in one request when the size is known from a listing and the index fits into 64 KiB."""
    size = store.stat(name).size_bytes if size_bytes is None else size_bytes

    def fetch(offset: int) -> bytes:
        return b"".join(store.get(name, offset=offset, length=size - offset))

    return SealedObject(store, keyring, name, fetch_tail(keyring, name, size, fetch, kind))


def read_referenced(store: ObjectStore, keyring: Keyring, ref: ObjectRef, kind: ObjectKind) -> Iterator[bytes]:
    """Plain content of the very attempt that ``ref`` names; another attempt of the same name is refused."""

    def checked() -> Iterator[bytes]:
        first = True
        for chunk in store.get(ref.name):
            if first and ref.salt not in chunk[:512]:
                raise IntegrityError(f"{ref.name} is not the object that its backup refers to", detail="other salt")
            first = False
            yield chunk

    size = store.stat(ref.name).size_bytes
    if size != ref.size_bytes:
        raise IntegrityError(
            f"{ref.name} is not the object that its backup refers to",
            detail=f"{size} bytes instead of {ref.size_bytes}",
        )
    return open_whole(keyring, ref.name, kind, checked())
