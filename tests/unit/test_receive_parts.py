"""The parts of wal receive without a server: what counts as durable, where it begins again, who waits for it."""

from __future__ import annotations

import os

import pytest

from pitr.archive.receive import is_named
from pitr.archive.remote import Remote
from pitr.archive.resume import Resume, find_resume
from pitr.archive.uploader import Uploader
from pitr.core.errors import IntegrityError, OverwriteRefused
from pitr.core.events import Event, Message
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository, open_repository
from pitr.repo.walobjects import get_wal, get_wal_object, put_wal
from pitr.store.memory import MemoryStore
from tests.support.archive import MIB, memory_repository
from tests.support.cluster import wait_until
from tests.support.faulty_store import FaultyStore
from tests.support.wal_builder import WalBuilder

NAMES = HistoryNames("shop", 7_000_000_000_000_000_001)
FIRST = History.initial(1)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("", False),
        ("pitr_receive", True),
        ("other", False),
        ("*", True),
        ("Pitr_Receive, other", True),
        ("FIRST 1 (other, pitr_receive)", True),
        ('ANY 2 (other, "pitr_receive", third)', True),
        ("2 (other, third)", False),
        ("pitr_receiver", False),
    ],
)
def test_who_waits(setting: str, named: bool) -> None:
    assert is_named("pitr_receive", setting) is named


def segment(number: int, timeline: int = 1) -> SegmentName:
    return SegmentName(timeline, number, MIB)


def archived(*names: SegmentName) -> Repository:
    repository = memory_repository()
    for name in names:
        put_wal(repository, NAMES, name, b"x")
    return repository


class TestResume:
    def at(self, kept_from: int, *repositories: Repository, history: History = FIRST, skip: bool = False) -> Resume:
        return find_resume(repositories, NAMES, history, Lsn(kept_from), MIB, skip_gap=skip)

    def test_an_empty_archive_begins_with_the_slot(self) -> None:
        assert self.at(5 * MIB + 77, archived()) == (5 * MIB, None)

    def test_behind_what_is_stored(self) -> None:
        assert self.at(5 * MIB + 77, archived(*map(segment, range(3, 9)))) == (9 * MIB, None)

    def test_a_hole_behind_the_slot_is_filled(self) -> None:
        """archive_command stored ahead while a segment in between was not stored yet."""
        assert self.at(5 * MIB, archived(segment(4), segment(5), segment(7))) == (6 * MIB, None)

    def test_the_archive_ends_before_the_slot(self) -> None:
        repository = archived(segment(3), segment(4))
        assert self.at(9 * MIB, repository) == (5 * MIB, segment(4))
        assert self.at(9 * MIB, repository, skip=True) == (9 * MIB, None)

    def test_the_repository_that_is_behind_decides(self) -> None:
        ahead, behind = archived(*map(segment, range(3, 9))), archived(*map(segment, range(3, 6)))
        assert self.at(5 * MIB, ahead, behind).start == 6 * MIB

    def test_segments_of_an_abandoned_timeline_do_not_count(self) -> None:
        history = History.parse(2, f"1\t{Lsn(6 * MIB + 100)}\tx\n")
        stray = archived(*map(segment, range(3, 10)))
        assert self.at(5 * MIB, stray, history=history).start == 6 * MIB
        both = archived(*map(segment, range(3, 10)), segment(6, 2), segment(7, 2))
        assert self.at(5 * MIB, both, history=history).start == 8 * MIB
        assert self.at(8 * MIB, archived(segment(4)), history=history) == (5 * MIB, segment(4))


def finished_segment() -> tuple[SegmentName, memoryview]:
    """Segment 1, ended by a switch."""
    builder = WalBuilder()
    for _ in range(40):
        builder.add(os.urandom(5000))
    builder.switch()
    return builder.segment(1), memoryview(builder.files[1])


