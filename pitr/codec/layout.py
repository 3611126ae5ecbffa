"""Fixed parts of an object, in bytes: parameter block, header, trailer (FORMAT.md "Object")."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from pitr.codec.kdf import DIGEST_BYTES, HEADER, TRAILER, message_mac, same_digest
from pitr.codec.keyring import Keyring
from pitr.core.errors import FormatTooNew, IntegrityError, KeyUnavailable, ManifestInvalid
from pitr.core.files import Buffer

FORMAT_VERSION: Final = 1
HEADER_MAGIC: Final = b"\x89PITR\r\n\x1a"
TRAILER_MAGIC: Final = b"\x89PITREND"
HEADER_BYTES: Final = 96
TRAILER_BYTES: Final = 160
SALT_BYTES: Final = 32
DEFAULT_FRAME_SIZE: Final = 1 << 20
MAX_FRAME_SIZE: Final = 1 << 24
MAX_NAME_BYTES: Final = 0xFFFF
NO_DIGEST: Final = bytes(DIGEST_BYTES)

_BLOCK: Final = struct.Struct("<8sBBBBI8s32sB7s")
_TOTALS: Final = struct.Struct("<QQQQ32s")
_HAS_DIGEST: Final = 1
_NO_KEY: Final = bytes(8)


class ObjectKind(IntEnum):
    """What an object is. Its byte is part of the format: numbers are never reused."""

    IDENTITY = 1
    MANIFEST = 2
    MAP = 3
    PACK = 4
    WAL = 5
    DUMP = 6
    TABLE = 7
    MARK = 8
    PIN = 9
    GLOBALS = 10
    DDL = 11
    DUMP_INDEX = 12
    REPORT = 13
    RELATIONS = 14


class Compression(IntEnum):
    ZSTD = 1


class Cipher(IntEnum):
    NONE = 0
    AES_256_GCM = 1


def damaged(name: str, what: str, *, frame: int | None = None, detail: str | None = None) -> IntegrityError:
    where = f"object {name}" if frame is None else f"object {name}, frame {frame}"
    return IntegrityError(
        f"{where}: {what}",
        detail=detail,
        hint="the object was changed or damaged in the store; take it from a copy, or restore from another backup",
    )


def name_field(name: str) -> bytes:
    """NAME of the specification: u16 length and UTF-8 bytes."""
    encoded = name.encode()
    if not 0 < len(encoded) <= MAX_NAME_BYTES:
        raise ValueError(f"an object name has 1 to {MAX_NAME_BYTES} bytes")
    return struct.pack("<H", len(encoded)) + encoded


@dataclass(frozen=True, slots=True)
class ObjectParams:
    """What the header says. ``key_id``: 16 hex digits, or empty in an unencrypted repository; ``salt``: 32 bytes."""

    kind: ObjectKind
    salt: bytes
    key_id: str
    cipher: Cipher
    compression: Compression = Compression.ZSTD
    frame_size: int = DEFAULT_FRAME_SIZE
    digest: bool = False
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not 1 <= self.frame_size <= MAX_FRAME_SIZE:
            raise ValueError(f"frame size {self.frame_size} is not from 1 to {MAX_FRAME_SIZE}")
        if len(self.salt) != SALT_BYTES:
            raise ValueError(f"a salt has {SALT_BYTES} bytes")
        if len(self.key_id) != (16 if self.cipher else 0):
            raise ValueError("a key id has 16 hex digits, and there is one if and only if there is a cipher")

    def header(self, keyring: Keyring, name: str) -> bytes:
        """The 96 header bytes, MAC included; deterministic, so whoever knows the parameters need not read them."""
        block = self.block(HEADER_MAGIC)
        mac = message_mac(self.secret(keyring, name), self.salt, HEADER, block + name_field(name))
        return block + mac

    def block(self, magic: bytes) -> bytes:
        key_id = bytes.fromhex(self.key_id) or _NO_KEY
        flags = _HAS_DIGEST if self.digest else 0
        head = (magic, self.version, self.kind, self.compression, self.cipher)
        return _BLOCK.pack(*head, self.frame_size, key_id, self.salt, flags, b"")

    def secret(self, keyring: Keyring, name: str) -> bytes | None:
        """The data key's bytes, None in an unencrypted repository. Refuses a mixture of the two."""
        if self.cipher is Cipher.NONE:
            if keyring.sealed:
                raise ManifestInvalid(
                    f"object {name} is not encrypted, but this repository is (downgrade refused)",
                    hint="it was replaced, or the key belongs to another repository",
                )
            return None
        try:
            return keyring.get(self.key_id).secret
        except KeyUnavailable as error:
            raise KeyUnavailable(f"object {name}: {error.message}", detail=error.detail, hint=error.hint) from None


