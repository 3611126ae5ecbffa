"""Full base backups of real servers: what is in them, what is left out, what is noticed, and that they recover."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pitr.base.request import BaseBackupResult
from pitr.core.errors import ConfigError, HistoryMismatch, Locked, PrivilegeMissing, WalGap
from pitr.core.events import Advanced, Event, Message, PhaseEnded, PhaseStarted
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.repo.catalog import backup_ids, load_map, load_relation_maps
from pitr.repo.leases import leased
from pitr.repo.maps import HOLE, ExtentFlag, FileEntry, FileFlag, FileKind
from pitr.repo.pins import list_pins
from tests.support.base_backup import CLUSTER, MIB, Backed, contents, lay_out, posix_repository, start_backed
from tests.support.cluster import Cluster, ClusterFactory, recover_in, wait_until

pytestmark = pytest.mark.pg

BLOCK = 8192


@pytest.fixture
def backed(cluster_factory: ClusterFactory, tmp_path: Path) -> Iterator[Backed]:
    made = start_backed(cluster_factory(archive_to=tmp_path / "archive", conf={"autovacuum": "off"}), tmp_path)
    yield made
    made.feeder.stop()


def files(backed: Backed, result: BaseBackupResult) -> dict[str, tuple[FileEntry, bytes]]:
    built = backed.map(result)
    return {entry.path: (entry, data) for entry, data in contents(backed.repository, backed.names, built)}


def at_phase(name: str, action: Callable[[], None]) -> Callable[[Event], None]:
    """A report that acts when a phase begins: what the plan saw has changed when the copy reads it."""

    def report(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == name:
            action()

    return report


def relation_path(cluster: Cluster, name: str, db: str = "postgres") -> str:
    return str(cluster.value("SELECT pg_relation_filepath(%s::regclass)", db, [name]))


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


def archive_elsewhere(backed: Backed) -> None:
    """The archiver goes on, but what it stores does not reach the repository any more."""
    backed.feeder.stop()


LEFT_OUT_DIRECTORIES = {
    *("pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"),
}
LEFT_OUT_FILES = {"postmaster.pid", "postmaster.opts"}


def files_on_disk(root: Path) -> dict[str, Path]:
    """Files of a data directory but those that no backup holds, found in another way than the product does."""
    found: dict[str, Path] = {}
    for place, directories, names in os.walk(root, followlinks=True):
        relative = Path(place).relative_to(root)
        if relative == Path():
            directories[:] = [name for name in directories if name not in LEFT_OUT_DIRECTORIES]
        for name in names:
            path = str(relative / name)
            temporary = name.startswith(("pgsql_tmp", "pg_internal.init")) or (name[0] == "t" and name[1:2].isdigit())
            if not temporary and path not in LEFT_OUT_FILES:
                found[path] = Path(place) / name
    return found


def test_map_and_packs_give_back_the_directory(cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    """Slices, bundles, holes, tablespaces, unlogged and temporary tables, a partial tail, configuration outside."""
    cluster = cluster_factory(archive_to=tmp_path / "archive", conf={"autovacuum": "off"})
    outside = tmp_path / "etc"
    (outside / "conf.d").mkdir(parents=True)
    (outside / "pg_hba.conf").write_text("local all all trust\n")
    (outside / "extra.conf").write_text(f"include_dir '{outside}/conf.d'\nwork_mem = '5MB'\n")
    (outside / "conf.d" / "10.conf").write_text("temp_buffers = '3MB'\n")
    with (cluster.data_directory / "postgresql.conf").open("a") as conf:
        conf.write(f"include '{outside}/extra.conf'\nhba_file = '{outside}/pg_hba.conf'\n")
    backed = start_backed(cluster, tmp_path)
    spaces = {name: tmp_path / name for name in ("fast", "slow")}
    for name, place in spaces.items():
        place.mkdir(mode=0o700)
        cluster.sql(f"CREATE TABLESPACE {name} LOCATION '{place}'")
    cluster.sql("CREATE DATABASE elsewhere TABLESPACE slow")
    cluster.sql(
        "CREATE TABLE big AS SELECT g AS id, repeat(md5(g::text), 8) AS filler FROM generate_series(1, 30000) g"
    )
    cluster.sql("CREATE TABLE moved TABLESPACE fast AS SELECT generate_series(1, 1000) AS id")
    cluster.sql("CREATE UNLOGGED TABLE passing AS SELECT generate_series(1, 1000) AS id")
    cluster.sql("CREATE TABLE padded AS SELECT generate_series(1, 500) AS id")
    cluster.sql("CREATE TABLE torn AS SELECT generate_series(1, 500) AS id")
    big, padded, torn = (relation_path(cluster, name) for name in ("big", "padded", "torn"))
    passing = relation_path(cluster, "passing")
    with cluster.connect() as session:
        session.execute("CREATE TEMP TABLE fleeting AS SELECT generate_series(1, 1000) AS id")
        cluster.sql("CHECKPOINT")
        with (cluster.data_directory / padded).open("ab") as file:
            file.write(bytes(381 * BLOCK))  # an extension that a crash cut short
        with (cluster.data_directory / torn).open("ab") as file:
            file.write(b"x" * 1000)
        result = backed.backup(slice_bytes=MIB, pack_bytes=MIB, jobs=3, label="nightly", annotations={"by": "test"})
        on_disk = {
            path: place.read_bytes() for path, place in files_on_disk(cluster.data_directory).items() if place.exists()
        }

    assert result.exit_code == 0
    assert result.warnings == ()
    found = files(backed, result)
    for path in on_disk:
        if path.startswith(f"{passing}_") or path == passing:
            assert (path in found) == path.endswith("_init"), path
    expected = {path: data for path, data in on_disk.items() if path != passing and path != f"{passing}_fsm"}
    stored = {path for path, (entry, _) in found.items() if entry.kind in (FileKind.RELATION, FileKind.OTHER)}
    assert stored == set(expected)
    for path, data in expected.items():
        if path == torn:
            data = data[:-1000]
        if path != "global/pg_control":  # stop wrote nothing, but the checkpoint at the start did
            assert found[path][1] == data, path
    assert found[torn][0].flags & FileFlag.PARTIAL_TAIL
    assert len(found["global/pg_control"][1]) == 8192

    config = {path: data for path, (entry, data) in found.items() if entry.kind is FileKind.CONFIG}
    assert set(config) == {str(outside / name) for name in ("pg_hba.conf", "extra.conf", "conf.d/10.conf")}
    assert config[str(outside / "extra.conf")] == (outside / "extra.conf").read_bytes()

    directories = {path for path, (entry, _) in found.items() if entry.kind is FileKind.DIRECTORY}
    assert directories >= LEFT_OUT_DIRECTORIES
    assert {"pg_tblspc", "pg_wal/archive_status", "base"} <= directories

    built = backed.map(result)
    entry, _ = found[big]
    assert (entry.database, entry.relation, entry.tablespace) == (
        int(big.split("/")[1]),
        int(big.split("/")[2]),
        1663,
    )
    index = built.find(padded)
    assert index is not None
    holes = [row for row in range(*built.extent_range(index)) if built.extents.pack[row] == HOLE]
    assert sum(int(built.extents.count[row]) for row in holes) == 381
    assert max(len(pack.plain_lengths) for pack in built.packs) > 1
    assert len(built.packs) > 2

    manifest = backed.manifest(result)
    assert manifest.label == "nightly"
    assert manifest.annotations == {"by": "test"}
    assert manifest.wal.start_lsn < manifest.wal.stop_lsn
    assert manifest.started_at < manifest.ended_at
    assert {space.name: space.location for space in manifest.server.tablespaces} == {
        name: str(place) for name, place in spaces.items()
    }
    assert {database.name for database in manifest.server.databases} >= {"postgres", "template0", "elsewhere"}
    assert manifest.sizes.total_bytes == sum(len(data) for _, data in found.values())
    maps = load_relation_maps(backed.repository, manifest)
    assert maps is not None
    names = {
        name
        for database in maps.at_stop
        if database.name == "postgres"
        for name, kind in zip(database.columns["name"], database.columns["kind"], strict=True)  # type: ignore[call-overload]
        if kind == "r"
    }
    assert {"big", "moved", "passing"} <= names
    assert "fleeting" not in names
    assert list_pins(backed.repository, CLUSTER) == []
    backed.feeder.stop()


def test_sums_name_every_object(backed: Backed) -> None:
    import hashlib

    result = backed.backup()
    names = backed.names.backup(str(result.backup_id))
    lines = b"".join(backed.repository.store.get(names.sums)).decode().splitlines()
    listed = {line.split()[2]: line.split()[:2] for line in lines}
    assert set(listed) == set(backed.objects()) - {names.sums, names.manifest}
    for name, (digest, size) in listed.items():
        data = b"".join(backed.repository.store.get(name))
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, int(size))


def test_backup_under_load_recovers(cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    cluster = cluster_factory(archive_to=tmp_path / "archive")
    backed = start_backed(cluster, tmp_path, sealed=True)
    place = tmp_path / "space"
    place.mkdir(mode=0o700)
    cluster.sql(f"CREATE TABLESPACE space LOCATION '{place}'")
    cluster.sql("CREATE TABLE elsewhere TABLESPACE space AS SELECT generate_series(1, 1000) AS id")
    cluster.sql("CREATE UNLOGGED TABLE passing AS SELECT generate_series(1, 1000) AS id")
    cluster.pgbench_init(5)
    events: list[Event] = []
    with cluster.load():
        before = cluster.value("SELECT count(*) FROM pgbench_history")
        result = backed.backup(events.append, slice_bytes=MIB, max_rate_bytes_per_s=60 * MIB)
    assert result.exit_code == 0
    assert result.bad_pages == ()
    assert result.sizes is not None
    copied = sum(event.delta_bytes for event in events if isinstance(event, Advanced))
    assert copied == result.sizes.read_bytes - 8192
    assert {event.phase for event in events if isinstance(event, PhaseEnded)} == set(result.phases_s)

    oid = backed.manifest(result).server.tablespaces[0].oid
    data = lay_out(backed, result, tmp_path / "restored", tablespaces={oid: tmp_path / "space2"})
    backed.feeder.stop()
    recovery = recover_in(data)
    assert recovery.outcome == "promoted", recovery.log[-2000:]
    restored = recovery.cluster
    sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches)"
    accounts, branches = restored.sql(sums)[0]
    assert accounts == branches == restored.value("SELECT coalesce(sum(delta), 0) FROM pgbench_history")
    assert restored.value("SELECT count(*) FROM pgbench_history") >= before
    assert restored.value("SELECT count(*) FROM elsewhere") == 1000
    assert restored.value("SELECT count(*) FROM passing") == 0
    restored.sql("CREATE EXTENSION amcheck")
    restored.sql("SELECT bt_index_check(oid, true) FROM pg_class WHERE relkind = 'i' AND relam = 403")
    restored.sql("SELECT verify_heapam(oid) FROM pg_class WHERE relkind IN ('r', 't')")


def test_files_that_change_between_plan_and_copy(backed: Backed, tmp_path: Path) -> None:
    cluster = backed.cluster
    for name in ("dropped", "shrunk", "emptied", "grown"):
        cluster.sql(
            f"CREATE TABLE {name} AS SELECT g AS id, repeat('x', 500) AS filler FROM generate_series(1, 60000) g"
        )
    cluster.sql("CREATE TABLE small_dropped AS SELECT 1 AS id")
    cluster.sql("CHECKPOINT")
    paths = {name: relation_path(cluster, name) for name in ("dropped", "shrunk", "emptied", "grown", "small_dropped")}
    sizes = {name: (cluster.data_directory / path).stat().st_size for name, path in paths.items()}
    assert sizes["shrunk"] > 30 * MIB

    def change() -> None:
        cluster.sql("DROP TABLE dropped")
        cluster.sql("DROP TABLE small_dropped")
        cluster.sql("DELETE FROM shrunk WHERE id > 30000")
        cluster.sql("DELETE FROM emptied")
        with cluster.connect() as session:
            session.execute("VACUUM shrunk")
            session.execute("VACUUM emptied")
        cluster.sql("INSERT INTO grown SELECT * FROM grown")
        cluster.sql("ALTER SYSTEM SET work_mem = '7MB'")
        cluster.sql("CHECKPOINT")

    result = backed.backup(at_phase("copy", change), slice_bytes=MIB, jobs=2)
    assert result.exit_code == 0
    found = files(backed, result)
    assert paths["dropped"] not in found
    assert paths["small_dropped"] not in found
    assert found[paths["grown"]][0].size == sizes["grown"]
    assert found[paths["emptied"]][0].size == 0
    now = (cluster.data_directory / paths["shrunk"]).stat().st_size
    assert found[paths["shrunk"]][0].size == now < sizes["shrunk"]
    auto_conf, text = found["postgresql.auto.conf"]
    assert b"work_mem = '7MB'" in text
    assert auto_conf.flags & FileFlag.CHANGED

    recovery = recover_in(lay_out(backed, result, tmp_path / "restored"))
    assert recovery.outcome == "promoted", recovery.log[-2000:]
    for name, count in {"shrunk": 30000, "emptied": 0, "grown": 120000}.items():
        assert recovery.cluster.value(f"SELECT count(*) FROM {name}") == count
    assert recovery.cluster.value("SELECT to_regclass('dropped')") is None
    assert recovery.cluster.value("SHOW work_mem") == "7MB"


def test_bad_pages_are_named_and_marked(backed: Backed) -> None:
    cluster = backed.cluster
    cluster.sql("CREATE TABLE damaged AS SELECT g AS id, repeat('x', 500) AS f FROM generate_series(1, 5000) g")
    cluster.sql("CREATE TABLE small AS SELECT g AS id FROM generate_series(1, 1000) g")
    damaged, small = relation_path(cluster, "damaged"), relation_path(cluster, "small")
    cluster.stop()
    for block in (7, 8, 200):
        flip(cluster.data_directory / damaged, block * BLOCK + 5000)
    flip(cluster.data_directory / small, 2 * BLOCK + 5000)
    cluster.start()
    messages: list[str] = []
    result = backed.backup(lambda event: messages.append(event.text) if isinstance(event, Message) else None)
    assert result.exit_code == 3
    assert {bad.path: bad.blocks for bad in result.bad_pages} == {damaged: (7, 8, 200), small: (2,)}
    assert any(damaged in text for text in messages)
    assert backed.manifest(result).bad_pages == result.bad_pages

    built = backed.map(result)
    index = built.find(damaged)
    assert index is not None
    rows = built.extents_of(index)
    bad = np.flatnonzero(rows.flags & ExtentFlag.BAD)
    assert [(int(rows.first[row]), int(rows.count[row])) for row in bad] == [(7, 2), (200, 1)]
    assert int(built.extents.flags.sum()) == 3
    found = files(backed, result)
    for path in (damaged, small):
        assert found[path][1] == (cluster.data_directory / path).read_bytes()


def test_without_checksums_nothing_is_judged(cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    backed = start_backed(cluster_factory(checksums=False, archive_to=tmp_path / "archive"), tmp_path)
    cluster = backed.cluster
    cluster.sql("CREATE TABLE damaged AS SELECT g AS id, repeat('x', 500) AS f FROM generate_series(1, 5000) g")
    cluster.sql("CHECKPOINT")
    damaged = relation_path(cluster, "damaged")
    flip(cluster.data_directory / damaged, 7 * BLOCK + 5000)
    result = backed.backup()
    assert result.exit_code == 0
    assert not backed.manifest(result).server.data_checksums
    assert files(backed, result)[damaged][1] == (cluster.data_directory / damaged).read_bytes()
    backed.feeder.stop()


def test_archiving_is_off(cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    backed = start_backed(cluster_factory(), tmp_path)
    with pytest.raises(ConfigError, match="archiving is off") as caught:
        backed.backup()
    assert "pitr wal configure" in str(caught.value.hint)
    assert backed.objects() == []
    backed.feeder.stop()


def test_archiving_fails(cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    cluster = cluster_factory(conf={"archive_mode": "on", "archive_command": "false"})
    backed = start_backed(cluster, tmp_path)
    with pytest.raises(WalGap, match="archiving is broken") as caught:
        backed.backup()
    assert "fails since" in str(caught.value.detail)
    assert backed.objects() == []
    assert cluster.value("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pitr/%%'") == 0
    backed.feeder.stop()


def test_archiving_goes_elsewhere(backed: Backed) -> None:
    archive_elsewhere(backed)
    with pytest.raises(WalGap, match="not into this repository"):
        backed.backup()
    assert backed.objects() == []


def test_archive_breaks_during_the_backup(backed: Backed) -> None:
    def break_it() -> None:
        backed.cluster.sql("ALTER SYSTEM SET archive_command = 'false'")
        backed.cluster.reload()

    with pytest.raises(WalGap, match="has not reached the archive within 1 s") as caught:
        backed.backup(at_phase("copy", break_it), archive_wait_s=1.0)
    assert "fails since" in str(caught.value.detail) or "last archived" in str(caught.value.detail)
    assert backed.objects() == []
    assert list_pins(backed.repository, CLUSTER) == []
    backed.cluster.sql("ALTER SYSTEM RESET archive_command")
    backed.cluster.reload()
    assert backed.backup().backup_id is not None


def test_another_servers_directory_is_refused(backed: Backed, cluster_factory: ClusterFactory) -> None:
    other = cluster_factory(fresh=True).start()
    with pytest.raises(HistoryMismatch, match="belongs to another cluster"):
        backed.backup(data_directory=other.data_directory)
    standby = backed.cluster.make_standby()
    with pytest.raises(ConfigError, match="not the data directory of the server"):
        backed.backup(data_directory=standby.data_directory)
    standby.start()
    backed.cluster.sql("CREATE TABLE something ()")
    standby.settings["recovery_min_apply_delay"] = "1h"
    standby.restart()
    with pytest.raises(ConfigError, match="not the data directory of the server"):
        backed.backup(data_directory=standby.data_directory)
    assert backed.objects() == []


def test_a_second_system_id_is_refused(backed: Backed, cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    backed.backup()
    other = cluster_factory(fresh=True, archive_to=tmp_path / "archive2").start()
    with pytest.raises(HistoryMismatch, match="another PostgreSQL cluster"):
        backed.backup(conninfo=other.conninfo())


def test_skipping_by_age_and_role(backed: Backed) -> None:
    assert backed.backup(if_role="standby").skipped == "this server is a primary, a standby was asked for"
    first = backed.backup(if_older_s=3600, if_role="primary")
    assert first.skipped is None
    again = backed.backup(if_older_s=3600)
    assert again.skipped is not None
    assert again.backup_id == first.backup_id
    assert backed.backup(if_older_s=0).skipped is None
    assert len(backup_ids(backed.repository, backed.names)) == 2


def test_one_backup_at_a_time(backed: Backed) -> None:
    with (
        leased(backed.repository.store, CLUSTER, "backup", wait_s=0),
        pytest.raises(Locked, match="another backup"),
    ):
        backed.backup(lock_wait_s=0.1)
    assert backed.backup(lock_wait_s=0.1).skipped is None


def test_unreadable_database_and_configuration_are_warnings(backed: Backed, tmp_path: Path) -> None:
    backed.cluster.sql("CREATE DATABASE closed")
    hba = backed.cluster.data_directory / "pg_hba.conf"
    hba.write_text("local closed all reject\n" + hba.read_text())
    with (backed.cluster.data_directory / "postgresql.conf").open("a") as conf:
        conf.write(f"include_if_exists '{tmp_path}/absent.conf'\n")
    backed.cluster.reload()
    result = backed.backup()
    assert result.exit_code == 0
    assert [text for text in result.warnings if "database closed" in text]
    assert len(result.warnings) == 1
    maps = load_relation_maps(backed.repository, backed.manifest(result))
    assert maps is not None
    assert set(maps.unread) == {"closed"}


def test_a_role_with_just_the_needed_privileges(backed: Backed) -> None:
    cluster = backed.cluster
    backed.backup()  # so that a finished segment is archived: switching would be one more privilege
    cluster.sql("CREATE ROLE keeper LOGIN")
    role = cluster.conninfo(user="keeper")
    with pytest.raises(ConfigError, match="the data directory is not known"):
        backed.backup(conninfo=role)
    cluster.sql("GRANT pg_read_all_settings TO keeper")
    with pytest.raises(PrivilegeMissing) as caught:
        backed.backup(conninfo=role)
    assert "GRANT EXECUTE ON FUNCTION pg_backup_start" in str(caught.value.hint)
    cluster.sql("GRANT EXECUTE ON FUNCTION pg_backup_start, pg_backup_stop TO keeper")
    result = backed.backup(conninfo=role)
    assert (result.exit_code, result.warnings) == (0, ())


def test_links_and_sockets_in_the_data_directory(backed: Backed, tmp_path: Path) -> None:
    root = backed.cluster.data_directory
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    (root / "notes").symlink_to(tmp_path / "notes")
    (root / "loop").mkdir()
    (root / "loop" / "back").symlink_to(root / "loop")
    (root / "single").symlink_to(tmp_path / "notes" / "a.txt")
    (root / "nowhere").symlink_to(tmp_path / "absent")
    os.mkfifo(root / "pipe")
    result = backed.backup()
    found = files(backed, result)
    assert found["notes/a.txt"][1] == found["single"][1] == b"a"
    assert {"loop/back", "nowhere", "pipe"}.isdisjoint(found)
    for name in ("notes", "single", "nowhere", "pipe"):
        assert [text for text in result.warnings if str(root / name) in text], name


@contextlib.contextmanager
def switching(cluster: Cluster) -> Iterator[None]:
    """Segments of a quiet primary end all the time, as with archive_timeout."""
    stop = threading.Event()

    def switch() -> None:
        while not stop.wait(0.3):
            cluster.switch_wal()

    thread = threading.Thread(target=switch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def caught_up(standby: Cluster, primary: Cluster) -> None:
    """Something is written first: the end of an idle primary's WAL may lie behind a page header without a record."""
    lsn = primary.commit_lsn("CREATE TABLE last_word ()")
    wait_until(lambda: standby.lsn() >= lsn, what="replay")


