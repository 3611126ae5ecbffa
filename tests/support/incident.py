"""A laboratory incident: damage of every kind, and what only looks like damage, on a server under load."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.restoring import Source

BEFORE = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id int PRIMARY KEY, body text);
CREATE TABLE shop.item (id int PRIMARY KEY, orders_id int REFERENCES shop.orders ON DELETE CASCADE, note text);
INSERT INTO shop.orders SELECT n, 'order' FROM generate_series(1, 4000) AS n;
INSERT INTO shop.item SELECT n, n % 4000 + 1, 'item' FROM generate_series(1, 30000) AS n;
CREATE INDEX ON shop.item (orders_id);
CREATE TABLE shop.price (id int, amount int);
INSERT INTO shop.price SELECT n, n FROM generate_series(1, 600) AS n;
CREATE TABLE shop.emptied (id serial PRIMARY KEY, body text);
INSERT INTO shop.emptied (body) SELECT repeat('x', 3000) FROM generate_series(1, 30) AS n;
CREATE TABLE shop.reloaded (id int, body text);
INSERT INTO shop.reloaded SELECT n, 'old' FROM generate_series(1, 200) AS n;
CREATE TABLE shop.victim (id serial PRIMARY KEY, body text);
INSERT INTO shop.victim (body) SELECT repeat('v', 3000) FROM generate_series(1, 20) AS n;
CREATE TABLE shop.full_ (id int PRIMARY KEY, body text);
CREATE TABLE shop.clustered (id int PRIMARY KEY, body text);
CREATE TABLE shop.altered (id int PRIMARY KEY, amount int, gone text);
CREATE TABLE shop.moved (id int PRIMARY KEY, body text);
CREATE TABLE shop.indexed (id int PRIMARY KEY, body text);
INSERT INTO shop.full_ SELECT n, 'f' FROM generate_series(1, 100) AS n;
INSERT INTO shop.clustered SELECT n, 'c' FROM generate_series(1, 100) AS n;
INSERT INTO shop.altered SELECT n, n FROM generate_series(1, 100) AS n;
INSERT INTO shop.moved SELECT n, 'm' FROM generate_series(1, 100) AS n;
INSERT INTO shop.indexed SELECT n, 'i' FROM generate_series(1, 100) AS n;
CREATE TABLE shop."Saved points" (id int);
INSERT INTO shop."Saved points" SELECT generate_series(1, 500);
CREATE TABLE shop.prepared (id int);
INSERT INTO shop.prepared SELECT generate_series(1, 300);
CREATE TABLE shop.waiting (id int);
INSERT INTO shop.waiting SELECT generate_series(1, 130);
CREATE MATERIALIZED VIEW shop.summary AS SELECT count(*) FROM shop.orders;
CREATE SCHEMA doomed;
CREATE TABLE doomed.one (id serial, body text);
CREATE TABLE doomed.parted (id int) PARTITION BY RANGE (id);
CREATE TABLE doomed.part_1 PARTITION OF doomed.parted FOR VALUES FROM (0) TO (100);
CREATE VIEW doomed.look AS SELECT * FROM doomed.one;
"""


@dataclass(frozen=True)
class Expected:
    """``tables``: name to [rows deleted, updated, inserted afterwards]."""

    op: str
    database: str
    tables: dict[str, tuple[int, ...]]
    xid: int


@dataclass
class Incident:
    source: Source
    expected: list[Expected] = field(default_factory=list)
    prepared: int = 0
    """The xid of a transaction that is prepared early and committed late"""

    def did(self, op: str, xid: int, *tables: str | tuple[str, int, int, int], db: str = "app") -> None:
        """A table with (rows deleted, updated, inserted afterwards), or its name alone: none of them."""
        counts = {}
        for table in tables:
            name, *rows = (table, 0, 0, 0) if isinstance(table, str) else table
            counts[name] = tuple(rows)
        self.expected.append(Expected(op, db, counts, xid))


@contextmanager
def load_on(cluster: Cluster) -> Iterator[None]:
    argv = cluster._pgbench(["-n", "-T", "600", "-c", "2", "--rate", "300"], "postgres")
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)


