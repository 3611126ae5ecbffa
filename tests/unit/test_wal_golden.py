"""WAL of every major as a server once wrote it: it still reads the same, and damage to it is seen and never crashes."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from functools import partial

import pytest

from pitr.core.errors import HistoryMismatch, IntegrityError, PitrError, VersionUnsupported
from pitr.core.files import Buffer
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History, HistoryEntry
from pitr.wal.facts import FactsCollector
from pitr.wal.reader import RecordReader
from pitr.wal.segment import check_segment, valid_prefix
from pitr.wal.stream import Fetch, Segment
from pitr.wal.targets import LatestTarget, WalRange, XidTarget, resolve
from pitr.wal.xact import is_transaction_end, transaction_end
from pitr.wal.xlog import XLOG_EVENT_KINDS, xlog_event
from tests.support.wal_golden import MAJORS, SEGMENT_SIZE, Golden
from tests.support.wal_golden import golden as load

BLOCK = 8192


@pytest.fixture(params=MAJORS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return load(request.param)


def read(golden: Golden, fetch: Fetch | None = None) -> RecordReader:
    return RecordReader(golden.fetch if fetch is None else fetch, golden.start, golden.history, SEGMENT_SIZE)


def wal(golden: Golden) -> WalRange:
    return WalRange(golden.fetch, golden.start, golden.history, SEGMENT_SIZE, system_id=golden.system_id)


def test_there_is_wal_of_every_major_at_hand() -> None:
    assert set(MAJORS) >= {15, 16, 17, 18}


def test_records(golden: Golden) -> None:
    records = read(golden)
    ours = [[str(r.lsn), str(Lsn(r.prev)), r.xid, r.rmid, r.total_length] for r in records]
    assert ours == [row[:5] for row in golden.known["records"]]
    assert records.end is not None
    assert records.end.lsn == golden.end


def test_everything_decodes(golden: Golden) -> None:
    for record in read(golden):
        body = record.body()
        assert body.main_data == record.main_data()
        assert record.crc_is_right()
        if (record.rmid, record.operation) in XLOG_EVENT_KINDS:
            assert xlog_event(record) is not None


def test_segments_pass(golden: Golden) -> None:
    checks = {
        name: check_segment(golden.files[str(name)], name, system_id=golden.system_id, history=history)
        for name in golden.finished
        for history in (None, golden.history)
    }
    assert {check.major for check in checks.values()} == {golden.major}
    assert any(check.switched and check.used_bytes < SEGMENT_SIZE for check in checks.values())
    assert any(check.first_record is None for check in checks.values())
    assert any(check.timelines != (check.name.timeline,) for check in checks.values())


def test_targets(golden: Golden) -> None:
    xid = golden.known["xids"]["plain"]
    found = resolve(wal(golden), XidTarget(xid)).resolved
    assert found is not None
    (row,) = [row for row in golden.known["records"] if row[2] == xid and row[5].startswith("COMMIT")]
    assert str(found.lsn) == row[0]
    latest = resolve(wal(golden), LatestTarget()).resolved
    assert latest is not None
    assert str(latest.lsn) == golden.known["records"][-1][0]


# What a check must refuse


def first(golden: Golden, *, switched: bool) -> tuple[SegmentName, bytearray]:
    """A finished segment of timeline 1 that is full, or one that ends with a switch."""
    for name in golden.finished[1:]:
        data = golden.files[str(name)]
        if name.timeline == 1 and (data[-BLOCK:] == bytes(BLOCK)) == switched:
            return name, bytearray(data)
    raise AssertionError("no such segment")


def check(golden: Golden, data: Buffer, name: SegmentName) -> None:
    check_segment(data, name, system_id=golden.system_id)


def test_truncated(golden: Golden) -> None:
    name, data = first(golden, switched=True)
    for size in (0, 1, 39, 40, 4096, BLOCK, SEGMENT_SIZE // 2, SEGMENT_SIZE - 1, SEGMENT_SIZE - BLOCK):
        with pytest.raises(IntegrityError):
            check(golden, data[:size], name)
    with pytest.raises(IntegrityError):
        check(golden, data + bytes(BLOCK), name)


def test_torn_tail(golden: Golden) -> None:
    """Zeros from some page on, as after a crash of the machine that copied it."""
    name, data = first(golden, switched=False)
    for page in (1, 5, 64, 127):
        torn = data[: page * BLOCK] + bytes(SEGMENT_SIZE - page * BLOCK)
        with pytest.raises(IntegrityError):
            check(golden, torn, name)
    name, data = first(golden, switched=True)
    used = len(data.rstrip(b"\0"))
    with pytest.raises(IntegrityError):
        check(golden, data[: used - 24] + bytes(SEGMENT_SIZE - used + 24), name)


def test_stale_pages_of_a_reused_file(golden: Golden) -> None:
    name, data = first(golden, switched=False)
    other = next(n for n in golden.finished if n.timeline == 1 and n.number < name.number)
    stale = golden.files[str(other)]
    for page in (1, 64, 127):
        with pytest.raises(IntegrityError):
            check(golden, data[: page * BLOCK] + stale[page * BLOCK :], name)


def test_data_behind_a_switch(golden: Golden) -> None:
    name, data = first(golden, switched=True)
    used = len(data.rstrip(b"\0"))
    for offset in (used + 1, (used // BLOCK + 1) * BLOCK, SEGMENT_SIZE - 1):
        dirty = bytearray(data)
        dirty[offset] = 1
        with pytest.raises(IntegrityError):
            check(golden, dirty, name)


def test_zero_pages_in_the_middle(golden: Golden) -> None:
    name, data = first(golden, switched=False)
    with pytest.raises(IntegrityError):
        check(golden, data[: 9 * BLOCK] + bytes(BLOCK) + data[10 * BLOCK :], name)


def test_pushed_under_another_name(golden: Golden) -> None:
    name, data = first(golden, switched=False)
    for other in (name.next(), name.previous(), name.at_timeline(2), name.at_timeline(3)):
        with pytest.raises(HistoryMismatch):
            check(golden, data, other)
    with pytest.raises(HistoryMismatch):
        check_segment(data, name, system_id=golden.system_id ^ 1)
    with pytest.raises(HistoryMismatch):
        check(golden, data, SegmentName(1, name.number // 2, 2 * SEGMENT_SIZE))


def test_a_child_timeline_under_its_parents_name(golden: Golden) -> None:
    name = next(name for name in golden.finished if name.timeline == 2)
    with pytest.raises(HistoryMismatch):
        check(golden, golden.files[str(name)], name.at_timeline(1))


def test_a_foreign_history(golden: Golden) -> None:
    """Two standbys promoted at different points are both timeline 2."""
    switch = golden.history.entries[0].switch_lsn
    name = next(name for name in golden.finished if name.timeline == 2)
    data = golden.files[str(name)]
    for other in (switch - 3 * BLOCK, switch + 3 * BLOCK):
        history = History(2, (HistoryEntry(1, Lsn(other), ""),))
        with pytest.raises(HistoryMismatch):
            check_segment(data, name, system_id=golden.system_id, history=history)
    with pytest.raises(HistoryMismatch):
        check_segment(data, name, system_id=golden.system_id, history=History.initial(1))
    descendant = History(5, (*golden.history.entries, HistoryEntry(2, switch + 10**9, "")))
    check_segment(data, name, system_id=golden.system_id, history=descendant)


def test_a_timeline_begun_on_the_last_used_page(golden: Golden) -> None:
    """Every page then carries the parent's number; the records on the page tell."""
    name = next(name for name in golden.finished if name.timeline == 2)
    data = golden.files[str(name)]
    switch = golden.history.entries[0].switch_lsn
    page = (switch - name.start) // BLOCK
    one_page = bytearray(SEGMENT_SIZE)
    one_page[: (page + 1) * BLOCK] = data[: (page + 1) * BLOCK]
    # End it with a switch record behind the last whole record on the page.
    until = name.start + (page + 1) * BLOCK
    records = [r for r in read(golden) if name.start <= r.start and r.end + 24 <= until]
    last = records[-1]
    end = last.end - name.start
    record = struct.pack("<IIQBBxx", 24, 0, last.start, 0x40, 0)
    one_page[end : end + 24] = record + struct.pack("<I", 0)
    one_page[end + 24 :] = bytes(SEGMENT_SIZE - end - 24)
    checked = check_segment(one_page, name, system_id=golden.system_id)
    assert (checked.timelines, checked.switched) == ((1,), True)
    with pytest.raises(HistoryMismatch):
        check_segment(one_page, name.at_timeline(3), system_id=golden.system_id)


