"""Key slots: the data key wrapped by something only its owner has (FORMAT.md "Key slots").

This module makes and reads the JSON text of ``keys/<slot-id>.json``; storing it is the caller's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import struct
import unicodedata
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pitr.codec.kdf import SLOT, hkdf_sha256
from pitr.codec.keyring import DATA_KEY_BYTES, DataKey
from pitr.codec.keysecrets import KeyCommand, KeyFile, KeySecret, Passphrase, RecoveryKey
from pitr.codec.recovery import parse_recovery_key
from pitr.core.errors import (
    ConfigError,
    FormatTooNew,
    IntegrityError,
    KeyUnavailable,
    PitrError,
    ToolFailed,
)

DEFAULT_SCRYPT_N: Final = 1 << 17
MAX_SLOT_BYTES: Final = 64 << 10
COMMAND_TIMEOUT_S: Final = 60.0
_SLOT_FORMAT: Final = 1
_NONCE_BYTES: Final = 12
_MAX_BLOB: Final = 32 << 10
_WRAPPED_BYTES: Final = DATA_KEY_BYTES + 16
_METHODS: Final = ("key-file", "passphrase", "command", "recovery")


class OtherMethod(KeyUnavailable):
    """The slot is for another kind of secret than the one at hand."""


class Scrypt(NamedTuple):
    n: int = DEFAULT_SCRYPT_N
    r: int = 8
    p: int = 1

    @property
    def memory_bytes(self) -> int:
        return 128 * self.n * self.r

    def acceptable(self) -> bool:
        """Bounds for what a stored slot may ask of this machine."""
        if not (1 << 10 <= self.n <= 1 << 20 and 1 <= self.r <= 16 and 1 <= self.p <= 16):
            return False
        if self.n & (self.n - 1) or self.n >= 1 << 16 * self.r:  # RFC 7914, section 6
            return False
        return self.memory_bytes <= 512 << 20 and self.n * self.r * self.p <= 8 * (DEFAULT_SCRYPT_N * 8)

    def derive(self, passphrase: str, salt: bytes) -> bytes:
        text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")
        memory = self.memory_bytes + 128 * self.r * (self.p + 2) + (1 << 20)
        return hashlib.scrypt(text, salt=salt, n=self.n, r=self.r, p=self.p, maxmem=memory, dklen=32)


class KeySlot(NamedTuple):
    """One slot as stored. ``method`` is key-file, passphrase, command or recovery; nothing in it is secret."""

    slot_id: str
    key_id: str
    method: str
    salt: bytes
    nonce: bytes
    wrapped: bytes
    scrypt: Scrypt | None = None
    blob: str | None = None

    def aad(self, repository_id: str) -> bytes:
        fields = (text.encode() for text in (repository_id, self.slot_id, self.method, self.key_id))
        return SLOT + b"".join(struct.pack("<H", len(part)) + part for part in fields)

    def to_json(self) -> bytes:
        document: dict[str, object] = {
            "format": _SLOT_FORMAT,
            "slot": self.slot_id,
            "key": self.key_id,
            "method": self.method,
        }
        if self.scrypt is not None:
            document["kdf"] = {"name": "scrypt", "n": self.scrypt.n, "r": self.scrypt.r, "p": self.scrypt.p}
        if self.blob is not None:
            document["blob"] = self.blob
        for name, value in (("salt", self.salt), ("nonce", self.nonce), ("wrapped", self.wrapped)):
            document[name] = base64.b64encode(value).decode()
        return json.dumps(document, indent=1).encode() + b"\n"


def new_data_key() -> DataKey:
    return DataKey(os.urandom(DATA_KEY_BYTES))


def wrap_slot(
    data_key: DataKey, repository_id: str, secret: KeySecret, *, scrypt_n: int = DEFAULT_SCRYPT_N
) -> tuple[str, bytes]:
    """A new slot that ``secret`` opens: its id and the text of keys/<id>.json.

    ``scrypt_n`` (passphrase only): opening takes 1 KiB of memory times n. A command is tried both ways before the slot
    is handed out. Raises ConfigError (empty passphrase, malformed key), KeyUnavailable (key file), ToolMissing,
    ToolFailed.
    """
    slot_id, salt = os.urandom(8).hex(), os.urandom(32)
    scrypt, blob = None, None
    if isinstance(secret, Passphrase):
        scrypt = Scrypt(scrypt_n)
        if not scrypt.acceptable():
            raise ValueError(f"scrypt n={scrypt_n} is outside what a reader accepts")
    if isinstance(secret, KeyCommand):
        material = os.urandom(32)
        blob = _wrap_by_command(secret, material, repository_id, slot_id)
    else:
        material = _secret_material(secret, salt, scrypt)
    nonce = os.urandom(_NONCE_BYTES)
    slot = KeySlot(slot_id, data_key.id, secret.method, salt, nonce, b"", scrypt, blob)
    kek = _key_encryption_key(slot, material)
    wrapped = AESGCM(kek).encrypt(nonce, data_key.secret, slot.aad(repository_id))
    return slot_id, KeySlot(slot_id, data_key.id, secret.method, salt, nonce, wrapped, scrypt, blob).to_json()


def unwrap_slot(json_bytes: bytes, repository_id: str, secret: KeySecret) -> DataKey:
    """Raises KeyUnavailable (the secret does not fit, cannot be read, or the slot belongs to another repository),
    ConfigError (malformed secret), IntegrityError (damaged slot), FormatTooNew."""
    slot = parse_slot(json_bytes)
    if slot.method != secret.method:
        raise OtherMethod(
            f"key slot {slot.slot_id} opens by {slot.method}, a secret for {secret.method} was given",
            hint="configure what the repository was made with: key_file, passphrase, key_command or recovery_key",
        )
    if isinstance(secret, KeyCommand):
        material = _unwrap_by_command(secret, slot.blob or "", repository_id, slot.slot_id)
    else:
        material = _secret_material(secret, slot.salt, slot.scrypt)
    try:
        plain = AESGCM(_key_encryption_key(slot, material)).decrypt(slot.nonce, slot.wrapped, slot.aad(repository_id))
    except InvalidTag:
        raise KeyUnavailable(
            f"{secret.shown} does not open key slot {slot.slot_id}",
            detail="another secret, another repository, or a damaged slot",
            hint='the recovery key that "pitr init" printed opens the repository too: set recovery_key_file instead',
        ) from None
    key = DataKey(plain)
    if key.id != slot.key_id:
        raise _damaged_slot("the key inside is not the one it names", slot.slot_id)
    return key


def _key_encryption_key(slot: KeySlot, material: bytes) -> bytes:
    return hkdf_sha256(material, slot.salt, SLOT + b"/" + slot.method.encode())


def _secret_material(secret: KeyFile | Passphrase | RecoveryKey, salt: bytes, scrypt: Scrypt | None) -> bytes:
    match secret:
        case KeyFile():
            return secret.read()
        case RecoveryKey():
            return parse_recovery_key(secret.key.reveal())
        case Passphrase():
            text = secret.passphrase.reveal()
            if not text:
                raise ConfigError("the passphrase is empty", hint="check passphrase_file or the passphrase's variable")
            return (scrypt or Scrypt()).derive(text, salt)


def _wrap_by_command(secret: KeyCommand, material: bytes, repository_id: str, slot_id: str) -> str:
    output = _run_command(secret, "wrap", base64.b64encode(material), repository_id, slot_id)
    blob = "".join(output.decode("ascii", "replace").split())
    if not 0 < len(blob) <= _MAX_BLOB or _from_base64(blob) is None:
        raise ToolFailed(
            f"{secret.shown} printed no base64 of at most {_MAX_BLOB} characters for wrap",
            hint="the command is run as `CMD wrap` and `CMD unwrap`, base64 in on standard input, base64 out",
        )
    if _unwrap_by_command(secret, blob, repository_id, slot_id) != material:
        raise ToolFailed(
            f"{secret.shown} does not unwrap what it wrapped", hint="try the command by hand, wrap and unwrap"
        )
    return blob


def _unwrap_by_command(secret: KeyCommand, blob: str, repository_id: str, slot_id: str) -> bytes:
    try:
        output = _run_command(secret, "unwrap", blob.encode(), repository_id, slot_id)
    except ConfigError:
        raise
    except PitrError as error:
        raise KeyUnavailable(
            f"{secret.shown} did not unwrap key slot {slot_id}: {error.message}",
            detail=error.detail,
            hint="run the command by hand with `unwrap`; recovery_key opens the repository too",
        ) from error
    material = _from_base64("".join(output.decode("ascii", "replace").split()))
    if material is None or len(material) != 32:
        raise KeyUnavailable(
            f"{secret.shown} did not print 32 bytes in base64 for unwrap of key slot {slot_id}",
            hint="the command is run as `CMD unwrap`, the blob in base64 on standard input",
        )
    return material


def _run_command(secret: KeyCommand, verb: str, stdin: bytes, repository_id: str, slot_id: str) -> bytes:
    import shlex  # these two load subprocess, which `pitr wal push` has no time for

    from pitr.core.processes import run_tool

    try:
        argv = shlex.split(secret.command)
    except ValueError as error:
        raise ConfigError("key_command cannot be split into words", detail=str(error)) from None
    if not argv:
        raise ConfigError("key_command is empty")
    env = {"PITR_REPOSITORY_ID": repository_id, "PITR_SLOT_ID": slot_id}
    return run_tool([*argv, verb], stdin=stdin, env=env, timeout_s=COMMAND_TIMEOUT_S).stdout


def parse_slot(json_bytes: bytes) -> KeySlot:
    """Read and bound a slot without opening it. Raises IntegrityError, FormatTooNew."""
    if len(json_bytes) > MAX_SLOT_BYTES:
        raise _damaged_slot(f"more than {MAX_SLOT_BYTES} bytes")
    try:
        document = json.loads(json_bytes)
    except (ValueError, RecursionError):
        raise _damaged_slot("it is not JSON") from None
    if not isinstance(document, dict):
        raise _damaged_slot("it is not a JSON object")
    version = document.get("format")
    if not isinstance(version, int) or version < 1:
        raise _damaged_slot("it has no format number")
    method = document.get("method")
    if version > _SLOT_FORMAT or (isinstance(method, str) and method not in _METHODS):
        raise FormatTooNew(
            f"a key slot of format {version} and method {str(method)[:40]!r} is not known to this program",
            hint="use the version of pitr that made the slot, or a newer one, or another slot",
        )
    slot_id = _hex_id(document, "slot")
    slot = KeySlot(
        slot_id=slot_id,
        key_id=_hex_id(document, "key"),
        method=method or "",
        salt=_bytes_of(document, "salt", 32, slot_id),
        nonce=_bytes_of(document, "nonce", _NONCE_BYTES, slot_id),
        wrapped=_bytes_of(document, "wrapped", _WRAPPED_BYTES, slot_id),
        scrypt=_scrypt_of(document, slot_id) if method == "passphrase" else None,
        blob=document.get("blob"),
    )
    if slot.method not in _METHODS or not (isinstance(slot.blob, str) if method == "command" else slot.blob is None):
        raise _damaged_slot("method and members do not fit each other", slot_id)
    return slot


def _scrypt_of(document: dict[str, object], slot_id: str) -> Scrypt:
    kdf = document.get("kdf")
    if isinstance(kdf, dict) and kdf.get("name") == "scrypt":
        n, r, p = kdf.get("n"), kdf.get("r"), kdf.get("p")
        if type(n) is int and type(r) is int and type(p) is int and Scrypt(n, r, p).acceptable():
            return Scrypt(n, r, p)
    raise _damaged_slot("its scrypt parameters are missing or out of bounds", slot_id)


def _hex_id(document: dict[str, object], member: str) -> str:
    value = document.get(member)
    if isinstance(value, str) and len(value) == 16 and not set(value) - set("0123456789abcdef"):
        return value
    raise _damaged_slot(f"{member!r} is not 16 hex digits")


def _bytes_of(document: dict[str, object], member: str, size: int, slot_id: str) -> bytes:
    value = document.get(member)
    data = _from_base64(value) if isinstance(value, str) else None
    if data is None or len(data) != size:
        raise _damaged_slot(f"{member!r} is not {size} bytes in base64", slot_id)
    return data


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _damaged_slot(what: str, slot_id: str | None = None) -> IntegrityError:
    which = f"key slot {slot_id}" if slot_id else "a key slot"
    return IntegrityError(f"{which} is damaged: {what}", hint="restore keys/ from a copy, or open by recovery_key")
