"""Packs: objects of frames that extents point into. Writing streams; reading takes ranges of neighbouring frames."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pitr.codec import Cipher, Compression, FrameOpener, ObjectKind, ObjectParams, Sealer
from pitr.core.errors import IntegrityError
from pitr.core.files import Buffer
from pitr.repo.maps import PackRef
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository


@dataclass(frozen=True, slots=True)
class StoredPack:
    """A pack that is in the store, with the digest of its stored bytes for SHA256SUMS."""

    ref: PackRef
    name: str
    sha256: bytes


class PackBody:
    """One pack being made. A worker iterates store.put(name, body.stream(plain frames)).

    The number of the next frame is ``frames``; it counts up when the frame was sealed.
    """

    def __init__(self, repository: Repository, names: HistoryNames, backup_id: str, number: int) -> None:
        self.number = number
        self.name = names.backup(backup_id).pack(number)
        self._backup_id = backup_id
        self._sealer = Sealer(repository.keyring, self.name, ObjectKind.PACK, level=repository.level)
        self.frames = 0

    @property
    def stored_bytes(self) -> int:
        return self._sealer.stored_bytes

    def begin(self) -> bytes:
        return self._sealer.begin()

    def frame(self, plain: Buffer) -> bytes:
        sealed = self._sealer.frame(plain)
        self.frames += 1
        return sealed

    def finish(self) -> bytes:
        return self._sealer.finish()

    def stored(self) -> StoredPack:
        sealer = self._sealer
        ref = PackRef(
            backup_id=self._backup_id,
            number=self.number,
            size_bytes=sealer.stored_bytes,
            params=sealer.params,
            stored_lengths=np.array(sealer.stored_lengths, np.uint32),
            plain_lengths=np.array(sealer.plain_lengths, np.uint32),
        )
        return StoredPack(ref, self.name, sealer.stored_sha256)


class PackNumbers:
    """Hands out pack numbers and indexes of the pack table to workers. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0

    def take(self) -> int:
        with self._lock:
            number = self._next
            self._next += 1
            return number


def pack_params(entry: dict[str, Any]) -> ObjectParams:
    """Parameters of a pack from the map's ``pack_json``."""
    return ObjectParams(
        kind=ObjectKind.PACK,
        version=int(entry["version"]),
        compression=Compression(entry["compression"]),
        cipher=Cipher(entry["cipher"]),
        frame_size=int(entry["frame_size"]),
        key_id=str(entry["key_id"]),
        salt=bytes.fromhex(entry["salt"]),
    )


class PackReader:
    """Reads frames of one referenced pack: exactly the attempt that the map names. Thread-safe."""

    def __init__(self, repository: Repository, names: HistoryNames, pack: PackRef) -> None:
        self.pack = pack
        self.name = names.backup(pack.backup_id).pack(pack.number)
        self._store = repository.store
        self._opener = FrameOpener(repository.keyring, self.name, pack.params)
        header = len(pack.params.header(repository.keyring, self.name))
        ends = np.cumsum(pack.stored_lengths, dtype=np.int64) + header
        self._offsets = np.concatenate((np.array([header], np.int64), ends))

    def frames(self, first: int, last: int) -> Iterator[tuple[int, memoryview]]:
        """(number, sealed bytes) of the frames first..last, by one ranged read. Valid until the next step."""
        start, stop = int(self._offsets[first]), int(self._offsets[last + 1])
        chunks = self._store.get(self.name, offset=start, length=stop - start)
        rest = memoryview(b"")
        for number in range(first, last + 1):
            need = int(self.pack.stored_lengths[number])
            if len(rest) >= need:
                yield number, rest[:need]
                rest = rest[need:]
                continue
            gathered = bytearray(rest)
            while len(gathered) < need:
                chunk = next(chunks, None)
                if chunk is None:
                    raise IntegrityError(f"{self.name} ends within frame {number}")
                gathered += chunk
            yield number, memoryview(gathered)[:need]
            rest = memoryview(gathered)[need:]

    def open(self, number: int, sealed: Buffer) -> bytes:
        return self._opener.open(number, sealed)

    def open_into(self, number: int, sealed: Buffer, out: memoryview) -> int:
        """Plain bytes of a frame into ``out``; returns their number. Raises IntegrityError."""
        return self._opener.open_into(number, sealed, out)
