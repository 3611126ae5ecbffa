"""A real server archives and restores through the real program. Recovery never opens for writes on a hole."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pitr.archive.wal_status import wal_status
from pitr.pg.segments import SegmentName
from pitr.pg.server import connect
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository, create_repository, open_repository
from pitr.store import StoreSettings, open_store
from tests.support.archive import MIB, program_command
from tests.support.cluster import Cluster, ClusterFactory, Recovery, as_server_user, recover_in, wait_until
from tests.support.s3server import S3Endpoint

pytestmark = pytest.mark.pg


def make_repository(directory: Path) -> Repository:
    directory.mkdir(exist_ok=True)
    store = open_store(f"file://{directory}")
    create_repository(store, [], now=datetime.now(UTC), if_absent_works=True)
    return open_repository("main", store, None)


def archiving(directory: Path) -> dict[str, str]:
    return {
        "archive_mode": "on",
        "archive_command": program_command(f"file://{directory}", "wal", "push", '"%p"'),
        "wal_keep_size": "0",
    }


@dataclass(frozen=True)
class Site:
    """A primary that archives to a directory repository, with a base backup taken by pg_basebackup."""

    primary: Cluster
    directory: Path
    base: Path
    names: HistoryNames

    @property
    def repository(self) -> Repository:
        return open_repository("main", open_store(f"file://{self.directory}"), None)

    def restore_command(self, *options: str) -> str:
        return program_command(f"file://{self.directory}", "wal", "fetch", "%f", '"%p"', "--retry-for", "1s", *options)

    def object_file(self, name: object) -> Path:
        (found,) = self.directory.rglob(str(name))
        return found


def base_backup(cluster: Cluster, to: Path) -> Path:
    argv = [cluster.tools.path("pg_basebackup"), "-D", str(to), "-c", "fast", "-X", "none", "--no-sync"]
    argv += ["-d", f"host={cluster.socket_directory} port=5432 user=postgres"]
    done = subprocess.run(as_server_user(argv), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return to


def archived(site_or_repository: Repository, names: HistoryNames, file: str, cluster: Cluster) -> None:
    path = f"{names.wal_prefix}{file[:8]}/{file[8:16]}/{file}"
    wait_until(
        lambda: any(info.name == path for info in site_or_repository.store.list(path)),
        what=f"{file} in the archive:\n{cluster.log[-3000:]}",
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Segments of 1 MiB; a table with one row for each of five segments behind the base backup."""
    directory = tmp_path_factory.mktemp("repo")
    repository = make_repository(directory)
    primary = Cluster.make(segment_size_mb=1, conf=archiving(directory)).start()
    try:
        primary.sql("CREATE TABLE t (i int)")
        base = base_backup(primary, tmp_path_factory.mktemp("base") / "data")
        for number in range(5):
            primary.sql(f"INSERT INTO t VALUES ({number})")
            last = primary.switch_wal()
        system_id = int(primary.value("SELECT system_identifier FROM pg_control_system()"))
        names = HistoryNames("shop", system_id)
        archived(repository, names, last, primary)
        yield Site(primary, directory, base, names)
    finally:
        primary.discard()


@pytest.fixture
def own_site(site: Site, tmp_path: Path) -> Site:
    """The same archive, for a test that damages it."""
    shutil.copytree(site.directory, tmp_path / "repo")
    return Site(site.primary, tmp_path / "repo", site.base, site.names)


def recover(site: Site, to: Path, command: str, **settings: str) -> Recovery:
    """Start a copy of the base backup; ``settings`` without a target: recovery to the end of the archive."""
    shutil.copytree(site.base, to, symlinks=True)
    to.chmod(0o700)
    (to / "recovery.signal").touch()
    return recover_in(
        to,
        settings={"archive_mode": "off", "wal_keep_size": "64MB", "restore_command": command, **settings},
        timeout=60,
    )


def segments(site: Site) -> list[SegmentName]:
    """Archived segments behind the base backup, in order: the first holds the checkpoint."""
    label = (site.base / "backup_label").read_text()
    start = label.partition("(file ")[2][:24]
    found = sorted(path.name for path in site.directory.rglob("00000001" + "?" * 16) if path.is_file())
    return [SegmentName.parse(name, MIB) for name in found if name >= start]


