"""Fetch: one test for each line of the table of answers. Real segments, stores in memory, no waiting."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pitr.archive.fetch import FetchOutcome, FetchRequest, RetryPolicy, fetch_file
from pitr.archive.push import push_segment
from pitr.archive.remote import Remote
from pitr.core.errors import IntegrityError, StoreUnavailable
from pitr.core.events import Event, Message
from pitr.pg.segments import HistoryName, SegmentName
from pitr.repo.repository import Repository
from pitr.repo.walobjects import put_wal
from tests.support.archive import MIB, WalSample, archive, memory_repository
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.pg

NEVER = ConnectionError("this repository must not be asked")


class Clock:
    """Time that passes only by sleeping. ``during``: called at each sleep."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.now = 0.0
        self.naps: list[float] = []
        self._during = during

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        self._during()

    def policy(self, total_s: float = 60.0) -> RetryPolicy:
        return RetryPolicy(total_s=total_s, sleep=self.sleep, monotonic=lambda: self.now)


class Restore:
    """A data directory that asks for files."""

    def __init__(self, directory: Path, sample: WalSample) -> None:
        self.sample = sample
        self.directory = directory
        self.clock = Clock()
        self.events: list[Event] = []
        (directory / "pg_wal").mkdir(parents=True)
        shutil.copytree(sample.directory / "global", directory / "global")

    @property
    def dest(self) -> Path:
        return self.directory / "pg_wal" / "RECOVERYXLOG"

    def standby(self) -> Restore:
        (self.directory / "standby.signal").touch()
        return self

    def fetch(
        self,
        remotes: Sequence[Remote] | Repository,
        name: object,
        *,
        chain: int | None = None,
        until: SegmentName | None = None,
        **changes: object,
    ) -> FetchOutcome:
        request = FetchRequest(
            cluster="shop",
            name=str(name),
            dest=self.dest,
            chain=chain,
            until=None if until is None else str(until),
            data_directory=self.directory,
            retry=self.clock.policy(),
        )
        self.dest.unlink(missing_ok=True)
        asked = [Remote.opened(remotes)] if isinstance(remotes, Repository) else remotes
        outcome = fetch_file(asked, request._replace(**changes), report=self.events.append)  # type: ignore[arg-type]
        assert self.dest.exists() == (outcome.exit_code == 0), "only a found file may be left behind"
        assert [path.name for path in self.dest.parent.iterdir()] in ([], ["RECOVERYXLOG"])
        return outcome

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Message)]


@pytest.fixture
def restore(tmp_path: Path, wal_sample: WalSample) -> Restore:
    return Restore(tmp_path / "restored", wal_sample)


def everything(sample: WalSample, *but: object) -> list[Path]:
    left_out = {str(name) for name in but}
    return [path for path in sorted((sample.directory / "pg_wal").iterdir()) if path.name not in left_out]


def timeline(sample: WalSample, number: int, *but: object) -> list[Path]:
    return [path for path in everything(sample, *but) if path.name.startswith(f"{number:08X}")]


def repository_with(paths: Sequence[Path], **options: bool) -> Repository:
    repository = memory_repository(**options)  # type: ignore[arg-type]
    archive(repository, paths)
    return repository


def unreachable() -> Repository:
    raise NEVER


def down() -> Repository:
    raise StoreUnavailable("no route to host")