def make(directory: Path, major: int) -> Incident:
    """Set up, back up, let it happen in database ``app`` while pgbench runs in ``postgres``, and archive all of it."""
    source = Source.make(directory, major=major, conf={"max_prepared_transactions": "5", "wal_compression": "on"})
    cluster = source.cluster
    cluster.pgbench_init(1)
    for name in ("app", "doomed_db"):
        cluster.sql(f"CREATE DATABASE {name}")
    cluster.sql(BEFORE, "app")
    cluster.sql("CREATE TABLE kept AS SELECT generate_series(1, 7) AS i", "doomed_db")
    location = cluster.directory / "place"
    location.mkdir(mode=0o700)
    cluster.sql(f"CREATE TABLESPACE place LOCATION '{location}'")
    source.backup()
    incident = Incident(source)
    with load_on(cluster):
        _rows(incident)
        _files(incident)
        _harmless(incident)
        _later(incident)
    cluster.sql("SELECT pg_create_restore_point('the end')")
    source.archived()
    return incident


def _run(incident: Incident, *statements: str, db: str = "app") -> int:
    """One transaction; its xid."""
    with incident.source.cluster.connect(db, autocommit=False) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        row = connection.execute("SELECT pg_current_xact_id()::text::bigint % 4294967296").fetchone()
        assert row is not None
        connection.commit()
    return int(row[0])


def _rows(incident: Incident) -> None:
    xid = _run(incident, "DELETE FROM shop.orders")
    incident.did("delete", xid, ("shop.item", 30000, 0, 0), ("shop.orders", 4000, 0, 0))
    xid = _run(incident, "UPDATE shop.price SET amount = 0")
    incident.did("update", xid, ("shop.price", 0, 600, 0))
    xid = _run(
        incident,
        'DELETE FROM shop."Saved points" WHERE id <= 60',
        "SAVEPOINT a",
        'DELETE FROM shop."Saved points" WHERE id <= 200',
        "RELEASE a",
        "SAVEPOINT b",
        'DELETE FROM shop."Saved points"',
        "DROP TABLE shop.victim",
        "ROLLBACK TO b",
    )
    incident.did("delete", xid, ('shop."Saved points"', 200, 0, 0))
    xid = _run(incident, "DELETE FROM shop.prepared WHERE id > 100", "SAVEPOINT c", "DELETE FROM shop.prepared")
    incident.did("delete", xid, ("shop.prepared", 300, 0, 0))
    with incident.source.cluster.connect("app", autocommit=False) as connection:
        connection.execute("DELETE FROM shop.waiting WHERE id <= 30; SAVEPOINT d; DELETE FROM shop.waiting")
        row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        connection.execute("PREPARE TRANSACTION 'waiting'")
        connection.execute("DELETE FROM shop.indexed; DROP TABLE shop.moved")
        connection.execute("PREPARE TRANSACTION 'given up'")
    assert row is not None
    incident.prepared = row[0]
    with incident.source.cluster.connect("app", autocommit=False) as connection:
        connection.execute("DELETE FROM shop.clustered; DROP TABLE shop.victim")
        connection.rollback()


