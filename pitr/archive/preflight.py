"""Can the server's own user run the generated command? It has another PATH, environment and perhaps no passwd entry."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitr.core.files import os_errors_as_pitr

_TIMEOUT_S = 60.0
_DOUBTFUL = 3
"""Exit code of config validate: valid, but something needs a look."""
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class Problem:
    message: str
    hint: str


def check_server_user(
    prefix: Sequence[str], data_directory: Path, *, files: Sequence[Path] = (), cwd: Path | None = None
) -> list[Problem]:
    """Run ``prefix --version`` and ``prefix config validate`` as the owner of the data directory, in it, with hardly
    any environment, and see whether that user may read ``files`` (configuration, keys).

    Only root can take another user's place: for any other than this process's own user, one problem says so.
    """
    with os_errors_as_pitr(f"cannot look at {data_directory}"):
        owner = data_directory.stat()
    if os.geteuid() not in (0, owner.st_uid):
        return [
            Problem(
                f"cannot check as the server's user {_user_name(owner.st_uid)}",
                "run this as that user, or as root",
            )
        ]
    identity = _identity(owner.st_uid, owner.st_gid)
    where = cwd or data_directory
    problems = [
        Problem(
            f"{_user_name(owner.st_uid)} cannot read {path}",
            f"chown {_user_name(owner.st_uid)} {path}, and let that user into the directories above it",
        )
        for path in files
        if _run(["/usr/bin/test", "-r", str(path)], identity, where)[0] != 0
    ]
    for words in (["--version"], ["config", "validate"]):
        code, output = _run([*prefix, *words], identity, where)
        if code == _DOUBTFUL:
            doubts = "; ".join(line.strip() for line in output.splitlines()[1:])
            message = f"for {_user_name(owner.st_uid)} the configuration is doubtful: {doubts}"
            problems.append(Problem(message, "pitr config validate, as that user, says the same"))
        elif code != 0:
            first_line, *_more = output.splitlines()
            problems.append(
                Problem(
                    f"{_user_name(owner.st_uid)} cannot run {prefix[0]} {' '.join(words)}: {first_line}",
                    "install pitr where that user may execute it (not in a virtual environment below /root), and let "
                    "it read the configuration",
                )
            )
            break
    return problems


def _identity(uid: int, gid: int) -> Mapping[str, Any]:
    """Arguments of subprocess.run that make it the server's user; none when it is this one."""
    if os.geteuid() == uid:
        return {}
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return {"user": uid, "group": gid, "extra_groups": []}
    return {"user": uid, "group": entry.pw_gid, "extra_groups": os.getgrouplist(entry.pw_name, entry.pw_gid)}


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _run(argv: Sequence[str], identity: Mapping[str, Any], cwd: Path) -> tuple[int, str]:
    """Exit status and what was said."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=_ENVIRONMENT,
            cwd=cwd,
            timeout=_TIMEOUT_S,
            **identity,
        )
    except subprocess.TimeoutExpired:
        return 124, f"it did not end within {_TIMEOUT_S:g} s"
    except OSError as error:
        return 126, os.strerror(error.errno or 0)
    said = done.stderr.strip() or done.stdout.strip()
    return done.returncode, said[:1000] or f"exit status {done.returncode}"
