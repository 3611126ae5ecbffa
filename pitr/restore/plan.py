"""Everything that is decided before a byte is written."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pitr.core.errors import NoSuitableBackup, UsageError
from pitr.core.events import Report
from pitr.pg.cluster_files import tablespace_links
from pitr.repo.catalog import load_backup, load_backups, load_map
from pitr.repo.identity import Identity
from pitr.repo.manifest import BackupManifest, Parameters
from pitr.repo.maps import BackupMap, FileKind
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository
from pitr.restore.archive import Archive
from pitr.restore.candidates import candidates, choose_history, find_identity
from pitr.restore.destination import relative_paths
from pitr.restore.preflight import Target, examine, require_space
from pitr.restore.request import Latest, RestorePlan, RestoreRequest, TablespacePlan
from pitr.restore.resolve import Resolution, Resolver
from pitr.restore.settings import RecoverySettings, fetch_line, required_parameters
from pitr.restore.slices import Holes, Slices, fetched_bytes, slices_of
from pitr.restore.tablespaces import CreatedTablespace, check_created, check_locations, plan_tablespaces
from pitr.restore.unarchived import require_archived

_SEGMENTS_KEPT = 4
"""Room for the segments that recovery keeps at a time before a restartpoint lets them go."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with what is needed to carry it out."""

    plan: RestorePlan
    names: HistoryNames
    manifest: BackupManifest
    built: BackupMap
    columns: Slices
    holes: Holes
    target: Target
    lines: tuple[str, ...]
    missing_locations: tuple[str, ...]


def prepare(repository: Repository, request: RestoreRequest, report: Report) -> Prepared:
    _check_request(request)
    identity = find_identity(repository, request.cluster, request.system_id)
    names = identity.names
    target = examine(request.to, delta=request.delta, system_id=names.system_id)
    if target.occupied:
        require_archived(repository, names, target.path, identity.segment_size_bytes)
    resolution, history_warnings = _resolve(repository, identity, request, report)
    manifest = resolution.manifest
    tablespaces = plan_tablespaces(manifest.server.tablespaces, request.tablespaces)
    linked = tablespace_links(target.path) if target.occupied else {}
    check_locations(tablespaces, target.path, request.role, linked)
    created = [
        CreatedTablespace(event.lsn, event.oid, event.location) for event in resolution.facts.tablespaces_created
    ]
    missing_locations = check_created(created)
    built = load_map(repository, manifest)
    for _path in relative_paths(built):
        pass  # each is checked
    columns, holes = slices_of(built)
    replayed = min(resolution.segments.count, _SEGMENTS_KEPT) * manifest.server.segment_size_bytes
    _require_space(built, columns, target, tablespaces, replayed)
    lines = _settings(request, resolution)
    warnings = (
        *history_warnings,
        *resolution.warnings,
        *_about(manifest, target, [plan.location for plan in tablespaces]),
        *(f"{place} will be made: recovery replays a CREATE TABLESPACE there" for place in missing_locations),
    )
    standby = request.role == "standby"
    plan = RestorePlan(
        cluster=request.cluster,
        system_id=manifest.system_id,
        backup_id=manifest.id,
        backup_ended_at=manifest.ended_at,
        role=request.role,
        action=request.action,
        delta=request.delta and target.occupied,
        to=str(target.path),
        timeline=resolution.target.timeline,
        target=None if standby else resolution.target,
        segments=None if standby else resolution.segments,
        files=int((built.files["kind"] != FileKind.DIRECTORY).sum()),
        bytes=built.total_bytes,
        fetched_bytes=fetched_bytes(built, columns),
        tablespaces=tablespaces,
        settings=tuple(lines),
        warnings=warnings,
    )
    return Prepared(plan, names, manifest, built, columns, holes, target, tuple(lines), missing_locations)


def _check_request(request: RestoreRequest) -> None:
    if request.role == "standby" and not isinstance(request.target, Latest):
        raise UsageError(
            "a standby has no target: it follows its primary", hint="use --role copy or primary for a target"
        )
    if request.role != "standby" and request.primary_conninfo is not None:
        raise UsageError("a connection to a primary is for --role standby only")
    if request.jobs < 1:
        raise UsageError(f"{request.jobs} jobs cannot do anything")


def _resolve(
    repository: Repository, identity: Identity, request: RestoreRequest, report: Report
) -> tuple[Resolution, tuple[str, ...]]:
    names = identity.names
    backups = load_backups(repository, names)
    if not backups:
        raise NoSuitableBackup(
            f'there is no backup of cluster "{request.cluster}"', hint='"pitr backup base" makes one'
        )
    if request.backup_id is not None:
        newest = load_backup(repository, names, request.backup_id)
        if newest.id not in {manifest.id for manifest in backups}:
            backups.append(newest)
    else:
        newest = backups[-1]
    history, warnings = choose_history(repository, names, newest, request.timeline, identity.segment_size_bytes)
    chosen = candidates(backups, history, request.backup_id)
    archive = Archive(repository, names, history, identity.segment_size_bytes)
    one_only = request.backup_id is not None
    return Resolver(archive, chosen, report, one_only=one_only).resolve(request.target), warnings


def _settings(request: RestoreRequest, resolution: Resolution) -> list[str]:
    """A copy gets the five parameters in any case, as its own configuration may lack them; else only risen ones."""
    manifest, target = resolution.manifest, resolution.target
    changed = resolution.facts.parameters
    seen: Sequence[Parameters] = ()
    if changed is not None:
        seen = (
            Parameters(
                changed.max_connections,
                changed.max_worker_processes,
                changed.max_wal_senders,
                changed.max_prepared_transactions,
                changed.max_locks_per_transaction,
            ),
        )
    required = required_parameters(manifest.server.parameters, seen)
    standby = request.role == "standby"
    return RecoverySettings(
        role=request.role,
        action=request.action,
        major=manifest.server.major,
        restore_command=fetch_line(
            request.fetch_command,
            chain=None if standby else target.timeline,
            until=None if standby else target.until,
        ),
        target_lsn=None if standby else target.lsn,
        inclusive=target.inclusive,
        timeline=request.timeline if standby else target.timeline,
        parameters=required if request.role == "copy" or required != manifest.server.parameters else None,
        primary_conninfo=request.primary_conninfo,
    ).lines()


def _about(manifest: BackupManifest, target: Target, locations: Sequence[str]) -> list[str]:
    notes = []
    if manifest.bad_pages:
        notes.append(
            f"backup {manifest.id} has {manifest.bad_page_count} pages that failed their checksum when it was made, "
            f"in {', '.join(bad.path for bad in manifest.bad_pages[:5])}"
        )
    if os.geteuid() == 0 and target.owner is None:
        notes.append(
            "the files will belong to root, and PostgreSQL does not run as root: "
            + shlex.join(["chown", "-R", "postgres:", str(target.path), *locations])
        )
    return notes


def _require_space(
    built: BackupMap, columns: Slices, target: Target, tablespaces: Sequence[TablespacePlan], replayed_bytes: int
) -> None:
    """Holes take no space. ``replayed_bytes``: of the WAL that recovery keeps beside the files."""
    sizes = np.bincount(columns.file, weights=columns.length, minlength=built.file_count)
    needed = {str(target.path): int(sizes.sum()) + replayed_bytes}
    for plan in tablespaces:
        size = int(sizes[built.files["tablespace"] == plan.oid].sum())
        needed[plan.location] = size
        needed[str(target.path)] -= size
    require_space(needed, reusable=list(needed) if target.occupied else ())
