"""What a transaction's locks, files and rows mean, where no server of that major is at hand; and TABLE words."""

from __future__ import annotations

import pytest

from pitr.core.errors import UsageError
from pitr.find.classify import classify
from pitr.find.databases import Databases
from pitr.find.names import Names, Relation
from pitr.find.patterns import parse_table
from pitr.find.transactions import Changes, Marked, Transaction, Unfinished
from pitr.pg.lsn import Lsn
from pitr.wal.catalog_rows import RelationBorn
from pitr.wal.index import Commit
from pitr.wal.records import RelFileLocator
from pitr.wal.xact import DroppedStats
from pitr.wal.xlog import Checkpoint, DatabaseCreated, DatabaseDropped

DB = 5
TABLES = {20000: "r", 20010: "r", 20020: "i", 20030: "v", 20040: "p"}


def file(number: int, tablespace: int = 1663) -> RelFileLocator:
    return RelFileLocator(tablespace, DB, number)


def names() -> Names:
    known = Names()
    for oid, kind in TABLES.items():
        known._know(Lsn(0), DB, oid, Relation("public", f"t{oid}", kind))
        if kind not in "vp":
            known.learn_file(DB, oid, oid)
    return known


def done(
    major: int,
    *,
    locks: tuple[int, ...] = (),
    removed: tuple[RelFileLocator, ...] = (),
    created: tuple[RelFileLocator, ...] = (),
    dropped: tuple[int, ...] = (),
    pg_class: tuple[int, int, int] = (0, 1, 0),
    born: tuple[RelationBorn, ...] = (),
) -> list[tuple[str, list[int | None], bool]]:
    changes = Changes({file(1259): list(pg_class)}, {(DB, oid) for oid in locks}, list(created), list(born))
    stats = tuple(DroppedStats(2, DB, oid) for oid in dropped)
    transaction = Transaction(major, Commit(100, 0, 7, False, DB, (), removed, stats), changes)
    events = classify(transaction, names(), 10)
    return [(event.op, [table.oid for table in event.tables], event.is_certain) for event in events]


def transient(oid: int, of: int) -> RelationBorn:
    return RelationBorn(7, DB, oid, 2200, f"pg_temp_{of}", "r", "p", oid, of)


@pytest.mark.parametrize("major", [13, 14])
def test_13_and_14_do_not_say_what_was_dropped(major: int) -> None:
    assert done(major, locks=(20000,), removed=(file(20000),)) == [("drop", [20000], True)]
    truncated = done(major, locks=(20000,), removed=(file(20000),), created=(file(30000),), pg_class=(0, 0, 1))
    assert truncated == [("truncate", [20000], True)]
    rewritten = done(
        major, locks=(20000, 30000), removed=(file(20000),), created=(file(30000),),
        pg_class=(1, 1, 1), born=(transient(30000, 20000),),
    )  # fmt: skip
    assert rewritten == [("rewrite", [20000], True)]
    both = done(
        major, locks=(20000, 20010), removed=(file(20010), file(20000)), created=(file(30000),), pg_class=(0, 1, 1)
    )
    assert [certain for op, _, certain in both if op == "drop"] == [False], "one was dropped and one was emptied"
    assert done(major, locks=(20030,)) == [("drop", [20030], False)]
    assert done(major, locks=(20030,), pg_class=(0, 0, 1)) == [("alter", [20030], True)]


@pytest.mark.parametrize("major", [15, 18])
def test_dropped_statistics_decide(major: int) -> None:
    assert done(major, locks=(20000, 20020), removed=(file(20000), file(20020)), dropped=(20000, 20020)) == [
        ("drop", [20000], True)
    ]
    assert done(major, locks=(20040,), dropped=(20040,)) == [("drop", [20040], True)]
    assert done(major, locks=(20020,), removed=(file(20020),), dropped=(20020,)) == [("reindex", [20020], True)]
    assert done(major, dropped=(29999,)) == [], "nobody knows it and no file went: a temporary relation"
    assert done(major, removed=(file(29999),), dropped=(29999,)) == [("drop", [29999], True)]
    assert done(major, locks=(20000,), removed=(file(20000),), created=(file(30000, 1700),)) == [
        ("set-tablespace", [20000], True)
    ]
    unread = done(major, locks=(20000,), removed=(file(20000),), created=(file(30000),), dropped=(30000,))
    assert unread == [("truncate", [20000], False)], "a transient relation whose row could not be read"
    assert done(major, locks=(20000,), pg_class=(0, 0, 0)) == [("alter", [20000], True)]


def test_a_lock_alone_is_nothing() -> None:
    changes = Changes(locks={(DB, 20000)})
    assert classify(Transaction(15, Commit(100, 0, 7, False, DB, (), (), ()), changes), names(), 10) == []


def checkpoint() -> Checkpoint:
    from datetime import UTC, datetime

    return Checkpoint(Lsn(60), True, Lsn(50), 1, 1, True, None, 9, datetime(2026, 1, 1, tzinfo=UTC))


def test_a_database_is_lost_where_it_was_marked() -> None:
    dropped = DatabaseDropped(Lsn(90), 7, 30000, (1663,))
    commit = Commit(100, 0, 7, False, 1, (), (), ())
    for marks, checkpoints, first in (([(40, 30000)], 5, 40), ([(40, 0)], 2, 40), ([(40, 0)], 3, 90), ([], 0, 90)):
        databases = Databases(names())
        for lsn, oid in marks:
            databases.mark(Marked(Lsn(lsn), oid))
        for _ in range(checkpoints):
            databases.note(checkpoint())
        (event,) = databases.of_transaction(Transaction(15, commit, Changes(directories=[dropped])))
        assert (event.op, event.lsn, event.stop_before) == ("drop-database", 100, first)
    (crashed,) = Databases(names()).of_unfinished(Unfinished(7, (dropped,)))
    assert (crashed.time, crashed.lsn) == (None, 90)
    created = DatabaseCreated(Lsn(80), 7, 30000, 1663, None)
    assert Databases(names()).of_unfinished(Unfinished(7, (created, dropped))) == []
    moved = DatabaseCreated(Lsn(80), 7, 30000, 1700, (30000, 1663))
    (event,) = Databases(names()).of_transaction(Transaction(15, commit, Changes(directories=[moved])))
    assert event.op == "set-tablespace"


@pytest.mark.parametrize(
    ("word", "database", "schema", "name", "expected"),
    [
        ("orders", "app", "shop", "orders", True),
        ("ORDERS", "app", "shop", "orders", True),
        ('"ORDERS"', "app", "shop", "orders", False),
        ('shop."Or""d.er"', "app", "shop", 'Or"d.er', True),
        ("app.*", "x", "app", "anything", True),
        ("app.*", "x", "other", "anything", False),
        ("parlant_?", "x", "public", "parlant_1", True),
        ("one.shop.orders", "one", "shop", "orders", True),
        ("one.shop.orders", "two", "shop", "orders", False),
        ("shop.orders", "x", None, "orders", True),
        ("a*", "x", "public", None, False),
    ],
)
def test_table_words(word: str, database: str, schema: str | None, name: str | None, expected: bool) -> None:
    assert parse_table(word).matches(database, schema, name) is expected


@pytest.mark.parametrize("word", ["", ".", "a.", ".a", "a..b", "a.b.c.d", 'a"b', '"a', 'a."b"c'])
def test_what_is_no_table_word(word: str) -> None:
    with pytest.raises(UsageError):
        parse_table(word)