def assert_stopped(recovery: Recovery) -> None:
    """FATAL by exit code 200, and nothing was opened for writes."""
    assert recovery.outcome == "exited"
    assert "with exit code 200" in recovery.log or "child process exited with exit code 200" in recovery.log
    assert "archive recovery complete" not in recovery.log
    assert "database system is ready to accept connections" not in recovery.log


class TestArchiving:
    def test_the_server_archives_everything(self, site: Site) -> None:
        archiver = site.primary.sql("SELECT failed_count, last_failed_wal FROM pg_stat_archiver")
        assert archiver == [(0, None)]
        assert any(path.name.endswith(".backup") for path in site.directory.rglob("*")), "backup history file"
        assert len(segments(site)) >= 6

    def test_the_archive_is_what_the_server_wrote(self, site: Site, tmp_path: Path) -> None:
        from pitr.repo.walobjects import get_wal

        on_disk = site.primary.data_directory / "pg_wal" / str(segments(site)[-1])
        assert get_wal(site.repository, site.names, segments(site)[-1]) == on_disk.read_bytes()

    def test_while_the_repository_is_away_the_server_keeps_its_wal(
        self, cluster_factory: ClusterFactory, tmp_path: Path
    ) -> None:
        directory = tmp_path / "repo"
        repository = make_repository(directory)
        conf = archiving(directory)
        conf["archive_command"] = conf["archive_command"].replace(
            "PITR_ENCRYPTION", "PITR_RETRY_DEADLINE=1s PITR_ENCRYPTION"
        )
        cluster = cluster_factory(segment_size_mb=1, conf=conf).start()
        directory.rename(tmp_path / "away")
        cluster.sql("CREATE TABLE t AS SELECT 1 AS i")
        name = cluster.switch_wal()
        wait_until(
            lambda: cluster.value("SELECT failed_count FROM pg_stat_archiver") > 0, what="a failed archive_command"
        )
        assert "directory of the repository is missing" in cluster.log
        assert not directory.exists(), "an unmounted repository must not be made anew on the disk below"
        assert (cluster.data_directory / "pg_wal" / "archive_status" / f"{name}.ready").exists()
        (tmp_path / "away").rename(directory)
        cluster.reload()
        cluster.sql("SELECT pg_stat_reset_shared('archiver')")
        identity = HistoryNames("shop", int(cluster.value("SELECT system_identifier FROM pg_control_system()")))
        archived(repository, identity, name, cluster)

    def test_another_cluster_is_kept_out(self, site: Site, cluster_factory: ClusterFactory) -> None:
        stray = cluster_factory(segment_size_mb=1, fresh=True, conf=archiving(site.directory)).start()
        stray.sql("CREATE TABLE t AS SELECT 1 AS i")
        stray.switch_wal()
        wait_until(lambda: stray.value("SELECT failed_count FROM pg_stat_archiver") > 0, what="a refusal")
        assert "is another PostgreSQL cluster" in stray.log
        assert "--adopt" in stray.log
        stray_id = stray.value("SELECT system_identifier FROM pg_control_system()")
        assert not (site.directory / "shop" / str(stray_id)).exists()


