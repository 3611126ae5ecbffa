"""The record reader and the target resolution against pg_waldump and what the servers themselves said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pitr.core.errors import HistoryMismatch, IntegrityError
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.wal.reader import RecordReader, Selection
from pitr.wal.records import RM_DBASE, RM_TBLSPC, RM_XACT, RM_XLOG, Record
from pitr.wal.segment import check_segment, valid_prefix
from pitr.wal.stream import Segment
from pitr.wal.targets import (
    ImmediateTarget,
    LatestTarget,
    LsnTarget,
    NameTarget,
    TimeTarget,
    WalRange,
    XidTarget,
    resolve,
)
from pitr.wal.xact import TransactionEnd, is_transaction_end, transaction_end
from pitr.wal.xlog import (
    DatabaseCreated,
    DatabaseDropped,
    OverwriteContrecord,
    RestorePoint,
    TablespaceCreated,
    TablespaceDropped,
    xlog_event,
)
from tests.support import wal_workload, waldump
from tests.support.cluster import MAJORS, Cluster
from tests.support.wal_workload import SEGMENT_SIZE, Workload

pytestmark = [pytest.mark.pg, pytest.mark.majors]


@pytest.fixture(scope="module", params=MAJORS)
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workload:
    directory = tmp_path_factory.mktemp(f"wal{request.param}")
    return wal_workload.make(request.param, directory, big_bytes=2_500_000, bench=True)


@pytest.fixture(scope="module")
def dumped(work: Workload) -> list[waldump.Line]:
    return waldump.dump(work.major, work.directory, chain(work), work.start)


def chain(work: Workload) -> list[SegmentName]:
    return list(work.history.segments(work.start, work.lsns["end"], SEGMENT_SIZE))


def reader(work: Workload, start: Lsn | None = None, selection: Selection | None = None) -> RecordReader:
    return RecordReader(
        work.fetch,
        work.start if start is None else start,
        work.history,
        SEGMENT_SIZE,
        selection=Selection(None) if selection is None else selection,
        system_id=work.system_id,
    )


def ends(work: Workload) -> dict[int, TransactionEnd]:
    return {record.start: transaction_end(record) for record in reader(work) if is_transaction_end(record)}


def wal(work: Workload) -> WalRange:
    return WalRange(work.fetch, work.start, work.history, SEGMENT_SIZE, system_id=work.system_id)


def test_every_record_is_the_one_pg_waldump_shows(work: Workload, dumped: list[waldump.Line]) -> None:
    records = reader(work)
    ours = [(r.start, r.prev, r.xid, r.rmid, r.total_length) for r in records]
    assert ours == [(int(x.lsn), int(x.prev), x.xid, x.rmid, x.total) for x in dumped]
    assert records.end is not None
    assert records.end.reason in ("zero", "invalid")
    assert records.end.lsn == work.lsns["end"]
    assert max(length for *_, length in ours) > 2 * SEGMENT_SIZE


def test_records_end_where_the_next_begins(work: Workload) -> None:
    header = 24
    previous: Record | None = None
    for record in reader(work):
        if previous is not None:
            at_page = previous.end % 8192 == 0
            gap = record.start - previous.end
            assert gap == ((40 if previous.end % SEGMENT_SIZE == 0 else header) if at_page else 0), previous
        previous = record


def test_block_references_and_checksums(work: Workload, dumped: list[waldump.Line]) -> None:
    seen = 0
    for record, line in zip(reader(work), dumped, strict=True):
        blocks = record.body().blocks
        ours = [(b.id, "/".join(map(str, b.locator)), waldump.FORKS[b.fork], b.block, b.has_image) for b in blocks]
        assert ours == line.blocks, line
        seen += len(blocks)
        if seen % 97 == 0 or record.total_length > SEGMENT_SIZE or not blocks:
            assert record.crc_is_right(), line
    assert seen > 1000


def test_transactions(work: Workload, dumped: list[waldump.Line]) -> None:
    decoded = ends(work)
    pattern = re.compile(r"(?P<what>COMMIT|ABORT)(?P<prepared>_PREPARED (?P<xid>\d+):)? (?P<time>\S+ \S+) UTC")
    shown = {line.lsn: line for line in dumped if line.rmid == RM_XACT and pattern.match(line.desc)}
    assert set(decoded) == set(shown)
    for lsn, line in shown.items():
        match, ours = pattern.match(line.desc), decoded[lsn]
        assert match is not None
        assert ours.committed == (match["what"] == "COMMIT")
        assert ours.prepared == (match["prepared"] is not None)
        assert ours.xid == int(match["xid"] or line.xid)
        assert ours.time == datetime.fromisoformat(match["time"]).replace(tzinfo=UTC)
        assert list(ours.subxacts) == numbers(r"subxacts: ([\d ]+)", line.desc)
        assert [r.number for r in ours.relations] == [
            int(path.rsplit("/", 1)[1]) for path in words(r"; rels: ([^;]+)", line.desc)
        ]
        assert [f"{d.kind}/{d.database}/{d.object_id}" for d in ours.dropped_stats] == words(
            r"dropped stats: ([^;]+)", line.desc
        )
    assert any(t.relations for t in decoded.values())
    assert any(t.dropped_stats for t in decoded.values()) == (work.major >= 15)
    assert {t.gid for t in decoded.values() if t.prepared} == {"gid one", "gid two"}


def words(pattern: str, text: str) -> list[str]:
    match = re.search(pattern, text)
    return match[1].split() if match else []


def numbers(pattern: str, text: str) -> list[int]:
    return [int(word) for word in words(pattern, text)]


def test_events(work: Workload, dumped: list[waldump.Line]) -> None:
    selected = Selection({(rmid, op << 4) for rmid in (RM_XLOG, RM_DBASE, RM_TBLSPC) for op in range(16)})
    events = {r.start: xlog_event(r) for r in reader(work, selection=selected)}
    names = []
    for line in dumped:
        event = events.get(line.lsn)
        if isinstance(event, RestorePoint):
            names.append(event.name)
            assert line.desc == f"RESTORE_POINT {event.name}"
        elif isinstance(event, TablespaceCreated):
            assert line.desc == f'CREATE {event.oid} "{event.location}"'
        elif isinstance(event, TablespaceDropped):
            assert line.desc == f"DROP {event.oid}"
        elif isinstance(event, DatabaseCreated):
            assert event.source is not None
            assert line.desc.endswith(f"copy dir {event.source[1]}/{event.source[0]} to {event.tablespace}/{event.oid}")
        elif isinstance(event, DatabaseDropped):
            assert line.desc == "DROP dir" + "".join(f" {tablespace}/{event.oid}" for tablespace in event.tablespaces)
    assert names == ["before", "twice", "twice"]
    assert len([line for line in dumped if line.rmid in (RM_DBASE, RM_TBLSPC)]) == 4


def test_reading_may_begin_at_any_record(work: Workload, dumped: list[waldump.Line]) -> None:
    for index in range(0, len(dumped), len(dumped) // 20):
        records: Iterator[Record] = iter(reader(work, dumped[index].lsn))
        assert next(records).start == dumped[index].lsn
        if index + 1 < len(dumped):
            assert next(records).start == dumped[index + 1].lsn
    with pytest.raises(IntegrityError):
        list(reader(work, Lsn(dumped[5].lsn + 8)))


def test_every_archived_segment_passes_the_check(work: Workload, dumped: list[waldump.Line]) -> None:
    starts = [line.lsn for line in dumped]
    ends_at = {record.start: record.end for record in reader(work)}
    switches = {line.lsn for line in dumped if line.rmid == RM_XLOG and line.desc.startswith("SWITCH")}
    checked = 0
    for name in work.segments():
        if (work.directory / f"{name}.live").exists():
            continue
        data = (work.directory / str(name)).read_bytes()
        for history in (None, work.history):
            check = check_segment(data, name, system_id=work.system_id, history=history)
        checked += 1
        assert check.major == work.major
        if name in chain(work) and name.start > work.start:
            inside = [lsn for lsn in starts if name.start <= lsn < name.end]
            assert check.first_record == (inside[0] if inside else None)
            assert check.switched == bool(switches & set(inside))
            spanning = [lsn for lsn in inside if ends_at[lsn] > name.end]
            assert check.tail == (spanning[0] if spanning else None)
        with pytest.raises(HistoryMismatch):
            check_segment(data, name.next(), system_id=work.system_id)
        with pytest.raises(HistoryMismatch):
            check_segment(data, name, system_id=work.system_id + 1)
        with pytest.raises(HistoryMismatch):
            check_segment(data, name.at_timeline(7), system_id=work.system_id)
    assert checked > 10


def test_the_unfinished_segment(work: Workload) -> None:
    name = chain(work)[-1]
    data = (work.directory / str(name)).read_bytes()
    with pytest.raises(IntegrityError):
        check_segment(data, name, system_id=work.system_id)
    assert valid_prefix(data, name, system_id=work.system_id) == work.lsns["end"]
    cut = data[: work.lsns["end"] - name.start - 10]
    assert name.start < valid_prefix(cut, name) < work.lsns["end"]
    assert check_segment(cut, name, system_id=work.system_id, partial=True).used_bytes == len(cut) // 8192 * 8192


def test_the_partial_of_the_old_timeline(work: Workload) -> None:
    switch = work.history.entries[0].switch_lsn
    name = SegmentName.containing(1, switch, SEGMENT_SIZE)
    data = (work.directory / f"{name}.partial").read_bytes()
    assert valid_prefix(data, name, system_id=work.system_id) == switch


def test_target_xid(work: Workload, dumped: list[waldump.Line]) -> None:
    decoded = ends(work)
    for what in ("plain", "top", "aborted", "rolled back sub", "prepared", "prepared, rolled back"):
        xid = work.xids[what]
        (expected,) = [lsn for lsn, t in decoded.items() if t.xid == xid]
        before = max((lsn for lsn, t in decoded.items() if t.committed and lsn < expected), default=None)
        for inclusive in (True, False):
            found = resolve(wal(work), XidTarget(xid, inclusive)).resolved
            assert found is not None
            assert (found.lsn, found.inclusive) == (expected, inclusive)
            last = expected if inclusive and decoded[expected].committed else before
            assert (found.last_included and found.last_included.lsn) == last
            assert found.first_excluded is not None
            assert found.first_excluded.lsn >= expected
    missed = resolve(wal(work), XidTarget(work.xids["sub"]))
    assert missed.resolved is None
    assert missed.top_xid == work.xids["top"]


def test_target_time(work: Workload) -> None:
    decoded = sorted(ends(work).items())
    for _, probe in (decoded[0], decoded[len(decoded) // 2], decoded[-2]):
        for time in (probe.time, probe.time - timedelta(microseconds=1), probe.time + timedelta(microseconds=1)):
            for inclusive in (True, False):
                expected = next(
                    (lsn for lsn, t in decoded if t.time > time or (t.time == time and not inclusive)), None
                )
                found = resolve(wal(work), TimeTarget(time, inclusive)).resolved
                assert (found and found.lsn) == expected
                if found is not None:
                    assert found.inclusive is False
                    assert found.first_excluded is not None
                    assert found.first_excluded.lsn == expected
    missed = resolve(wal(work), TimeTarget(work.times["end"]))
    assert missed.resolved is None
    assert missed.last_commit is not None
    assert missed.last_commit.lsn == max(lsn for lsn, t in decoded if t.committed)
    assert missed.end is not None


def test_target_name(work: Workload, dumped: list[waldump.Line]) -> None:
    (before,) = [line.lsn for line in dumped if line.desc == "RESTORE_POINT before"]
    found = resolve(wal(work), NameTarget("before"))
    assert found.resolved is not None
    assert (found.resolved.lsn, found.resolved.inclusive) == (before, True)
    twice = resolve(wal(work), NameTarget("twice"))
    assert [point.lsn for point in twice.restore_points] == [x.lsn for x in dumped if x.desc == "RESTORE_POINT twice"]
    assert resolve(wal(work), NameTarget("never")).resolved is None


def test_target_lsn(work: Workload, dumped: list[waldump.Line]) -> None:
    for index in range(1, len(dumped) - 1, len(dumped) // 15):
        for lsn in (dumped[index].lsn, Lsn(dumped[index].lsn - 1), Lsn(dumped[index - 1].lsn + 1)):
            for inclusive in (True, False):
                found = resolve(wal(work), LsnTarget(lsn, inclusive)).resolved
                assert found is not None
                assert (found.lsn, found.inclusive) == (dumped[index].lsn, inclusive)
    assert resolve(wal(work), LsnTarget(work.lsns["end"])).resolved is None


def test_target_latest_and_immediate(work: Workload, dumped: list[waldump.Line]) -> None:
    latest = resolve(wal(work), LatestTarget())
    assert latest.resolved is not None
    assert (latest.resolved.lsn, latest.resolved.inclusive) == (dumped[-1].lsn, True)
    assert latest.resolved.end_lsn == work.lsns["end"]
    for index in (0, 10, len(dumped) // 2):
        for consistent in (dumped[index].lsn + 1, dumped[index].lsn + dumped[index].total):
            found = resolve(wal(work), ImmediateTarget(Lsn(consistent))).resolved
            assert found is not None
            assert (found.lsn, found.inclusive) == (dumped[index].lsn, True)


def test_facts(work: Workload, dumped: list[waldump.Line]) -> None:
    facts = resolve(wal(work), LatestTarget()).facts
    assert [type(event) for event in facts.directories] == [
        TablespaceCreated,
        DatabaseCreated,
        DatabaseDropped,
        TablespaceDropped,
    ]
    assert facts.half_done == ()
    assert facts.invalidated == ()
    assert facts.parameters is not None
    assert facts.parameters.max_connections == 133
    assert facts.parameters.wal_level == "logical"
    assert facts.wal_level_minimal is None
    assert [promotion.timeline for promotion in facts.promotions] == [2]


def test_stopping_before_the_commit_of_drop_database_is_half_done(work: Workload) -> None:
    facts = resolve(wal(work), LatestTarget()).facts
    (dropped,) = [event for event in facts.directories if isinstance(event, DatabaseDropped)]
    found = resolve(wal(work), XidTarget(dropped.xid, inclusive=False)).resolved
    assert found is not None
    (half,) = found.facts.half_done
    assert half.events == (dropped,)
    # DROP DATABASE marks the row in pg_database before, with a record that has no xid.
    assert work.lsns["before drop database"] <= half.lsn < dropped.lsn
    clean = resolve(wal(work), LsnTarget(half.lsn, inclusive=False)).resolved
    assert clean is not None
    assert clean.facts.half_done == ()
    assert clean.lsn == half.lsn


def test_a_missing_segment_ends_the_wal_and_a_damaged_one_does_not(work: Workload, tmp_path: Path) -> None:
    names = chain(work)
    gone = names[len(names) // 2]
    records = reader(replace(work, directory=work.directory))
    records._fetch = lambda name: None if name == gone else work.fetch(name)
    last = [record.end for record in records][-1]
    assert records.end is not None
    assert (records.end.reason, records.end.lsn <= gone.start) == ("missing segment", True)
    assert last <= gone.start
    data = bytearray((work.directory / str(gone)).read_bytes())
    for offset in (300_000, 8192 * 5, 100_000):
        data[offset : offset + 60_000] = bytes(60_000)
    records = reader(work)
    records._fetch = lambda name: bytes(data) if name == gone else work.fetch(name)
    with pytest.raises(IntegrityError):
        list(records)


def test_timeline_1_alone_ends_at_the_promotion(work: Workload) -> None:
    switch = work.history.entries[0].switch_lsn
    newest = SegmentName.containing(1, switch, SEGMENT_SIZE)

    def fetch(name: SegmentName) -> Segment | None:
        if name != newest:
            return work.fetch(name)
        return Segment.read((work.directory / f"{name}.partial").read_bytes(), name, complete=False)

    alone = RecordReader(fetch, work.start, History.initial(1), SEGMENT_SIZE)
    assert max(record.end for record in alone) == switch
    assert alone.end is not None
    assert alone.end.lsn == switch


@pytest.mark.parametrize("major", [major for major in MAJORS if major >= 14])
def test_a_record_given_up_in_a_crash(major: int, tmp_path: Path) -> None:
    """As in src/test/recovery/t/026_overwrite_contrecord.pl: the segment where a record ends is lost in a crash."""
    cluster = Cluster.make(major, segment_size_mb=1, conf={"autovacuum": "off", "wal_keep_size": "64MB"})
    cluster.start()
    cluster.sql("CREATE TABLE t (i int)")
    cluster.switch_wal()
    start = Lsn.parse(cluster.value("SELECT redo_lsn::text FROM pg_control_checkpoint()"))
    begun = cluster.lsn()
    end = Lsn.parse(cluster.value("SELECT pg_logical_emit_message(false, 'x', repeat('x', 2000000))::text"))
    cluster.sql("INSERT INTO t VALUES (1)")
    cluster.stop("immediate")
    lost = SegmentName.containing(1, end, SEGMENT_SIZE)
    pg_wal = cluster.data_directory / "pg_wal"
    for name in (lost, lost.next(), lost.next().next()):
        (pg_wal / str(name)).unlink(missing_ok=True)
    cluster.start()
    cluster.sql("INSERT INTO t VALUES (2)")
    last = cluster.lsn()
    cluster.stop("immediate")

    def fetch(name: SegmentName) -> Segment | None:
        path = pg_wal / str(name)
        return Segment.read(path.read_bytes(), name, complete=name < lost) if path.exists() else None

    history = History.initial(1)
    records = RecordReader(fetch, start, history, SEGMENT_SIZE)
    ours = [(r.start, r.prev, r.total_length) for r in records]
    dumped = waldump.dump(major, pg_wal, history.segments(start, last, SEGMENT_SIZE), start)
    assert ours == [(int(x.lsn), int(x.prev), x.total) for x in dumped]
    assert records.end is not None
    assert records.end.lsn == last
    given_up = [e for e in map(xlog_event, RecordReader(fetch, start, history, SEGMENT_SIZE)) if e is not None]
    (overwrite,) = [event for event in given_up if isinstance(event, OverwriteContrecord)]
    assert begun <= overwrite.overwritten < lost.start
    assert overwrite.overwritten not in [lsn for lsn, *_ in ours]
    cluster.discard()
