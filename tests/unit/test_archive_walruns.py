"""Runs, gaps and reach of archived WAL along a history, as values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pitr.pg.lsn import Lsn
from pitr.pg.timelines import History
from pitr.repo.walruns import ArchivedWal, Run

SIZE = 1 << 20


def history_of(*switches: int) -> History:
    """Timelines 1, 2, ... each left at a byte position."""
    text = "".join(f"{number}\t{Lsn(at)}\tx\n" for number, at in enumerate(switches, 1))
    return History.parse(len(switches) + 1, text) if switches else History.initial(1)


def archive(present: dict[int, set[int]], *histories: History) -> ArchivedWal:
    runs: dict[int, tuple[Run, ...]] = {}
    for timeline, numbers in present.items():
        found: list[Run] = []
        for number in sorted(numbers):
            if found and found[-1].last == number - 1:
                found[-1] = Run(timeline, found[-1].first, number, SIZE)
            else:
                found.append(Run(timeline, number, number, SIZE))
        runs[timeline] = tuple(found)
    return ArchivedWal(SIZE, runs, {history.timeline: history for history in histories}, (), 0)


def names(gaps: list[Run]) -> list[tuple[int, int, int]]:
    return [(gap.timeline, gap.first, gap.last) for gap in gaps]


def test_gaps_on_one_timeline() -> None:
    wal = archive({1: {2, 3, 5, 8}})
    history = history_of()
    assert names(wal.missing(history, Lsn(2 * SIZE), Lsn(9 * SIZE))) == [(1, 4, 4), (1, 6, 7)]
    assert names(wal.missing(history, Lsn(1), Lsn(4 * SIZE))) == [(1, 0, 1)]
    assert wal.missing(history, Lsn(2 * SIZE + 40), Lsn(4 * SIZE)) == []
    assert wal.missing(history, Lsn(5), Lsn(5)) == []


def test_the_owner_rule_decides_which_segment_counts() -> None:
    inside = history_of(4 * SIZE + 100)
    border = history_of(4 * SIZE)
    wal = archive({1: {2, 3, 4, 5}, 2: {5}}, inside)
    for history in (inside, border):
        assert names(wal.missing(history, Lsn(2 * SIZE), Lsn(6 * SIZE))) == [(2, 4, 4)]
        assert wal.contiguous_end(history, Lsn(2 * SIZE)) == Lsn(4 * SIZE)
        last = wal.last_on(history)
        assert last is not None
        assert (last.timeline, last.number) == (2, 5)


def test_nothing_archived() -> None:
    wal = archive({})
    assert wal.last_on(history_of()) is None
    assert wal.contiguous_end(history_of(), Lsn(SIZE)) is None
    assert names(wal.missing(history_of(), Lsn(SIZE), Lsn(3 * SIZE))) == [(1, 1, 2)]


@given(
    st.dictionaries(st.integers(1, 3), st.sets(st.integers(0, 12)), max_size=3),
    st.lists(st.integers(0, 13 * SIZE), max_size=2),
    st.integers(0, 12 * SIZE),
    st.integers(0, 13 * SIZE),
)
def test_as_asking_for_each_segment(present: dict[int, set[int]], switches: list[int], start: int, end: int) -> None:
    history = history_of(*sorted(switches))
    wal = archive(present, history)
    wanted = list(history.segments(start, end, SIZE))
    absent = [(name.timeline, name.number) for name in wanted if name.number not in present.get(name.timeline, set())]
    gaps = wal.missing(history, Lsn(start), Lsn(end))
    assert [(gap.timeline, number) for gap in gaps for number in range(gap.first, gap.last + 1)] == absent
    number = start // SIZE
    while number in present.get(history.owner(number, SIZE), set()):
        number += 1
    expected = None if number == start // SIZE else Lsn(number * SIZE)
    assert wal.contiguous_end(history, Lsn(start)) == expected
    owned = [n for t in present for n in present[t] if t in history.timelines and history.owner(n, SIZE) == t]
    last = wal.last_on(history)
    assert (None if last is None else last.number) == max(owned, default=None)
