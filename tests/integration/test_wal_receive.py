"""pitr wal receive against real servers: what it stores, what it reports as flushed, how it goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from pitr.codec import KeyFile
from pitr.core.secrets import Secret
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.repo.names import HistoryNames, split_partial
from pitr.repo.repository import Repository, open_repository
from pitr.repo.walobjects import get_history, get_wal, get_wal_object
from pitr.store import PosixStore
from tests.support.cluster import Cluster, ClusterFactory, recover_in, wait_until
from tests.support.receiving import (
    SYNCHRONOUS,
    await_durable,
    flushed,
    gapless,
    partial_objects,
    receiving,
    wal_objects,
)
from tests.support.site import Site, make_site, start_archiving

pytestmark = pytest.mark.pg

MIB = 1 << 20
KEEP = {"wal_keep_size": "512MB", "autovacuum": "off"}


def make(tmp_path: Path, factory: ClusterFactory, major: int = 15, **conf: str) -> Site:
    cluster = factory(major, segment_size_mb=1, conf={**KEEP, **conf}, fresh=True).start()
    return make_site(tmp_path / "site", cluster)


def repository_of(site: Site) -> Repository:
    return open_repository("main", PosixStore(site.repository), KeyFile(Secret(site.key_file.read_text().strip())))


def names_of(site: Site) -> HistoryNames:
    return HistoryNames(site.name, site.cluster.value("SELECT system_identifier FROM pg_control_system()"))


def write(cluster: Cluster, megabytes: int) -> Lsn:
    """That much WAL, and a little more that does not fill a segment."""
    cluster.sql("CREATE TABLE IF NOT EXISTS filler (body text)")
    cluster.sql(f"INSERT INTO filler SELECT repeat(md5(n::text), 32) FROM generate_series(1, {megabytes * 900}) AS n")
    return Lsn.parse(cluster.value("SELECT pg_current_wal_flush_lsn()::text"))


def assert_equals_pg_wal(site: Site, end: Lsn, timeline: int = 1) -> None:
    """Every archived segment is the server's, without a gap, and a partial reaches ``end``."""
    repository, names = repository_of(site), names_of(site)
    archived = wal_objects(site, timeline)
    assert gapless(archived, 4096)
    for text in archived:
        own = site.cluster.data_directory / "pg_wal" / text
        assert get_wal(repository, names, SegmentName.parse(text, MIB)) == own.read_bytes(), text
    unfinished = SegmentName.containing(timeline, end, MIB)
    assert archived[-1] == str(unfinished.previous())
    reached = {}
    for path in partial_objects(site):
        split = split_partial(path.name, MIB)
        assert split is not None
        assert split[0] == unfinished, f"{path.name} was left behind"
        reached[split[1]] = str(path.relative_to(site.repository))
    assert max(reached) >= end
    data = get_wal_object(repository, reached[max(reached)])[: max(reached) - unfinished.start]
    assert (site.cluster.data_directory / "pg_wal" / str(unfinished)).read_bytes().startswith(data)


@pytest.mark.majors
def test_what_is_stored_equals_pg_wal(tmp_path: Path, cluster_factory: ClusterFactory, major: int) -> None:
    site = make(tmp_path, cluster_factory, major)
    cluster = site.cluster
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        cluster.pgbench(scale=1, seconds=1)
        end = write(cluster, 3)
        await_durable(cluster, end)
        assert receiver.end() == 143
        assert_equals_pg_wal(site, end)
        slot = cluster.sql("SELECT slot_type, restart_lsn::text FROM pg_replication_slots WHERE slot_name = 'pitr'")
        assert slot[0][0] == "physical"
        assert Lsn.parse(slot[0][1]) >= end


def test_latest_from_a_partial_has_the_last_commit(tmp_path: Path, cluster_factory: ClusterFactory) -> None:
    """The receiver is the only archiver: backup and restore work without archive_command."""
    site = make(tmp_path, cluster_factory)
    cluster = site.cluster
    cluster.sql("CREATE TABLE events (id int)")
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        status = site.result("wal", "status")
        assert status["archiver"]["received"] is True
        assert status["warnings"] == []
        site.ok("backup", "base")
        write(cluster, 2)
        for number in range(5):
            cluster.sql(f"INSERT INTO events VALUES ({number})")
        await_durable(cluster, Lsn.parse(cluster.value("SELECT pg_current_wal_flush_lsn()::text")))
        receiver.end(signal.SIGKILL)
    cluster.stop("immediate")
    site.ok("restore", "base", "--to", str(tmp_path / "copy"), "--latest", "--action", "promote")
    recovery = recover_in(tmp_path / "copy")
    assert recovery.outcome == "promoted", recovery.log
    assert recovery.cluster.value("SELECT array_agg(id ORDER BY id) FROM events") == [0, 1, 2, 3, 4]