def test_other_versions() -> None:
    golden = load(MAJORS[0])
    name, data = first(golden, switched=False)
    data[0:2] = b"\x19\xd1"
    with pytest.raises(VersionUnsupported):
        check(golden, data, name)
    data[0:2] = b"\x00\x00"
    with pytest.raises(IntegrityError):
        check(golden, data, name)


def test_every_flip_in_a_page_header_is_seen(golden: Golden) -> None:
    name, data = first(golden, switched=False)
    for page in (0, 1, 64, 127):
        flags = data[page * BLOCK + 2]
        for bit in range(8 * (40 if page == 0 else 24)):
            byte = bit // 8
            # Padding; BKP_REMOVABLE, which says nothing about the content; OVERWRITE_CONTRECORD, for the record reader.
            if 20 <= byte < 24 or bit in (16 + 2, 16 + 3):
                continue
            # How much continues can be told from the page before only if the record fills that.
            if 16 <= byte < 20 and flags & 1 and not data[(page - 1) * BLOCK + 2] & 1:
                continue
            flipped = bytearray(data)
            flipped[page * BLOCK + byte] ^= 1 << bit % 8
            with pytest.raises(PitrError):
                check(golden, flipped, name)


def test_the_reader_sees_a_wrong_continuation(golden: Golden) -> None:
    continued = [name for name in golden.finished[1:] if golden.files[str(name)][2] & 1]
    assert len(continued) > 2
    for name in continued:
        for offset in (2, 16, 17, 18):
            flipped = bytearray(golden.files[str(name)])
            flipped[offset] ^= 8 if offset == 2 else 1
            with pytest.raises(IntegrityError):
                read_all(golden, replaced(golden, name, flipped))


