"""Histories against a literal reading of timeline.c, and against history files that a server wrote."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History, HistoryEntry
from tests.support.cluster import ClusterFactory, wait_until

MIB = 1 << 20


@st.composite
def histories(draw: st.DrawFn, *, rising: bool = False) -> History:
    timelines = sorted(draw(st.sets(st.integers(1, 50), min_size=1, max_size=6)))
    switches = draw(st.lists(st.integers(0, 20 * MIB), min_size=len(timelines) - 1, max_size=len(timelines) - 1))
    if rising:
        switches.sort()
    entries = [
        HistoryEntry(tli, Lsn(lsn), "no recovery target specified")
        for tli, lsn in zip(timelines, switches, strict=False)
    ]
    return History(timelines[-1], tuple(entries))


def ranges(history: History) -> list[tuple[int, int, int | None]]:
    """(timeline, begin, end), newest first, as readTimeLineHistory builds them."""
    begin = 0
    found: list[tuple[int, int, int | None]] = []
    for entry in history.entries:
        found.insert(0, (entry.timeline, begin, entry.switch_lsn))
        begin = entry.switch_lsn
    found.insert(0, (history.timeline, begin, None))
    return found


@given(histories())
def test_text_round_trip(history: History) -> None:
    assert History.parse(history.timeline, history.render()) == history


@given(histories(), st.integers(0, 25 * MIB))
def test_owner_of_a_byte_is_tli_of_point_in_history(history: History, lsn: int) -> None:
    expected = next(tli for tli, begin, end in ranges(history) if begin <= lsn and (end is None or lsn < end))
    assert history.timeline_at(lsn) == expected


@given(histories(), st.integers(0, 24))
def test_owner_of_a_segment_is_the_first_one_the_server_tries(history: History, number: int) -> None:
    expected = next(tli for tli, begin, _ in ranges(history) if number >= begin // MIB)
    assert history.owner(number, MIB) == expected


@given(histories(rising=True), st.integers(0, 25 * MIB))
def test_contains_both_sides_of_a_switch(history: History, lsn: int) -> None:
    for timeline, begin, end in ranges(history):
        assert history.contains(timeline, lsn) == (begin <= lsn and (end is None or lsn <= end))
        assert history.begin_of(timeline) == begin
        assert history.end_of(timeline) == end
    assert not history.contains(51, lsn)


@given(histories(), st.integers(0, 25 * MIB), st.integers(0, 25 * MIB))
def test_segments_cover_the_range(history: History, start: int, end: int) -> None:
    segments = list(history.segments(start, end, MIB))
    if end <= start:
        assert segments == []
        return
    assert segments[0].start <= start < segments[0].end
    assert segments[-1].start < end <= segments[-1].end
    assert all(one.number + 1 == two.number for one, two in itertools.pairwise(segments))
    assert all(segment.timeline == history.owner(segment.number, MIB) for segment in segments)


def test_timelines_change_within_a_segment() -> None:
    history = History.parse(3, "1\t0/1800000\tx\n2\t0/3000000\ty\n")
    names = [str(name) for name in history.segments(0x1000000, 0x4000001, 16 * MIB)]
    assert names == [
        "000000020000000000000001",
        "000000020000000000000002",
        "000000030000000000000003",
        "000000030000000000000004",
    ]
    assert history.timeline_at(0x17FFFFF) == 1
    assert history.timeline_at(0x1800000) == 2


def test_parent_that_began_behind_the_switch_owns_nothing() -> None:
    """Recovery towards timeline 2 that stopped on 1, before 2 began, and was promoted to 3."""
    history = History.parse(3, "1\t0/5000000\tx\n2\t0/3000028\ty\n")
    assert history.timeline_at(0x3000027) == 1
    assert history.timeline_at(0x3000028) == 3
    assert history.end_of(1) == 0x3000028
    assert not history.contains(1, 0x4000000)
    assert not any(history.contains(2, lsn) for lsn in (0x3000028, 0x4000000, 0x5000000, 0x6000000))


@given(histories())
def test_prefixes(history: History) -> None:
    assert history.is_prefix_of(history)
    child = History(history.timeline + 1, (*history.entries, HistoryEntry(history.timeline, Lsn(21 * MIB), "")))
    assert history.is_prefix_of(child)
    assert not child.is_prefix_of(history)
    sibling = History(child.timeline + 1, (*history.entries, HistoryEntry(history.timeline, Lsn(22 * MIB), "")))
    assert not child.is_prefix_of(sibling)


def test_two_copies_promoted_at_different_points_are_different_pasts() -> None:
    one, other = History.parse(2, "1\t0/3000000\tx\n"), History.parse(2, "1\t0/3000028\tx\n")
    assert not one.is_prefix_of(other)
    assert one.is_prefix_of(History.parse(2, "1\t0/3000000\tanother reason\n"))
    assert History.initial().is_prefix_of(one)
    assert not History.initial(2).is_prefix_of(one)


def test_blank_lines_comments_and_spaces() -> None:
    text = "# comment\n\n1\t0/16B3748\tbefore transaction 740 at 2026-11-23 03:02:00+00\n\n  2   0/2000000\n"
    history = History.parse(4, text)
    assert history.timelines == (1, 2, 4)
    assert history.entries[0].reason == "before transaction 740 at 2026-11-23 03:02:00+00"
    assert history.entries[1].reason == ""


@pytest.mark.parametrize(
    "text",
    [
        "1\n",
        "1 0\tx\n",
        "x 0/1\ty\n",
        "2\t0/1\tx\n1\t0/2\ty\n",
        "1\t0/1\tx\n1\t0/2\ty\n",
        "3\t0/1\tx\n",
        "5\t0/1\tx\n",
        "0\t0/1\tx\n",
        "-1\t0/1\tx\n",
    ],
)
def test_bad_history_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        History.parse(3, text)


def test_questions_about_foreign_timelines_are_refused() -> None:
    with pytest.raises(ValueError, match="timeline 2 is not in the history of timeline 1"):
        History.initial().begin_of(2)


@pytest.mark.pg
def test_history_files_of_a_server(cluster_factory: ClusterFactory, tmp_path: Path) -> None:
    primary = cluster_factory(segment_size_mb=1).start()
    for timeline in (2, 3):
        standby = primary.make_standby().start()
        lsn = primary.commit_lsn("CREATE TABLE IF NOT EXISTS t AS SELECT generate_series(1, 30000) AS n")
        wait_until(lambda standby=standby, lsn=lsn: standby.lsn() >= lsn)
        primary.stop()
        standby.promote()
        standby.sql("CHECKPOINT")
        primary = standby
        text = (primary.data_directory / "pg_wal" / f"{timeline:08X}.history").read_text()
        history = History.parse(timeline, text)
        assert history.timelines == tuple(range(1, timeline + 1))
        begin = history.begin_of(timeline)
        first = SegmentName.containing(timeline, begin, MIB)
        assert history.owner(first.number, MIB) == timeline
        assert (primary.data_directory / "pg_wal" / str(first)).exists()
        assert history.contains(timeline, primary.lsn())
