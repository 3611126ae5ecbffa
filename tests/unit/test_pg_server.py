"""Sessions, facts, the backup interface and relation maps on real servers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pitr.core.errors import IntegrityError, PrivilegeMissing, ServerUnreachable
from pitr.pg.backup import BackupLabel, backup_start, backup_stop, parse_tablespace_map, render_tablespace_map
from pitr.pg.facts import read_databases, read_extensions, read_facts
from pitr.pg.relations import relation_map, relation_maps
from pitr.pg.segments import SegmentName
from pitr.pg.server import QueryFailed, connect, server_errors
from tests.support.cluster import Cluster, ClusterFactory, wait_until
from tests.support.pooler import Pooler

pytestmark = pytest.mark.pg


@pytest.fixture
def pooler_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pp", dir="/tmp") as directory:
        yield Path(directory)


def test_session_is_pinned(shared_cluster: Cluster) -> None:
    shared_cluster.sql("CREATE ROLE hasty SUPERUSER LOGIN")
    shared_cluster.sql("ALTER ROLE hasty SET statement_timeout = '1ms'; ALTER ROLE hasty SET search_path = evil")
    with connect(shared_cluster.conninfo(user="hasty"), "backup") as connection:
        names = ("application_name", "statement_timeout", "search_path", "idle_in_transaction_session_timeout")
        values = [connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in names]
        assert values == [("pitr/backup",), ("0",), ("pg_catalog",), ("0",)]
        assert connection.autocommit


def test_database_overrides_the_conninfo(shared_cluster: Cluster) -> None:
    with connect(shared_cluster.conninfo("nowhere"), "test", database="template1") as connection:
        assert connection.info.dbname == "template1"


def test_unreachable_server_names_no_password() -> None:
    with pytest.raises(ServerUnreachable) as caught:
        connect("host=/nonexistent user=u password=hunter2", "test")
    told = f"{caught.value.message} {caught.value.detail} {caught.value.hint}"
    assert "hunter2" not in told
    assert "/nonexistent" in told


def test_malformed_conninfo_names_no_password() -> None:
    with pytest.raises(ServerUnreachable) as caught:
        connect("host=/nonexistent user password=hunter2", "test")
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_transaction_pooler_is_refused(shared_cluster: Cluster, pooler_directory: Path) -> None:
    pooler = Pooler(pooler_directory, shared_cluster.socket_directory, "transaction")
    conninfo = f"host={pooler_directory} user=postgres dbname=postgres sslmode=disable gssencmode=disable"
    try:
        with psycopg.connect(conninfo, autocommit=True) as plain:
            assert plain.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(ServerUnreachable, match="transaction pooler"):
            connect(conninfo, "test")
    finally:
        pooler.close()


def test_proxy_that_keeps_the_session_is_taken(shared_cluster: Cluster, pooler_directory: Path) -> None:
    pooler = Pooler(pooler_directory, shared_cluster.socket_directory, "session")
    conninfo = f"host={pooler_directory} user=postgres dbname=postgres sslmode=disable gssencmode=disable"
    try:
        with connect(conninfo, "test") as connection:
            assert connection.info.backend_pid == 999_999_999
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        pooler.close()


def test_errors_are_told_apart(shared_cluster: Cluster) -> None:
    shared_cluster.sql("CREATE ROLE nobody LOGIN")
    with connect(shared_cluster.conninfo(user="nobody"), "test") as connection:
        with pytest.raises(PrivilegeMissing) as caught:
            backup_start(connection, "x")
        assert "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean)" in str(caught.value.hint)
        with pytest.raises(QueryFailed), server_errors("cannot divide"):
            connection.execute("SELECT 1/0")
        with pytest.raises(psycopg.errors.UndefinedColumn), server_errors("a bug of ours"):
            connection.execute("SELECT nonsense")
    with connect(shared_cluster.conninfo(), "test") as connection:
        with pytest.raises(QueryFailed, match="cannot stop the backup"):
            backup_stop(connection)
        shared_cluster.sql(f"SELECT pg_terminate_backend({connection.info.backend_pid})")
        with pytest.raises(ServerUnreachable), server_errors("cannot look"):
            connection.execute("SELECT 1")


@pytest.mark.majors
def test_facts(major: int, cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    segment_size_mb = 1 if major == 15 else 16
    cluster = cluster_factory(
        major, segment_size_mb=segment_size_mb, checksums=False, archive_to=tmp_path, conf={"max_connections": "33"}
    ).start()
    place = cluster.directory / "space"
    place.mkdir()
    cluster.sql(f"CREATE TABLESPACE elsewhere LOCATION '{place}'")
    cluster.sql("CREATE DATABASE shop TABLESPACE elsewhere")
    with connect(cluster.conninfo(), "test") as connection:
        facts = read_facts(connection)
        assert read_extensions(connection) == (("plpgsql", "1.0"),)
    assert facts.major == major == facts.version_num // 10000
    assert facts.data_directory == str(cluster.data_directory)
    assert facts.config_file == str(cluster.data_directory / "postgresql.conf")
    assert (facts.segment_size_bytes, facts.block_size_bytes) == (segment_size_mb << 20, 8192)
    assert (facts.checksums, facts.wal_log_hints, facts.full_page_writes) == (False, False, True)
    assert (facts.is_standby, facts.timeline, facts.is_superuser, facts.user) == (False, 1, True, "postgres")
    assert (facts.archive_mode, str(tmp_path) in facts.archive_command) == ("on", True)
    assert facts.recovery_parameters["max_connections"] == 33
    assert facts.settings["max_connections"].source_file == facts.config_file
    assert (facts.archive_library is None) == (major < 15)
    shop, template0 = facts.database("shop"), facts.database("template0")
    assert shop is not None
    assert template0 is not None
    assert (shop.encoding, shop.locale_provider, shop.allows_connections, shop.is_valid) == ("UTF8", "c", True, True)
    assert (template0.is_template, template0.allows_connections) == (True, False)
    elsewhere = next(tablespace for tablespace in facts.tablespaces if tablespace.name == "elsewhere")
    assert (elsewhere.oid, elsewhere.location) == (shop.tablespace, str(place))
    assert facts.system_identifier == int(cluster.value("SELECT system_identifier::text FROM pg_control_system()"))


def test_facts_while_archiving_is_off(cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory(conf={"archive_command": "true"}).start()
    with connect(cluster.conninfo(), "test") as connection:
        assert read_facts(connection).archive_command == "true"


def test_timeline_of_standby_and_promoted(cluster: Cluster) -> None:
    standby = cluster.make_standby().start()
    with connect(standby.conninfo(), "test") as connection:
        facts = read_facts(connection)
        assert (facts.is_standby, facts.timeline) == (True, 1)
        standby.promote()
        facts = read_facts(connection)
        assert (facts.is_standby, facts.timeline) == (False, 2)


@pytest.mark.majors
def test_backup_start_and_stop(major: int, cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory(major).start()
    place = cluster.directory / "a b\\c"
    place.mkdir()
    cluster.sql(f"CREATE TABLESPACE elsewhere LOCATION '{place}'")
    with connect(cluster.conninfo(), "test") as connection:
        started = backup_start(connection, "nightly: one")
        cluster.sql("CREATE TABLE t AS SELECT 1 AS n")
        stopped = backup_stop(connection)
    assert started.start_lsn < stopped.stop_lsn
    label = BackupLabel.parse(stopped.label_file)
    assert (label.start_lsn, label.timeline, label.from_standby) == (started.start_lsn, 1, False)
    assert label.label == "nightly: one"
    assert label.start_segment == str(SegmentName.containing(1, started.start_lsn, 16 << 20))
    assert label.checkpoint_lsn >= label.start_lsn
    oid = cluster.value("SELECT oid::bigint FROM pg_tablespace WHERE spcname = 'elsewhere'")
    if major >= 15:
        assert parse_tablespace_map(stopped.tablespace_map) == {oid: str(place)}
        assert render_tablespace_map({oid: str(place)}) == stopped.tablespace_map


def test_backup_from_a_standby(cluster: Cluster) -> None:
    standby = cluster.make_standby().start()
    cluster.sql("CHECKPOINT")
    with connect(standby.conninfo(), "test") as connection:
        backup_start(connection, "x")
        stopped = backup_stop(connection)
    assert BackupLabel.parse(stopped.label_file).from_standby


def test_incomplete_label_is_refused() -> None:
    with pytest.raises(IntegrityError):
        BackupLabel.parse("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n")


def test_tablespace_map_survives_every_character() -> None:
    locations = {16384: "/a b/c\\d\ne\r\\", 16385: "/plain"}
    assert parse_tablespace_map(render_tablespace_map(locations)) == locations
    with pytest.raises(IntegrityError):
        parse_tablespace_map("nonsense\n")


SCHEMA = """
CREATE SCHEMA app;
CREATE TABLE app.item (id int PRIMARY KEY, body text);
CREATE UNLOGGED TABLE app.cache (id serial);
CREATE TABLE app.part (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE app.part1 PARTITION OF app.part FOR VALUES FROM (1) TO (10);
CREATE VIEW app.v AS SELECT 1 AS one;
"""


@pytest.mark.majors
def test_relation_map(major: int, cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory(major).start()
    place = cluster.directory / "space"
    place.mkdir()
    cluster.sql(f"CREATE TABLESPACE elsewhere LOCATION '{place}'")
    cluster.sql("CREATE DATABASE shop")
    cluster.sql(SCHEMA, "shop")
    cluster.sql("VACUUM FULL pg_class", "shop")
    cluster.sql("CREATE TABLE app.far (n int) TABLESPACE elsewhere", "shop")
    with connect(cluster.conninfo("shop"), "test") as connection, cluster.connect("shop") as other:
        other.execute("CREATE TEMP TABLE passing (n int)")
        rows = relation_map(connection)
    names = {f"{row.namespace}.{row.name}": row for row in rows}
    assert not any(row.name == "passing" for row in rows)
    item, key = names["app.item"], names["app.item_pkey"]
    assert (item.kind, item.persistence, item.index_of, item.parent) == ("r", "p", 0, 0)
    assert (key.kind, key.index_of) == ("i", item.oid)
    toast = next(row for row in rows if row.oid == item.toast)
    assert (toast.namespace, toast.kind) == ("pg_toast", "t")
    assert (names["app.part"].filenode, names["app.part1"].parent) == (0, names["app.part"].oid)
    assert names["app.part1_pkey"].parent == names["app.part_pkey"].oid
    assert names["app.cache"].persistence == "u"
    assert (names["app.v"].kind, names["app.v"].filenode) == ("v", 0)
    assert names["app.far"].tablespace == cluster.value(
        "SELECT oid::bigint FROM pg_tablespace WHERE spcname = 'elsewhere'"
    )
    # A mapped catalog was moved by VACUUM FULL; every row with a file names an existing one.
    assert names["pg_catalog.pg_class"].filenode not in (0, names["pg_catalog.pg_class"].oid)
    paths = {
        row[0] for row in cluster.sql("SELECT pg_relation_filepath(oid) FROM pg_class WHERE relkind = 'r'", "shop")
    }
    for row in rows:
        if row.kind == "r":
            assert any(path.endswith(f"/{row.filenode}") for path in paths)


def test_relation_maps_of_all_databases(cluster: Cluster) -> None:
    cluster.sql("CREATE DATABASE shop")
    cluster.sql("CREATE DATABASE passing")
    cluster.sql(SCHEMA, "shop")
    with connect(cluster.conninfo(), "test") as connection:
        databases = read_databases(connection)
        cluster.sql("DROP DATABASE passing")
        maps = relation_maps(connection, lambda name: connect(cluster.conninfo(), "test", database=name), databases)
        assert {one.name for one in maps} == {"template1", "postgres", "shop"}
        assert [one.name for one in maps if any(row.namespace == "app" for row in one.relations)] == ["shop"]
        assert all(("plpgsql", "1.0") in one.extensions for one in maps)
        cluster.sql("ALTER DATABASE shop CONNECTION LIMIT 0; CREATE ROLE plain LOGIN")
        with pytest.raises(ServerUnreachable):
            relation_maps(
                connection, lambda name: connect(cluster.conninfo(user="plain"), "test", database=name), databases
            )


def test_sessions_are_closed_after_use(cluster: Cluster) -> None:
    with connect(cluster.conninfo(), "closing") as connection:
        databases = read_databases(connection)
        relation_maps(connection, lambda name: connect(cluster.conninfo(), "closing", database=name), databases)
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pitr/closing'"
    wait_until(lambda: cluster.value(count) == 0)


def test_import_does_not_load_psycopg() -> None:
    modules = "pitr.pg.server, pitr.pg.facts, pitr.pg.backup, pitr.pg.relations"
    program = f"import sys, {modules}; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("dsn", ["postgresql://u:hun@ter2@127.0.0.1:1/db", "host=127.0.0.1 port=1 password=hun ter2"])
def test_half_a_password_is_not_shown(dsn: str) -> None:
    with pytest.raises(ServerUnreachable, match="cannot be understood") as caught:
        connect(dsn, "test")
    assert "ter2" not in f"{caught.value} {caught.value.hint}"