def test_from_a_standby(backed: Backed, tmp_path: Path) -> None:
    primary = backed.cluster
    primary.sql("CREATE TABLE kept AS SELECT generate_series(1, 10000) AS id")
    standby = primary.make_standby()
    standby.start()
    caught_up(standby, primary)
    with switching(primary):
        result = backed.backup(conninfo=standby.conninfo(), if_role="standby")
    manifest = backed.manifest(result)
    assert manifest.server.from_standby
    assert manifest.wal.min_recovery_lsn is not None
    assert manifest.wal.start_lsn <= manifest.wal.min_recovery_lsn <= manifest.wal.stop_lsn
    recovery = recover_in(lay_out(backed, result, tmp_path / "restored", settings={"primary_conninfo": ""}))
    assert recovery.outcome == "promoted", recovery.log[-2000:]
    assert recovery.cluster.value("SELECT count(*) FROM kept") == 10000


def test_after_a_promotion(backed: Backed, tmp_path: Path) -> None:
    """Timeline 2: the segment before belongs to timeline 1, and the history is recorded."""
    primary = backed.cluster
    primary.sql("CREATE TABLE kept AS SELECT generate_series(1, 10000) AS id")
    standby = primary.make_standby(conf={"archive_command": f'cp "%p" "{backed.archive}/%f"'})
    standby.start()
    caught_up(standby, primary)
    primary.stop()
    standby.promote()
    result = backed.backup(conninfo=standby.conninfo())
    manifest = backed.manifest(result)
    assert manifest.wal.timeline == 2
    assert [point.timeline for point in manifest.wal.history] == [1]
    first = SegmentName.parse(manifest.wal.first_segment, 16 * MIB)
    assert first.timeline == 2
    assert first.start <= manifest.wal.start_lsn < first.end
    assert isinstance(manifest.wal.stop_lsn, Lsn)
    assert backed.names.wal_history_prefix + "00000002.history" in [
        info.name for info in backed.repository.store.list(backed.names.wal_history_prefix)
    ]
    recovery = recover_in(lay_out(backed, result, tmp_path / "restored"))
    assert recovery.outcome == "promoted", recovery.log[-2000:]
    assert recovery.cluster.value("SELECT count(*) FROM kept") == 10000


