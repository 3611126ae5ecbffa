"""The one error tree. ``code`` (stable, kebab-case) and ``exit_code`` are part of the CLI contract.

An error says what happened (``message``), what was known about it (``detail``) and which command comes next (``hint``).
Anything raised that is not a ``PitrError`` is a bug and ends with exit code 70 and a traceback.
"""

from __future__ import annotations

from typing import ClassVar


class PitrError(Exception):
    """Base of every error a user is meant to see. Rendered in one place (``pitr.cli``)."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.detail is None else f"{self.message} ({self.detail})"


# 2 usage
class UsageError(PitrError):
    code = "usage"
    exit_code = 2


class AmbiguousName(UsageError):
    code = "ambiguous-name"


# 10-16 configuration, repository, locks, budget
class ConfigError(PitrError):
    code = "configuration"
    exit_code = 10


class RepositoryMissing(PitrError):
    code = "repository-missing"
    exit_code = 11


class Locked(PitrError):
    code = "locked"
    exit_code = 12


class FormatTooNew(PitrError):
    code = "format-too-new"
    exit_code = 13


class KeyUnavailable(PitrError):
    code = "key-unavailable"
    exit_code = 14


class LabelExists(PitrError):
    code = "label-exists"
    exit_code = 15


class BudgetExceeded(PitrError):
    code = "budget-exceeded"
    exit_code = 16


# 20-24 PostgreSQL and its tools
class ServerUnreachable(PitrError):
    code = "server-unreachable"
    exit_code = 20


class PrivilegeMissing(PitrError):
    code = "privilege-missing"
    exit_code = 21


class VersionUnsupported(PitrError):
    code = "version-unsupported"
    exit_code = 22


class ToolMissing(PitrError):
    code = "tool-missing"
    exit_code = 23


class ToolFailed(PitrError):
    code = "tool-failed"
    exit_code = 24


# 30-34 backups, targets, WAL
class NoSuitableBackup(PitrError):
    code = "no-suitable-backup"
    exit_code = 30


class TargetUnreachable(PitrError):
    code = "target-unreachable"
    exit_code = 31


class WalGap(PitrError):
    code = "wal-gap"
    exit_code = 32


class HistoryMismatch(PitrError):
    """Another system identifier, another timeline, or another past than the repository's."""

    code = "history-mismatch"
    exit_code = 33


class ValidationFailed(PitrError):
    code = "validation-failed"
    exit_code = 34


# 40-43 the store
class StoreError(PitrError):
    """A store operation failed. Drivers classify (``transient``); one place, the retry wrapper, decides."""

    code = "store-unavailable"
    exit_code = 41

    def __init__(
        self, message: str, *, detail: str | None = None, hint: str | None = None, transient: bool = False
    ) -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.transient = transient


class StoreDenied(StoreError):
    code = "store-denied"
    exit_code = 40


class StoreUnavailable(StoreError):
    """Network, time-out, 5xx, throttling: transient unless a driver knows better."""

    def __init__(
        self, message: str, *, detail: str | None = None, hint: str | None = None, transient: bool = True
    ) -> None:
        super().__init__(message, detail=detail, hint=hint, transient=transient)


class ObjectNotFound(StoreError):
    """An authoritative answer of the store that there is no such object (never an outage)."""

    code = "object-not-found"
    exit_code = 42


class ObjectExists(StoreError):
    """put(if_absent=True) met an object of that name. Callers translate it; users see OverwriteRefused."""

    code = "object-exists"
    exit_code = 52


class NoSpace(StoreError):
    code = "no-space"
    exit_code = 43


# 50-52 integrity
class IntegrityError(PitrError):
    """Bytes are not what was written: digest, tag, checksum, length, identity."""

    code = "integrity"
    exit_code = 50


class ManifestInvalid(IntegrityError):
    code = "manifest-invalid"
    exit_code = 51


class OverwriteRefused(PitrError):
    code = "overwrite-refused"
    exit_code = 52


# 60-61 merge
class MergeConflict(PitrError):
    code = "merge-conflict"
    exit_code = 60


class SchemaMismatch(PitrError):
    code = "schema-mismatch"
    exit_code = 61


class Interrupted(PitrError):
    """Raised where work is cut short by SIGINT (130) or SIGTERM (143), after cleaning up."""

    code = "interrupted"
    exit_code = 130


class Terminated(Interrupted):
    code = "terminated"
    exit_code = 143
