"""The server's settings for archiving: a plan that changes nothing, its texts, and applying it by ALTER SYSTEM."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pitr.archive.quoting import archive_command, for_conf, for_sql, for_yaml
from pitr.core.errors import OverwriteRefused, PitrError
from pitr.pg.server import server_errors

if TYPE_CHECKING:
    from pitr.pg.facts import ServerFacts
    from pitr.pg.server import Connection

Needs = Literal["reload", "restart"]
DEFAULT_ARCHIVE_TIMEOUT_S = 60
_OURS = re.compile(r"""(^|[\s/'"])pitr(['"]|\s).*\bwal push\b|-m pitr\b.*\bwal push\b""", re.DOTALL)
# pg_settings.source of values that ALTER SYSTEM cannot override (GucSource in guc.h: above PGC_S_FILE).
_STRONGER_SOURCES = ("command line", "environment variable")
_RELOAD_WAIT_S = 10.0


class SettingNotApplied(PitrError):
    """The server was reloaded and still has another value."""

    code = "setting-not-applied"
    exit_code = 24


@dataclass(frozen=True, slots=True)
class SettingChange:
    """``current`` is what the server uses now, as it shows it; ``source`` where that comes from (file or kind)."""

    name: str
    current: str
    wanted: str
    needs: Needs
    source: str
    fixed: bool
    """Set on the server's command line or environment: ALTER SYSTEM would have no effect."""


@dataclass(frozen=True, slots=True)
class ConfigurePlan:
    """``kept``: needed, and so already. ``foreign``: another tool's archiving."""

    changes: tuple[SettingChange, ...]
    kept: tuple[SettingChange, ...]
    foreign: str | None

    @property
    def restart_needed(self) -> tuple[str, ...]:
        return tuple(change.name for change in self.changes if change.needs == "restart")

    def values(self) -> Mapping[str, str]:
        """Everything that must hold, changed or kept."""
        return {change.name: change.wanted for change in (*self.changes, *self.kept)}


@dataclass(frozen=True, slots=True)
class ApplyResult:
    changed: tuple[str, ...]
    restart_needed: tuple[str, ...]


def is_ours(command: str) -> bool:
    """Whether an archive_command was made by pitr, of whatever installation or cluster name."""
    return _OURS.search(command) is not None


def foreign_archiving(facts: ServerFacts) -> str | None:
    """What archives now, if it is not pitr: the archive_library or the archive_command."""
    if facts.archive_library:
        return f"archive_library = {facts.archive_library}"
    if facts.archive_command and not is_ours(facts.archive_command):
        return f"archive_command = {facts.archive_command}"
    return None


def plan_configure(
    facts: ServerFacts, prefix: Sequence[str], *, archive_timeout_s: int = DEFAULT_ARCHIVE_TIMEOUT_S
) -> ConfigurePlan:
    """What must change for ``prefix`` (config.command_prefix) to archive this server's WAL. Changes nothing.

    wal_level stays when it is replica or logical, archive_mode when it is always, archive_timeout when it is set.
    """
    wanted: dict[str, tuple[str, Needs]] = {
        "wal_level": ("replica" if facts.wal_level == "minimal" else facts.wal_level, "restart"),
        "archive_mode": ("on" if facts.archive_mode == "off" else facts.archive_mode, "restart"),
        "archive_command": (archive_command(prefix), "reload"),
        "archive_timeout": (str(facts.archive_timeout_s or archive_timeout_s), "reload"),
    }
    if facts.archive_library:
        wanted["archive_library"] = ("", "reload")
    current = {
        "wal_level": facts.wal_level,
        "archive_mode": facts.archive_mode,
        "archive_command": facts.archive_command,
        "archive_timeout": str(facts.archive_timeout_s),
        "archive_library": facts.archive_library or "",
    }
    every = [_change(facts, name, current[name], value, needs) for name, (value, needs) in wanted.items()]
    return ConfigurePlan(
        tuple(change for change in every if change.current != change.wanted),
        tuple(change for change in every if change.current == change.wanted),
        foreign_archiving(facts),
    )


def _change(facts: ServerFacts, name: str, current: str, wanted: str, needs: Needs) -> SettingChange:
    setting = facts.settings.get(name)
    source = "default" if setting is None else setting.source
    shown = source if setting is None or setting.source_file is None else setting.source_file
    return SettingChange(name, current, wanted, needs, shown, source in _STRONGER_SOURCES)


def render_conf(plan: ConfigurePlan) -> list[str]:
    """Lines of postgresql.conf."""
    lines = [f"{name} = {for_conf(value)}" for name, value in plan.values().items()]
    return [*lines, *(f"# needs a restart of the server: {name}" for name in plan.restart_needed)]


def render_sql(plan: ConfigurePlan) -> list[str]:
    """Statements for psql."""
    lines = [f"ALTER SYSTEM SET {name} = {for_sql(value)};" for name, value in plan.values().items()]
    lines.append("SELECT pg_reload_conf();")
    return [*lines, *(f"-- needs a restart of the server: {name}" for name in plan.restart_needed)]


def render_patroni(plan: ConfigurePlan) -> list[str]:
    """YAML for ``patronictl edit-config``."""
    lines = ["postgresql:", "  parameters:"]
    lines += [f"    {name}: {for_yaml(value)}" for name, value in plan.values().items()]
    return [*lines, *(f"# patronictl restart is needed for: {name}" for name in plan.restart_needed)]


def apply_plan(
    connection: Connection,
    plan: ConfigurePlan,
    *,
    replace: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> ApplyResult:
    """ALTER SYSTEM for every change, reload, and see that it took effect. What needs a restart is named, not done.

    Raises OverwriteRefused (another tool archives, without ``replace``), SettingNotApplied, PrivilegeMissing.
    """
    if plan.foreign is not None and not replace:
        raise OverwriteRefused(
            "another tool archives the WAL of this server",
            detail=plan.foreign,
            hint="if pitr is to take its place: pitr wal configure --apply --replace",
        )
    fixed = [change for change in plan.changes if change.fixed]
    if fixed:
        raise SettingNotApplied(
            f"{', '.join(change.name for change in fixed)} is set on the server's command line or environment",
            detail="ALTER SYSTEM would have no effect",
            hint="set it where it is set now (with Patroni: pitr wal configure --print patroni)",
        )
    hint = "a superuser may, or GRANT ALTER SYSTEM ON PARAMETER ... TO the role (15 and newer)"
    with server_errors("cannot change the server's settings", privilege_hint=hint):
        for change in plan.changes:
            connection.execute(f"ALTER SYSTEM SET {change.name} = {for_sql(change.wanted)}".encode())
        if plan.changes:
            connection.execute("SELECT pg_catalog.pg_reload_conf()")
        _await_reload(connection, plan, sleep)
    return ApplyResult(tuple(change.name for change in plan.changes), plan.restart_needed)


def _await_reload(connection: Connection, plan: ConfigurePlan, sleep: Callable[[float], None]) -> None:
    """Reloading is asynchronous. While archiving is off, archive_command shows as "(disabled)"; reset_val has it."""
    waiting = {change.name: change.wanted for change in plan.changes if change.needs == "reload"}
    deadline = time.monotonic() + _RELOAD_WAIT_S
    while True:
        rows = connection.execute("SELECT name, reset_val FROM pg_settings WHERE name = ANY(%s)", ([*waiting],))
        wrong = {name: value for name, value in rows if value != waiting[name]}
        if not wrong:
            return
        if time.monotonic() > deadline:
            name, value = next(iter(wrong.items()))
            raise SettingNotApplied(
                f"the server still has another {name} after a reload",
                detail=f"it is {value!r}",
                hint="see pg_file_settings for errors in the configuration files",
            )
        sleep(0.05)