@pytest.mark.majors
def test_every_major_recovers(major: int, cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    backed = start_backed(
        cluster_factory(major, segment_size_mb=1, archive_to=tmp_path / "archive"), tmp_path, segment_size=MIB
    )
    backed.cluster.sql("CREATE TABLE kept AS SELECT g AS id, md5(g::text) AS t FROM generate_series(1, 20000) g")
    result = backed.backup()
    assert result.bad_pages == ()
    assert backed.manifest(result).server.major == major
    backed.cluster.sql("INSERT INTO kept SELECT 0, ''")
    recovery = recover_in(lay_out(backed, result, tmp_path / "restored"), major=major)
    backed.feeder.stop()
    assert recovery.outcome == "promoted", recovery.log[-2000:]
    assert recovery.cluster.value("SELECT count(*) FROM kept") == 20000


def test_map_of_a_sealed_repository_reads_back(cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    backed = start_backed(cluster_factory(archive_to=tmp_path / "archive"), tmp_path, sealed=True)
    result = backed.backup()
    stored = {path: data for path, (_, data) in files(backed, result).items()}
    assert stored["PG_VERSION"] == (backed.cluster.data_directory / "PG_VERSION").read_bytes()
    plain = posix_repository(tmp_path / "other")
    assert plain.descriptor.cipher == "none"
    assert load_map(backed.repository, backed.manifest(result)).packs[0].params.cipher
    backed.feeder.stop()
