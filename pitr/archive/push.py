"""``archive_command``: one checked file into every repository, durable in each before this returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pitr.archive.indexing import IndexOf
from pitr.archive.remote import Outcome, Remote, on_each
from pitr.archive.source import WalFile, read_wal_file
from pitr.codec import content_digest
from pitr.core.clock import Clock, utc_now
from pitr.core.errors import ConfigError
from pitr.core.events import Report, silent, warn
from pitr.pg.segments import PartialName, SegmentName
from pitr.repo.identity import ensure_identity
from pitr.repo.repository import Repository
from pitr.repo.walobjects import Index, Put, put_wal, put_wal_object


class PushResult(NamedTuple):
    """``outcomes``: repository name and whether the file was stored now or was there with the same content."""

    name: str
    system_id: str
    size_bytes: int
    outcomes: tuple[tuple[str, Put], ...]


def push_segment(
    remotes: Sequence[Remote],
    cluster: str,
    path: Path,
    *,
    data_directory: Path | None = None,
    report: Report = silent,
    clock: Clock = utc_now,
) -> PushResult:
    """Archive one file of pg_wal. When it returns, every required repository has it durably.

    ``path`` is ``%p``, relative to the server's data directory (the working directory). The same content again
    succeeds. A failing repository does not keep the file from the others; the first required one's error is raised,
    the others' are reported as warnings.

    Raises what read_wal_file does; HistoryMismatch (another cluster under this name), OverwriteRefused (other content
    under this name), StoreError.
    """
    if not any(remote.required for remote in remotes):
        raise ConfigError(
            "no repository is required to have the WAL of this cluster",
            hint='set required = true for at least one ("pitr config show")',
        )
    file = read_wal_file(path, cluster, clock(), data_directory=data_directory)
    index = IndexOf(file.name, file.data, report) if isinstance(file.name, SegmentName) else b""
    outcomes = on_each(remotes, lambda repository: store_file(repository, file, index=index))
    _raise_first(outcomes, report)
    return PushResult(
        str(file.name),
        file.identity.system_id,
        len(file.data),
        tuple((outcome.remote.name, outcome.value) for outcome in outcomes if outcome.value is not None),
    )


def store_file(repository: Repository, file: WalFile, *, index: Index = b"") -> Put:
    """Record the cluster on its first file, then put this one, only if absent."""
    ensure_identity(repository, file.identity)
    names = file.identity.names
    if not isinstance(file.name, PartialName):
        return put_wal(repository, names, file.name, file.data, index=index)
    assert file.valid_end is not None
    # Keyed, so that the name tells nothing of the content; by content, so that partials never conflict.
    digest = content_digest(repository.keyring, str(file.name), [file.data])
    object_name = names.partial(file.name.segment, file.valid_end, digest)
    return put_wal_object(repository, object_name, file.data)


def _raise_first(outcomes: Sequence[Outcome[Put]], report: Report) -> None:
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    first = next((outcome for outcome in failed if outcome.remote.required), None)
    for outcome in failed:
        if outcome is not first:
            warn(report, f"repository {outcome.remote.name}: {outcome.error}")
    if first is not None and first.error is not None:
        raise first.error
