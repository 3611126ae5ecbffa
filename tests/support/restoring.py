"""For tests of restores: a cluster that archives into a directory repository, its moments, restores in this process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pitr.base.backup import run_base_backup
from pitr.base.request import BaseBackupRequest
from pitr.core.events import silent
from pitr.pg.lsn import Lsn
from pitr.repo.repository import Repository, create_repository, open_repository
from pitr.restore import RecoveryTarget, RestorePlan, RestoreRequest, RestoreResult, plan_restore, run_restore
from pitr.store import PosixStore
from tests.support.archive import PROGRAM, program_command
from tests.support.cluster import DEFAULT_MAJOR, Cluster, Recovery, recover_in, wait_until

STATE = "SELECT count(*)::text || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY id)), '') FROM events AS t"


@dataclass(frozen=True)
class Moment:
    """The state right after transaction ``xid``, whose commit record ends at ``end`` and says ``time``."""

    state: str
    xid: int
    time: datetime
    start: Lsn
    end: Lsn


@dataclass
class Source:
    """A cluster with 1 MiB segments and its unencrypted repository."""

    cluster: Cluster
    directory: Path
    repository: Repository
    clusters: list[Cluster] = field(default_factory=list)

    @classmethod
    def make(
        cls, directory: Path, *, major: int = DEFAULT_MAJOR, conf: dict[str, str] | None = None, start: bool = True
    ) -> Source:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "repository").mkdir(mode=0o700)
        store = PosixStore(directory / "repository")
        create_repository(store, [], now=datetime.now(UTC), if_absent_works=True)
        url = f"file://{directory / 'repository'}"
        settings = {
            "archive_mode": "on",
            "archive_command": program_command(url, "wal", "push", '"%p"'),
            "track_commit_timestamp": "on",
            "autovacuum": "off",
            "max_wal_size": "64MB",
            **(conf or {}),
        }
        cluster = Cluster.make(major, segment_size_mb=1, conf=settings)
        source = cls(cluster, directory, open_repository("main", store, None))
        source.clusters.append(cluster)
        if start:
            cluster.start()
        return source

    @property
    def url(self) -> str:
        return f"file://{self.directory / 'repository'}"

    @property
    def fetch_command(self) -> tuple[str, ...]:
        return ("/usr/bin/env", f"PITR_REPO={self.url}", "PITR_ENCRYPTION=false", str(PROGRAM), "--cluster", "shop")

    def backup(self) -> str:
        request = BaseBackupRequest("shop", self.cluster.conninfo(), self.cluster.data_directory, jobs=2)
        found = run_base_backup(self.repository, request, silent).backup_id
        assert found is not None
        return found

    def step(self, statement: str, cluster: Cluster | None = None, db: str = "postgres") -> Moment:
        """One transaction, alone."""
        cluster = cluster or self.cluster
        start = cluster.lsn()
        with cluster.connect(db, autocommit=False) as connection:
            connection.execute(statement.encode())
            row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
            assert row is not None
            connection.commit()
        end = cluster.lsn()
        moment = cluster.value("SELECT pg_xact_commit_timestamp(%s::text::xid)", params=[str(row[0])])
        return Moment(cluster.value(STATE), int(row[0]), moment, start, end)

    def archived(self, cluster: Cluster | None = None) -> str:
        """Switch the segment and wait until everything before is in the archive."""
        cluster = cluster or self.cluster
        name = cluster.switch_wal()
        wait_until(
            lambda: cluster.value("SELECT last_archived_wal >= %s FROM pg_stat_archiver", params=[name]),
            60.0,
            f"archiving of {name}",
        )
        return name

    def request(self, to: Path, target: RecoveryTarget, **options: Any) -> RestoreRequest:
        request = RestoreRequest(cluster="shop", to=to, target=target, fetch_command=self.fetch_command)
        return replace(request, **options)

    def plan(self, to: Path, target: RecoveryTarget, **options: Any) -> RestorePlan:
        return plan_restore(self.repository, self.request(to, target, **options), silent)

    def restore(self, to: Path, target: RecoveryTarget, **options: Any) -> RestoreResult:
        return run_restore(self.repository, self.request(to, target, **options), silent)

    def recover(self, to: Path, **settings: str) -> Recovery:
        found = recover_in(to, major=self.cluster.major, settings=settings)
        self.clusters.append(found.cluster)
        return found

    def segment_file(self, segment: str) -> Path:
        (found,) = (self.directory / "repository").rglob(segment)
        return found

    def discard(self) -> None:
        for cluster in self.clusters:
            cluster.discard()