def test_a_synchronous_commit_waits_for_the_store(tmp_path: Path, cluster_factory: ClusterFactory) -> None:
    site = make(tmp_path, cluster_factory, **SYNCHRONOUS)
    cluster = site.cluster
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        cluster.sql("CREATE TABLE events (id int)")
        begun = time.monotonic()
        for number in range(20):
            cluster.sql(f"INSERT INTO events VALUES ({number})")
            assert max(split[1] for path in partial_objects(site) if (split := split_partial(path.name, MIB)))
        assert time.monotonic() - begun < 10
        assert cluster.value("SELECT sync_state FROM pg_stat_replication") == "sync"
        away = tmp_path / "away"
        site.repository.rename(away)
        before = flushed(cluster)
        with cluster.connect() as connection:
            connection.execute("SET synchronous_commit = local")
            connection.execute("INSERT INTO events VALUES (20)")
            end = cluster.lsn()
        waiter = cluster.connect()
        waiter.pgconn.send_query(b"INSERT INTO events VALUES (21)")
        receiver.said("cannot be stored")
        wait_until(
            lambda: cluster.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == 1,
            what="the commit to wait",
        )
        assert flushed(cluster) == before
        assert before < end
        away.rename(site.repository)
        await_durable(cluster, end)
        receiver.said("WAL is stored again")
        assert waiter.pgconn.get_result() is not None
        waiter.close()
        assert receiver.end() == 143


def test_a_store_outage_keeps_wal_on_the_server_and_is_caught_up(
    tmp_path: Path, cluster_factory: ClusterFactory
) -> None:
    site = make(tmp_path, cluster_factory)
    cluster = site.cluster
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        await_durable(cluster, write(cluster, 1))
        away = tmp_path / "away"
        site.repository.rename(away)
        before = flushed(cluster)
        end = write(cluster, 80)  # more than is held in memory
        receiver.said("cannot be stored")
        assert flushed(cluster) - before <= MIB
        assert receiver.running
        away.rename(site.repository)
        await_durable(cluster, end, 60)
        assert receiver.end() == 143
        assert_equals_pg_wal(site, end)


def test_ends_in_time_while_the_store_is_away(tmp_path: Path, cluster_factory: ClusterFactory) -> None:
    site = make(tmp_path, cluster_factory)
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        await_durable(site.cluster, write(site.cluster, 1))
        site.repository.rename(tmp_path / "away")
        write(site.cluster, 2)
        receiver.said("cannot be stored")
        assert receiver.end(timeout=10) == 143


def test_server_restarts_and_crashes_are_outlived(tmp_path: Path, cluster_factory: ClusterFactory) -> None:
    site = make(tmp_path, cluster_factory)
    cluster = site.cluster
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        write(cluster, 1)
        cluster.restart("fast")
        receiver.streams()
        write(cluster, 1)
        cluster.kill()
        receiver.said("trying again")
        cluster.start()
        receiver.streams()
        end = write(cluster, 1)
        await_durable(cluster, end)
        assert receiver.end() == 143
        assert_equals_pg_wal(site, end)


def test_a_shutdown_waits_until_all_is_stored(tmp_path: Path, cluster_factory: ClusterFactory) -> None:
    site = make(tmp_path, cluster_factory)
    cluster = site.cluster
    with receiving(site, "--create-slot", "--partial-interval", "1h") as receiver:
        receiver.streams()
        end = write(cluster, 1)
        begun = time.monotonic()
        cluster.stop("fast")
        assert time.monotonic() - begun < 20
        reached = [split[1] for path in partial_objects(site) if (split := split_partial(path.name, MIB))]
        assert max(reached) > end, "the shutdown checkpoint is missing"
        receiver.end()


