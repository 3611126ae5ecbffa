"""The restore: plan (resolve, prove, check), then write, pg_control last."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pitr.core.clock import format_utc, utc_now
from pitr.core.documents import to_json
from pitr.core.errors import IntegrityError, Interrupted, NoSuitableBackup, PitrError, StoreDenied, UsageError
from pitr.core.events import PhaseEnded, PhaseStarted, Report, warn
from pitr.core.files import fsync_directory, os_errors_as_pitr, sync_filesystem, write_file_durably
from pitr.pg.cluster_files import tablespace_links
from pitr.pg.control import CONTROL_FILE, parse_control
from pitr.repo.catalog import load_backup, load_backups, load_map
from pitr.repo.identity import Identity
from pitr.repo.manifest import BackupManifest, Parameters
from pitr.repo.maps import BackupMap, FileKind
from pitr.repo.names import HistoryNames
from pitr.repo.pins import pinned
from pitr.repo.repository import Repository
from pitr.restore.archive import Archive
from pitr.restore.candidates import candidates, choose_history, find_identity
from pitr.restore.configuration import Layout, write_configuration, write_recovery, write_small_file
from pitr.restore.copy import COPY_PHASE, FrameCopier, clear_holes
from pitr.restore.destination import CONFIG_DIRECTORY, MARKER, PENDING_CONTROL, relative_path, relative_paths
from pitr.restore.files import FileWriter
from pitr.restore.includes import relocate_in_tree
from pitr.restore.preflight import Target, examine, require_space
from pitr.restore.request import Latest, RestorePlan, RestoreRequest, RestoreResult, TablespacePlan
from pitr.restore.resolve import Resolution, Resolver
from pitr.restore.settings import RecoverySettings, fetch_line, required_parameters
from pitr.restore.slices import Holes, Slices, fetched_bytes, slices_of
from pitr.restore.steps import next_steps, start_commands
from pitr.restore.tablespaces import CreatedTablespace, check_created, check_locations, plan_tablespaces
from pitr.restore.tree import (
    extra_paths,
    link_tablespaces,
    make_directories,
    make_files,
    make_root,
    remove_extra,
    root_mode,
)
from pitr.store.wrappers import Throttled, TokenBucket

_SCAN, _FILES, _SYNC = "resolve", "files", "sync"


@dataclass(frozen=True, slots=True)
class _Prepared:
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


def plan_restore(repository: Repository, request: RestoreRequest, report: Report) -> RestorePlan:
    """Resolve, prove and check everything; nothing is written.

    Raises NoSuitableBackup, TargetUnreachable, WalGap, HistoryMismatch, AmbiguousName (the target); OverwriteRefused,
    NoSpace, StoreDenied (the directory); IntegrityError (damaged WAL or map); UsageError.
    """
    return _prepare(_throttled(repository, request), request, report).plan


def run_restore(repository: Repository, request: RestoreRequest, report: Report) -> RestoreResult:
    """Plan and write. What plan_restore raises is raised before anything is written.

    Cut short in any way, the directory has no pg_control and cannot be started; the same request with ``delta`` goes
    on.
    """
    repository = _throttled(repository, request)
    phases = _Phases(report)
    with phases.timed(_SCAN):
        prepared = _prepare(repository, request, report)
    for warning in prepared.plan.warnings:
        warn(report, warning)
    plan = prepared.plan
    with contextlib.ExitStack() as stack:
        pin = pinned(
            repository,
            request.cluster,
            "restore",
            system_id=int(plan.system_id),
            backup_id=plan.backup_id,
            own_id="",
            now=utc_now(),
        )
        try:
            stack.enter_context(pin)
        except StoreDenied as error:
            warn(
                report, f"the backup is not pinned, as the repository cannot be written; do not expire it now ({error})"
            )
        load_backup(repository, prepared.names, plan.backup_id)  # still there, now that the pin is
        return _write(repository, request, prepared, phases, report)


class _Phases:
    def __init__(self, report: Report) -> None:
        self._report = report
        self._begun = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, name: str, total_bytes: int | None = None) -> Iterator[None]:
        begun = time.monotonic()
        self._report(PhaseStarted(name, total_bytes))
        yield
        self.seconds[name] = time.monotonic() - begun
        self._report(PhaseEnded(name, self.seconds[name]))

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._begun


def _throttled(repository: Repository, request: RestoreRequest) -> Repository:
    if request.max_rate is None:
        return repository
    return replace(repository, store=Throttled(repository.store, down=TokenBucket(request.max_rate)))


# Planning


def _prepare(repository: Repository, request: RestoreRequest, report: Report) -> _Prepared:
    _check_request(request)
    identity = find_identity(repository, request.cluster, request.system_id)
    names = identity.names
    target = examine(request.to, delta=request.delta, system_id=names.system_id)
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
    _require_space(built, columns, target, tablespaces)
    lines = _settings(request, resolution)
    warnings = (
        *history_warnings,
        *resolution.warnings,
        *_about(manifest, target),
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
    return _Prepared(plan, names, manifest, built, columns, holes, target, tuple(lines), missing_locations)


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


def _about(manifest: BackupManifest, target: Target) -> list[str]:
    notes = []
    if manifest.bad_pages:
        notes.append(
            f"backup {manifest.id} has {manifest.bad_page_count} pages that failed their checksum when it was made, "
            f"in {', '.join(bad.path for bad in manifest.bad_pages[:5])}"
        )
    if os.geteuid() == 0 and target.owner is None:
        notes.append(
            f"the files will belong to root, and PostgreSQL does not run as root: chown -R postgres {target.path}"
        )
    return notes


def _require_space(built: BackupMap, columns: Slices, target: Target, tablespaces: Sequence[TablespacePlan]) -> None:
    """Holes take no space."""
    sizes = np.bincount(columns.file, weights=columns.length, minlength=built.file_count)
    needed = {str(target.path): int(sizes.sum())}
    for plan in tablespaces:
        size = int(sizes[built.files["tablespace"] == plan.oid].sum())
        needed[plan.location] = size
        needed[str(target.path)] -= size
    require_space(needed, reusable=list(needed) if target.occupied else ())


# Writing


def _write(
    repository: Repository, request: RestoreRequest, prepared: _Prepared, phases: _Phases, report: Report
) -> RestoreResult:
    begun = False
    try:
        _begin(prepared)
        begun = True
        removed = 0
        with phases.timed(_FILES):
            removed = _make_tree(request, prepared)
        with phases.timed(COPY_PHASE, int(prepared.columns.length.sum(dtype=np.uint64))):
            written = _copy(repository, request, prepared, report)
        with phases.timed(_SYNC):
            _finish(request, prepared)
    except BaseException as error:
        if begun or (prepared.target.path / MARKER).exists():
            raise _cut_short(error, prepared.plan) from error
        raise
    plan = prepared.plan
    layout = _layout(prepared)
    return RestoreResult(
        plan=plan,
        elapsed_s=phases.elapsed_s,
        phases_s=phases.seconds,
        files=plan.files,
        bytes_written=written,
        removed_files=removed,
        start_commands=start_commands(plan, prepared.manifest.server.major, prepared.target.owner),
        next_steps=next_steps(plan),
        config_directory=f"{plan.to}/{CONFIG_DIRECTORY}" if layout.outside else None,
        warnings=plan.warnings,
    )


def _cut_short(error: BaseException, plan: RestorePlan) -> BaseException:
    """The same error, saying how to go on."""
    hint = f"{plan.to} cannot be started as it is; run the same command with --delta to go on, or remove the directory"
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("the restore was interrupted", hint=hint)
    if isinstance(error, PitrError):
        error.hint = f"{error.hint}; {hint}" if error.hint else hint
    return error


def _begin(prepared: _Prepared) -> None:
    """From here on the directory cannot be started, until _finish: the marker is there and pg_control is not."""
    path, owner = prepared.target.path, prepared.target.owner
    make_root(path, root_mode(prepared.built), owner)
    document = {
        "what": "an unfinished pitr restore: no server can be started here; the same command with --delta goes on",
        "system_id": prepared.plan.system_id,
        "backup_id": prepared.plan.backup_id,
        "begun_at": format_utc(utc_now()),
        "plan": to_json(prepared.plan),
    }
    with os_errors_as_pitr(f"cannot write {path / MARKER}"):
        write_file_durably(path / MARKER, [json.dumps(document, indent=1).encode()])
        control = path / CONTROL_FILE
        if control.exists():
            control.unlink()
            fsync_directory(control.parent)


def _make_tree(request: RestoreRequest, prepared: _Prepared) -> int:
    path, owner, built = prepared.target.path, prepared.target.owner, prepared.built
    mode = root_mode(built)
    link_tablespaces(path, prepared.plan.tablespaces, mode, owner)
    removed = 0
    if prepared.target.occupied:
        removed = remove_extra(path, *extra_paths(path, built))
    make_directories(path, built, mode, owner)
    make_files(path, built, owner, keep=prepared.target.occupied, threads=request.jobs)
    for place in prepared.missing_locations:
        make_root(Path(place), mode, owner)
    return removed


def _copy(repository: Repository, request: RestoreRequest, prepared: _Prepared, report: Report) -> int:
    built = prepared.built
    kinds = built.files["kind"]

    def path_of(index: int) -> str:
        return relative_path(built.path(index), int(kinds[index]))

    copier = FrameCopier(repository, prepared.names, built, prepared.columns, report)
    writer = FileWriter(
        str(prepared.target.path), path_of, delta=prepared.target.occupied, buffer_size=copier.buffer_size
    )
    try:
        if prepared.target.occupied:
            clear_holes(prepared.holes, writer, request.jobs)
        copier.run(writer, request.jobs)
    finally:
        writer.close()
    return writer.bytes_written


def _layout(prepared: _Prepared) -> Layout:
    built = prepared.built
    outside = frozenset(built.path(index) for index in (built.files["kind"] == FileKind.CONFIG).nonzero()[0].tolist())
    plan = prepared.plan
    return Layout(prepared.target.path, plan.role, prepared.manifest.server, outside, prepared.target.owner)


def _finish(request: RestoreRequest, prepared: _Prepared) -> None:
    """Settings, then everything durable, then pg_control: the one file without which no server starts."""
    path = prepared.target.path
    layout = _layout(prepared)
    heading = f"pitr restore of {prepared.plan.backup_id}, {format_utc(utc_now())}"
    write_recovery(layout, prepared.lines, heading, prepared.manifest.backup_label)
    restored = [path / relative_path(name, FileKind.CONFIG) for name in sorted(layout.outside)]
    main = path / "postgresql.conf"
    relocate_in_tree(
        [*restored, *([main] if main.is_file() else [])],
        path / CONFIG_DIRECTORY,
        always=request.role == "copy",
        write=lambda file, text: write_small_file(file, text, layout.owner),
    )
    write_configuration(layout)
    control = path / PENDING_CONTROL
    _check_control(control, prepared.manifest)
    with os_errors_as_pitr(f"cannot make {path} durable"):
        for place in _file_systems(path, prepared.plan):
            sync_filesystem(place)
        control.rename(path / CONTROL_FILE)
        fsync_directory(control.parent)
        (path / MARKER).unlink()
        fsync_directory(path)


def _check_control(control: Path, manifest: BackupManifest) -> None:
    with os_errors_as_pitr(f"cannot read {control}"):
        found = parse_control(control.read_bytes())
    if str(found.system_identifier) != manifest.system_id:
        raise IntegrityError(
            f"the pg_control of backup {manifest.id} belongs to another cluster",
            detail=f"system identifier {found.system_identifier}, expected {manifest.system_id}",
        )


def _file_systems(path: Path, plan: RestorePlan) -> list[Path]:
    """One place on each file system that was written to."""
    places = [path, path / "pg_wal", *(Path(tablespace.location) for tablespace in plan.tablespaces)]
    return list({place.stat().st_dev: place for place in places}.values())