def parse_block(data: Buffer, magic: bytes, name: str) -> ObjectParams:
    """Parameters from the first 64 bytes of a header or trailer. Says nothing of their authenticity."""
    part = "header" if magic == HEADER_MAGIC else "trailer"
    found, version, kind, compression, cipher, frame_size, key_id, salt, flags, reserved = _BLOCK.unpack_from(data)
    if found != magic:
        raise damaged(name, f"its {part} does not begin with pitr's magic")
    if version > FORMAT_VERSION:
        raise FormatTooNew(
            f"object {name} has format version {version}, this program reads up to {FORMAT_VERSION}",
            hint="use the version of pitr that wrote it, or a newer one",
        )
    try:
        if version < 1 or flags & ~_HAS_DIGEST or any(reserved):
            raise ValueError("unknown version, flags or reserved bytes")
        cipher = Cipher(cipher)
        if cipher is Cipher.NONE and key_id != _NO_KEY:
            raise ValueError("a key id without a cipher")
        return ObjectParams(
            kind=ObjectKind(kind),
            salt=salt,
            key_id=key_id.hex() if cipher else "",
            cipher=cipher,
            compression=Compression(compression),
            frame_size=frame_size,
            digest=bool(flags & _HAS_DIGEST),
            version=version,
        )
    except ValueError as error:
        raise damaged(name, f"its {part} is damaged", detail=str(error)) from None


def expect_kind(params: ObjectParams, kind: ObjectKind, name: str) -> None:
    if params.kind is not kind:
        raise damaged(name, f"it is of kind {params.kind.name}, {kind.name} was expected")


def parse_header(keyring: Keyring, name: str, kind: ObjectKind, header: bytes) -> ObjectParams:
    """Parameters from 96 header bytes whose MAC fits. Raises IntegrityError, KeyUnavailable, FormatTooNew."""
    params = parse_block(header, HEADER_MAGIC, name)
    if not same_digest(params.header(keyring, name), header):
        raise damaged(name, "the MAC of its header does not match (altered, renamed or exchanged)")
    expect_kind(params, kind, name)
    return params


class Trailer(NamedTuple):
    params: ObjectParams
    plain_bytes: int
    frame_count: int
    index_offset: int
    index_length: int
    content_digest: bytes

    def pack(self, keyring: Keyring, name: str) -> bytes:
        body = self.params.block(TRAILER_MAGIC) + _TOTALS.pack(
            self.plain_bytes, self.frame_count, self.index_offset, self.index_length, self.content_digest
        )
        return body + _trailer_mac(keyring, name, self.params, body)


def _trailer_mac(keyring: Keyring, name: str, params: ObjectParams, body: bytes) -> bytes:
    message = params.header(keyring, name) + body + name_field(name)
    return message_mac(params.secret(keyring, name), params.salt, TRAILER, message)


def parse_trailer(keyring: Keyring, name: str, kind: ObjectKind, trailer: bytes) -> Trailer:
    """From the last 160 bytes; its MAC fits. Raises IntegrityError, KeyUnavailable, FormatTooNew."""
    params = parse_block(trailer, TRAILER_MAGIC, name)
    body = trailer[: TRAILER_BYTES - DIGEST_BYTES]
    if not same_digest(_trailer_mac(keyring, name, params, body), trailer[TRAILER_BYTES - DIGEST_BYTES :]):
        raise damaged(name, "the MAC of its trailer does not match (altered, renamed or exchanged)")
    expect_kind(params, kind, name)
    return Trailer(params, *_TOTALS.unpack_from(trailer, _BLOCK.size))
