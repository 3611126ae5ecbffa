"""A DROP DATABASE without its commit: half done, unless the server crashed and left it so for good."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest

from pitr.core.errors import TargetUnreachable
from pitr.pg.lsn import Lsn
from pitr.restore.dropped import excluded_drop
from pitr.restore.request import TargetXid
from pitr.wal.facts import Facts, FactsCollector
from pitr.wal.records import RM_DBASE, RM_XACT, RM_XLOG, Record
from pitr.wal.targets import Resolved
from pitr.wal.xact import XACT_ABORT, XACT_COMMIT, TransactionEnd
from pitr.wal.xlog import XLOG_CHECKPOINT_ONLINE, XLOG_CHECKPOINT_SHUTDOWN, DatabaseDropped

DROP_DATABASE = 0x20


def record(lsn: int, rmid: int, operation: int, xid: int, data: bytes) -> Record:
    buffer = bytes(24) + bytes((0xFF, len(data))) + data
    return Record(lsn, lsn + len(buffer), 0, xid, rmid, operation, len(buffer), 0, 15, buffer, 0)


def dropped(lsn: int, xid: int) -> Record:
    return record(lsn, RM_DBASE, DROP_DATABASE, xid, struct.pack("<III", 16400, 1, 1663))


def checkpoint(lsn: int, operation: int) -> Record:
    return record(lsn, RM_XLOG, operation, 0, struct.pack("<QII?3xIQ", lsn, 1, 1, True, 0, 700) + bytes(80))


def half_done(*records: Record) -> list[tuple[int, int]]:
    facts = facts_of(*records)
    assert all(isinstance(event, DatabaseDropped) for half in facts.half_done for event in half.events)
    return [(half.xid, half.lsn) for half in facts.half_done]


def test_an_excluded_drop_is_half_done() -> None:
    assert half_done(dropped(1000, 730)) == [(730, 1000)]
    assert half_done(dropped(1000, 730), checkpoint(1100, XLOG_CHECKPOINT_ONLINE)) == [(730, 1000)]
    other = record(1100, RM_XACT, XACT_COMMIT, 731, struct.pack("<q", 0))
    assert half_done(dropped(1000, 730), other) == [(730, 1000)]


@pytest.mark.parametrize("operation", [XACT_COMMIT, XACT_ABORT])
def test_its_end_settles_it(operation: int) -> None:
    assert half_done(dropped(1000, 730), record(1100, RM_XACT, operation, 730, struct.pack("<q", 0))) == []


def test_a_crash_settles_it_too() -> None:
    """Otherwise one crash at the wrong moment would make every later target unreachable."""
    assert half_done(dropped(1000, 730), checkpoint(1100, XLOG_CHECKPOINT_SHUTDOWN)) == []
    assert half_done(checkpoint(900, XLOG_CHECKPOINT_SHUTDOWN), dropped(1000, 730)) == [(730, 1000)]


def resolved_at(lsn: int, facts: Facts, last_commit: int | None) -> Resolved:
    end = None
    if last_commit is not None:
        end = TransactionEnd(
            lsn=Lsn(last_commit),
            end_lsn=Lsn(last_commit + 40),
            committed=True,
            prepared=False,
            xid=729,
            time=datetime(2026, 7, 1, tzinfo=UTC),
            database=5,
            tablespace=1663,
            subxacts=(),
            relations=(),
            dropped_stats=(),
            invalidations=0,
            gid=None,
            origin=None,
            has_exclusive_locks=False,
        )
    return Resolved(Lsn(lsn), Lsn(lsn + 40), False, end, None, facts)


def facts_of(*records: Record) -> Facts:
    collector = FactsCollector()
    for each in records:
        collector.add(each)
    return collector.facts()


def test_the_target_moves_before_the_drop_unless_a_commit_lies_between() -> None:
    facts = facts_of(dropped(1000, 730))
    asked = TargetXid(730, inclusive=False)
    drop = excluded_drop(resolved_at(1500, facts, 900), asked)
    assert drop is not None
    assert drop.lsn == 1000
    with pytest.raises(TargetUnreachable, match="DROP DATABASE of transaction 730") as caught:
        excluded_drop(resolved_at(1500, facts, 1200), asked)
    assert "transaction 729 committed in between" in str(caught.value.detail)
    assert "--lsn 0/3E8 --exclusive" in str(caught.value.hint)
    assert excluded_drop(resolved_at(1500, facts_of(dropped(1000, 0)), 1200), asked) is None
    assert excluded_drop(resolved_at(1500, Facts(), 1200), asked) is None
