"""What opens a key slot: a key file, a passphrase, a command, or the printed recovery key."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from pitr.core.errors import ConfigError, KeyUnavailable
from pitr.core.secrets import Secret

_PREFIX: Final = "pitr-key-1:"
_KEY_BYTES: Final = 32
_MAX_FILE: Final = 4096


class KeyFile(NamedTuple):
    """A path, or the text of a key file that came another way (environment, secret store)."""

    source: Path | Secret

    @property
    def method(self) -> str:
        return "key-file"

    @property
    def shown(self) -> str:
        return f"key file {self.source}" if isinstance(self.source, Path) else "the given key text"

    def read(self) -> bytes:
        """The 32 secret bytes. Raises KeyUnavailable (unreadable) or ConfigError (not a key), naming the path only."""
        if isinstance(self.source, Secret):
            return _parse_key_text(self.source.reveal(), self.shown)
        try:
            with self.source.open("rb") as file:
                raw = file.read(_MAX_FILE + 1)
        except OSError as error:
            raise KeyUnavailable(
                f"key file {self.source} cannot be read: {os.strerror(error.errno or 0)}",
                hint="check key_file and the file's owner; recovery_key_file in its place opens the repository too",
            ) from None
        return _parse_key_text(raw.decode("ascii", "replace"), self.shown)

    def warning(self) -> str | None:
        """A sentence for the log when others may read the file or a group may write it; None when all is well."""
        if not isinstance(self.source, Path):
            return None
        try:
            mode = self.source.stat().st_mode
        except OSError:
            return None
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            return f"key file {self.source} has mode {stat.S_IMODE(mode):04o}; chmod 0600 keeps other users out"
        return None


class Passphrase(NamedTuple):
    passphrase: Secret

    @property
    def method(self) -> str:
        return "passphrase"

    @property
    def shown(self) -> str:
        return "the passphrase"


class KeyCommand(NamedTuple):
    """An external program, split into words as a shell does but run without one: ``CMD wrap`` and ``CMD unwrap``."""

    command: str

    @property
    def method(self) -> str:
        return "command"

    @property
    def shown(self) -> str:
        return "key_command"


class RecoveryKey(NamedTuple):
    key: Secret

    @property
    def method(self) -> str:
        return "recovery"

    @property
    def shown(self) -> str:
        return "the recovery key"


KeySecret = KeyFile | Passphrase | KeyCommand | RecoveryKey


def new_key_file_text() -> str:
    """The one line of a new key file; a secret."""
    return _PREFIX + base64.b64encode(os.urandom(_KEY_BYTES)).decode() + "\n"


def _parse_key_text(text: str, shown: str) -> bytes:
    text = text.strip()
    try:
        if text.startswith(_PREFIX):
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        else:
            key = bytes.fromhex(text)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            f"{shown} is not a pitr key",
            detail=f"expected one line {_PREFIX}<base64 of {_KEY_BYTES} bytes>, or {2 * _KEY_BYTES} hex digits",
        )
    return key
