"""The end of an object: frame table, index payload and trailer, from one ranged read."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from pitr.codec.frames import PREFIX, FrameKind, FrameOpener, max_body, max_index_plain, split_prefix
from pitr.codec.keyring import Keyring
from pitr.codec.layout import HEADER_BYTES, TRAILER_BYTES, ObjectKind, ObjectParams, Trailer, damaged, parse_trailer
from pitr.core.files import Buffer

TAIL_BYTES: Final = 64 << 10
"""What to read from the end of an object: it nearly always holds the index frame as well."""

_COUNTS: Final = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class ObjectTail:
    """What an object says about itself, all of it verified. ``content_digest`` is 32 zero bytes if there is none."""

    params: ObjectParams
    stored_lengths: array[int]
    plain_lengths: array[int]
    index: bytes
    content_digest: bytes
    plain_bytes: int
    stored_bytes: int

    @property
    def frame_offsets(self) -> array[int]:
        """u64, one more than there are frames: where each begins in the object, and where the last one ends."""
        return array("Q", accumulate(self.stored_lengths, initial=HEADER_BYTES))

    @property
    def plain_offsets(self) -> array[int]:
        """u64, one more than there are frames: where the plain data of each begins, and the total."""
        return array("Q", accumulate(self.plain_lengths, initial=0))


class NeedMore(NamedTuple):
    """The index frame begins before the bytes given: call again with everything from ``offset`` to the end."""

    offset: int


def pack_index(stored_lengths: array[int], plain_lengths: array[int], payload: bytes) -> bytes:
    counts = _COUNTS.pack(len(stored_lengths), len(payload))
    return b"".join((counts, _little_endian(stored_lengths), _little_endian(plain_lengths), payload))


def _little_endian(lengths: array[int]) -> bytes:
    if sys.byteorder == "big":
        lengths = lengths[:]
        lengths.byteswap()
    return lengths.tobytes()


def _lengths(data: bytes) -> array[int]:
    lengths = array("I", data)
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths


def make_tail(name: str, trailer: Trailer, index_plain: bytes) -> ObjectTail:
    """Check the opened index frame against the trailer. Raises IntegrityError."""
    count = trailer.frame_count
    table = _COUNTS.size
    middle, end = table + 4 * count, table + 8 * count
    if len(index_plain) < end or _COUNTS.unpack_from(index_plain) != (count, len(index_plain) - end):
        raise damaged(name, "its index frame does not fit its trailer")
    tail = ObjectTail(
        params=trailer.params,
        stored_lengths=_lengths(index_plain[table:middle]),
        plain_lengths=_lengths(index_plain[middle:end]),
        index=index_plain[end:],
        content_digest=trailer.content_digest,
        plain_bytes=trailer.plain_bytes,
        stored_bytes=trailer.index_offset + trailer.index_length + TRAILER_BYTES,
    )
    if HEADER_BYTES + sum(tail.stored_lengths) != trailer.index_offset or sum(tail.plain_lengths) != tail.plain_bytes:
        raise damaged(name, "the lengths in its index frame do not add up to those in its trailer")
    return tail


def read_tail(keyring: Keyring, name: str, size_bytes: int, tail: Buffer, kind: ObjectKind) -> ObjectTail | NeedMore:
    """Verify trailer and index frame, given the object's size and its last bytes (min(size, TAIL_BYTES) or more).

    Says nothing about the data frames; each is verified when it is opened. Raises IntegrityError, KeyUnavailable,
    FormatTooNew.
    """
    view = memoryview(tail).cast("B")
    if size_bytes < HEADER_BYTES + TRAILER_BYTES or not TRAILER_BYTES <= len(view) <= size_bytes:
        raise damaged(name, f"{size_bytes} bytes, or {len(view)} at its end, are too few for an object (cut off?)")
    trailer = parse_trailer(keyring, name, kind, bytes(view[-TRAILER_BYTES:]))
    length = trailer.index_length
    if trailer.index_offset + length + TRAILER_BYTES != size_bytes:
        raise damaged(name, f"its size is {size_bytes} bytes, its trailer belongs to an object of another size")
    given_from = size_bytes - len(view)
    if trailer.index_offset < given_from:
        return NeedMore(trailer.index_offset)
    start = trailer.index_offset - given_from
    frame = view[start : start + length]
    opener = FrameOpener(keyring, name, trailer.params)
    body = check_index_prefix(name, trailer.frame_count, frame)
    plain = opener.open_body(trailer.frame_count, FrameKind.INDEX, body, max_index_plain(trailer.frame_count))
    return make_tail(name, trailer, plain)


def check_index_prefix(name: str, number: int, frame: memoryview) -> memoryview:
    if len(frame) >= PREFIX.size:
        length, frame_kind = split_prefix(frame[: PREFIX.size])
        if frame_kind is FrameKind.INDEX and length == len(frame) - PREFIX.size <= max_body(max_index_plain(number)):
            return frame[PREFIX.size :]
    raise damaged(name, "the length or kind of the index frame does not match the bytes at hand", frame=number)


def fetch_tail(
    keyring: Keyring, name: str, size_bytes: int, fetch: Callable[[int], Buffer], kind: ObjectKind
) -> ObjectTail:
    """read_tail() with the reading done by ``fetch(offset)``, which returns the bytes from offset to the end."""
    answer = read_tail(keyring, name, size_bytes, fetch(max(0, size_bytes - TAIL_BYTES)), kind)
    if isinstance(answer, NeedMore):
        answer = read_tail(keyring, name, size_bytes, fetch(answer.offset), kind)
    if isinstance(answer, NeedMore):
        raise damaged(name, "fewer bytes were read than asked for")
    return answer
