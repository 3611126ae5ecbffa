"""pitr find on a laboratory incident: every real event with its tables, rows and xid, and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pitr.core.errors import PitrError
from pitr.core.events import silent
from pitr.find.engine import FindRequest, FindResult, find
from pitr.find.events import OPS, Event
from pitr.find.patterns import parse_table
from pitr.find.transactions import Transaction, happenings
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.repo.identity import Identity, current_identity, ensure_identity
from pitr.repo.repository import Repository
from pitr.repo.walobjects import get_wal, get_wal_index, list_segments, put_wal
from pitr.wal.index import SegmentIndex, decode_index
from pitr.wal.indexing import INDEXED_KINDS, build_index, index_records
from pitr.wal.reader import RecordReader, Selection
from pitr.wal.records import Record
from pitr.wal.stitch import stitched
from tests.support.archive import PROGRAM, memory_repository, program_environment
from tests.support.cluster import MAJORS, Cluster
from tests.support.incident import Incident, make

pytestmark = pytest.mark.pg
_EVERYDAY = [major for major in MAJORS if major in (15, 18)]
_OTHERS = [pytest.param(major, marks=pytest.mark.majors) for major in MAJORS if major not in (15, 18)]


@pytest.fixture(scope="module", params=[*_EVERYDAY, *_OTHERS])
def incident(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    made = make(tmp_path_factory.mktemp("incident"), request.param)
    yield made
    made.source.discard()


def found(incident: Incident, **options: Any) -> FindResult:
    request = FindRequest(cluster="shop", ops=OPS)
    return find(incident.source.repository, replace(request, **options), silent)


def shown(event: Event) -> tuple[object, ...]:
    tables = {table.shown: (table.deleted, table.updated, table.inserted) for table in event.tables}
    return event.op, event.database, tables


def test_every_event_is_named_and_nothing_else(incident: Incident) -> None:
    result = found(incident)
    events = [event for event in result.events if event.op != "restore-point"]
    missing = [one for one in incident.expected if (one.op, one.database, one.tables) not in list(map(shown, events))]
    assert missing == []
    assert [shown(event) for event in events] == [(one.op, one.database, one.tables) for one in incident.expected]
    for event, expected in zip(events, incident.expected, strict=True):
        assert expected.xid in (0, event.xid)
        assert event.is_certain
    assert result.built <= 2, "what the archive holds has indexes"
    assert result.segments > 3
    assert [event.name for event in result.events if event.op == "restore-point"] == ["the end"]


def test_filters(incident: Incident) -> None:
    everything = found(incident)
    only = found(incident, tables=(parse_table("shop.full_"), parse_table("doomed.*")))
    assert [event.op for event in only.events] == ["drop", "rewrite", "truncate"]
    (saved,) = found(incident, tables=(parse_table('app.shop."Saved points"'),)).events
    assert saved.rows == 200
    assert found(incident, tables=(parse_table("shop.saved*"),)).events == ()
    assert [event.op for event in found(incident, database="doomed_db").events] == ["drop-database"]
    assert {event.op for event in found(incident, ops=("drop", "alter")).events} == {"drop", "alter"}
    later = found(incident, since=saved.time)
    assert saved in later.events
    assert {event.lsn for event in everything.events} - {event.lsn for event in later.events} == {
        event.lsn for event in everything.events if event.time is not None and saved.time and event.time < saved.time
    }
    assert found(incident, until=saved.time).events[-1] == saved
    assert found(incident, min_rows=4001, ops=("delete", "update")).events[0].rows == 34000
    assert len(found(incident, min_rows=4001, ops=("delete", "update")).events) == 1


def test_a_single_transaction_and_few_rows(incident: Incident) -> None:
    """pgbench's transactions are in no index; they are found by reading the segments."""
    few = found(incident, min_rows=1, database="postgres", ops=("update",))
    assert few.built == few.segments
    one = few.events[len(few.events) // 2]
    assert {table.name for table in one.tables} == {"pgbench_accounts", "pgbench_tellers", "pgbench_branches"}
    again = found(incident, xid=one.xid)
    assert (shown(again.events[0]), again.events[0].lsn) == (shown(one), one.lsn)
    assert again.built <= 2


@pytest.fixture
def restored(incident: Incident, tmp_path: Path) -> Iterator[Callable[[str, str], Cluster]]:
    clusters: list[Cluster] = []

    def restore(op: str, table: str) -> Cluster:
        """With the very arguments that find proposes for the event, by the real program."""
        (event,) = [
            one for one in found(incident, ops=(op,)).events if table in [t.name for t in one.tables] or not table
        ]
        assert event.restore is not None
        to = tmp_path / "copy"
        argv = [str(to) if word == "DIR" else word for word in event.restore[1:]]
        argv += ["--tablespace", f"place={tmp_path / 'place'}", "--action", "promote"]
        done = subprocess.run(
            [PROGRAM, *argv], env=program_environment(incident.source.url), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        recovery = incident.source.recover(to)
        clusters.append(recovery.cluster)
        assert recovery.outcome == "promoted", recovery.log
        return recovery.cluster

    yield restore
    for cluster in clusters:
        cluster.discard()


def test_the_proposed_target_of_a_delete_has_every_row(restored: Callable[[str, str], Cluster]) -> None:
    copy = restored("delete", "orders")
    assert copy.sql("SELECT (SELECT count(*) FROM shop.orders), (SELECT count(*) FROM shop.item)", "app") == [
        (4000, 30000)
    ]


def test_the_proposed_target_of_a_drop_has_the_tables(restored: Callable[[str, str], Cluster]) -> None:
    copy = restored("drop", "part_1")
    assert copy.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'doomed'::regnamespace", "app") == 5
    assert copy.value("SELECT to_regclass('shop.victim') IS NULL", "app")
    assert copy.value("SELECT count(*) FROM shop.reloaded WHERE body = 'new'", "app") == 150


def test_the_proposed_target_of_a_drop_database_has_the_database(restored: Callable[[str, str], Cluster]) -> None:
    copy = restored("drop-database", "")
    assert copy.value("SELECT count(*) FROM kept", "doomed_db") == 7


def test_every_proposed_target_can_be_reached(incident: Incident, tmp_path: Path) -> None:
    events = found(incident).events
    for event in [*events[:3], *events[-3:]]:
        assert event.restore is not None
        argv = [str(tmp_path / "copy") if word == "DIR" else word for word in event.restore[1:]]
        argv += ["--tablespace", f"place={tmp_path / 'place'}", "--dry-run"]
        done = subprocess.run(
            [PROGRAM, *argv], env=program_environment(incident.source.url), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def run_program(incident: Incident, *words: str) -> str:
    environment = program_environment(incident.source.url)
    done = subprocess.run([PROGRAM, "find", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command(incident: Incident) -> None:
    document = json.loads(run_program(incident, "--op", "drop,delete", "--table", "shop.orders", "--json"))
    assert document["schema"] == "pitr.find/1"
    (event,) = document["result"]["events"]
    assert (event["op"], event["rows"], event["tables"][0]["name"]) == ("delete", 34000, "item")
    assert event["restore"][-3:] == ["--xid", str(event["xid"]), "--exclusive"]
    lines = run_program(incident).splitlines()
    assert any("shop.item 30000 rows, shop.orders 4000 rows" in line for line in lines)
    assert not any("reindex" in line for line in lines)
    assert "last commit" in lines[-1]
    assert run_program(incident, "--until", "2001-01-01 00:00Z").startswith("nothing of the kind was found")


# The indexes of single segments against one reading of all of the WAL


def identity_of(incident: Incident) -> Identity:
    found = current_identity(incident.source.repository, "shop")
    assert found is not None
    return found


def segments_of(incident: Incident) -> dict[SegmentName, bytes]:
    repository, identity = incident.source.repository, identity_of(incident)
    names = [one.segment for one in list_segments(repository, identity.names, 1, identity.segment_size_bytes)]
    return {name: get_wal(repository, identity.names, name) for name in names}


def without_indexes(incident: Incident, segments: dict[SegmentName, bytes]) -> Repository:
    """As a version that makes none would have archived them."""
    repository, identity = memory_repository(), identity_of(incident)
    ensure_identity(repository, identity)
    for name, data in segments.items():
        put_wal(repository, identity.names, name, data)
    return repository


def no_reading(lsn: int) -> Record | None:
    raise AssertionError(f"the pieces of the record at {lsn} are too long")


def never(index: SegmentIndex) -> SegmentIndex:
    raise AssertionError(f"the index of {index.name} is not enough")


def transactions(indexes: Iterable[SegmentIndex], exact: Callable[[SegmentIndex], SegmentIndex]) -> dict[int, Any]:
    found = {}
    for one in happenings(indexes, exact):
        if isinstance(one, Transaction):
            changes = one.changes
            found[one.commit.lsn] = (
                one.commit._replace(subxacts=tuple(sorted(one.commit.subxacts))),
                changes.rows, changes.locks, changes.created, changes.relations, changes.databases, changes.directories,
            )  # fmt: skip
    return found


def test_stitched_indexes_equal_the_index_of_the_whole_range(incident: Incident) -> None:
    segments = segments_of(incident)
    names = list(segments)
    fine = [build_index(data, name, threshold=0) for name, data in segments.items()]
    assert sum(1 for index in fine if index.tail is not None) > len(names) // 2
    start = fine[0].start
    assert start is not None
    selection = Selection(INDEXED_KINDS)
    reader = RecordReader(
        segments.get, start, History.initial(), names[0].size_bytes, selection=selection, trust_start=True
    )
    whole = transactions([index_records(list(reader), names[0])], never)
    assert transactions(stitched(fine, no_reading), never) == whole
    assert len(whole) > 100


def test_stored_indexes_tell_the_same_of_what_is_notable(incident: Incident) -> None:
    segments, names = segments_of(incident), identity_of(incident).names
    stored = [decode_index(get_wal_index(incident.source.repository, names, name), str(name)) for name in segments]
    assert stored == [build_index(data, name) for name, data in segments.items()]
    fine = {name: build_index(data, name, threshold=0) for name, data in segments.items()}
    exact = transactions(stitched(fine.values(), no_reading), never)
    ours = transactions(stitched(stored, no_reading), lambda index: fine[index.name])
    assert len(ours) < len(exact)
    for lsn, (commit, rows, locks, *rest) in ours.items():
        exact_commit, exact_rows, exact_locks, *exact_rest = exact[lsn]
        # Of temporary relations the stored ones hold less.
        assert locks <= exact_locks
        assert set(commit.dropped) <= set(exact_commit.dropped)
        assert commit._replace(dropped=()) == exact_commit._replace(dropped=())
        assert (rows, rest) == (exact_rows, exact_rest)
    for lsn, (commit, rows, *_) in exact.items():
        counts = [count for file, (_, *counts) in rows.items() if file.number >= 16384 for count in counts]
        assert lsn in ours or (max(counts, default=0) < 10 and not commit.removed)


def test_segments_without_an_index_are_read_and_their_indexes_kept(incident: Incident, tmp_path: Path) -> None:
    segments = segments_of(incident)
    repository = without_indexes(incident, segments)
    request = FindRequest(cluster="shop", spool=tmp_path / "spool")
    first = find(repository, request, silent)
    assert 0 <= first.built - len(segments) <= 2, "two may have been read a second time, in full"
    assert all(event.restore is None for event in first.events), "there is no backup"
    assert any(event.op == "drop" for event in first.events)
    second = find(repository, request, silent)
    assert second.events == first.events
    assert second.built <= 2
    for path in (tmp_path / "spool").rglob("*.1"):
        path.write_bytes(b"{")
    third = find(repository, request, silent)
    assert third.events == first.events
    assert third.built >= len(segments)


def test_a_gap_is_said(incident: Incident) -> None:
    segments = segments_of(incident)
    missing = list(segments)[2]
    del segments[missing]
    result = find(without_indexes(incident, segments), FindRequest(cluster="shop"), silent)
    assert any(str(missing) in warning for warning in result.warnings)
    assert result.segments == len(segments)


def test_an_unknown_cluster_is_refused(incident: Incident) -> None:
    with pytest.raises(PitrError):
        find(incident.source.repository, FindRequest(cluster="other"), silent)
