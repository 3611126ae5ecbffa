"""Indexes of segments: written and read back, stitched, and what damage does to them."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from pitr.core.errors import FormatTooNew, IntegrityError, PitrError
from pitr.find.transactions import Transaction, happenings
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.wal.images import pglz_decompress
from pitr.wal.index import SegmentIndex, decode_index, encode_index, ranges_of
from pitr.wal.indexing import INDEXED_KINDS, PIECE_LIMIT, build_index, index_records
from pitr.wal.reader import RecordReader, Selection
from pitr.wal.records import RM_XACT, Record
from pitr.wal.stitch import stitched
from tests.support.wal_builder import WalBuilder, main_data
from tests.support.wal_golden import MAJORS, SEGMENT_SIZE, Golden
from tests.support.wal_golden import golden as load


@pytest.fixture(params=MAJORS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return load(request.param)


def chain(golden: Golden) -> list[SegmentName]:
    numbers = range(int(golden.start) // SEGMENT_SIZE, int(golden.end - 1) // SEGMENT_SIZE + 1)
    return [SegmentName(golden.history.owner(number, SEGMENT_SIZE), number, SEGMENT_SIZE) for number in numbers]


def indexes(golden: Golden, **options: Any) -> list[SegmentIndex]:
    found = []
    for name in chain(golden):
        segment = golden.fetch(name)
        assert segment is not None
        found.append(build_index(segment, name, **options))
    return found


def reader(golden: Golden, start: Lsn, selection: Selection) -> RecordReader:
    return RecordReader(golden.fetch, start, golden.history, SEGMENT_SIZE, selection=selection, trust_start=True)


def transactions(found: Iterable[SegmentIndex]) -> dict[int, Any]:
    def never(index: SegmentIndex) -> SegmentIndex:
        raise AssertionError(f"the index of {index.name} is not enough")

    return {
        one.commit.lsn: (one.commit._replace(subxacts=tuple(sorted(one.commit.subxacts))), one.changes)
        for one in happenings(found, never)
        if isinstance(one, Transaction)
    }


def test_what_is_written_is_read_back(golden: Golden) -> None:
    for index in indexes(golden):
        assert decode_index(encode_index(index), "x") == index
        assert len(encode_index(index)) < 256 * 1024


def test_stitched_indexes_equal_one_reading_of_everything(golden: Golden) -> None:
    fine = indexes(golden, threshold=0)
    start = fine[0].start
    assert start is not None
    read: list[int] = []

    def read_record(lsn: Lsn) -> Record | None:
        read.append(lsn)
        return next(iter(reader(golden, lsn, Selection(None))))

    selected = list(reader(golden, start, Selection(INDEXED_KINDS)))
    whole = index_records(selected, fine[0].name)
    assert transactions(stitched(fine, read_record)) == transactions([whole])
    pieces = list(stitched(fine, read_record))
    assert sorted(event.lsn for index in pieces for event in index.events) == [event.lsn for event in whole.events]
    assert any(index.lead is None and index.lead_length > PIECE_LIMIT for index in fine)
    assert all(index.lead_length <= SEGMENT_SIZE for index in fine)


def test_ends(golden: Golden) -> None:
    for index in indexes(golden):
        exact = build_index(golden.fetch(index.name), index.name, threshold=0)  # type: ignore[arg-type]
        assert (exact.commits, exact.aborts, exact.committed) == (index.commits, index.aborts, index.committed)
        assert (index.commits.number if index.commits else 0) == len(exact.transactions)
        if index.commits is not None:
            assert (index.commits.first.lsn, index.commits.last.lsn) == (
                exact.transactions[0].lsn,
                exact.transactions[-1].lsn,
            )
            times = [commit.time for commit in exact.transactions]
            assert (index.commits.earliest, index.commits.latest) == (min(times), max(times))
        for commit in exact.transactions:
            assert all(index.has_committed(xid) for xid in (commit.xid, *commit.subxacts))
            assert not index.has_aborted(commit.xid)


def two_segments(wal: WalBuilder) -> list[SegmentIndex]:
    """Up to where the builder is; what follows is switched away."""
    wal.switch()
    names = [wal.segment(number) for number in sorted(wal.files)]
    return [build_index(bytes(wal.files[name.number]), name) for name in names]


def no_reading(lsn: Lsn) -> Record | None:
    raise AssertionError(f"the record at {lsn} is in the indexes")


@pytest.mark.parametrize("room", [8, 16, 24, 32])
def test_a_commit_between_two_segments(room: int) -> None:
    """Its header may be cut as well."""
    wal = WalBuilder()
    wal.fill_to(room)
    lsn = wal.add(main_data(struct.pack("<q", 4711)), rmid=RM_XACT, xid=77)
    first, second = two_segments(wal)
    assert (first.tail, len(first.tail_data), second.lead_length) == (lsn, room, 34 - room)
    (piece,) = [index for index in stitched([first, second], no_reading) if index not in (first, second)]
    assert [(commit.lsn, commit.time, commit.xid) for commit in piece.transactions] == [(lsn, 4711, 77)]
    given_up = replace(second, lead_given_up=True)
    assert list(stitched([first, given_up], no_reading)) == [first, given_up]
    assert list(stitched([first], no_reading)) == [first]
    damaged = replace(second, lead=b"\xff" * (34 - room))
    read: list[Lsn] = []
    list(stitched([first, damaged], read.append))
    assert read == [lsn], "a wrong checksum: the segments themselves are asked"


@pytest.mark.parametrize("room", [1000, PIECE_LIMIT + 1000])
def test_a_piece_that_is_too_long_is_not_kept(room: int) -> None:
    xids = range(1000, 31000)
    body = struct.pack(f"<qII{len(xids)}I", 1, 1 << 1, len(xids), *xids)
    wal = WalBuilder()
    wal.add(xid=5)
    while -wal.at % wal.segment_size > room + 4000:
        wal.add(bytes(2000), xid=5)
    lsn = wal.add(main_data(body), rmid=RM_XACT, info=0x80, xid=77)
    first, second = two_segments(wal)
    assert (first.tail, first.tail_cut, second.lead) == (lsn, room > PIECE_LIMIT, None)
    assert len(encode_index(first)) + len(encode_index(second)) < 20_000

    def read_record(asked: Lsn) -> Record | None:
        return next(iter(RecordReader(wal.fetch, asked, History.initial(), wal.segment_size, trust_start=True)))

    (piece,) = [index for index in stitched([first, second], read_record) if index not in (first, second)]
    assert piece.transactions[0].subxacts == tuple(xids)


def test_damage_is_seen_or_changes_nothing_and_never_crashes(golden: Golden) -> None:
    draw = random.Random(golden.major)
    name = chain(golden)[0]
    segment = golden.fetch(name)
    assert segment is not None
    for _ in range(60):
        data = bytearray(segment.data)
        for _ in range(draw.choice((1, 3, 200))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        with contextlib.suppress(PitrError):
            encode_index(build_index(bytes(data), name))


def test_unreadable_indexes(golden: Golden) -> None:
    document = json.loads(encode_index(indexes(golden)[0]))
    with pytest.raises(FormatTooNew):
        decode_index(json.dumps(document | {"format": 2}).encode(), "x")
    for damaged in ({**document, "rows": [[1]]}, {**document, "files": 5}, {}, []):
        with pytest.raises(IntegrityError):
            decode_index(json.dumps(damaged).encode(), "x")
    with pytest.raises(IntegrityError):
        decode_index(b"no JSON", "x")


def test_ranges() -> None:
    assert ranges_of([5, 3, 4, 9, 10, 1]) == ((1, 1), (3, 5), (9, 10))
    assert ranges_of([]) == ()


def test_pglz() -> None:
    assert pglz_decompress(b"\x00abcdefgh", 8) == b"abcdefgh"
    # one literal, then a match of 18 + 4 bytes one byte back
    assert pglz_decompress(b"\x02a\x0f\x01\x04", 23) == b"a" * 23
    for damaged in (b"\x01\x00\x00", b"\x01\x0f", b"\x00a"):
        with pytest.raises((ValueError, IndexError)):
            pglz_decompress(damaged, 10)