def _files(incident: Incident) -> None:
    cluster = incident.source.cluster
    cluster.sql("ROLLBACK PREPARED 'given up'", "app")
    incident.did("truncate", _run(incident, "TRUNCATE shop.emptied RESTART IDENTITY"), "shop.emptied")
    xid = _run(
        incident,
        "TRUNCATE shop.reloaded",
        "INSERT INTO shop.reloaded SELECT n, 'new' FROM generate_series(1, 150) AS n",
    )
    incident.did("truncate", xid, ("shop.reloaded", 0, 0, 150))
    incident.did("drop", _run(incident, "DROP TABLE shop.victim"), "shop.victim")
    incident.did(
        "drop",
        _run(incident, "DROP SCHEMA doomed CASCADE"),
        "doomed.one",
        "doomed.parted",
        "doomed.part_1",
        "doomed.look",
    )
    incident.did("alter", _run(incident, "ALTER TABLE shop.altered DROP COLUMN gone"), "shop.altered")
    xid = _run(incident, "ALTER TABLE shop.altered ALTER COLUMN amount TYPE bigint")
    incident.did("rewrite", xid, ("shop.altered", 0, 0, 100))
    xid = _run(incident, "REFRESH MATERIALIZED VIEW shop.summary")
    incident.did("rewrite", xid, ("shop.summary", 0, 0, 1))
    incident.did("rewrite", _run(incident, "CLUSTER shop.clustered USING clustered_pkey"), "shop.clustered")
    incident.did("set-tablespace", _run(incident, "ALTER TABLE shop.moved SET TABLESPACE place"), "shop.moved")
    cluster.sql("VACUUM FULL shop.full_", "app")
    incident.did("rewrite", 0, "shop.full_")
    incident.did("reindex", _run(incident, "REINDEX TABLE shop.indexed"), "shop.indexed_pkey")
    cluster.sql("DROP DATABASE doomed_db")
    incident.did("drop-database", 0, db="doomed_db")


def _harmless(incident: Incident) -> None:
    """Nothing of this may be shown."""
    cluster = incident.source.cluster
    with cluster.connect("app") as connection:
        connection.execute("CREATE TEMP TABLE t AS SELECT generate_series(1, 500) AS i")
        connection.execute("TRUNCATE t")
        connection.execute("INSERT INTO t SELECT generate_series(1, 500)")
        connection.execute("DELETE FROM t")
        connection.execute("CREATE INDEX ON t (i)")
        connection.execute("ALTER TABLE t ADD COLUMN j text")
        connection.execute("DROP TABLE t")
        connection.execute("CREATE TEMP TABLE left_behind (i int PRIMARY KEY, body text)")
        connection.execute("BEGIN; CREATE TEMP TABLE u (i int) ON COMMIT DROP; INSERT INTO u VALUES (1); COMMIT")
        connection.execute("BEGIN; CREATE TABLE made (i int); INSERT INTO made SELECT generate_series(1, 300)")
        connection.execute("DELETE FROM made; TRUNCATE made; DROP TABLE made; COMMIT")
        connection.execute("BEGIN; DROP TABLE shop.orders, shop.item CASCADE; ROLLBACK")
        connection.execute("VACUUM shop.orders")  # gives empty pages back, under an exclusive lock
        connection.execute("VACUUM FULL pg_class")
        connection.execute("REINDEX TABLE pg_class")
        connection.execute("BEGIN; LOCK TABLE shop.orders; COMMIT")
        connection.execute("CREATE INDEX ON shop.indexed (body)")
        connection.execute("CREATE TABLE public.made_later (id int PRIMARY KEY, body text)")
        connection.execute("INSERT INTO made_later SELECT n, 'later' FROM generate_series(1, 250) AS n")


def _later(incident: Incident) -> None:
    """What happens to relations and files that no backup has seen."""
    cluster = incident.source.cluster
    cluster.sql("CHECKPOINT")  # so that rows come as page images
    cluster.sql("COMMIT PREPARED 'waiting'", "app")
    incident.did("delete", incident.prepared, ("shop.waiting", 130, 0, 0))
    incident.did("delete", _run(incident, "DELETE FROM made_later"), ("public.made_later", 250, 0, 0))
    incident.did("delete", _run(incident, "DELETE FROM shop.reloaded"), ("shop.reloaded", 150, 0, 0))
    xid = _run(incident, "UPDATE shop.altered SET amount = 1")
    incident.did("update", xid, ("shop.altered", 0, 100, 0))
    incident.did("delete", _run(incident, "DELETE FROM shop.moved"), ("shop.moved", 100, 0, 0))
    incident.did("truncate", _run(incident, "TRUNCATE shop.full_, made_later"), "shop.full_", "public.made_later")
    incident.did("drop", _run(incident, "DROP TABLE made_later"), "public.made_later")
    incident.did("drop", _run(incident, "DROP MATERIALIZED VIEW shop.summary"), "shop.summary")