def replaced(golden: Golden, name: SegmentName, data: Buffer, complete: bool = True) -> Fetch:
    def fetch(asked: SegmentName) -> Segment | None:
        return Segment.read(data, name, complete=complete) if asked == name else golden.fetch(asked)

    return fetch


def read_all(golden: Golden, fetch: Fetch) -> None:
    collector = FactsCollector()
    for record in read(golden, fetch):
        if is_transaction_end(record):
            transaction_end(record)
        collector.add(record)
        record.body()


def damaged(generator: random.Random, data: bytes) -> bytes:
    result = bytearray(data)
    used = max(len(data.rstrip(b"\0")), BLOCK)
    at = generator.randrange(used)
    match generator.randrange(5):
        case 0:
            result[at] ^= 1 << generator.randrange(8)
        case 1:
            for _ in range(20):
                result[generator.randrange(used)] ^= 1 << generator.randrange(8)
        case 2:
            result[at : at + 512] = generator.randbytes(512)
        case 3:
            result[at : at + 4] = generator.randbytes(4)
        case _:
            del result[at:]
    return bytes(result[:SEGMENT_SIZE])


def test_random_damage_gives_errors_of_ours_only(golden: Golden) -> None:
    generator = random.Random(golden.major)
    complaints = 0
    for _ in range(40):
        name = generator.choice(golden.chain)
        broken = damaged(generator, golden.files[str(name)])
        tasks: list[Callable[[], object]] = [
            partial(read_all, golden, replaced(golden, name, broken)) if len(broken) > 40 else lambda: None,
            partial(check, golden, broken, name),
            partial(valid_prefix, broken, name),
        ]
        for task in tasks:
            with contextlib.suppress(PitrError):
                task()
                continue
            complaints += 1
    assert complaints > 15  # of 120; most damage is inside a record, which only its checksum shows


# The unfinished segment


def test_valid_prefix(golden: Golden) -> None:
    name = golden.chain[-1]
    data = golden.files[str(name)]
    assert valid_prefix(data, name) == golden.end
    records = [r for r in read(golden) if r.start >= name.start]
    for record in records[:: max(1, len(records) // 10)]:
        cut = data[: record.end - name.start]
        whole = len(cut) // BLOCK * BLOCK
        expected = max((r.end for r in records if r.end <= name.start + whole), default=int(name.start))
        assert valid_prefix(cut, name) == expected if whole else True
        flipped = bytearray(data)
        flipped[record.start - name.start + 20] ^= 1
        before = max((r.end for r in records if r.end <= record.start), default=int(name.start))
        assert valid_prefix(flipped, name) == before


def test_partial(golden: Golden) -> None:
    (old,) = [name for name in golden.files if name.endswith(".partial")]
    name = SegmentName.parse(old[:24], SEGMENT_SIZE)
    data = golden.files[old]
    assert valid_prefix(data, name, system_id=golden.system_id) == golden.history.entries[0].switch_lsn
    assert check_segment(data, name, system_id=golden.system_id, partial=True).used_bytes > 0
    with pytest.raises(HistoryMismatch):
        check_segment(data, name, system_id=golden.system_id + 1, partial=True)
