"""Recovery settings: what is appended to postgresql.auto.conf, quoted as PostgreSQL reads it (guc-file.l)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields

from pitr.pg.lsn import Lsn
from pitr.repo.manifest import Parameters
from pitr.restore.request import Action, Role

AUTO_CONF = "postgresql.auto.conf"
EXTERNAL_PID_FILE = "external.pid"
"""In the restored directory: production's must not be written, and an empty name makes every start complain."""
_TARGETS = ("recovery_target", "recovery_target_name", "recovery_target_time", "recovery_target_xid")
_RECOVERY = frozenset(
    {
        *_TARGETS,
        "recovery_target_lsn",
        "recovery_target_inclusive",
        "recovery_target_timeline",
        "recovery_target_action",
        "recovery_end_command",
        "recovery_min_apply_delay",
        "archive_cleanup_command",
        "restore_command",
        "promote_trigger_file",
        "primary_conninfo",
        "primary_slot_name",
    }
)
"""Settings of an earlier recovery: they must not steer this one."""
_NAME = re.compile(r"^\s*([A-Za-z_][A-Za-z0-9_.]*)\s*[=\s]")
_FIRST_WITHOUT_TRIGGER_FILE = 16
LAST_WITH_STATS_FILES = 14


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """``target_lsn`` is None for a standby. ``parameters``: what the five must be; None: leave them as they are."""

    role: Role
    action: Action
    major: int
    restore_command: str
    target_lsn: Lsn | None
    inclusive: bool
    timeline: int | None
    parameters: Parameters | None
    primary_conninfo: str | None

    def lines(self) -> list[str]:
        """``name = 'value'``, in the order in which they must stand."""
        pairs = [*self._neutral(), *self._target(), *self._role()]
        return [f"{name} = {quote(value)}" for name, value in pairs]

    def _neutral(self) -> list[tuple[str, str]]:
        """What postgresql.conf may hold and must not take effect.

        The other targets are emptied before the real one: behind it, even an empty one is a second target to
        PostgreSQL (assign_recovery_target_* in xlogrecovery.c).
        """
        pairs = [(name, "") for name in _TARGETS]
        if self.target_lsn is None:
            pairs.append(("recovery_target_lsn", ""))
        pairs += [("recovery_end_command", ""), ("archive_cleanup_command", ""), ("recovery_min_apply_delay", "0")]
        if self.major < _FIRST_WITHOUT_TRIGGER_FILE:
            pairs.append(("promote_trigger_file", ""))
        if self.role != "standby" or self.primary_conninfo is not None:
            pairs.append(("primary_slot_name", ""))
            pairs.append(("primary_conninfo", self.primary_conninfo or ""))
        return pairs

    def _target(self) -> list[tuple[str, str]]:
        timeline = "latest" if self.timeline is None else str(self.timeline)
        pairs = [("recovery_target_timeline", timeline), ("restore_command", self.restore_command)]
        if self.target_lsn is not None:
            pairs += [
                ("recovery_target_lsn", str(self.target_lsn)),
                ("recovery_target_inclusive", "on" if self.inclusive else "off"),
                ("recovery_target_action", self.action),
            ]
        pairs.append(("hot_standby", "on"))
        return pairs

    def _role(self) -> list[tuple[str, str]]:
        pairs: list[tuple[str, str]] = []
        if self.parameters is not None:
            pairs += [(item.name, str(getattr(self.parameters, item.name))) for item in fields(self.parameters)]
        if self.role == "copy":
            # A copy must neither archive nor wait for production's standbys, nor pull from production's publishers,
            # nor write into directories that production's configuration names.
            pairs += [
                ("archive_mode", "off"),
                ("synchronous_standby_names", ""),
                ("max_logical_replication_workers", "0"),
                ("external_pid_file", EXTERNAL_PID_FILE),
                ("log_directory", "log"),
            ]
            if self.major <= LAST_WITH_STATS_FILES:
                pairs.append(("stats_temp_directory", "pg_stat_tmp"))  # a recovery empties it (pgstat_reset_all)
        return pairs


def quote(value: str) -> str:
    """A string of the configuration file: quotes doubled, backslashes too (GUC_scanstr)."""
    doubled = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"


def fetch_line(prefix: Sequence[str], *, chain: int | None, until: str | None) -> str:
    """The restore_command: for the shell, with ``%`` doubled but in the two placeholders (BuildRestoreCommand)."""
    argv = [*prefix, "wal", "fetch"]
    command = shlex.join(argv).replace("%", "%%") + ' %f "%p"'
    if chain is not None and until is not None:
        command += f" --chain {chain} --until {until}"
    return command


def merge_auto_conf(existing: str, lines: Sequence[str], heading: str) -> str:
    """The restored postgresql.auto.conf with ``lines`` behind it; settings of an earlier recovery become comments."""
    kept = [f"# {line}" if _is_recovery(line) else line for line in existing.removesuffix("\n").split("\n")]
    if kept == [""]:
        kept = ["# Do not edit this file manually!", "# It will be overwritten by the ALTER SYSTEM command."]
    return "\n".join([*kept, f"# {heading}", *lines, ""])


def _is_recovery(line: str) -> bool:
    match = _NAME.match(line)
    return match is not None and match[1].lower() in _RECOVERY


def required_parameters(backup: Parameters, seen: Sequence[Parameters]) -> Parameters:
    """The largest of what the backup had and what the replayed WAL says (CheckRequiredParameterValues)."""
    every = [backup, *seen]
    return Parameters(**{item.name: max(getattr(each, item.name) for each in every) for item in fields(Parameters)})
