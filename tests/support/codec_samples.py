"""Fixed keys and small objects for tests of the codec."""

from __future__ import annotations

import random
from collections.abc import Iterable

from pitr.codec import DataKey, FrameOpener, Keyring, ObjectKind, ObjectTail, Sealer, open_whole, read_tail

NAME = "main/7301/base/20261123T041500Z-3fa2/pack/000001"
OTHER_NAME = "main/7301/base/20261123T041500Z-3fa2/pack/000002"
SEALED = Keyring(DataKey(bytes(range(32))))
PLAIN = Keyring.unencrypted()


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


def seal_frames(
    keyring: Keyring,
    frames: Iterable[bytes],
    *,
    name: str = NAME,
    kind: ObjectKind = ObjectKind.PACK,
    index: bytes = b"",
    digest: bool = False,
    frame_size: int = 1 << 20,
) -> tuple[Sealer, list[bytes]]:
    """A finished Sealer and the stored parts: header, each frame, index frame with trailer."""
    sealer = Sealer(keyring, name, kind, frame_size=frame_size, digest=digest)
    parts = [sealer.begin(), *(sealer.frame(frame) for frame in frames)]
    parts.append(sealer.finish(index))
    return sealer, parts


def read_whole(keyring: Keyring, data: bytes, *, name: str = NAME, kind: ObjectKind = ObjectKind.PACK) -> bytes:
    return b"".join(open_whole(keyring, name, kind, [data]))


def tail_of(keyring: Keyring, data: bytes, *, name: str = NAME, kind: ObjectKind = ObjectKind.PACK) -> ObjectTail:
    """With all bytes at hand read_tail never asks for more."""
    tail = read_tail(keyring, name, len(data), data, kind)
    assert isinstance(tail, ObjectTail)
    return tail


def read_by_frames(keyring: Keyring, data: bytes, *, name: str = NAME, kind: ObjectKind = ObjectKind.PACK) -> bytes:
    """As a lazy reader does it: tail first, then each frame alone."""
    tail = tail_of(keyring, data, name=name, kind=kind)
    opener = FrameOpener(keyring, name, tail.params)
    offsets = tail.frame_offsets
    out = bytearray()
    for number, length in enumerate(tail.stored_lengths):
        out += opener.open(number, data[offsets[number] : offsets[number] + length])
    return bytes(out)
