"""Making one object: header, data frames, index frame, trailer."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator

from pitr.codec.frames import MAX_INDEX_PAYLOAD, FrameKind, FrameSealer, compressor
from pitr.codec.kdf import content_hasher
from pitr.codec.keyring import Keyring
from pitr.codec.layout import (
    DEFAULT_FRAME_SIZE,
    NO_DIGEST,
    SALT_BYTES,
    Cipher,
    ObjectKind,
    ObjectParams,
    Trailer,
    name_field,
)
from pitr.codec.tail import pack_index
from pitr.core.files import Buffer

DEFAULT_LEVEL = 3


class Sealer:
    """Makes one object: begin(), frame() any number of times, finish(); each returns bytes to be stored in that order.

    One thread, one object, one attempt: a source that must be read again needs a new Sealer (a new salt), while a
    retried upload re-sends the bytes already made. The results (attributes below) are complete after finish():

    params           what a reader must know to build the header without reading it
    stored_lengths   u32 array: length of each data frame as stored; the first begins at byte 96
    plain_lengths    u32 array: plain bytes of each data frame
    plain_bytes, stored_bytes
    stored_sha256    of everything stored (32 bytes), for SHA256SUMS
    content_digest   keyed, over name and plain content (digest=True), else 32 zero bytes
    """

    def __init__(
        self,
        keyring: Keyring,
        name: str,
        kind: ObjectKind,
        *,
        level: int = DEFAULT_LEVEL,
        frame_size: int = DEFAULT_FRAME_SIZE,
        digest: bool = False,
        salt: bytes | None = None,
    ) -> None:
        """``level`` is zstd's. ``salt`` is for golden files only: one salt must never seal two different plaintexts."""
        self.name = name
        self.params = ObjectParams(
            kind=kind,
            salt=os.urandom(SALT_BYTES) if salt is None else salt,
            key_id=keyring.current.id if keyring.sealed else "",
            cipher=Cipher.AES_256_GCM if keyring.sealed else Cipher.NONE,
            frame_size=frame_size,
            digest=digest,
        )
        self.stored_lengths = array("I")
        self.plain_lengths = array("I")
        self.plain_bytes = 0
        self.stored_bytes = 0
        self.content_digest = NO_DIGEST
        self._keyring = keyring
        self._frames = FrameSealer(keyring, name, self.params)
        self._zstd = compressor(level)
        self._stored_hash = hashlib.sha256()
        self._content = content_hasher(self.params.secret(keyring, name), name_field(name)) if digest else None
        self._begun = False
        self._finished = False

    @property
    def stored_sha256(self) -> bytes:
        return self._stored_hash.digest()

    def begin(self) -> bytes:
        if self._begun:
            raise RuntimeError("begin() was called twice")
        self._begun = True
        return self._account(self._frames.header)

    def frame(self, plain: Buffer) -> bytes:
        """Seal 1 to frame_size plain bytes as the next data frame."""
        if not self._begun or self._finished:
            raise RuntimeError("frame() outside begin() and finish()")
        size = memoryview(plain).nbytes
        if not 0 < size <= self.params.frame_size:
            raise ValueError(f"a data frame has 1 to {self.params.frame_size} bytes, not {size}")
        if self._content is not None:
            self._content.update(plain)
        stored = self._frames.seal(len(self.plain_lengths), FrameKind.DATA, self._zstd.compress(plain))
        self.plain_lengths.append(size)
        self.stored_lengths.append(len(stored))
        self.plain_bytes += size
        return self._account(stored)

    def finish(self, index: bytes = b"") -> bytes:
        """Index frame (frame table and the kind's own payload) and trailer."""
        if not self._begun or self._finished:
            raise RuntimeError("finish() must follow begin() once")
        if len(index) > MAX_INDEX_PAYLOAD:
            raise ValueError(f"an index payload has at most {MAX_INDEX_PAYLOAD} bytes")
        self._finished = True
        count = len(self.plain_lengths)
        packed = self._zstd.compress(pack_index(self.stored_lengths, self.plain_lengths, index))
        frame = self._frames.seal(count, FrameKind.INDEX, packed)
        if self._content is not None:
            self.content_digest = self._content.digest()
        trailer = Trailer(
            params=self.params,
            plain_bytes=self.plain_bytes,
            frame_count=count,
            index_offset=self.stored_bytes,
            index_length=len(frame),
            content_digest=self.content_digest,
        )
        return self._account(frame + trailer.pack(self._keyring, self.name))

    def _account(self, stored: bytes) -> bytes:
        self._stored_hash.update(stored)
        self.stored_bytes += len(stored)
        return stored


def seal_chunks(sealer: Sealer, chunks: Iterable[Buffer], index: bytes | Callable[[], bytes] = b"") -> Iterator[bytes]:
    """The whole object as a stream, from chunks of any sizes, in frames of the full frame size (the last is shorter).

    A callable ``index`` is asked when all chunks are read. A chunk is not looked at again once the next is asked for.
    """
    yield sealer.begin()
    size = sealer.params.frame_size
    pending = bytearray()
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        if pending:
            missing = size - len(pending)
            pending += view[:missing]
            view = view[missing:]
            if len(pending) == size:
                yield sealer.frame(pending)
                pending = bytearray()
        while len(view) >= size:
            yield sealer.frame(view[:size])
            view = view[size:]
        pending += view
    if pending:
        yield sealer.frame(pending)
    yield sealer.finish(index() if callable(index) else index)


def seal_bytes(
    keyring: Keyring, name: str, kind: ObjectKind, plain: Buffer, *, index: bytes = b"", digest: bool = False
) -> bytes:
    """A small object in one piece."""
    return b"".join(seal_chunks(Sealer(keyring, name, kind, digest=digest), [plain], index))


def content_digest(keyring: Keyring, name: str, chunks: Iterable[Buffer], *, key_id: str | None = None) -> bytes:
    """The digest a Sealer with digest=True gives for this content, to compare with an object that is stored already.

    ``key_id`` is that object's (``ObjectTail.params.key_id``; it may be an older data key), by default the current one.
    """
    secret: bytes | None = None
    if keyring.sealed:
        secret = (keyring.get(key_id) if key_id else keyring.current).secret
    hasher = content_hasher(secret, name_field(name))
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.digest()