def damaged(repository: Repository, name: object) -> Repository:
    """The same repository with a bit flipped in one stored object."""
    (found,) = [info.name for info in repository.store.list("shop/") if info.name.endswith(f"/{name}")]
    body = bytearray(b"".join(repository.store.get(found)))
    body[len(body) // 2] ^= 1
    repository.store.put(found, [bytes(body)])
    return repository


def with_script(repository: Repository, script: str) -> Repository:
    return Repository("faulty", FaultyStore(repository.store, script), repository.keyring, repository.descriptor)


class TestHistoryFiles:
    """1. The bytes, or 1 on an authoritative absence; outage = retry, 200. Never filtered."""

    def test_there(self, restore: Restore, wal_sample: WalSample) -> None:
        outcome = restore.fetch(repository_with(everything(wal_sample)), "00000002.history", chain=1)
        assert outcome.exit_code == 0
        assert restore.dest.read_bytes() == wal_sample.history_file.read_bytes()

    def test_absent(self, restore: Restore, wal_sample: WalSample) -> None:
        outcome = restore.fetch(repository_with(everything(wal_sample)), "00000003.history")
        assert outcome.exit_code == 1
        assert restore.clock.naps == []

    def test_outage(self, restore: Restore, wal_sample: WalSample) -> None:
        assert restore.fetch([Remote("main", down)], "00000003.history").exit_code == 200
        assert sum(restore.clock.naps) > 30

    def test_outage_that_ends(self, restore: Restore, wal_sample: WalSample) -> None:
        flaky = with_script(repository_with(everything(wal_sample)), "get:fail,get:fail")
        assert restore.fetch(flaky, "00000002.history").exit_code == 0
        assert len(restore.clock.naps) == 2

    def test_damaged(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = damaged(repository_with(everything(wal_sample)), "00000002.history")
        assert restore.fetch(repository, "00000002.history").exit_code == 200

    def test_absent_in_one_and_the_other_is_down(self, restore: Restore, wal_sample: WalSample) -> None:
        remotes = [Remote.opened(repository_with(timeline(wal_sample, 1))), Remote("down", down)]
        assert restore.fetch(remotes, "00000002.history").exit_code == 200


class TestOtherTimelines:
    """2. A segment of a timeline that does not own its number: 1, even if the object exists."""

    def test_abandoned_segments_of_the_parent(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = repository_with(everything(wal_sample))
        for number in (wal_sample.fork, wal_sample.fork + 1):
            name = wal_sample.segment(1, number)
            assert restore.fetch(repository, name, chain=2).exit_code == 1
            assert restore.fetch(repository, name, chain=2, until=wal_sample.segment(2, number)).exit_code == 1
            assert restore.fetch(repository, name, chain=1).exit_code == 0

    def test_before_the_fork_the_parent_owns(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = repository_with(everything(wal_sample))
        assert restore.fetch(repository, wal_sample.segment(1, wal_sample.fork - 1), chain=2).exit_code == 0
        assert restore.fetch(repository, wal_sample.segment(2, wal_sample.fork - 1), chain=2).exit_code == 1

    def test_the_child_is_not_on_its_parents_history(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = repository_with(everything(wal_sample))
        assert restore.fetch(repository, wal_sample.segment(2, wal_sample.fork), chain=1).exit_code == 1

    def test_without_the_history_file_nobody_knows(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = repository_with(everything(wal_sample, "00000002.history"))
        outcome = restore.fetch(repository, wal_sample.segment(2, wal_sample.fork), chain=2)
        assert outcome.exit_code == 200
        assert "history file of timeline 2" in outcome.why

    def test_a_missing_first_segment_of_the_child_says_the_way_out(
        self, restore: Restore, wal_sample: WalSample
    ) -> None:
        first = wal_sample.segment(2, wal_sample.fork)
        repository = repository_with(everything(wal_sample, first))
        outcome = restore.fetch(repository, first, chain=2, until=wal_sample.segment(2, wal_sample.last_2))
        assert outcome.exit_code == 200
        assert outcome.error is not None
        assert f"timeline 1 can be recovered up to {wal_sample.switch_lsn}" in (outcome.error.hint or "")


class TestBehindTheTarget:
    """3. 1 without looking."""

    def test_no_repository_is_asked(self, restore: Restore, wal_sample: WalSample) -> None:
        until = wal_sample.segment(1, wal_sample.first + 1)
        remotes = [Remote("main", unreachable)]
        assert restore.fetch(remotes, until.next(), chain=1, until=until).exit_code == 1
        assert restore.fetch(remotes, until.next().at_timeline(2), chain=2, until=until).exit_code == 1


class TestUpToTheTarget:
    """4. Present and verified = 0; absent but a partial reaches the target = that; else retry, 200."""

    @pytest.mark.parametrize("sealed", [False, True])
    def test_present(self, restore: Restore, wal_sample: WalSample, sealed: bool) -> None:
        repository = repository_with(everything(wal_sample), sealed=sealed)
        until = wal_sample.segment(2, wal_sample.last_2)
        for name in wal_sample.history().segments(wal_sample.first * MIB, until.end, MIB):
            assert restore.fetch(repository, name, chain=2, until=until).exit_code == 0
            assert restore.dest.read_bytes() == wal_sample.data(name.timeline, name.number)

    def test_the_chain_follows_from_until(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = repository_with(everything(wal_sample))
        until = wal_sample.segment(2, wal_sample.last_2)
        assert restore.fetch(repository, wal_sample.segment(1, wal_sample.fork), until=until).exit_code == 1

    def test_absent_is_a_hole(self, restore: Restore, wal_sample: WalSample) -> None:
        last = wal_sample.segment(1, wal_sample.last_1)
        repository = repository_with(timeline(wal_sample, 1, last))
        outcome = restore.fetch(repository, last, chain=1, until=last)
        assert outcome.exit_code == 200
        assert str(last) in outcome.why
        assert sum(restore.clock.naps) > 30

    def test_absent_for_a_moment(self, restore: Restore, wal_sample: WalSample) -> None:
        """Segments pushed in parallel arrive out of order."""
        last = wal_sample.segment(1, wal_sample.last_1)
        repository = repository_with(timeline(wal_sample, 1, last))
        restore.clock = Clock(lambda: archive(repository, [wal_sample.path(1, last.number)]))
        assert restore.fetch(repository, last, chain=1, until=last).exit_code == 0
        assert len(restore.clock.naps) == 1

    @pytest.mark.parametrize("script", ["get:fail", "get:denied", "get:short@4096", "get:cut@4096"])
    def test_a_store_that_fails_for_good(self, restore: Restore, wal_sample: WalSample, script: str) -> None:
        name = wal_sample.segment(1, wal_sample.first)
        repository = with_script(repository_with(everything(wal_sample)), ",".join([script] * 100))
        assert restore.fetch(repository, name, chain=1, until=name).exit_code == 200

    @pytest.mark.parametrize("script", ["get:fail", "get:denied", "get:short@4096", "get:cut@4096", "get:flip@5000"])
    def test_a_store_that_fails_once(self, restore: Restore, wal_sample: WalSample, script: str) -> None:
        name = wal_sample.segment(1, wal_sample.first)
        repository = with_script(repository_with(everything(wal_sample)), script)
        assert restore.fetch(repository, name, chain=1, until=name).exit_code == 0
        assert restore.dest.read_bytes() == wal_sample.data(1, wal_sample.first)

    def test_damaged(self, restore: Restore, wal_sample: WalSample) -> None:
        name = wal_sample.segment(1, wal_sample.first)
        repository = damaged(repository_with(everything(wal_sample)), name)
        outcome = restore.fetch(repository, name, chain=1, until=name)
        assert outcome.exit_code == 200
        assert isinstance(outcome.error, IntegrityError)

    def test_another_segment_under_its_name(self, restore: Restore, wal_sample: WalSample) -> None:
        """Sealed rightly, but put there by something that did not check: the content decides."""
        name = wal_sample.segment(1, wal_sample.first)
        repository = repository_with(everything(wal_sample, name))
        put_wal(repository, wal_sample.names(), name, wal_sample.data(1, wal_sample.first + 1))
        assert restore.fetch(repository, name, chain=1, until=name).exit_code == 200

    def test_a_partial_that_reaches_the_target(self, restore: Restore, wal_sample: WalSample) -> None:
        name = wal_sample.segment(1, wal_sample.fork)
        repository = repository_with([*timeline(wal_sample, 1, name), wal_sample.history_file])
        assert restore.fetch(repository, name, chain=1, until=name).exit_code == 0
        data = restore.dest.read_bytes()
        assert len(data) == MIB
        assert data[: wal_sample.switch_lsn % MIB] == wal_sample.partial.read_bytes()[: wal_sample.switch_lsn % MIB]

    def test_the_longest_of_several_partials(self, restore: Restore, wal_sample: WalSample, tmp_path: Path) -> None:
        name = wal_sample.segment(1, wal_sample.fork)
        repository = memory_repository()
        shorter = tmp_path / wal_sample.partial.name
        shorter.write_bytes(wal_sample.partial.read_bytes()[:40960])
        archive(repository, [shorter, wal_sample.partial])
        assert restore.fetch(repository, name, chain=1, until=name).exit_code == 0
        assert restore.dest.read_bytes() == wal_sample.partial.read_bytes()

    def test_a_partial_shorter_than_a_segment_is_filled_up(
        self, restore: Restore, wal_sample: WalSample, tmp_path: Path
    ) -> None:
        name = wal_sample.segment(1, wal_sample.fork)
        shorter = tmp_path / wal_sample.partial.name
        shorter.write_bytes(wal_sample.partial.read_bytes()[:40960])
        repository = repository_with([shorter])
        assert restore.fetch(repository, name, chain=1, until=name).exit_code == 0
        assert restore.dest.read_bytes() == shorter.read_bytes().ljust(MIB, b"\0")

    def test_a_damaged_partial_is_passed_over_for_a_shorter_one(
        self, restore: Restore, wal_sample: WalSample, tmp_path: Path
    ) -> None:
        name = wal_sample.segment(1, wal_sample.fork)
        shorter = tmp_path / wal_sample.partial.name
        shorter.write_bytes(wal_sample.partial.read_bytes()[:40960])
        repository = repository_with([wal_sample.partial])
        (longer,) = [info.name for info in repository.store.list("shop/") if ".partial-" in info.name]
        archive(repository, [shorter])
        damaged(repository, longer.rpartition("/")[2])
        assert restore.fetch(repository, name, chain=1, until=name).exit_code == 0
        assert restore.dest.read_bytes()[:40960] == shorter.read_bytes()
        assert any("partial-" in text for text in restore.warnings)

    def test_a_partial_before_the_target_is_a_hole(self, restore: Restore, wal_sample: WalSample) -> None:
        name = wal_sample.segment(1, wal_sample.fork)
        repository = repository_with(timeline(wal_sample, 1, name))
        assert restore.fetch(repository, name, chain=1, until=name.next()).exit_code == 200


class TestWithoutTarget:
    """5. Absent is the end only if nothing on the chain, and no child, shows that the WAL went on."""

    def test_the_end(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = repository_with(timeline(wal_sample, 1, wal_sample.partial.name))
        behind = wal_sample.segment(1, wal_sample.last_1 + 1)
        assert restore.fetch(repository, behind, chain=1).exit_code == 1
        assert restore.fetch(repository, behind).exit_code == 1
        assert restore.clock.naps == []

    def test_a_hole_in_the_middle(self, restore: Restore, wal_sample: WalSample) -> None:
        hole = wal_sample.segment(1, wal_sample.first + 1)
        repository = repository_with(timeline(wal_sample, 1, hole))
        outcome = restore.fetch(repository, hole, chain=1)
        assert outcome.exit_code == 200
        assert outcome.error is not None
        assert str(hole.next()) in (outcome.error.detail or "")
        assert restore.fetch(repository, hole).exit_code == 200

    def test_the_parents_tail_is_missing_and_only_the_child_goes_on(
        self, restore: Restore, wal_sample: WalSample
    ) -> None:
        """A failover with a backlog: nothing later on timeline 1."""
        later = [wal_sample.segment(1, number) for number in range(wal_sample.fork - 1, wal_sample.last_1 + 1)]
        repository = repository_with(everything(wal_sample, *later, wal_sample.partial.name))
        assert restore.fetch(repository, later[0], chain=2).exit_code == 200
        assert restore.fetch(repository, later[0]).exit_code == 200

    def test_nothing_but_the_childs_history_file_shows_it(self, restore: Restore, wal_sample: WalSample) -> None:
        later = [wal_sample.segment(1, number) for number in range(wal_sample.fork - 1, wal_sample.last_1 + 1)]
        repository = repository_with([*timeline(wal_sample, 1, *later, wal_sample.partial.name)])
        archive(repository, [wal_sample.history_file])
        for chain in (2, 1, None):
            assert restore.fetch(repository, later[0], chain=chain).exit_code == 200

    def test_the_same_segment_on_a_child(self, restore: Restore, wal_sample: WalSample) -> None:
        """Timeline 1 is wanted, its part of the segment is stored under the child's name only."""
        later = [wal_sample.segment(1, number) for number in range(wal_sample.fork, wal_sample.last_1 + 1)]
        for paths in (
            everything(wal_sample, *later, wal_sample.partial.name),
            everything(wal_sample, *later, wal_sample.partial.name, "00000002.history"),
        ):
            assert restore.fetch(repository_with(paths), later[0], chain=1).exit_code == 200

    def test_a_partial_that_reaches_what_the_child_shows_is_the_end(
        self, restore: Restore, wal_sample: WalSample
    ) -> None:
        later = [wal_sample.segment(1, number) for number in range(wal_sample.fork, wal_sample.last_1 + 1)]
        repository = repository_with(everything(wal_sample, *later))
        assert restore.fetch(repository, later[0], chain=1).exit_code == 0
        assert restore.fetch(repository, later[1], chain=1).exit_code == 1

    def test_a_fallback_to_the_abandoned_history_is_no_end(self, restore: Restore, wal_sample: WalSample) -> None:
        """The child's first segment is missing: hearing 1, PostgreSQL would take timeline 1's."""
        first = wal_sample.segment(2, wal_sample.fork)
        repository = repository_with(everything(wal_sample, first))
        assert restore.fetch(repository, first).exit_code == 200
        assert restore.fetch(repository, first, chain=2).exit_code == 200

    def test_the_child_has_nothing_yet_and_the_parent_stopped_there(
        self, restore: Restore, wal_sample: WalSample
    ) -> None:
        behind = [wal_sample.segment(1, number) for number in range(wal_sample.fork + 1, wal_sample.last_1 + 1)]
        repository = repository_with([*timeline(wal_sample, 1, *behind), wal_sample.history_file])
        assert restore.fetch(repository, wal_sample.segment(2, wal_sample.fork)).exit_code == 200
        assert restore.fetch(repository, wal_sample.segment(2, wal_sample.fork), chain=2).exit_code == 200

    def test_an_outage_while_the_end_is_proven(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = repository_with(timeline(wal_sample, 1, wal_sample.partial.name))
        behind = wal_sample.segment(1, wal_sample.last_1 + 1)
        listing_fails = with_script(repository, ",".join(["list:fail"] * 100))
        assert restore.fetch(listing_fails, behind, chain=1).exit_code == 200

    def test_an_archive_that_does_not_know_the_cluster_is_no_end(self, restore: Restore, wal_sample: WalSample) -> None:
        name = wal_sample.segment(1, wal_sample.first)
        outcome = restore.fetch(memory_repository(), name)
        assert outcome.exit_code == 200
        assert "knows no cluster" in outcome.why
        repository = repository_with(everything(wal_sample))
        assert restore.fetch(repository, name, cluster="shpo").exit_code == 200


class TestStandby:
    """6. Absence and outage = 1, damage = 1 and an alarm; never more than 125, and no waiting."""

    def test_present(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = repository_with(everything(wal_sample))
        assert restore.standby().fetch(repository, wal_sample.segment(1, wal_sample.first)).exit_code == 0

    def test_absence_and_holes(self, restore: Restore, wal_sample: WalSample) -> None:
        hole = wal_sample.segment(1, wal_sample.first + 1)
        repository = repository_with(timeline(wal_sample, 1, hole))
        for name in (hole, wal_sample.segment(1, wal_sample.last_1 + 1), "00000009.history"):
            outcome = restore.standby().fetch(repository, name)
            assert (outcome.exit_code, outcome.error) == (1, None)
        assert restore.clock.naps == []

    def test_outage(self, restore: Restore, wal_sample: WalSample) -> None:
        outcome = restore.standby().fetch([Remote("main", down)], wal_sample.segment(1, wal_sample.first))
        assert outcome.exit_code == 1
        assert isinstance(outcome.error, StoreUnavailable)
        assert restore.clock.naps == []

    def test_damage_is_told(self, restore: Restore, wal_sample: WalSample) -> None:
        name = wal_sample.segment(1, wal_sample.first)
        outcome = restore.standby().fetch(damaged(repository_with(everything(wal_sample)), name), name)
        assert outcome.exit_code == 1
        assert isinstance(outcome.error, IntegrityError)

    def test_wrong_options(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = repository_with(everything(wal_sample))
        name = wal_sample.segment(1, wal_sample.first)
        assert restore.standby().fetch(repository, name, system_id=1).exit_code == 1


class TestSeveralRepositories:
    def test_damaged_in_one_is_taken_from_the_next(self, restore: Restore, wal_sample: WalSample) -> None:
        name = wal_sample.segment(1, wal_sample.first)
        remotes = [
            Remote.opened(damaged(repository_with(everything(wal_sample)), name)),
            Remote.opened(repository_with(everything(wal_sample))),
        ]
        assert restore.fetch(remotes, name, chain=1, until=name).exit_code == 0
        assert any("main" in text for text in restore.warnings)

    def test_absent_in_one_is_taken_from_the_next(self, restore: Restore, wal_sample: WalSample) -> None:
        name = wal_sample.segment(1, wal_sample.first)
        remotes = [
            Remote.opened(repository_with(everything(wal_sample, name))),
            Remote.opened(repository_with(everything(wal_sample))),
        ]
        assert restore.fetch(remotes, name).exit_code == 0

    def test_one_is_down_and_the_next_has_it(self, restore: Restore, wal_sample: WalSample) -> None:
        name = wal_sample.segment(1, wal_sample.first)
        remotes = [Remote("down", down), Remote.opened(repository_with(everything(wal_sample)))]
        assert restore.fetch(remotes, name).exit_code == 0
        assert restore.clock.naps == []

    def test_the_end_needs_all_of_them(self, restore: Restore, wal_sample: WalSample) -> None:
        behind = wal_sample.segment(1, wal_sample.last_1 + 1)
        complete = Remote.opened(repository_with(timeline(wal_sample, 1)))
        assert restore.fetch([complete, complete], behind, chain=1).exit_code == 1
        assert restore.fetch([complete, Remote("down", down)], behind, chain=1).exit_code == 200

    def test_the_next_one_knows_that_the_wal_went_on(self, restore: Restore, wal_sample: WalSample) -> None:
        tail = [wal_sample.segment(1, number) for number in range(wal_sample.fork, wal_sample.last_1 + 1)]
        short = repository_with(timeline(wal_sample, 1, *tail, wal_sample.partial.name))
        holed = repository_with(timeline(wal_sample, 1, tail[0], wal_sample.partial.name))
        remotes = [Remote.opened(short), Remote.opened(holed)]
        assert restore.fetch(remotes, tail[0], chain=1).exit_code == 200


class TestWhichCluster:
    def test_another_system_id_than_the_data_directory(self, restore: Restore, wal_sample: WalSample) -> None:
        repository = repository_with(everything(wal_sample))
        outcome = restore.fetch(repository, wal_sample.segment(1, wal_sample.first), system_id=17)
        assert outcome.exit_code == 200
        assert restore.clock.naps == [], "waiting does not cure it"

    @pytest.mark.parametrize("given", [True, False])
    def test_without_a_data_directory(self, restore: Restore, wal_sample: WalSample, given: bool) -> None:
        repository = repository_with(everything(wal_sample))
        name = wal_sample.segment(1, wal_sample.first)
        system_id = wal_sample.system_id if given else None
        assert restore.fetch(repository, name, data_directory=None, system_id=system_id).exit_code == 0

    def test_nobody_knows_it(self, restore: Restore, wal_sample: WalSample) -> None:
        name = wal_sample.segment(1, wal_sample.first)
        assert restore.fetch(memory_repository(), name, data_directory=None).exit_code == 200
        assert restore.fetch(memory_repository(), name, data_directory=None, system_id=5).exit_code == 200

    @pytest.mark.parametrize("name", ["RECOVERYXLOG", "000000010000000000001000", "../00000002.history", ""])
    def test_names_that_no_server_asks_for(self, restore: Restore, wal_sample: WalSample, name: str) -> None:
        assert restore.fetch(repository_with(everything(wal_sample)), name).exit_code == 200

    @pytest.mark.parametrize("until", ["nonsense", "00000001"])
    def test_an_until_that_is_no_segment(self, restore: Restore, wal_sample: WalSample, until: str) -> None:
        repository = repository_with(everything(wal_sample))
        assert restore.fetch(repository, wal_sample.segment(1, wal_sample.first), until=until).exit_code == 200  # type: ignore[arg-type]


def test_a_destination_that_cannot_be_written(restore: Restore, wal_sample: WalSample) -> None:
    repository = repository_with(everything(wal_sample))
    name = wal_sample.segment(1, wal_sample.first)
    outcome = restore.fetch(repository, name, dest=restore.directory / "nowhere" / "RECOVERYXLOG")
    assert outcome.exit_code == 200


def test_history_is_named_like_pushed(wal_sample: WalSample) -> None:
    result = push_segment([Remote.opened(memory_repository())], "shop", wal_sample.history_file)
    assert result.name == str(HistoryName(2))
