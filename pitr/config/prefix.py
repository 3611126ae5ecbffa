"""The argv by which PostgreSQL's archiver, or another machine's shell, reaches the configuration in use here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pitr.config.settings import Settings
from pitr.core.errors import ConfigError


def command_prefix(settings: Settings) -> list[str]:
    """``[/path/pitr, --config, ABS, --cluster, NAME]``; ``/usr/bin/env PITR_REPO=... /path/pitr ...`` for what stands
    in no file. Holds no secret: one that exists only in the environment or an option raises ConfigError. DSN and
    policy are left out, as the commands that PostgreSQL runs do not need them.

    The caller quotes for the shell (shlex.join) and doubles ``%`` for archive_command and restore_command.
    """
    variables: list[str] = []
    for given in settings.given:
        if not given.wal:
            continue
        if given.value is None:
            raise ConfigError(
                f"{given.origin} holds a secret that PostgreSQL's archiver would not have",
                hint=f"put it into a file and set {given.variable}_FILE, or write it to the configuration file",
            )
        variables.append(f"{given.variable}={given.value}")
    argv = [_env_program(), *variables] if variables else []
    argv += program()
    if settings.location is not None:
        argv += ["--config", str(settings.location)]
    return [*argv, "--cluster", settings.cluster.name]


def _env_program() -> str:
    import shutil

    return shutil.which("env", path="/usr/bin:/bin") or "/usr/bin/env"


def program() -> list[str]:
    """How to run this very installation, whatever the PATH. Symbolic links are kept: they may be re-pointed by an
    upgrade, and following a virtual environment's interpreter would leave it."""
    installed = Path(sys.prefix, "bin", "pitr").absolute()
    if os.access(installed, os.X_OK):
        return [str(installed)]
    return [sys.executable, "-m", "pitr"]


def prefix_warnings(settings: Settings, environ: Mapping[str, str] | None = None) -> list[str]:
    """What the archiver may lack though this process has it: AWS credentials from the environment."""
    have = os.environ if environ is None else environ
    names = [
        name for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION") if have.get(name)
    ]
    return [
        f"repository {repo.name}: {', '.join(names)} of this environment must also be set for the PostgreSQL server"
        for repo in settings.repos
        if names and repo.url.startswith("s3:") and repo.access_key is None and repo.profile is None
    ]
