"""``pitr wal push`` and ``pitr wal fetch`` from settings. Imports no client library until a repository needs one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pitr.api.opening import open_repo
from pitr.archive.remote import Remote
from pitr.config.settings import RepoSettings, Settings
from pitr.core.events import Report, silent

if TYPE_CHECKING:
    from pitr.archive.fetch import FetchOutcome, RetryPolicy
    from pitr.archive.push import PushResult

_PUSH_RETRY = timedelta(seconds=60)
"""PostgreSQL tries again by itself, and a shutdown waits for the command."""
_OPTIONAL_RETRY = timedelta(seconds=5)
"""Of a repository that is not required: while it is down, every segment waits that long for it."""
_FETCH_TOTAL_S = 120.0
"""Of all looks together, before PostgreSQL is told to stop."""
_FETCH_RETRY = timedelta(seconds=10)
"""The fetch itself looks again, at all repositories, by its own policy."""


def remotes(settings: Settings, retry: timedelta, report: Report = silent) -> list[Remote]:
    """The cluster's repositories, none of them opened yet. Raises ConfigError when there is none."""
    return [_remote(repo, retry, report) for repo in settings.require_repos()]


def _remote(repo: RepoSettings, retry: timedelta, report: Report) -> Remote:
    patience = retry if repo.required else min(retry, _OPTIONAL_RETRY)
    shorter = replace(repo, retry_deadline=min(repo.retry_deadline, patience))
    return Remote(repo.name, lambda: open_repo(shorter, report), required=repo.required)


def _longest_retry(settings: Settings) -> float:
    return max(repo.retry_deadline.total_seconds() for repo in settings.require_repos())


def wal_push(settings: Settings, path: Path, *, report: Report = silent) -> PushResult:
    """Archive one file (``%p``) durably in every required repository; errors as of push_segment."""
    from pitr.archive.push import push_segment

    return push_segment(
        remotes(settings, _PUSH_RETRY, report),
        settings.cluster.name,
        path,
        data_directory=settings.cluster.data_directory,
        report=report,
    )


def wal_fetch(
    settings: Settings,
    name: str,
    dest: Path,
    *,
    chain: int | None = None,
    until: str | None = None,
    system_id: int | None = None,
    retry: RetryPolicy | None = None,
    report: Report = silent,
) -> FetchOutcome:
    """Answer one restore_command. Raises ConfigError only when no repository is configured.

    The working directory is the data directory being restored, as it is for restore_command; the configured one belongs
    to the live cluster and is not looked at.
    """
    from pitr.archive.fetch import FetchRequest, RetryPolicy, fetch_file

    request = FetchRequest(
        cluster=settings.cluster.name,
        name=name,
        dest=dest,
        chain=chain,
        until=until,
        data_directory=Path.cwd(),
        system_id=system_id,
        retry=retry or RetryPolicy(total_s=min(_FETCH_TOTAL_S, _longest_retry(settings))),
    )
    return fetch_file(remotes(settings, _FETCH_RETRY, report), request, report=report)
