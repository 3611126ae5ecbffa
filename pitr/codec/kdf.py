"""HKDF and keyed digests (FORMAT.md "Keys, MACs, digests"), from the standard library alone."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Protocol

from pitr.core.files import Buffer

FRAMES: Final = b"pitr/1/frames"
HEADER: Final = b"pitr/1/header"
TRAILER: Final = b"pitr/1/trailer"
CONTENT: Final = b"pitr/1/content"
KEY_ID: Final = b"pitr/1/key-id"
SLOT: Final = b"pitr/1/slot"

DIGEST_BYTES: Final = 32


class Hasher(Protocol):
    """What hashlib and hmac objects have in common."""

    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869, 32 bytes: with SHA-256 that is a single block of the expand step."""
    extracted = hmac.digest(salt or bytes(DIGEST_BYTES), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def message_mac(secret: bytes | None, salt: bytes, info: bytes, message: bytes) -> bytes:
    """32 bytes that vouch for a message; without a secret (unencrypted repository) a plain, labelled SHA-256."""
    if secret is None:
        return hashlib.sha256(info + b"\x00" + message).digest()
    return hmac.digest(hkdf_sha256(secret, salt, info), message, "sha256")


def content_hasher(secret: bytes | None, name_field: bytes) -> Hasher:
    """To be fed with the plain content. Independent of the salt: equal name, key and content give an equal digest."""
    hasher: Hasher
    if secret is None:
        hasher = hashlib.sha256(CONTENT + b"\x00")
    else:
        hasher = hmac.new(hkdf_sha256(secret, b"", CONTENT), digestmod="sha256")
    hasher.update(name_field)
    return hasher


def same_digest(left: bytes, right: bytes) -> bool:
    return hmac.compare_digest(left, right)
