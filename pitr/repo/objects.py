"""Sealed objects in a store: the meeting of codec (bytes to bytes) and store (names to bytes)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pitr.codec import (
    FrameOpener,
    Keyring,
    ObjectKind,
    ObjectParams,
    ObjectTail,
    Sealer,
    open_whole,
    read_tail,
    seal_chunks,
)
from pitr.core.errors import IntegrityError
from pitr.core.files import Buffer
from pitr.repo.manifest import ObjectRef
from pitr.store.base import ObjectStore

TAIL_BYTES = 64 * 1024
DOCUMENT_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Written:
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
        self._opener = FrameOpener(keyring, name, tail.params)

    @property
    def params(self) -> ObjectParams:
        return self.tail.params

    def frame(self, number: int) -> bytes:
        offset, length = self.tail.frame_range(number)
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
    start = max(0, size - TAIL_BYTES)
    data = b"".join(store.get(name, offset=start, length=size - start))
    result = read_tail(keyring, name, size, data, kind)
    if isinstance(result, int):  # the index frame begins at this offset, before what was read
        data = b"".join(store.get(name, offset=result, length=size - result))
        result = read_tail(keyring, name, size, data, kind)
        if isinstance(result, int):
            raise IntegrityError(f"{name}: the index does not hold together")
    return SealedObject(store, keyring, name, result)


def read_referenced(
    store: ObjectStore, keyring: Keyring, ref: ObjectRef, kind: ObjectKind
) -> Iterator[bytes]:
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
            f"{ref.name} is not the object that its backup refers to", detail=f"{size} bytes instead of {ref.size_bytes}"
        )
    return open_whole(keyring, ref.name, kind, checked())
