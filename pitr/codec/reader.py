"""Reading an object from its beginning to its end, as a stream."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator

from pitr.codec.frames import PREFIX, FrameKind, FrameOpener, max_body, max_index_plain, split_prefix
from pitr.codec.kdf import Hasher, content_hasher, same_digest
from pitr.codec.keyring import Keyring
from pitr.codec.layout import (
    HEADER_BYTES,
    TRAILER_BYTES,
    ObjectKind,
    ObjectParams,
    Trailer,
    damaged,
    name_field,
    parse_header,
    parse_trailer,
)
from pitr.codec.tail import ObjectTail, make_tail
from pitr.core.files import Buffer


class _Queue:
    """Takes exact amounts from chunks of any sizes; copies only what lies across chunks."""

    def __init__(self, name: str, chunks: Iterable[Buffer]) -> None:
        self._name = name
        self._chunks = iter(chunks)
        self._parts: deque[memoryview] = deque()
        self._ready = 0
        self.taken = 0

    def _fill(self, count: int) -> bool:
        while self._ready < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._parts.append(memoryview(chunk).cast("B"))
            self._ready += len(self._parts[-1])
        return True

    def take(self, count: int, what: str) -> Buffer:
        """Exactly count bytes, or IntegrityError: the object ends in the middle of ``what``."""
        if not self._fill(count):
            size = self.taken + self._ready
            raise damaged(self._name, f"it ends after {size} bytes, inside its {what} (cut off?)")
        self.taken += count
        self._ready -= count
        pieces: list[memoryview] = []
        while count:
            part = self._parts.popleft()
            if len(part) > count:
                self._parts.appendleft(part[count:])
                part = part[:count]
            pieces.append(part)
            count -= len(part)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def expect_end(self) -> None:
        if self._fill(1):
            raise damaged(self._name, f"there are bytes behind its end, from byte {self.taken} on")


class ObjectReader(Iterator[bytes]):
    """The plain data of a whole object, frame by frame; see open_whole(). ``tail`` is there after the last frame."""

    def __init__(self, keyring: Keyring, name: str, kind: ObjectKind, chunks: Iterable[Buffer]) -> None:
        self._keyring = keyring
        self._name = name
        self._queue = _Queue(name, chunks)
        self._stored_lengths = array("I")
        self._plain_lengths = array("I")
        self._plain_bytes = 0
        self._tail: ObjectTail | None = None
        self._frames = self._read(kind)

    def __next__(self) -> bytes:
        return next(self._frames)

    @property
    def tail(self) -> ObjectTail:
        if self._tail is None:
            raise RuntimeError("the object has not been read to its end")
        return self._tail

    def _read(self, kind: ObjectKind) -> Iterator[bytes]:
        name = self._name
        header = bytes(self._queue.take(HEADER_BYTES, "header"))
        params = parse_header(self._keyring, name, kind, header)
        opener = FrameOpener(self._keyring, name, params)
        content: Hasher | None = None
        if params.digest:
            content = content_hasher(params.secret(self._keyring, name), name_field(name))
        while True:
            number = len(self._plain_lengths)
            length, frame_kind = split_prefix(self._queue.take(PREFIX.size, f"frame {number}"))
            most = params.frame_size if frame_kind is FrameKind.DATA else max_index_plain(number)
            if length > max_body(most):
                raise damaged(name, f"states a length of {length} bytes, more than possible", frame=number)
            body = self._queue.take(length, f"frame {number}")
            plain = opener.open_body(number, frame_kind, body, most)
            if frame_kind is FrameKind.INDEX:
                break
            self._stored_lengths.append(PREFIX.size + length)
            self._plain_lengths.append(len(plain))
            self._plain_bytes += len(plain)
            if content is not None:
                content.update(plain)
            yield plain
        self._tail = self._finish(params, plain, PREFIX.size + length, content)

    def _finish(
        self, params: ObjectParams, index_plain: bytes, index_length: int, content: Hasher | None
    ) -> ObjectTail:
        name = self._name
        index_offset = self._queue.taken - index_length
        trailer = parse_trailer(self._keyring, name, params.kind, bytes(self._queue.take(TRAILER_BYTES, "trailer")))
        self._queue.expect_end()
        seen = Trailer(
            params, self._plain_bytes, len(self._plain_lengths), index_offset, index_length, trailer.content_digest
        )
        if trailer != seen:
            raise damaged(name, "its trailer does not fit its header and frames", detail=f"{trailer}, read {seen}")
        tail = make_tail(name, trailer, index_plain)
        if tail.stored_lengths != self._stored_lengths or tail.plain_lengths != self._plain_lengths:
            raise damaged(name, "its index frame does not fit its frames")
        if content is not None and not same_digest(content.digest(), trailer.content_digest):
            raise damaged(name, "the digest of its content does not match")
        return tail


def open_whole(keyring: Keyring, name: str, kind: ObjectKind, chunks: Iterable[Buffer]) -> ObjectReader:
    """Iterate over the plain data of an object, given its stored bytes in chunks of any sizes.

    Each piece handed out belongs to a frame already verified. That the object is whole (nothing cut, exchanged or
    appended; content digest, if it has one) is known only when the iteration ends without an error: do not act on the
    data earlier.
    A chunk must not change after it was handed over. Raises IntegrityError (ManifestInvalid for a downgrade),
    KeyUnavailable, FormatTooNew.
    """
    return ObjectReader(keyring, name, kind, chunks)


def open_bytes(keyring: Keyring, name: str, kind: ObjectKind, data: Buffer) -> bytes:
    """The plain data of a small object, all of it verified."""
    return b"".join(open_whole(keyring, name, kind, [data]))
