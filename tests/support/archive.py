"""For tests of the WAL archive: real segments of two timelines, repositories in memory, the real program."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pitr.archive.push import push_segment
from pitr.archive.remote import Remote
from pitr.codec import KeyFile, new_key_file_text
from pitr.core.secrets import Secret
from pitr.pg.control import CONTROL_FILE, read_control
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository, create_repository, open_repository
from pitr.store.base import ObjectStore
from pitr.store.memory import MemoryStore
from tests.support.cluster import Cluster, wait_until

MIB = 1 << 20
PROGRAM = Path(sys.executable).parent / "pitr"


@dataclass(frozen=True)
class WalSample:
    """Archived files of a cluster with 1 MiB segments.

    Timeline 2 left timeline 1 inside segment ``fork`` and goes on to ``last_2``; the promoted server also archived
    timeline 1's part of ``fork`` as a partial. The old primary went on as well, on timeline 1 up to ``last_1``, which
    is higher than ``last_2``.
    """

    directory: Path
    system_id: int
    switch_lsn: Lsn
    first: int
    fork: int
    last_1: int
    last_2: int

    def segment(self, timeline: int, number: int) -> SegmentName:
        return SegmentName(timeline, number, MIB)

    def path(self, timeline: int, number: int) -> Path:
        return self.directory / "pg_wal" / str(self.segment(timeline, number))

    def data(self, timeline: int, number: int) -> bytes:
        return self.path(timeline, number).read_bytes()

    @property
    def partial(self) -> Path:
        return self.directory / "pg_wal" / f"{self.segment(1, self.fork)}.partial"

    @property
    def history_file(self) -> Path:
        return self.directory / "pg_wal" / "00000002.history"

    def history(self) -> History:
        return History.parse(2, self.history_file.read_text())

    def names(self, cluster: str = "shop") -> HistoryNames:
        return HistoryNames(cluster, self.system_id)


def _fill(cluster: Cluster, table: str, segments: int) -> None:
    """Write that many segments, the last one switched away."""
    cluster.sql(f"CREATE TABLE IF NOT EXISTS {table} (filler text)")
    for _ in range(segments):
        cluster.sql(f"INSERT INTO {table} SELECT repeat(md5(g::text), 20) FROM generate_series(1, 800) AS g")
        cluster.switch_wal()


def archived_by(cluster: Cluster, directory: Path, name: str) -> None:
    wait_until(lambda: (directory / name).exists(), what=f"{name} in {directory}:\n{cluster.log[-2000:]}")


@pytest.fixture(scope="session")
def wal_sample(tmp_path_factory: pytest.TempPathFactory) -> WalSample:
    directory = tmp_path_factory.mktemp("wal")
    wal = directory / "pg_wal"
    primary = Cluster.make(segment_size_mb=1, archive_to=wal, conf={"wal_keep_size": "64MB"}).start()
    _fill(primary, "before", 3)
    standby = primary.make_standby()
    standby.start()
    primary.sql("INSERT INTO before SELECT md5(g::text) FROM generate_series(1, 1000) AS g")
    wait_until(lambda: standby.lsn() >= primary.lsn(), what="replay")
    standby.promote()
    wait_until(lambda: (wal / "00000002.history").exists(), what=f"history file: {standby.log[-2000:]}")
    _fill(standby, "promoted", 2)
    last_2 = standby.switch_wal()
    archived_by(standby, wal, last_2)
    _fill(primary, "stray", 6)
    last_1 = primary.switch_wal()
    archived_by(primary, wal, last_1)
    (directory / "global").mkdir()
    (directory / CONTROL_FILE).write_bytes((primary.data_directory / CONTROL_FILE).read_bytes())
    system_id = read_control(directory / CONTROL_FILE).system_identifier
    for cluster in (standby, primary):
        cluster.stop("fast")
        cluster.discard()
    switch = History.parse(2, (wal / "00000002.history").read_text()).entries[-1].switch_lsn
    sample = WalSample(
        directory,
        system_id,
        switch,
        min(int(path.name[16:], 16) for path in wal.glob("00000001" + "?" * 16)),
        int(switch) // MIB,
        SegmentName.parse(last_1, MIB).number,
        SegmentName.parse(last_2, MIB).number,
    )
    assert sample.first < sample.fork < sample.last_2 < sample.last_1
    assert sample.partial.exists()
    return sample


def memory_repository(
    name: str = "main", store: ObjectStore | None = None, *, sealed: bool = False, if_absent: bool = True
) -> Repository:
    store = store if store is not None else MemoryStore(name)
    secret = KeyFile(Secret(new_key_file_text())) if sealed else None
    create_repository(store, [] if secret is None else [secret], now=datetime.now(UTC), if_absent_works=if_absent)
    return open_repository(name, store, secret)


def archive(repository: Repository, paths: Sequence[Path], cluster: str = "shop") -> None:
    for path in paths:
        push_segment([Remote.opened(repository)], cluster, path)


def program_command(repo_url: str, *words: str, cluster: str = "shop") -> str:
    """A shell command for archive_command or restore_command that runs the real program, unencrypted."""
    environment = f"/usr/bin/env PITR_REPO={repo_url} PITR_ENCRYPTION=false"
    return f"{environment} {PROGRAM} --cluster {cluster} " + " ".join(words)


def program_environment(repo_url: str) -> dict[str, str]:
    return {**os.environ, "PITR_REPO": repo_url, "PITR_ENCRYPTION": "false", "PITR_CLUSTER": "shop"}
