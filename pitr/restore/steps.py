"""What to type after a restore."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex

from pitr.core.errors import ToolMissing
from pitr.pg.cluster_files import DebianCluster
from pitr.pg.tools import find_tools
from pitr.restore.request import RestorePlan
from pitr.restore.settings import AUTO_CONF
from pitr.restore.tree import Owner

_START_LOG = "startup.log"


def start_commands(plan: RestorePlan, major: int, owner: Owner, debian: DebianCluster | None) -> tuple[str, ...]:
    """For Debian's own directories its pg_ctlcluster; else pg_ctl by its full path, as the directory's owner if we are
    root. The log stands inside: what is around the directory need not belong to that user."""
    if debian is not None and debian.major == major:
        return (shlex.join(debian.control_argv("start")),)
    program = "pg_ctl"
    with contextlib.suppress(ToolMissing):
        program = find_tools(major).path("pg_ctl")
    argv = [program, "-D", plan.to, "-l", f"{plan.to}/{_START_LOG}", "-t", "3600", "start"]
    if os.geteuid() == 0:
        argv = [*_as_user(owner), *argv]
    return (shlex.join(argv),)


def _as_user(owner: Owner) -> list[str]:
    """util-linux has both programs; sudo is missing from many servers."""
    if owner is None:
        return ["runuser", "-u", "postgres", "--"]
    try:
        return ["runuser", "-u", pwd.getpwuid(owner[0]).pw_name, "--"]
    except KeyError:
        return ["setpriv", f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups"]


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
                f"to open it there: recovery_target_action = 'promote' in {plan.to}/{AUTO_CONF}, then start it",
                "never remove recovery.signal for that: what lies behind the target would be replayed",
            )
    if plan.role == "copy":
        return (
            *steps,
            "it does not archive (archive_mode = off); on a host with another server give it a port: -o '-p 5433'",
        )
    return (*steps, "it archives as before; take a base backup soon: pitr backup base")