def test_beside_archive_command(tmp_path: Path, cluster_factory: ClusterFactory) -> None:
    """Both store the same objects; neither minds."""
    site = make(tmp_path, cluster_factory)
    cluster = site.cluster
    start_archiving(site)
    write(cluster, 3)
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        end = write(cluster, 3)
        await_durable(cluster, end)
        receiver.end(signal.SIGKILL)
        write(cluster, 3)
        name = cluster.switch_wal()
        wait_until(lambda: cluster.value("SELECT last_archived_wal FROM pg_stat_archiver") == name, what="archiving")
    with receiving(site) as receiver:
        receiver.streams()
        end = write(cluster, 1)
        await_durable(cluster, end)
        assert receiver.end() == 143
    wait_until(
        lambda: (
            cluster.value("SELECT last_archived_wal FROM pg_stat_archiver")
            == str(SegmentName.containing(1, end, MIB).previous())
        ),
        what="archiving",
    )
    assert cluster.value("SELECT failed_count FROM pg_stat_archiver") == 0
    assert_equals_pg_wal(site, end)


def test_a_promotion_is_followed(tmp_path: Path, cluster_factory: ClusterFactory) -> None:
    """Of the server that is streamed from, and of one that takes over while the receiver is down."""
    primary = cluster_factory(segment_size_mb=1, conf=KEEP, fresh=True).start()
    standby = primary.make_standby(conf=KEEP).start()
    site = make_site(tmp_path / "site", standby)
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        end = write(primary, 2)
        wait_until(lambda: standby.lsn() >= end, what="replay")
        await_durable(standby, end)
        primary.stop("immediate")
        standby.promote()
        receiver.said("timeline 2 begins at")
        end = write(standby, 2)
        await_durable(standby, end)
        second = standby.make_standby(conf=KEEP).start()
        wait_until(lambda: second.lsn() >= end, what="replay")
        receiver.end(signal.SIGKILL)
    second.promote()
    standby.stop("immediate")
    end = write(second, 2)
    site.cluster = second
    site.write_config()
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        await_durable(second, end)
        assert receiver.end() == 143
    repository, names = repository_of(site), names_of(site)
    history = get_history(repository, names, 3)
    assert history.timelines == (1, 2, 3)
    assert get_history(repository, names, 2).timelines == (1, 2)
    first = SegmentName.parse(wal_objects(site, 1)[0], MIB)
    for segment in history.segments(first.start, SegmentName.containing(3, end, MIB).start, MIB):
        assert get_wal(repository, names, segment), segment
    assert [path for path in partial_objects(site) if path.name.startswith(f"{3:08X}")]


def test_a_missing_slot_and_a_second_receiver(tmp_path: Path, cluster_factory: ClusterFactory) -> None:
    site = make(tmp_path, cluster_factory)
    error = site.refused(10, "wal", "receive")
    assert 'replication slot "pitr" does not exist' in error["message"]
    assert "--create-slot" in error["hint"]
    assert site.refused(2, "wal", "receive", "--slot", "No Name")["code"] == "usage"
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        assert site.refused(12, "wal", "receive", "--lock-wait", "0s")["code"] == "locked"


def test_wal_that_the_server_has_removed_is_a_named_gap(tmp_path: Path, cluster_factory: ClusterFactory) -> None:
    site = make(tmp_path, cluster_factory, wal_keep_size="0", min_wal_size="2MB", max_wal_size="2MB")
    cluster = site.cluster
    site.ok("wal", "receive", "--create-slot", "--until", str(write(cluster, 1)))
    until = str(write(cluster, 3))
    result = site.result("wal", "receive", "--until", until)
    assert Lsn.parse(result["durable_lsn"]) >= Lsn.parse(until)
    assert result["segments"] >= 3
    last = wal_objects(site)[-1]
    cluster.sql("SELECT pg_drop_replication_slot('pitr')")
    for _ in range(3):
        write(cluster, 4)
        cluster.sql("CHECKPOINT")
    missing = SegmentName.parse(last, MIB).next()
    assert not (cluster.data_directory / "pg_wal" / str(missing)).exists()
    error = site.refused(32, "wal", "receive", "--create-slot")
    assert str(missing) in error["message"]
    assert last in error["detail"]
    assert "--skip-gap" in error["hint"]
    end = str(write(cluster, 1))
    site.ok("wal", "receive", "--skip-gap", "--until", end)
    end = str(write(cluster, 1))
    site.ok("wal", "receive", "--until", end)
    assert not gapless(wal_objects(site), 4096)
    assert site.run("wal", "status").returncode == 3
