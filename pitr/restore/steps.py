"""What to type after a restore."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
from pathlib import Path

from pitr.core.errors import ToolMissing
from pitr.pg.tools import find_tools
from pitr.restore.request import RestorePlan
from pitr.restore.tree import Owner


def start_commands(plan: RestorePlan, major: int, owner: Owner) -> tuple[str, ...]:
    """pg_ctl by its full path where it is installed; run as the directory's owner when we are root."""
    program = "pg_ctl"
    with contextlib.suppress(ToolMissing):
        program = find_tools(major).path("pg_ctl")
    log = f"{plan.to}.log"
    argv = [program, "-D", plan.to, "-l", log, "-t", "3600", "start"]
    if os.geteuid() == 0:
        argv = ["sudo", "-u", _user(owner), *argv]
    return (shlex.join(argv),)


def _user(owner: Owner) -> str:
    if owner is None:
        return "postgres"
    try:
        return pwd.getpwuid(owner[0]).pw_name
    except KeyError:
        return f"#{owner[0]}"


def next_steps(plan: RestorePlan) -> tuple[str, ...]:
    if plan.role == "standby":
        return ("the server follows the archive and its primary; promote it with pg_promote() when it is needed",)
    stop = "the target" if plan.target is None else f"{plan.target.lsn}"
    steps: tuple[str, ...]
    match plan.action:
        case "pause":
            steps = (
                f"recovery pauses at {stop}; look at the data (SELECT pg_is_in_recovery() must say t)",
                "SELECT pg_wal_replay_resume() ends recovery and opens the server for writes, on a new timeline",
            )
        case "promote":
            steps = (f"the server opens for writes at {stop}, on a new timeline",)
        case "shutdown":
            steps = (
                f"the server ends itself at {stop}",
                f"remove {Path(plan.to) / 'recovery.signal'} and start it again to open it for writes",
            )
    if plan.role == "copy":
        return (
            *steps,
            "it does not archive (archive_mode = off); on a host with another server give it a port: -o '-p 5433'",
        )
    return (*steps, "it archives as before; take a base backup soon: pitr backup base")