class TestRecovery:
    def test_to_the_end_of_the_archive(self, site: Site, tmp_path: Path) -> None:
        recovery = recover(site, tmp_path / "data", site.restore_command("--chain", "1"))
        assert recovery.outcome == "promoted", recovery.log
        assert recovery.cluster.value("SELECT count(*) FROM t") == 5

    def test_to_a_target(self, site: Site, tmp_path: Path) -> None:
        last = segments(site)[-1]
        command = site.restore_command("--chain", "1", "--until", str(last))
        # The last record of the segment is the switch; the insert lies before it.
        recovery = recover(
            site,
            tmp_path / "data",
            command,
            recovery_target_lsn=str(last.start + 0x30),
            recovery_target_action="promote",
        )
        assert recovery.outcome == "promoted", recovery.log
        assert recovery.cluster.value("SELECT count(*) FROM t") >= 4

    def test_a_hole_stops_it(self, own_site: Site, tmp_path: Path) -> None:
        hole = segments(own_site)[3]
        own_site.object_file(hole).unlink()
        recovery = recover(own_site, tmp_path / "data", own_site.restore_command())
        assert_stopped(recovery)
        assert f"WAL segment {hole} is missing" in recovery.log
        assert str(hole.next()) in recovery.log

    def test_damage_stops_it(self, own_site: Site, tmp_path: Path) -> None:
        victim = segments(own_site)[3]
        stored = own_site.object_file(victim)
        body = bytearray(stored.read_bytes())
        body[len(body) // 2] ^= 0x10
        stored.chmod(0o600)
        stored.write_bytes(body)
        recovery = recover(own_site, tmp_path / "data", own_site.restore_command("--chain", "1"))
        assert_stopped(recovery)
        assert str(victim) in recovery.log

    def test_a_repository_that_is_away_stops_it(self, own_site: Site, tmp_path: Path) -> None:
        own_site.directory.rename(tmp_path / "away")
        assert_stopped(recover(own_site, tmp_path / "data", own_site.restore_command()))

    def test_a_lost_tail_stops_it_when_there_is_a_target(self, own_site: Site, tmp_path: Path) -> None:
        last = segments(own_site)[-1]
        own_site.object_file(last).unlink()
        recovery = recover(
            own_site,
            tmp_path / "data",
            own_site.restore_command("--chain", "1", "--until", str(last)),
            recovery_target_lsn=str(last.start + 0x30),
        )
        assert_stopped(recovery)

    def test_wrong_cluster_name_stops_it(self, site: Site, tmp_path: Path) -> None:
        command = site.restore_command().replace("--cluster shop", "--cluster shpo")
        assert_stopped(recover(site, tmp_path / "data", command))

    def test_a_mistyped_command_stops_it(self, site: Site, tmp_path: Path) -> None:
        assert_stopped(recover(site, tmp_path / "data", site.restore_command("--chian", "1")))


class TestStandby:
    def test_it_follows_and_survives_holes_and_outages(self, own_site: Site, tmp_path: Path) -> None:
        hole = segments(own_site)[3]
        stored = own_site.object_file(hole)
        stored.rename(tmp_path / "kept")
        data = tmp_path / "data"
        shutil.copytree(own_site.base, data, symlinks=True)
        data.chmod(0o700)
        (data / "standby.signal").touch()
        settings = {"archive_mode": "off", "restore_command": own_site.restore_command(), "hot_standby": "on",
                    "wal_retrieve_retry_interval": "200ms"}  # fmt: skip
        standby = Cluster.at(data, settings=settings)
        try:
            standby.start()
            wait_until(lambda: standby.value("SELECT count(*) FROM t") >= 1, what="the rows before the hole")
            own_site.directory.rename(tmp_path / "away")
            wait_until(lambda: "directory of the repository is missing" in standby.log, what="an outage that it met")
            (tmp_path / "away").rename(own_site.directory)
            (tmp_path / "kept").rename(stored)
            wait_until(lambda: standby.value("SELECT count(*) FROM t") == 5, what="the rows behind the hole")
            assert standby.value("SELECT pg_is_in_recovery()")
            assert standby.running
        finally:
            standby.discard()


@pytest.fixture(scope="module")
def forked(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Recovered to the middle of timeline 1 and promoted; its segments and history file are in the archive."""
    directory = tmp_path_factory.mktemp("forked")
    shutil.copytree(site.directory, directory / "repo")
    forked = Site(site.primary, directory / "repo", site.base, site.names)
    recovery = recover(
        forked,
        directory / "promoted",
        forked.restore_command("--chain", "1"),
        recovery_target_lsn=str(segments(forked)[2].start + 0x30),
        recovery_target_action="promote",
    )
    assert recovery.outcome == "promoted", recovery.log
    cluster = recovery.cluster
    for row in (100, 101):
        cluster.sql(f"INSERT INTO t VALUES ({row})")
        last = cluster.switch_wal()
    cluster.stop()
    wal = cluster.data_directory / "pg_wal"
    finished = [path for path in wal.glob("00000002" + "?" * 16) if path.name <= last]
    program = program_command(f"file://{forked.directory}", "wal", "push").split()
    for path in sorted([*finished, wal / "00000002.history"]):
        argv = [*program, f"pg_wal/{path.name}"]
        done = subprocess.run(argv, cwd=cluster.data_directory, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    cluster.discard()
    return forked


class TestTimelines:
    """Timeline 2's first segment never arrived, timeline 1's of the same and higher numbers did: hearing "no such
    file" for the first, PostgreSQL would replay the abandoned history."""

    def test_along_the_new_timeline(self, forked: Site, tmp_path: Path) -> None:
        last = max(path.name for path in forked.directory.rglob("00000002" + "?" * 16) if path.is_file())
        reached = recover(
            forked,
            tmp_path / "data",
            forked.restore_command("--chain", "2", "--until", last),
            recovery_target_timeline="2",
            recovery_target_lsn=str(SegmentName.parse(last, MIB).start + 0x30),
            recovery_target_action="promote",
        )
        assert reached.outcome == "promoted", reached.log
        rows = [row[0] for row in reached.cluster.sql("SELECT i FROM t ORDER BY i")]
        assert 100 in rows
        assert 4 not in rows

    def test_without_a_target_its_end_is_not_certain(self, forked: Site, tmp_path: Path) -> None:
        """Timeline 1 went on behind the last segment of timeline 2."""
        command = forked.restore_command("--chain", "2")
        assert_stopped(recover(forked, tmp_path / "data", command, recovery_target_timeline="2"))

    @pytest.mark.parametrize("options", [["--chain", "2"], []])
    def test_the_abandoned_history_is_never_replayed(self, forked: Site, tmp_path: Path, options: list[str]) -> None:
        shutil.copytree(forked.directory, tmp_path / "repo")
        holed = Site(forked.primary, tmp_path / "repo", forked.base, forked.names)
        first = min(path for path in holed.directory.rglob("00000002" + "?" * 16) if path.is_file())
        first.unlink()
        recovery = recover(holed, tmp_path / "data", holed.restore_command(*options), recovery_target_timeline="2")
        assert_stopped(recovery)
        assert first.name in recovery.log


@pytest.mark.s3
def test_archive_and_recover_through_s3(s3_server: S3Endpoint, cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    url = f"s3://{s3_server.bucket}/archive-{tmp_path.name}"
    store = open_store(url, StoreSettings(s3=s3_server.settings()))
    create_repository(store, [], now=datetime.now(UTC), if_absent_works=True)
    repository = open_repository("main", store, None)
    access = (
        f"PITR_ENDPOINT={s3_server.endpoint} PITR_REGION={s3_server.region} PITR_ACCESS_KEY={s3_server.access_key} "
        f"PITR_SECRET_KEY={s3_server.secret_key} PITR_ENCRYPTION"
    )
    push = program_command(url, "wal", "push", '"%p"').replace("PITR_ENCRYPTION", access)
    fetch = program_command(url, "wal", "fetch", "%f", '"%p"', "--chain", "1", "--retry-for", "5s").replace(
        "PITR_ENCRYPTION", access
    )
    primary = cluster_factory(segment_size_mb=1, conf={"archive_mode": "on", "archive_command": push}).start()
    base = base_backup(primary, tmp_path / "base")
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS i")
    name = primary.switch_wal()
    names = HistoryNames("shop", int(primary.value("SELECT system_identifier FROM pg_control_system()")))
    archived(repository, names, name, primary)
    recovery = recover(Site(primary, tmp_path, base, names), tmp_path / "data", fetch)
    assert recovery.outcome == "promoted", recovery.log
    assert recovery.cluster.value("SELECT count(*) FROM t") == 100


class TestStatus:
    def test_a_server_that_archives_with_pitr(self, site: Site) -> None:
        with connect(site.primary.conninfo(), "test") as connection:
            status = wal_status(
                site.repository, "shop", connection, data_directory=site.primary.data_directory, rpo=timedelta(hours=1)
            )
        assert status.archiver is not None
        assert status.archiver.is_ours
        assert (status.archiver.waiting, status.archiver.failing, status.warnings) == (0, False, ())
        (timeline,) = status.timelines
        assert timeline.last == str(segments(site)[-1])
        assert status.archiver.last_archived == timeline.last

    def test_a_server_whose_archiving_fails(self, cluster_factory: ClusterFactory, tmp_path: Path) -> None:
        conf = {"archive_mode": "on", "archive_command": "false"}
        cluster = cluster_factory(segment_size_mb=1, conf=conf).start()
        cluster.sql("CREATE TABLE t AS SELECT 1 AS i")
        name = cluster.switch_wal()
        wait_until(lambda: cluster.value("SELECT failed_count FROM pg_stat_archiver") > 0, what="a failure")
        with connect(cluster.conninfo(), "test") as connection:
            status = wal_status(
                make_repository(tmp_path / "repo"),
                "shop",
                connection,
                data_directory=cluster.data_directory,
                rpo=timedelta(0),
            )
        assert status.archiver is not None
        assert (status.archiver.failing, status.archiver.is_ours, status.archiver.oldest_unarchived) == (
            True,
            False,
            name,
        )
        assert len(status.warnings) == 4, status.warnings