class Harness:
    """An uploader and what it says. ``scripts``: of the store of each repository."""

    def __init__(self, *scripts: str, interval_s: float | None = 0.0) -> None:
        self.said: list[str] = []
        self.repositories = []
        for number, script in enumerate(scripts):
            made = memory_repository(f"r{number}", MemoryStore(f"r{number}"))
            self.repositories.append(open_repository(made.name, FaultyStore(made.store, script), None))
        remotes = [Remote.opened(repository) for repository in self.repositories]
        self.uploader = Uploader(remotes, NAMES, interval_s=interval_s, report=self._report)
        self.segment, self.data = finished_segment()
        self.uploader.begin(self.segment.start)

    def _report(self, event: Event) -> None:
        if isinstance(event, Message) and event.level != "debug":
            self.said.append(event.text)

    def offer(self, length: int) -> Lsn:
        end = self.segment.start + length
        self.uploader.offer(self.segment, self.data, end, FIRST, urgent=True)
        return end

    def finish(self) -> None:
        self.uploader.finish(self.segment, self.data, self.segment.end, FIRST)

    def settled(self) -> None:
        assert self.uploader.wait_idle(10.0)

    def partials(self, number: int = 0) -> list[str]:
        prefix = NAMES.partial_prefix(self.segment)
        return [info.name for info in self.repositories[number].store.list(prefix)]


class TestUploader:
    def test_durable_is_what_every_repository_has(self) -> None:
        harness = Harness("", "put:fail,put:torn")
        end = harness.offer(100_000)
        harness.settled()
        assert harness.uploader.durable == end
        for number, repository in enumerate(harness.repositories):
            (name,) = harness.partials(number)
            content = get_wal_object(repository, name)
            assert content[:100_000] == harness.data[:100_000]
            assert not any(content[100_000:])
        assert "cannot be stored" in harness.said[0]
        assert "stored again" in harness.said[-1]
        assert len(harness.said) == 2

    def test_nothing_is_durable_while_one_fails(self) -> None:
        harness = Harness("", "put:denied,put:denied,put:denied")
        end = harness.offer(50_000)
        wait_until(lambda: harness.partials(0), what="the first repository")
        assert harness.uploader.durable == harness.segment.start
        harness.settled()
        assert harness.uploader.durable == end

    def test_a_finished_segment_takes_its_partials_along(self) -> None:
        harness = Harness("")
        foreign = NAMES.partial(harness.segment, harness.segment.start + 5000, b"else")
        harness.repositories[0].store.put(foreign, [b"of another server"])
        for length in (10_000, 20_000, 70_000):
            harness.offer(length)
            harness.settled()
        assert len(harness.partials()) == 4
        harness.finish()
        wait_until(lambda: harness.partials() == [foreign], what="the sweep")
        assert get_wal(harness.repositories[0], NAMES, harness.segment) == bytes(harness.data)
        assert harness.uploader.durable == harness.segment.end
        assert (harness.uploader.segments, harness.uploader.partials) == (1, 3)

    def test_few_partials_are_kept_at_any_time(self) -> None:
        harness = Harness("")
        for length in range(8000, 160_000, 8000):
            harness.offer(length)
            harness.settled()
            assert 0 < len(harness.partials()) <= 6

    def test_a_store_that_deletes_nothing(self) -> None:
        harness = Harness("delete:denied", interval_s=None)
        assert harness.uploader._interval() < 1
        harness.offer(10_000)
        harness.settled()
        harness.finish()
        wait_until(lambda: harness.said, what="a word about it")
        assert "stay where they are" in harness.said[0]
        assert harness.uploader._interval() >= 10
        assert harness.uploader.failure is None

    def test_damaged_wal_is_not_stored(self) -> None:
        harness = Harness("")
        harness.data[8192] ^= 1
        harness.finish()
        harness.uploader.wait_idle(10.0)
        assert isinstance(harness.uploader.failure, IntegrityError)
        assert harness.uploader.durable == harness.segment.start
        assert not list(harness.repositories[0].store.list(NAMES.wal_file(harness.segment)))

    def test_other_content_under_the_name_ends_it(self) -> None:
        harness = Harness("")
        put_wal(harness.repositories[0], NAMES, harness.segment, b"another")
        harness.finish()
        harness.uploader.wait_idle(10.0)
        assert isinstance(harness.uploader.failure, OverwriteRefused)

    def test_what_waits_is_bounded(self) -> None:
        harness = Harness(",".join(["put:denied"] * 50))
        for _ in range(64):
            assert harness.uploader.has_room
            harness.finish()
        assert not harness.uploader.has_room
        harness.uploader.close(0.0)
