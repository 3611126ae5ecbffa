"""``pitr wal configure``: the server's settings for archiving, planned and, when asked, applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pitr.api.backups import conninfo
from pitr.archive.configure import ApplyResult, ConfigurePlan, apply_plan, plan_configure
from pitr.archive.preflight import Problem, check_server_user
from pitr.config.prefix import command_prefix, prefix_warnings
from pitr.config.settings import Settings
from pitr.core.events import Report, silent, warn
from pitr.pg.facts import ServerFacts, read_facts
from pitr.pg.server import connect


@dataclass(frozen=True, slots=True)
class Configured:
    """``applied`` is None when nothing was changed. ``problems``: why the server's user could not run the command."""

    plan: ConfigurePlan
    problems: tuple[Problem, ...]
    applied: ApplyResult | None


def configure_archiving(
    settings: Settings, *, apply: bool = False, replace: bool = False, report: Report = silent
) -> Configured:
    """Plan the settings; with ``apply`` set them by ALTER SYSTEM and reload (never a restart).

    Raises ConfigError (secrets that the server would not have), OverwriteRefused (another tool archives), PitrError.
    """
    settings.require_repos()
    prefix = command_prefix(settings)
    for text in prefix_warnings(settings):
        warn(report, text)
    with connect(conninfo(settings), "wal-configure") as connection:
        facts = read_facts(connection)
        plan = plan_configure(facts, prefix)
        problems = _problems(settings, facts, prefix)
        for problem in problems:
            warn(report, f"{problem.message}; {problem.hint}")
        applied = apply_plan(connection, plan, replace=replace) if apply else None
    return Configured(plan, tuple(problems), applied)


def _problems(settings: Settings, facts: ServerFacts, prefix: Sequence[str]) -> list[Problem]:
    """Only where the server's data directory is on this machine."""
    directory = settings.cluster.data_directory or (Path(facts.data_directory) if facts.data_directory else None)
    if directory is None or not directory.is_dir():
        return []
    files = [*settings.files, *(repo.key_file for repo in settings.repos if repo.key_file is not None)]
    return check_server_user(prefix, directory, files=files)
