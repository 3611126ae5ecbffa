"""What to restore, where to and up to which moment; what will be done; what was done."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from pitr.pg.lsn import Lsn

Role = Literal["copy", "primary", "standby"]
Action = Literal["pause", "promote", "shutdown"]


@dataclass(frozen=True, slots=True)
class Latest:
    """The last record of the unbroken archive."""


@dataclass(frozen=True, slots=True)
class Immediate:
    """The end of the backup: the first moment at which it is consistent."""


@dataclass(frozen=True, slots=True)
class TargetTime:
    """Commits up to ``moment`` (aware); ``inclusive``: those of that very microsecond too."""

    moment: datetime
    inclusive: bool = True


@dataclass(frozen=True, slots=True)
class TargetLsn:
    """Stop at the first record that begins at or behind ``lsn``: after it (inclusive) or before it."""

    lsn: Lsn
    inclusive: bool = True


@dataclass(frozen=True, slots=True)
class TargetXid:
    """Stop after (inclusive) or before the end of that transaction. The order is that of the ends, not of the ids."""

    xid: int
    inclusive: bool = True


@dataclass(frozen=True, slots=True)
class TargetName:
    """A restore point made by pg_create_restore_point()."""

    name: str


RecoveryTarget = Latest | Immediate | TargetTime | TargetLsn | TargetXid | TargetName


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """
    backup_id      None: the newest backup that the target can be reached from
    timeline       None: the newest timeline that descends from the newest backup (candidates.choose_history)
    system_id      None: the cluster's current identity
    role           copy: does not archive, leaves production alone; primary: takes production's place;
                   standby: follows a primary
    tablespaces    name, OID or old location of a tablespace to its new location
    fetch_command  how PostgreSQL runs pitr: argv up to and including --cluster NAME; "wal fetch ..." is added
    """

    cluster: str
    to: Path
    target: RecoveryTarget = field(default_factory=Latest)
    backup_id: str | None = None
    timeline: int | None = None
    system_id: int | None = None
    role: Role = "copy"
    delta: bool = False
    tablespaces: dict[str, Path] = field(default_factory=dict)
    action: Action = "pause"
    jobs: int = 2
    fetch_command: tuple[str, ...] = ("pitr",)
    max_rate: int | None = None
    """Bytes read from the repository per second."""
    primary_conninfo: str | None = None


@dataclass(frozen=True, slots=True)
class Boundary:
    """A record next to the target. ``what``: commit, abort, restore point, record; ``time`` if the record has one."""

    what: str
    lsn: Lsn
    xid: int | None = None
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ResolvedTarget:
    """An exact place in the WAL: recovery stops after (``inclusive``) or before the record that begins at ``lsn``.

    last_included, first_excluded   transactions next to the target, None where there is none on that side
    until                           the last segment that recovery needs
    """

    asked: str
    lsn: Lsn
    inclusive: bool
    timeline: int
    until: str
    last_included: Boundary | None
    first_excluded: Boundary | None


@dataclass(frozen=True, slots=True)
class ProvenSegments:
    """The unbroken run that recovery replays: all in the archive, all read and verified."""

    first: str
    last: str
    count: int


@dataclass(frozen=True, slots=True)
class TablespacePlan:
    oid: int
    name: str
    original: str
    location: str


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Everything is resolved and proven; nothing is written yet.

    target and segments are None for a standby: it replays whatever the archive has and then streams.
    """

    cluster: str
    system_id: str
    backup_id: str
    backup_ended_at: datetime
    role: Role
    action: Action
    delta: bool
    to: str
    timeline: int
    target: ResolvedTarget | None
    segments: ProvenSegments | None
    files: int
    bytes: int
    fetched_bytes: int
    """Stored bytes of the frames that will be read."""
    tablespaces: tuple[TablespacePlan, ...]
    settings: tuple[str, ...]
    """Lines that are appended to postgresql.auto.conf."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """``start_commands`` start the server; ``next_steps`` say what to do then. ``config_directory``: files that stood
    outside the source's data directory, None when there were none."""

    plan: RestorePlan
    elapsed_s: float
    phases_s: dict[str, float]
    files: int
    bytes_written: int
    removed_files: int
    start_commands: tuple[str, ...]
    next_steps: tuple[str, ...]
    config_directory: str | None
    warnings: tuple[str, ...]
