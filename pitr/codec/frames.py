"""One frame: compress and seal, unseal and decompress (FORMAT.md "Frame")."""

from __future__ import annotations

import hashlib
import struct
import threading
from enum import IntEnum
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pitr.codec.kdf import FRAMES, hkdf_sha256, same_digest
from pitr.codec.keyring import Keyring
from pitr.codec.layout import ObjectParams, damaged, name_field
from pitr.core.files import Buffer

PREFIX: Final = struct.Struct("<I")
SEAL_BYTES: Final = 16
MAX_INDEX_PAYLOAD: Final = 64 << 20
_INDEX_BIT: Final = 1 << 31
_AAD_MIDDLE: Final = struct.Struct("<BBQ")


class FrameKind(IntEnum):
    DATA = 1
    INDEX = 2


class _PerThread(threading.local):
    """A decompression context is made once per thread; it must not be used by two at a time."""

    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor()


_per_thread = _PerThread()


def compressor(level: int) -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)


def max_body(plain_bytes: int) -> int:
    """Most bytes behind the prefix of a frame with that much plain data (ZSTD_COMPRESSBOUND is below it)."""
    return plain_bytes + (plain_bytes >> 8) + 128 + SEAL_BYTES


def max_index_plain(frame_count: int) -> int:
    return 8 + 8 * frame_count + MAX_INDEX_PAYLOAD


def split_prefix(prefix: Buffer) -> tuple[int, FrameKind]:
    """Length of the rest of the frame, and whether it says to be the index."""
    (value,) = PREFIX.unpack(prefix)
    return value & ~_INDEX_BIT, FrameKind.INDEX if value & _INDEX_BIT else FrameKind.DATA


class FrameSealer:
    """Keys and header digest of one object. Thread-safe; a frame number is used once (the Sealer counts)."""

    __slots__ = ("_aead", "_digest", "_name", "_name_field", "header")

    def __init__(self, keyring: Keyring, name: str, params: ObjectParams) -> None:
        secret = params.secret(keyring, name)
        self._aead = None if secret is None else AESGCM(hkdf_sha256(secret, params.salt, FRAMES))
        self._name = name
        self._name_field = name_field(name)
        self.header = params.header(keyring, name)
        self._digest = hashlib.sha256(self.header).digest()

    def _aad(self, number: int, kind: FrameKind) -> bytes:
        return self._digest + _AAD_MIDDLE.pack(kind, kind is FrameKind.INDEX, number) + self._name_field

    def seal(self, number: int, kind: FrameKind, packed: bytes) -> bytes:
        """The stored frame around ``packed`` (a zstd frame)."""
        length = len(packed) + SEAL_BYTES
        prefix = PREFIX.pack(length | _INDEX_BIT if kind is FrameKind.INDEX else length)
        aad = self._aad(number, kind)
        if self._aead is None:
            return b"".join((prefix, packed, _plain_seal(aad, packed)))
        return prefix + self._aead.encrypt(_nonce(number), packed, aad)

    def unseal(self, number: int, kind: FrameKind, body: Buffer) -> Buffer:
        """The zstd frame inside ``body`` (what follows the prefix). Raises IntegrityError."""
        if len(body) <= SEAL_BYTES:
            raise damaged(self._name, "too short", frame=number)
        aad = self._aad(number, kind)
        if self._aead is not None:
            try:
                return self._aead.decrypt(_nonce(number), body, aad)
            except InvalidTag:
                raise damaged(self._name, "the authentication tag does not match", frame=number) from None
        view = memoryview(body)
        packed = view[:-SEAL_BYTES]
        if not same_digest(_plain_seal(aad, packed), bytes(view[-SEAL_BYTES:])):
            raise damaged(self._name, "the digest does not match", frame=number)
        return packed


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _plain_seal(aad: bytes, packed: Buffer) -> bytes:
    hasher = hashlib.sha256(aad)
    hasher.update(packed)
    return hasher.digest()[:SEAL_BYTES]


class FrameOpener:
    """Opens single frames of one object whose parameters are known (packs, through the map). Thread-safe.

    ``sealed`` is a whole stored frame, prefix included. Errors are IntegrityError and name object, frame and check.
    """

    __slots__ = ("_frames", "_name", "_params")

    def __init__(self, keyring: Keyring, name: str, params: ObjectParams) -> None:
        """Raises KeyUnavailable, or ManifestInvalid if params belong to an unencrypted object."""
        self._frames = FrameSealer(keyring, name, params)
        self._name = name
        self._params = params

    def open(self, number: int, sealed: Buffer) -> bytes:
        """The plain bytes of data frame ``number``."""
        return self.open_body(number, FrameKind.DATA, self._body(number, sealed), self._params.frame_size)

    def open_into(self, number: int, sealed: Buffer, out: memoryview) -> int:
        """Decompress into the beginning of ``out`` (writable); returns the number of plain bytes.

        No data reaches ``out`` before the seal was verified. Raises ValueError if ``out`` is too small.
        """
        packed = self._frames.unseal(number, FrameKind.DATA, self._body(number, sealed))
        size = self._plain_size(number, packed, self._params.frame_size)
        if size > len(out):
            raise ValueError(f"frame {number} of {self._name} has {size} bytes, the buffer {len(out)}")
        try:
            # With the whole frame given and room for all of it libzstd decompresses straight into the buffer.
            written = _per_thread.zstd.stream_reader(packed).readinto(out[:size]) if size else 0
        except zstandard.ZstdError as error:
            raise damaged(self._name, "cannot be decompressed", frame=number, detail=str(error)) from None
        if written != size:
            raise damaged(self._name, f"has {written} bytes, states {size}", frame=number)
        return size

    def open_body(self, number: int, kind: FrameKind, body: Buffer, most: int) -> bytes:
        """Plain bytes, at most ``most``, of a frame whose prefix was taken off already."""
        packed = self._frames.unseal(number, kind, body)
        size = self._plain_size(number, packed, most)
        try:
            plain = _per_thread.zstd.decompress(packed, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise damaged(self._name, "cannot be decompressed", frame=number, detail=str(error)) from None
        if len(plain) != size:
            raise damaged(self._name, f"has {len(plain)} bytes, states {size}", frame=number)
        return plain

    def _body(self, number: int, sealed: Buffer) -> memoryview:
        view = memoryview(sealed).cast("B")
        if len(view) < PREFIX.size:
            raise damaged(self._name, "too short", frame=number)
        length, kind = split_prefix(view[: PREFIX.size])
        if kind is not FrameKind.DATA or length != len(view) - PREFIX.size:
            raise damaged(self._name, "its length or kind does not match the bytes at hand", frame=number)
        return view[PREFIX.size :]

    def _plain_size(self, number: int, packed: Buffer, most: int) -> int:
        """What the zstd frame says it holds, checked before anything is allocated."""
        try:
            size = zstandard.frame_content_size(packed)
        except zstandard.ZstdError as error:
            raise damaged(self._name, "is no zstd frame", frame=number, detail=str(error)) from None
        if not 0 <= size <= most:
            raise damaged(self._name, f"states {size} plain bytes, at most {most} are allowed", frame=number)
        return size
