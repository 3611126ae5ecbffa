"""WAL of every kind that the readers must understand, made by a real server, with what is known about it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pitr.core.errors import HistoryMismatch
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.wal.stream import Segment
from tests.support.cluster import Cluster, wait_until

SEGMENT_SIZE = 1024 * 1024


@dataclass
class Workload:
    """``directory`` holds the segments of timelines 1 and 2, which was promoted from a standby, and the history."""

    major: int
    directory: Path
    system_id: int
    start: Lsn
    history: History
    xids: dict[str, int] = field(default_factory=dict)
    times: dict[str, datetime] = field(default_factory=dict)
    lsns: dict[str, Lsn] = field(default_factory=dict)

    def fetch(self, name: SegmentName) -> Segment | None:
        """Every segment of the chain; the newest is the one that the server was still writing."""
        path = self.directory / str(name)
        if not path.exists():
            return None
        complete = not (self.directory / f"{name}.live").exists()
        try:
            return Segment.read(path.read_bytes(), name, complete=complete, system_id=self.system_id)
        except HistoryMismatch:
            if complete:
                raise
            return None  # recycled for later, its name is ahead of its content

    def segments(self) -> list[SegmentName]:
        names = sorted(path.name for path in self.directory.iterdir() if len(path.name) == 24)
        return [SegmentName.parse(name, SEGMENT_SIZE) for name in names]


def make(
    major: int, directory: Path, *, big_bytes: int, bench: bool, conf: Mapping[str, str] | None = None
) -> Workload:
    """Run it all on a cluster with 1 MB segments, promote a standby in the middle, leave the WAL in ``directory``."""
    settings = {"wal_level": "logical", "max_prepared_transactions": "5", "autovacuum": "off"}
    settings |= {"wal_keep_size": "256MB", **(conf or {})}  # for the standby, which has no slot
    cluster = Cluster.make(major, segment_size_mb=1, archive_to=directory, conf=settings, fresh=True)
    cluster.start()
    system_id = int(cluster.value("SELECT system_identifier FROM pg_control_system()"))
    cluster.switch_wal()
    # A standby's settings must not be lower than what the WAL says; see _restart_with_more_connections.
    standby = cluster.make_standby(conf={"max_connections": "133", "wal_retrieve_retry_interval": "50ms"})
    standby.start()
    cluster.switch_wal()
    start = Lsn.parse(cluster.value("SELECT redo_lsn::text FROM pg_control_checkpoint()"))
    work = Workload(major, directory, system_id, start, History.initial())
    if bench:
        cluster.pgbench(seconds=1)
    _transactions(cluster, work)
    _big_records(cluster, big_bytes)
    _directories(cluster, work)
    _restart_with_more_connections(cluster, work)
    wait_until(lambda: standby.lsn() >= work.lsns["last of timeline 1"], what="the standby")
    cluster.stop()
    _promote(standby, work)
    return work


def _transactions(cluster: Cluster, work: Workload) -> None:
    cluster.sql("SELECT pg_create_restore_point('before')")
    cluster.sql("CREATE TABLE a (i int PRIMARY KEY, t text)")
    with cluster.connect(autocommit=False) as connection:

        def xid() -> int:
            row = connection.execute("SELECT txid_current()").fetchone()
            assert row is not None
            return int(row[0])

        def xmin(i: int) -> int:
            row = connection.execute("SELECT xmin::text FROM a WHERE i = %s", [i]).fetchone()
            assert row is not None
            return int(row[0])

        connection.execute("INSERT INTO a VALUES (1, 'plain')")
        work.xids["plain"] = xid()
        connection.commit()
        connection.execute("INSERT INTO a VALUES (2, 'top'); SAVEPOINT x; INSERT INTO a VALUES (3, 'gone')")
        work.xids["top"], work.xids["rolled back sub"] = xid(), xmin(3)
        connection.execute("ROLLBACK TO x; SAVEPOINT y; INSERT INTO a VALUES (4, 'sub'); RELEASE y")
        work.xids["sub"] = xmin(4)
        connection.commit()
        connection.execute("INSERT INTO a VALUES (5, 'gone')")
        work.xids["aborted"] = xid()
        connection.rollback()
        connection.execute("INSERT INTO a VALUES (6, 'prepared')")
        work.xids["prepared"] = xid()
        connection.execute("PREPARE TRANSACTION 'gid one'")
        connection.execute("INSERT INTO a VALUES (7, 'gone'); SAVEPOINT z; INSERT INTO a VALUES (8, 'gone')")
        work.xids["prepared, rolled back"] = xid()
        connection.execute("PREPARE TRANSACTION 'gid two'")
    cluster.sql("COMMIT PREPARED 'gid one'")
    cluster.sql("ROLLBACK PREPARED 'gid two'")
    cluster.sql("CREATE TABLE b AS SELECT generate_series(1, 50) AS i")
    cluster.sql("TRUNCATE b")
    cluster.sql("DROP TABLE a, b")
    work.lsns["dropped"] = cluster.lsn()
    work.times["dropped"] = cluster.value("SELECT clock_timestamp()")
    cluster.sql("SELECT pg_create_restore_point('twice')")
    cluster.sql("CREATE TABLE c (i int)")
    cluster.sql("SELECT pg_create_restore_point('twice')")


def _big_records(cluster: Cluster, size: int) -> None:
    """Records over several segments: one in a transaction, one that begins and ends in the middle of segments."""
    emit = "SELECT pg_logical_emit_message(%s, 'big', repeat('abcdefgh', %s))"
    cluster.sql(emit, params=[True, size // 8])
    cluster.sql(emit, params=[False, size // 16])


def _directories(cluster: Cluster, work: Workload) -> None:
    location = cluster.directory / "tablespace"
    location.mkdir(mode=0o700)
    cluster.sql(f"CREATE TABLESPACE ts LOCATION '{location}'")
    strategy = "STRATEGY file_copy" if cluster.major >= 15 else ""
    cluster.sql(f"CREATE DATABASE d TEMPLATE template0 {strategy}")
    work.lsns["before drop database"] = cluster.lsn()
    cluster.sql("DROP DATABASE d")
    cluster.sql("DROP TABLESPACE ts")


def _restart_with_more_connections(cluster: Cluster, work: Workload) -> None:
    cluster.configure({"max_connections": "133"})
    cluster.switch_wal()
    cluster.restart()
    cluster.sql("INSERT INTO c VALUES (1)")
    cluster.configure({"max_connections": "50"})
    cluster.restart()
    cluster.sql("INSERT INTO c VALUES (2)")
    work.lsns["last of timeline 1"] = cluster.lsn()


def _promote(standby: Cluster, work: Workload) -> None:
    standby.promote()
    standby.sql("INSERT INTO c SELECT generate_series(1, 500)")
    standby.switch_wal()
    standby.sql("CREATE TABLE d AS SELECT generate_series(1, 20) AS i")
    work.lsns["end"] = standby.lsn()
    work.times["end"] = standby.value("SELECT clock_timestamp()")
    current = standby.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
    before = str(SegmentName.parse(current, SEGMENT_SIZE).previous())
    wait_until(lambda: (work.directory / before).exists(), what=f"{before} in the archive")
    standby.stop("immediate")
    history = (work.directory / "00000002.history").read_text()
    work.history = History.parse(2, history)
    for path in standby.data_directory.glob("pg_wal/00000002" + "?" * 16):
        if path.name >= current and not (work.directory / path.name).exists():
            shutil.copy(path, work.directory)
            (work.directory / f"{path.name}.live").touch()
