"""The restore: plan (resolve, prove, check), then write, pg_control last."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pitr.core.clock import format_utc, utc_now
from pitr.core.documents import to_json
from pitr.core.errors import IntegrityError, Interrupted, PitrError, StoreDenied
from pitr.core.events import PhaseEnded, PhaseStarted, Report, warn
from pitr.core.files import fsync_directory, os_errors_as_pitr, sync_filesystem, write_file_durably
from pitr.pg.cluster_files import debian_cluster
from pitr.pg.control import CONTROL_FILE, parse_control
from pitr.repo.catalog import load_backup
from pitr.repo.manifest import BackupManifest
from pitr.repo.maps import FileKind
from pitr.repo.pins import pinned
from pitr.repo.repository import Repository
from pitr.restore.configuration import Layout, write_configuration, write_recovery, write_small_file
from pitr.restore.copy import COPY_PHASE, FrameCopier, clear_holes
from pitr.restore.destination import MARKER, PENDING_CONTROL, config_directory, relative_path
from pitr.restore.files import FileWriter
from pitr.restore.includes import relocate_in_tree
from pitr.restore.plan import Prepared, prepare
from pitr.restore.preflight import examine, only_restore
from pitr.restore.request import RestorePlan, RestoreRequest, RestoreResult
from pitr.restore.steps import next_steps, start_commands
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


def plan_restore(repository: Repository, request: RestoreRequest, report: Report) -> RestorePlan:
    """Resolve, prove and check everything; nothing is written.

    Raises NoSuitableBackup, TargetUnreachable, WalGap, HistoryMismatch, AmbiguousName (the target); OverwriteRefused,
    NoSpace, StoreDenied (the directory); IntegrityError (damaged WAL or map); UsageError.
    """
    return prepare(_throttled(repository, request), request, report).plan


def run_restore(repository: Repository, request: RestoreRequest, report: Report) -> RestoreResult:
    """Plan and write. What plan_restore raises is raised before anything is written.

    Raises Locked while another restore writes there. Cut short in any way, the directory has no pg_control and cannot
    be started; the same request with ``delta`` goes on.
    """
    repository = _throttled(repository, request)
    phases = _Phases(report)
    with phases.timed(_SCAN):
        prepared = prepare(repository, request, report)
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
        make_root(prepared.target.path, root_mode(prepared.built), prepared.target.owner)
        stack.enter_context(only_restore(prepared.target.path))
        # Resolving takes minutes: a server may have been started there since, or another restore have ended.
        examine(prepared.target.path, delta=request.delta, system_id=prepared.names.system_id)
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


# Writing


def _write(
    repository: Repository, request: RestoreRequest, prepared: Prepared, phases: _Phases, report: Report
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
        start_commands=start_commands(
            plan, prepared.manifest.server.major, prepared.target.owner, debian_cluster(prepared.target.path)
        ),
        next_steps=next_steps(plan),
        config_directory=f"{plan.to}/{layout.config}" if layout.outside else None,
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


def _begin(prepared: Prepared) -> None:
    """From here on the directory cannot be started, until _finish: the marker is there and pg_control is not."""
    path = prepared.target.path
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


def _make_tree(request: RestoreRequest, prepared: Prepared) -> int:
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


def _copy(repository: Repository, request: RestoreRequest, prepared: Prepared, report: Report) -> int:
    built = prepared.built
    kinds = built.files["kind"]

    config = config_directory(built)

    def path_of(index: int) -> str:
        return relative_path(built.path(index), int(kinds[index]), config)

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


def _layout(prepared: Prepared) -> Layout:
    built = prepared.built
    outside = frozenset(built.path(index) for index in (built.files["kind"] == FileKind.CONFIG).nonzero()[0].tolist())
    plan = prepared.plan
    return Layout(
        prepared.target.path,
        plan.role,
        prepared.manifest.server,
        outside,
        config_directory(built),
        prepared.target.owner,
    )


def _finish(request: RestoreRequest, prepared: Prepared) -> None:
    """Settings, then everything durable, then pg_control: the one file without which no server starts."""
    path = prepared.target.path
    layout = _layout(prepared)
    heading = f"pitr restore of {prepared.plan.backup_id}, {format_utc(utc_now())}"
    write_recovery(layout, prepared.lines, heading, prepared.manifest.backup_label)
    restored = [path / relative_path(name, FileKind.CONFIG, layout.config) for name in sorted(layout.outside)]
    main = path / "postgresql.conf"
    relocate_in_tree(
        [*restored, *([main] if main.is_file() else [])],
        path / layout.config,
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
