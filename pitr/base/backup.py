"""A full physical backup of a running server: plan, copy, finish."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pitr.base.archiving import WalArchive, server_history
from pitr.base.copy import PHASE as COPY
from pitr.base.copy import CopyTask, copy_control, copy_files
from pitr.base.finish import Finished, Moments, check_packs_listed, commit, make_manifest, put_documents
from pitr.base.outcome import assemble
from pitr.base.plan import make_plan
from pitr.base.preflight import Server, Skip, check_redo, inspect_server, skip_for_age, skip_for_role
from pitr.base.relations import take_relations
from pitr.base.request import BaseBackupRequest, BaseBackupResult
from pitr.core.clock import Clock, utc_now
from pitr.core.errors import Interrupted, StoreError
from pitr.core.events import Message, PhaseEnded, PhaseStarted, Report, info
from pitr.pg.backup import BackupLabel, backup_start, backup_stop
from pitr.pg.facts import read_databases, read_facts, read_tablespaces, read_timeline
from pitr.pg.server import connect, server_errors
from pitr.repo.identity import FORMAT as IDENTITY_FORMAT
from pitr.repo.identity import Identity, ensure_identity
from pitr.repo.ids import new_backup_id
from pitr.repo.leases import Lease, LeaseState, leased
from pitr.repo.manifest import BackupManifest
from pitr.repo.names import BackupNames, HistoryNames, check_cluster_name
from pitr.repo.packs import PackNumbers
from pitr.repo.pins import Pin, pinned
from pitr.repo.repository import Repository

if TYPE_CHECKING:
    from pitr.pg.server import Connection

BAD_PAGES_EXIT = 3
_DISCARD_S = 5.0


def run_base_backup(
    repository: Repository, request: BaseBackupRequest, report: Report, *, clock: Clock = utc_now
) -> BaseBackupResult:
    """Back up the server that ``request.conninfo`` reaches, from its data directory on this machine.

    Nothing is listed before everything is durable and proven: an exception (KeyboardInterrupt and Interrupted too) or a
    kill at any moment leaves no backup, and the next run works at once. Raises PitrError.
    """
    check_cluster_name(request.cluster)
    with contextlib.closing(connect(request.conninfo, "backup base")) as connection:
        facts = read_facts(connection)
        names = HistoryNames(request.cluster, facts.system_identifier)
        skip = skip_for_role(facts, request) or skip_for_age(repository, names, request, clock())
        if skip is not None:
            return _skipped(skip, request)
        with leased(
            repository.store, request.cluster, "backup", wait_s=request.lock_wait_s, waiting=_tell_waiting(report)
        ) as lease:
            facts = read_facts(connection)  # the role may have changed, or another node made a backup meanwhile
            skip = skip_for_role(facts, request) or skip_for_age(repository, names, request, clock())
            if skip is not None:
                return _skipped(skip, request)
            server = inspect_server(facts, request)
            return _Run(repository, request, report, clock, names, connection, server, lease).backup()


def _skipped(skip: Skip, request: BaseBackupRequest) -> BaseBackupResult:
    return BaseBackupResult(backup_id=skip.backup_id, skipped=skip.reason, label=request.label)


def _tell_waiting(report: Report) -> Callable[[LeaseState], None]:
    def tell(state: LeaseState) -> None:
        info(report, f"another backup is running (process {state.pid} on {state.host}): waiting")

    return tell


@dataclass(slots=True)
class _Run:
    """One backup under way."""

    repository: Repository
    request: BaseBackupRequest
    report: Report
    clock: Clock
    names: HistoryNames
    connection: Connection
    server: Server
    lease: Lease
    warnings: list[str] = field(default_factory=list)
    phases_s: dict[str, float] = field(default_factory=dict)
    committing: bool = False

    def backup(self) -> BaseBackupResult:
        began = time.monotonic()
        repository, request, server, facts = self.repository, self.request, self.server, self.server.facts
        ensure_identity(repository, self._identity())
        history = server_history(repository, self.names, server.data_directory, facts.timeline)
        archive = WalArchive(repository, self.names, self.connection, facts)
        with self._phase("archive"):
            archive.prove(history, request.archive_wait_s)

        backup_id = new_backup_id(self.clock())
        names = self.names.backup(backup_id)
        with self._pinned(backup_id), self._removed_on_failure(names):
            started_at = self._server_time()
            with self._phase("checkpoint"):
                started = backup_start(self.connection, f"pitr {backup_id}", fast=request.fast_checkpoint)
                check_redo(server.data_directory, started.start_lsn)
            with self._phase("plan"):
                relations_at_start = take_relations(
                    self.connection, request.conninfo, read_databases(self.connection), self._warn
                )
                plan = make_plan(server, self._warn)

            with self._phase(COPY, plan.total_bytes):
                task = CopyTask(
                    repository=repository,
                    names=self.names,
                    backup_id=backup_id,
                    plan=plan,
                    jobs=request.jobs,
                    pack_bytes=request.pack_bytes,
                    slice_bytes=request.slice_bytes,
                    max_rate_bytes_per_s=request.max_rate_bytes_per_s,
                    report=self.report,
                )
                numbers = PackNumbers()
                copied = copy_files(task, numbers)
                control = copy_control(task, numbers)

            with self._phase("finish"):
                stopped = backup_stop(self.connection)
                ended_at = self._server_time()
                label = BackupLabel.parse(stopped.label_file)
                timeline = read_timeline(self.connection)
                if timeline != history.timeline:  # a standby that followed its primary's successor
                    history = server_history(repository, self.names, server.data_directory, timeline)
                databases = read_databases(self.connection)
                relations_at_stop = take_relations(self.connection, request.conninfo, databases, self._warn_once)
                outcome = assemble(plan, copied, control, label.start_lsn, stopped.stop_lsn)
                for bad in outcome.bad_pages:
                    self._warn(
                        f"{bad.path}: {len(bad.blocks)} pages fail their checksum, the first is block {bad.blocks[0]}"
                    )
                documents = put_documents(repository, names, outcome, relations_at_start, relations_at_stop)

            with self._phase("wal"):
                archive.await_range(history, label.start_lsn, stopped.stop_lsn, request.archive_wait_s)
            with self._phase("commit"):
                check_packs_listed(repository, names, outcome)
                finished = Finished(
                    server=server,
                    label=label,
                    stopped=stopped,
                    history=history,
                    min_recovery_lsn=control.data.min_recovery_lsn if facts.is_standby else None,
                    tablespaces=plan.tablespaces,
                    tablespace_names=read_tablespaces(self.connection),
                    databases=databases,
                    at_stop=relations_at_stop,
                    moments=Moments(started_at, ended_at, time.monotonic() - began),
                    warnings=tuple(self.warnings),
                )
                manifest = make_manifest(request, backup_id, finished, outcome, documents)
                self.lease.check()
                self.committing = True
                commit(repository, names, manifest)
        return self._result(manifest, time.monotonic() - began)

    def _identity(self) -> Identity:
        facts = self.server.facts
        return Identity(
            IDENTITY_FORMAT,
            self.request.cluster,
            str(facts.system_identifier),
            facts.major,
            facts.segment_size_bytes,
            facts.block_size_bytes,
            self.clock(),
        )

    def _pinned(self, backup_id: str) -> contextlib.AbstractContextManager[Pin]:
        return pinned(
            self.repository,
            self.request.cluster,
            "backup",
            system_id=self.names.system_id,
            backup_id="",
            own_id=backup_id,
            now=self.clock(),
        )

    def _server_time(self) -> datetime:
        with server_errors("cannot read the server's clock"):
            row = self.connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        moment: datetime = row[0]
        return moment.astimezone(UTC)

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.report(Message("warning", text))

    def _warn_once(self, text: str) -> None:
        if text not in self.warnings:
            self._warn(text)

    @contextlib.contextmanager
    def _phase(self, name: str, total_bytes: int | None = None) -> Iterator[None]:
        began = time.monotonic()
        self.report(PhaseStarted(name, total_bytes))
        yield
        self.phases_s[name] = time.monotonic() - began
        self.report(PhaseEnded(name, self.phases_s[name]))

    @contextlib.contextmanager
    def _removed_on_failure(self, names: BackupNames) -> Iterator[None]:
        """What a failed backup has stored so far is removed, if that can be done at once; expire finds the rest.

        Not once the commit has begun: then the backup may exist, whatever the store answered.
        """
        try:
            yield
        except BaseException as error:
            if isinstance(error, Interrupted) and not self.committing:
                error.hint = error.hint or "nothing of it is listed; run the same command again"
            if not self.committing:
                remover = threading.Thread(target=_discard, args=(self.repository, names), daemon=True)
                remover.start()
                remover.join(_DISCARD_S)
            raise

    def _result(self, manifest: BackupManifest, elapsed_s: float) -> BaseBackupResult:
        return BaseBackupResult(
            backup_id=manifest.id,
            type=manifest.type,
            base_id=manifest.base_id,
            label=manifest.label,
            system_id=manifest.system_id,
            timeline=manifest.wal.timeline,
            start_lsn=manifest.wal.start_lsn,
            stop_lsn=manifest.wal.stop_lsn,
            started_at=manifest.started_at,
            ended_at=manifest.ended_at,
            sizes=manifest.sizes,
            packs=manifest.packs,
            elapsed_s=elapsed_s,
            phases_s=self.phases_s,
            bad_pages=manifest.bad_pages,
            warnings=manifest.warnings,
            exit_code=BAD_PAGES_EXIT if manifest.bad_pages else 0,
        )


def _discard(repository: Repository, names: BackupNames) -> None:
    with contextlib.suppress(StoreError):
        if repository.store.caps.can_delete:
            repository.store.delete([stored.name for stored in repository.store.list(names.prefix)])
