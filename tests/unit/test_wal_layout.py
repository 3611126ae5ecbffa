"""Where records may lie: every way to cross pages and segments, and the decoding of majors that are not at hand."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitr.core.errors import IntegrityError, UsageError
from pitr.pg.lsn import Lsn
from pitr.pg.timelines import History
from pitr.wal.facts import FactsCollector
from pitr.wal.reader import RecordReader, Selection
from pitr.wal.records import RM_DBASE, RM_HEAP, RM_TBLSPC, RM_XACT, RM_XLOG, RelFileLocator
from pitr.wal.segment import check_segment, valid_prefix
from pitr.wal.stream import Segment, first_record
from pitr.wal.targets import NameTarget, TimeTarget, WalRange, XidTarget, resolve
from pitr.wal.xact import DroppedStats, TransactionEnd, transaction_end
from pitr.wal.xlog import (
    Checkpoint,
    DatabaseCreated,
    DatabaseDropped,
    EndOfRecovery,
    ParameterChange,
    TablespaceCreated,
    xlog_event,
)
from tests.support.wal_builder import SYSTEM_ID, WalBuilder, main_data

SIZE = 1024 * 1024
MAJORS = (13, 14, 15, 16, 17, 18)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def read(wal: WalBuilder, start: Lsn, selection: Selection | None = None) -> RecordReader:
    return RecordReader(wal.fetch, start, History.initial(), SIZE, selection=selection or Selection(None))


def check_all(wal: WalBuilder, *, last: bool) -> None:
    """Every segment passes, the newest only if it was switched."""
    numbers = sorted(wal.files)
    for number in numbers if last else numbers[:-1]:
        check_segment(wal.files[number], wal.segment(number), system_id=SYSTEM_ID)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 300), st.integers(0, 20_000), st.integers(900_000, 2_500_000)), max_size=15),
    st.sampled_from([1024, 8192, 65536]),
    st.integers(0, 8000),
)
def test_any_sizes(sizes: list[int], block_size: int, offset: int) -> None:
    wal = WalBuilder(block_size=block_size)
    first = wal.add(bytes(offset))
    starts = [(int(first), offset + 24)] + [(int(wal.add(bytes(size), checksum=False)), size + 24) for size in sizes]
    starts.append((int(wal.switch()), 24))
    records = read(wal, first)
    assert [(r.start, r.total_length) for r in records] == starts
    assert records.end is not None
    assert (records.end.lsn, records.end.reason) == (wal.at, "missing segment")
    check_all(wal, last=True)
    for number, data in wal.files.items():
        name = wal.segment(number)
        inside = [start for start, _ in starts if name.start <= start < name.end]
        found = first_record(Segment.read(bytes(data), name).pages)
        assert not inside or found == inside[0]


@pytest.mark.parametrize("left", [8, 16, 24, 32, 40])
@pytest.mark.parametrize("body", [0, 1, 8, 5000, 2_000_000])
def test_a_header_cut_by_the_end_of_a_segment(left: int, body: int) -> None:
    wal = WalBuilder()
    first = wal.add()
    wal.fill_to(left)
    cut = wal.add(bytes(body), xid=77)
    after = wal.add(b"x", xid=78)
    for selection in (Selection(None), Selection(())):
        records = read(wal, first, selection)
        seen = [(r.start, r.xid) for r in records][-2:]
        assert seen == ([(cut, 77), (after, 78)] if selection.table[0] & 1 else [])
        assert records.last is not None
        assert records.last.lsn == after
    assert [r.start for r in read(wal, cut)] == [cut, after]
    check_all(wal, last=False)
    if body + 24 <= left:
        return
    del wal.files[max(wal.files)]
    alone = read(wal, first)
    assert cut not in [r.start for r in alone]
    assert alone.end is not None
    assert (alone.end.lsn, alone.end.reason) == (cut, "missing segment")


@pytest.mark.parametrize("left", [8, 16, 24, 32, 4000])
def test_a_switch_near_the_end_of_a_segment(left: int) -> None:
    """A switch record cut by the end of its segment empties the next one."""
    wal = WalBuilder()
    first = wal.add()
    wal.fill_to(left)
    switch = wal.switch()
    after = wal.add(b"x")
    assert [r.start for r in read(wal, first)][-2:] == [switch, after]
    assert after == (3 if left < 24 else 2) * SIZE + 40
    check_all(wal, last=False)
    if left < 24:
        data = bytearray(wal.files[2])
        assert check_segment(data, wal.segment(2), system_id=SYSTEM_ID).switched
        data[40 + 24 - left - 8] = 0x50
        with pytest.raises(IntegrityError):
            check_segment(data, wal.segment(2), system_id=SYSTEM_ID)


def test_a_record_that_fills_the_segment_exactly() -> None:
    wal = WalBuilder()
    first = wal.add()
    wal.fill_to(0)
    check = check_segment(wal.files[1], wal.segment(1), system_id=SYSTEM_ID)
    assert (check.tail, check.switched, check.used_bytes) == (None, False, SIZE)
    records = read(wal, first)
    list(records)
    assert records.end is not None
    assert (records.end.lsn, records.end.reason) == (2 * SIZE, "missing segment")
    assert valid_prefix(wal.files[1], wal.segment(1)) == 2 * SIZE


def test_wrong_checksums_and_links_end_the_wal() -> None:
    wal = WalBuilder()
    starts = [wal.add(bytes(500), xid=number) for number in range(50)]
    broken = bytearray(wal.files[1])
    broken[starts[30] - SIZE + 100] ^= 1
    name = wal.segment(1)
    assert valid_prefix(broken, name) == starts[30]
    torn = RecordReader(
        lambda n: Segment.read(bytes(broken), n, complete=False) if n == name else None,
        starts[0],
        History.initial(),
        SIZE,
    )
    assert [r.start for r in torn] == starts[:30]
    assert torn.end is not None
    assert (torn.end.lsn, torn.end.reason) == (starts[30], "invalid")
    broken = bytearray(wal.files[1])
    broken[starts[3] - SIZE + 8] ^= 8  # xl_prev
    wal.files[1] = broken
    unfinished = read(wal, starts[0])
    assert [r.start for r in unfinished] == starts[:3]
    wal.switch()
    with pytest.raises(IntegrityError, match=str(starts[3])):
        list(read(wal, starts[0]))


# Transactions of every major


def commit_data(major: int, time: int, *, prepared: bool) -> tuple[bytes, TransactionEnd]:
    """Everything at once."""
    flags = 0xFF | (1 << 8 if major >= 15 else 0)
    if not prepared:
        flags &= ~(1 << 4 | 1 << 7)
    data = struct.pack("<qI", time, flags) + struct.pack("<II", 5, 1663)
    data += struct.pack("<IIII", 3, 11, 12, 13)
    data += struct.pack("<I6I", 2, 1663, 5, 2000, 1663, 5, 2001)
    dropped: tuple[DroppedStats, ...] = ()
    if major >= 18:
        data += struct.pack("<IIIII", 1, 2, 5, 2000, 1)
        dropped = (DroppedStats(2, 5, 2000 | 1 << 32),)
    elif major >= 15:
        data += struct.pack("<IIII", 1, 2, 5, 2000)
        dropped = (DroppedStats(2, 5, 2000),)
    data += struct.pack("<I", 2) + bytes(32)
    if prepared:
        data += struct.pack("<I", 900) + "gid \u00e4\0".encode()
    data += struct.pack("<Qq", 0x1234, time)
    expected = TransactionEnd(
        lsn=Lsn(0),
        end_lsn=Lsn(0),
        committed=True,
        prepared=prepared,
        xid=900 if prepared else 700,
        time=EPOCH + timedelta(microseconds=time),
        database=5,
        tablespace=1663,
        subxacts=(11, 12, 13),
        relations=(RelFileLocator(1663, 5, 2000), RelFileLocator(1663, 5, 2001)),
        dropped_stats=dropped,
        invalidations=2,
        gid="gid \u00e4" if prepared else None,
        origin=(Lsn(0x1234), EPOCH + timedelta(microseconds=time)),
        has_exclusive_locks=True,
    )
    return data, expected


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("prepared", [False, True])
def test_commit_of_every_major(major: int, prepared: bool) -> None:
    wal = WalBuilder(major=major)
    data, expected = commit_data(major, 810_000_000_123_456, prepared=prepared)
    lsn = wal.add(main_data(data), rmid=RM_XACT, info=0x80 | (0x30 if prepared else 0), xid=0 if prepared else 700)
    (record,) = read(wal, lsn)
    ours = transaction_end(record)
    for field in TransactionEnd.__slots__:
        if field not in ("lsn", "end_lsn"):
            assert getattr(ours, field) == getattr(expected, field), field
    for cut in range(8, len(data)):
        short = WalBuilder(major=major)
        info = record.info
        (bad,) = read(short, short.add(main_data(data[:cut]), rmid=RM_XACT, info=info, xid=1))
        with pytest.raises(IntegrityError):
            transaction_end(bad)


def test_abort_has_no_invalidations() -> None:
    wal = WalBuilder()
    data = struct.pack("<qI", 5, 1 << 1 | 1 << 4) + struct.pack("<II", 1, 41) + struct.pack("<I", 40)
    (record,) = read(wal, wal.add(main_data(data), rmid=RM_XACT, info=0x80 | 0x40))
    ended = transaction_end(record)
    assert (ended.committed, ended.prepared, ended.xid, ended.subxacts) == (False, True, 40, (41,))


# Events of every major


@pytest.mark.parametrize("major", MAJORS)
def test_events_of_every_major(major: int) -> None:
    wal = WalBuilder(major=major)
    checkpoint = (
        struct.pack("<QII?3xIQ", 0x5000028, 3, 2, True, 2, 5 << 32 | 777) + bytes(32) + struct.pack("<q", 86400)
    )
    first = wal.add(main_data(checkpoint + bytes(16)), rmid=RM_XLOG, info=0x10)
    wal.add(main_data(struct.pack("<qII", 10**6, 3, 2)), rmid=RM_XLOG, info=0x90)
    wal.add(main_data(struct.pack("<iiiiii??2x", 100, 8, 10, 0, 64, 1, True, False)), rmid=RM_XLOG, info=0x60)
    wal.add(main_data(struct.pack("<IIII", 16384, 1663, 1, 1663)), rmid=RM_DBASE, info=0x00, xid=9)
    drop = 0x20 if major >= 15 else 0x10
    wal.add(main_data(struct.pack("<IIII", 16384, 2, 1663, 16390)), rmid=RM_DBASE, info=drop, xid=9)
    wal.add(main_data(struct.pack("<I", 16390) + b"/data/ts\0"), rmid=RM_TBLSPC, info=0x00, xid=10)
    events = [xlog_event(record) for record in read(wal, first)]
    one, two, three, four, five, six = events
    assert isinstance(one, Checkpoint)
    assert (one.redo, one.timeline, one.previous_timeline, one.next_xid) == (0x5000028, 3, 2, 5 << 32 | 777)
    assert one.time == datetime(1970, 1, 2, tzinfo=UTC)
    assert one.wal_level == ("logical" if major >= 17 else None)
    assert isinstance(two, EndOfRecovery)
    assert (two.timeline, two.previous_timeline, two.time) == (3, 2, EPOCH + timedelta(seconds=1))
    assert isinstance(three, ParameterChange)
    assert (three.max_connections, three.max_locks_per_transaction, three.wal_level) == (100, 64, "replica")
    assert (three.wal_log_hints, three.track_commit_timestamp) == (True, False)
    assert isinstance(four, DatabaseCreated)
    assert (four.oid, four.source) == (16384, (1, 1663))
    assert isinstance(five, DatabaseDropped)
    assert (five.oid, five.tablespaces) == (16384, (1663, 16390))
    assert isinstance(six, TablespaceCreated)
    assert (six.oid, six.location) == (16390, "/data/ts")


@pytest.mark.parametrize("major", MAJORS)
def test_drop_database_is_half_done_from_the_mark_on(major: int) -> None:
    wal = WalBuilder(major=major)
    row = struct.pack("<I", 16384) + bytes(76 if major >= 15 else 204)
    body = struct.pack("<BBH", 0, 0x20, len(row) + 4) + struct.pack("<III", 1664, 0, 1262) + struct.pack("<I", 0)
    body += bytes([255, 2]) + row + struct.pack("<i", -2) + b"\1\0"
    first = mark = wal.add(body, rmid=RM_HEAP, info=0x70)
    drop = 0x20 if major >= 15 else 0x10
    dropped = wal.add(main_data(struct.pack("<III", 16384, 1, 1663)), rmid=RM_DBASE, info=drop, xid=9)
    wal.add(main_data(struct.pack("<q", 0)), rmid=RM_XACT, xid=9)
    collector = FactsCollector()
    states = []
    for record in read(wal, first):
        collector.add(record)
        states.append(collector.facts())
    marked, gone, done = states
    assert marked.invalidated == ((16384, mark),)
    assert marked.half_done == ()
    assert gone.invalidated == ()
    assert [(half.xid, half.lsn) for half in gone.half_done] == [(9, mark)]
    assert gone.half_done[0].events[0].lsn == dropped
    assert done.half_done == ()


# Targets


def commits(wal: WalBuilder, seconds: list[int]) -> list[Lsn]:
    return [
        wal.add(main_data(struct.pack("<q", second * 10**6)), rmid=RM_XACT, xid=100 + number)
        for number, second in enumerate(seconds)
    ]


def test_commit_times_need_not_rise() -> None:
    """Recovery stops before the first later one it meets, though commits within the time come behind it."""
    wal = WalBuilder()
    lsns = commits(wal, [1, 5, 3, 5, 9])
    span = WalRange(wal.fetch, lsns[0], History.initial(), SIZE)

    def stop(second: int, inclusive: bool) -> Lsn | None:
        found = resolve(span, TimeTarget(EPOCH + timedelta(seconds=second), inclusive)).resolved
        return None if found is None else found.lsn

    assert [stop(second, True) for second in (0, 1, 3, 4, 5, 8, 9)] == [
        *(lsns[0], lsns[1], lsns[1], lsns[1], lsns[4], lsns[4], None)
    ]
    assert [stop(second, False) for second in (1, 2, 5, 6, 9, 10)] == [
        *(lsns[0], lsns[1], lsns[1], lsns[4], lsns[4], None)
    ]
    with pytest.raises(UsageError):
        resolve(span, TimeTarget(datetime(2020, 1, 1)))  # noqa: DTZ001


def test_a_target_on_a_damaged_record_is_refused() -> None:
    wal = WalBuilder()
    lsns = commits(wal, [1, 2, 3])
    wal.switch()
    wal.files[1][lsns[1] - SIZE + 30] ^= 1
    span = WalRange(wal.fetch, lsns[0], History.initial(), SIZE)
    with pytest.raises(IntegrityError):
        resolve(span, XidTarget(101))
    with pytest.raises(IntegrityError):
        resolve(span, XidTarget(102, inclusive=False))  # its last included commit
    assert resolve(span, XidTarget(100, inclusive=False)).resolved is not None


def test_a_name_that_exists_twice_is_reported_twice() -> None:
    wal = WalBuilder()
    lsns = []
    for name in (b"a", b"b", b"a"):
        lsns.append(wal.add(main_data(struct.pack("<q64s", 1, name)), rmid=RM_XLOG, info=0x70))
        commits(wal, [1])
    found = resolve(WalRange(wal.fetch, lsns[0], History.initial(), SIZE), NameTarget("a"))
    assert [point.lsn for point in found.restore_points] == [lsns[0], lsns[2]]
