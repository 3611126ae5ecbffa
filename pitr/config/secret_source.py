"""Where a secret is kept. It is fetched when it is used, not when the configuration is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pitr.core.errors import ConfigError, KeyUnavailable, PitrError
from pitr.core.secrets import Secret, redact

COMMAND_TIMEOUT_S = 60.0


class SecretSource(NamedTuple):
    """One of: the value itself, a file, an environment variable, a command (argv, no shell) that prints it."""

    name: str
    value: Secret | None = None
    file: Path | None = None
    variable: str | None = None
    command: tuple[str, ...] = ()

    def load(self, environ: Mapping[str, str] | None = None) -> Secret:
        """Fetch the secret, without its final line end. Raises KeyUnavailable for what unlocks a repository,
        else ConfigError."""
        if self.value is not None:
            return self.value
        if self.file is not None:
            return self._from_file(self.file)
        if self.variable is not None:
            text = (os.environ if environ is None else environ).get(self.variable)
            if not text:
                raise self._failure(f"environment variable {self.variable} is not set", None)
            return Secret(text)
        from pitr.core.processes import run_tool  # starting programs takes modules that wal push has no time for

        try:
            printed = run_tool(self.command, timeout_s=COMMAND_TIMEOUT_S).stdout
        except PitrError as error:
            raise self._failure(error.message, error.detail) from error
        return self._checked(printed, f"command {self.command[0]}")

    def _from_file(self, path: Path) -> Secret:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise self._failure(f"cannot read {path}", error.strerror) from error
        return self._checked(content, str(path))

    def _checked(self, content: bytes, source: str) -> Secret:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._failure(f"{source} holds bytes that are not UTF-8 text", None) from error
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            raise self._failure(f"{source} is empty", None)
        return Secret(text)

    def _failure(self, reason: str, detail: str | None) -> PitrError:
        kind = KeyUnavailable if self.name in ("passphrase", "recovery_key") else ConfigError
        return kind(
            f"{self.name} is not available: {reason}",
            detail=None if detail is None else redact(detail),
            hint='"pitr config show" names where each value comes from',
        )

    def describe(self) -> str:
        """For ``config show``: the place, never the value. A DSN is shown with its password masked."""
        if self.value is not None:
            return _redacted_dsn(self.value.reveal()) if self.name == "dsn" else "***"
        if self.file is not None:
            return f"file {self.file}"
        if self.variable is not None:
            return f"environment variable {self.variable}"
        return f"command {self.command[0]}"


def _redacted_dsn(dsn: str) -> str:
    """All of it masked when a word stands alone, which may be the rest of a password that should have been quoted."""
    shown = redact(dsn)
    alone = "password" in dsn and "://" not in dsn and any("=" not in word for word in shown.split())
    return "***" if alone else shown
