"""Objects and key slots of every format version stay readable; and FORMAT.md alone is enough to read them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pitr.codec import Keyring, ObjectKind, content_digest, open_whole, unwrap_slot
from tests.golden.codec import make_v1
from tests.support.codec_samples import read_by_frames

GOLDEN = Path(make_v1.__file__).parent
EXPECTED: dict[str, dict[str, str]] = json.loads((GOLDEN / "v1.json").read_text())
OBJECTS = pytest.mark.parametrize("file", sorted(EXPECTED))


def keyring_of(file: str) -> Keyring:
    return Keyring(make_v1.KEY) if "sealed" in file else Keyring.unencrypted()


def test_nothing_was_lost() -> None:
    objects = {path.name for path in GOLDEN.glob("v1-*.bin")}
    assert objects == set(EXPECTED)
    assert len(objects) == 6
    assert len(list(GOLDEN.glob("v1-slot-*.json"))) == 4


@OBJECTS
def test_objects_of_version_1(file: str) -> None:
    stored, facts, keyring = (GOLDEN / file).read_bytes(), EXPECTED[file], keyring_of(file)
    name, kind = facts["name"], ObjectKind[facts["kind"]]
    assert hashlib.sha256(stored).hexdigest() == facts["stored_sha256"]
    reader = open_whole(keyring, name, kind, [stored])
    content = b"".join(reader)
    assert hashlib.sha256(content).hexdigest() == facts["content_sha256"]
    assert reader.tail.index.hex() == facts["index"]
    assert reader.tail.content_digest.hex() == facts["content_digest"]
    if reader.tail.params.digest:
        assert content_digest(keyring, name, [content]).hex() == facts["content_digest"]
    assert read_by_frames(keyring, stored, name=name, kind=kind) == content


@pytest.mark.parametrize("method", sorted(make_v1.SECRETS))
def test_key_slots_of_version_1(method: str) -> None:
    text = (GOLDEN / f"v1-slot-{method}.json").read_bytes()
    assert unwrap_slot(text, make_v1.REPOSITORY, make_v1.SECRETS[method]) == make_v1.KEY


# The specification, read a second time: nothing of pitr.codec below.


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt or None, info).derive(secret)


def by_the_book(stored: bytes, name: str, key: bytes | None) -> tuple[bytes, bytes]:
    """Content and index payload, following FORMAT.md with asserts for its checks."""
    name_field = struct.pack("<H", len(name.encode())) + name.encode()
    header, trailer = stored[:96], stored[-160:]
    salt = header[24:56]

    def mac(info: bytes, message: bytes) -> bytes:
        if key is None:
            return hashlib.sha256(info + b"\0" + message).digest()
        return hmac.digest(hkdf(key, salt, info), message, "sha256")

    assert header[:8] == bytes.fromhex("89504954 520d0a1a")
    assert trailer[:8] == bytes.fromhex("89504954 52454e44")
    assert header[8:64] == trailer[8:64]
    assert header[64:] == mac(b"pitr/1/header", header[:64] + name_field)
    assert trailer[128:] == mac(b"pitr/1/trailer", header + trailer[:128] + name_field)
    key_id = bytes(8) if key is None else hkdf(key, b"", b"pitr/1/key-id")[:8]
    assert header[16:24] == key_id
    plain_bytes, count, index_offset, index_length = struct.unpack_from("<QQQQ", trailer, 64)
    assert index_offset + index_length + 160 == len(stored)

    place, plains = 96, []
    for number in range(count + 1):
        last = number == count
        (prefix,) = struct.unpack_from("<I", stored, place)
        length = prefix & 0x7FFFFFFF
        assert prefix >> 31 == last
        body = stored[place + 4 : place + 4 + length]
        aad = hashlib.sha256(header).digest() + struct.pack("<BBQ", 2 if last else 1, last, number) + name_field
        if key is None:
            packed = body[:-16]
            assert body[-16:] == hashlib.sha256(aad + packed).digest()[:16]
        else:
            nonce = bytes(4) + struct.pack(">Q", number)
            packed = AESGCM(hkdf(key, salt, b"pitr/1/frames")).decrypt(nonce, body, aad)
        assert zstandard.get_frame_parameters(packed).has_checksum
        plains.append(zstandard.ZstdDecompressor().decompress(packed))
        place += 4 + length
    index = plains.pop()
    assert place + 160 == len(stored)
    assert struct.unpack_from("<II", index) == (count, len(index) - 8 - 8 * count)
    assert struct.unpack_from(f"<{count}I", index, 8 + 4 * count) == tuple(map(len, plains))
    content = b"".join(plains)
    assert len(content) == plain_bytes
    digest = bytes(32)
    if header[56] & 1:
        message = name_field + content
        if key is None:
            digest = hashlib.sha256(b"pitr/1/content\0" + message).digest()
        else:
            digest = hmac.digest(hkdf(key, b"", b"pitr/1/content"), message, "sha256")
    assert trailer[96:128] == digest
    return content, index[8 + 8 * count :]


@OBJECTS
def test_the_specification_is_enough(file: str) -> None:
    facts = EXPECTED[file]
    key = make_v1.KEY.secret if "sealed" in file else None
    content, index = by_the_book((GOLDEN / file).read_bytes(), facts["name"], key)
    assert hashlib.sha256(content).hexdigest() == facts["content_sha256"]
    assert index.hex() == facts["index"]


def test_the_specification_of_slots_is_enough() -> None:
    slot = json.loads((GOLDEN / "v1-slot-key-file.json").read_text())
    salt, nonce, wrapped = (base64.b64decode(slot[member]) for member in ("salt", "nonce", "wrapped"))
    kek = hkdf(bytes.fromhex(make_v1.KEY_FILE_HEX), salt, b"pitr/1/slot/key-file")
    texts = [text.encode() for text in (make_v1.REPOSITORY, slot["slot"], slot["method"], slot["key"])]
    aad = b"pitr/1/slot" + b"".join(struct.pack("<H", len(text)) + text for text in texts)
    assert AESGCM(kek).decrypt(nonce, wrapped, aad) == make_v1.KEY.secret
