"""How the golden files of format version 1 were made: ``python -m tests.golden.codec.make_v1``, once.

Append only: what is there is never written again, and every later version must read it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from pitr.codec import (
    DataKey,
    KeyCommand,
    KeyFile,
    Keyring,
    KeySecret,
    ObjectKind,
    Passphrase,
    RecoveryKey,
    Sealer,
    seal_chunks,
    wrap_slot,
)
from pitr.codec.recovery import format_recovery_key
from pitr.core.secrets import Secret

HERE = Path(__file__).parent
KEY = DataKey(hashlib.sha256(b"golden data key").digest())
REPOSITORY = "5f0c2b7e9a1d4c38"
KEY_FILE_HEX = hashlib.sha256(b"golden key file").hexdigest()
PASSPHRASE = "golden passphrase, größer"
RECOVERY_KEY = format_recovery_key(hashlib.sha256(b"golden recovery").digest()[:25])
COMMAND = f"{sys.executable} '{Path(__file__).parents[2] / 'support' / 'key_command.py'}' good"

CONTENTS: dict[str, tuple[ObjectKind, str, bytes, bytes, int, bool]] = {
    "empty": (ObjectKind.MARK, "main/mark/keep/1", b"", b"", 1 << 20, False),
    "small": (
        ObjectKind.WAL,
        "main/7301/wal/00000001/00000000/000000010000000000000001",
        b"a segment",
        b"ix",
        64,
        True,
    ),
    "frames": (
        ObjectKind.PACK,
        "größe/7301/base/20261123T041500Z-3fa2/pack/000001",
        b"".join(hashlib.sha256(number.to_bytes(4, "little")).digest() + bytes(32) for number in range(150)),
        bytes(range(256)) * 3,
        4096,
        False,
    ),
}

SECRETS: dict[str, KeySecret] = {
    "key-file": KeyFile(Secret(KEY_FILE_HEX)),
    "passphrase": Passphrase(Secret(PASSPHRASE)),
    "recovery": RecoveryKey(Secret(RECOVERY_KEY)),
    "command": KeyCommand(COMMAND),
}


def write_new(name: str, data: bytes) -> None:
    with (HERE / name).open("xb") as file:
        file.write(data)


def main() -> None:
    expected: dict[str, dict[str, str]] = {}
    for mode, keyring in (("sealed", Keyring(KEY)), ("plain", Keyring.unencrypted())):
        for which, (kind, name, content, index, frame_size, digest) in CONTENTS.items():
            salt = hashlib.sha256(f"{mode} {which}".encode()).digest()
            sealer = Sealer(keyring, name, kind, frame_size=frame_size, digest=digest, salt=salt)
            stored = b"".join(seal_chunks(sealer, [content], index))
            write_new(f"v1-{mode}-{which}.bin", stored)
            expected[f"v1-{mode}-{which}.bin"] = {
                "kind": kind.name,
                "name": name,
                "content_sha256": hashlib.sha256(content).hexdigest(),
                "index": index.hex(),
                "content_digest": sealer.content_digest.hex(),
                "stored_sha256": sealer.stored_sha256.hex(),
            }
    for method, secret in SECRETS.items():
        write_new(f"v1-slot-{method}.json", wrap_slot(KEY, REPOSITORY, secret, scrypt_n=1 << 14)[1])
    write_new("v1.json", json.dumps(expected, indent=1, sort_keys=True).encode() + b"\n")


if __name__ == "__main__":
    main()
