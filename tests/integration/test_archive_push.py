"""Push: what is accepted, what is refused, several repositories. Real segments, stores in memory."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from pitr.archive.push import push_segment
from pitr.archive.remote import Remote
from pitr.core.errors import (
    ConfigError,
    HistoryMismatch,
    IntegrityError,
    NoSpace,
    OverwriteRefused,
    PitrError,
    StoreUnavailable,
    UsageError,
)
from pitr.core.events import Event, Message
from pitr.pg.segments import HistoryName
from pitr.repo.identity import list_identities, read_identity
from pitr.repo.names import split_partial
from pitr.repo.repository import Repository
from pitr.repo.walobjects import Put, get_history, get_wal, get_wal_object
from pitr.store.memory import MemoryStore
from tests.support.archive import MIB, WalSample, memory_repository
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.pg


@pytest.fixture
def pg_wal(tmp_path: Path, wal_sample: WalSample) -> Path:
    """A data directory's pg_wal with a copy of every archived file."""
    shutil.copytree(wal_sample.directory, tmp_path / "data")
    return tmp_path / "data" / "pg_wal"


def push(repository: Repository, path: Path) -> Put:
    return push_segment([Remote.opened(repository)], "shop", path).outcomes[0][1]


def stored_names(repository: Repository) -> list[str]:
    return [info.name for info in repository.store.list("shop/")]


@pytest.mark.parametrize("sealed", [False, True])
def test_every_kind_of_file_is_stored_and_comes_back(pg_wal: Path, wal_sample: WalSample, sealed: bool) -> None:
    repository = memory_repository(sealed=sealed)
    names = wal_sample.names()
    for path in sorted(pg_wal.iterdir()):
        assert push(repository, path) is Put.STORED
        assert push(repository, path) is Put.ALREADY_THERE
    for timeline, number in ((1, wal_sample.first), (1, wal_sample.last_1), (2, wal_sample.fork)):
        assert get_wal(repository, names, wal_sample.segment(timeline, number)) == wal_sample.data(timeline, number)
    assert get_wal(repository, names, HistoryName(2)) == wal_sample.history_file.read_bytes()
    (partial,) = [name for name in stored_names(repository) if ".partial-" in name]
    split = split_partial(partial, MIB)
    assert split is not None
    assert split[0] == wal_sample.segment(1, wal_sample.fork)
    assert split[1] <= wal_sample.switch_lsn
    assert split[1] > wal_sample.segment(1, wal_sample.fork).start
    assert get_wal_object(repository, partial) == wal_sample.partial.read_bytes()


def test_the_cluster_is_recorded_with_the_first_file(pg_wal: Path, wal_sample: WalSample) -> None:
    repository = memory_repository()
    push(repository, pg_wal / "00000002.history")
    identity = read_identity(repository, wal_sample.names())
    assert (identity.major, identity.segment_size_bytes, identity.block_size) == (15, MIB, 8192)


def test_other_content_under_a_name_is_refused_and_nothing_changes(pg_wal: Path, wal_sample: WalSample) -> None:
    """Both segments are whole and of this cluster: one of the promoted server, one of the old primary."""
    repository = memory_repository()
    name = str(wal_sample.segment(1, wal_sample.first))
    push(repository, pg_wal / name)
    other = bytearray((pg_wal / name).read_bytes())
    # A byte in the middle of a record's data, which no page header shows.
    other[8192 * 3 + 4000] ^= 1
    (pg_wal / name).write_bytes(other)
    before = stored_names(repository)
    with pytest.raises(OverwriteRefused, match="other content"):
        push(repository, pg_wal / name)
    assert stored_names(repository) == before
    assert get_wal(repository, wal_sample.names(), wal_sample.segment(1, wal_sample.first)) == wal_sample.data(
        1, wal_sample.first
    )


def test_a_history_file_with_other_content_is_refused(pg_wal: Path) -> None:
    repository = memory_repository()
    push(repository, pg_wal / "00000002.history")
    (pg_wal / "00000002.history").write_text("1\t0/200000\tno recovery target specified\n")
    with pytest.raises(OverwriteRefused):
        push(repository, pg_wal / "00000002.history")


def test_names_in_any_encoding_do_not_stop_the_archiver(pg_wal: Path, wal_sample: WalSample) -> None:
    """Restore points and labels are written as the database encodes them, and only a line feed ends a line."""
    repository = memory_repository()
    for reason in (b'at restore point "\xe9t\xe9"', 'at restore point "a\x0bb\u2028c"'.encode()):
        (pg_wal / "00000002.history").write_bytes(b"1\t%s\t%s\n" % (str(wal_sample.switch_lsn).encode(), reason))
        push(repository, pg_wal / str(wal_sample.segment(2, wal_sample.fork)))
    assert push(repository, pg_wal / "00000002.history") is Put.STORED
    assert get_history(repository, wal_sample.names(), 2).entries[0].switch_lsn == wal_sample.switch_lsn
    backup = next(pg_wal.glob("*.backup"))
    backup.write_bytes(backup.read_bytes().replace(b"LABEL: ", b"LABEL: \xe9"))
    assert push(repository, backup) is Put.STORED


def test_partials_with_other_content_stand_side_by_side(pg_wal: Path, wal_sample: WalSample) -> None:
    repository = memory_repository()
    path = pg_wal / wal_sample.partial.name
    push(repository, path)
    data = path.read_bytes()
    path.write_bytes(data[:8192].ljust(len(data), b"\0"))
    assert push(repository, path) is Put.STORED
    assert len([name for name in stored_names(repository) if ".partial-" in name]) == 2


def _truncate(data: bytes) -> bytes:
    return data[: MIB // 2]


def _torn(data: bytes) -> bytes:
    return data[: MIB // 2].ljust(MIB, b"\0")


def _page_of_zeros(data: bytes) -> bytes:
    return data[:16384] + bytes(8192) + data[24576:]


def _wrong_address(data: bytes) -> bytes:
    return data[:16384] + data[8192:16384] + data[24576:]


def _garbage(data: bytes) -> bytes:
    return b"x" * len(data)


@pytest.mark.parametrize("damage", [_truncate, _torn, _page_of_zeros, _wrong_address, _garbage])
def test_a_damaged_segment_is_refused(pg_wal: Path, wal_sample: WalSample, damage: object) -> None:
    assert callable(damage)
    path = pg_wal / str(wal_sample.segment(1, wal_sample.first + 1))
    path.write_bytes(damage(path.read_bytes()))
    repository = memory_repository()
    with pytest.raises(IntegrityError, match=path.name):
        push(repository, path)
    assert stored_names(repository) == []


def test_an_empty_file_is_refused(pg_wal: Path, wal_sample: WalSample) -> None:
    path = pg_wal / str(wal_sample.segment(1, wal_sample.first))
    path.write_bytes(b"")
    with pytest.raises(IntegrityError, match="empty"):
        push(memory_repository(), path)


def test_the_content_of_another_segment_is_refused(pg_wal: Path, wal_sample: WalSample) -> None:
    path = pg_wal / str(wal_sample.segment(1, wal_sample.first + 1))
    path.write_bytes(wal_sample.data(1, wal_sample.first))
    with pytest.raises(HistoryMismatch, match="content of another segment"):
        push(memory_repository(), path)


def test_the_content_of_another_timeline_is_refused(pg_wal: Path, wal_sample: WalSample) -> None:
    newer = pg_wal / str(wal_sample.segment(1, wal_sample.fork))
    newer.write_bytes(wal_sample.data(2, wal_sample.fork))
    with pytest.raises(HistoryMismatch):
        push(memory_repository(), newer)
    older = pg_wal / str(wal_sample.segment(2, wal_sample.fork + 1))
    older.write_bytes(wal_sample.data(1, wal_sample.fork + 1))
    with pytest.raises(HistoryMismatch):
        push(memory_repository(), older)


def test_the_segment_of_another_cluster_is_refused(pg_wal: Path, wal_sample: WalSample) -> None:
    path = pg_wal / str(wal_sample.segment(1, wal_sample.first))
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, 24, wal_sample.system_id + 1)
    path.write_bytes(data)
    with pytest.raises(HistoryMismatch, match="another cluster"):
        push(memory_repository(), path)


def test_another_cluster_under_the_same_name_is_refused(pg_wal: Path, wal_sample: WalSample) -> None:
    repository = memory_repository()
    name = str(wal_sample.segment(1, wal_sample.first))
    push(repository, pg_wal / name)
    data = bytearray((pg_wal / name).read_bytes())
    struct.pack_into("<Q", data, 24, wal_sample.system_id + 1)
    elsewhere = pg_wal.parent.parent / name
    elsewhere.write_bytes(data)
    with pytest.raises(HistoryMismatch) as refused:
        push(repository, elsewhere)
    assert "--adopt" in (refused.value.hint or "")
    assert [identity.system_id for identity in list_identities(repository, "shop")] == [str(wal_sample.system_id)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("00000002.history", "no history\n"),
        ("00000002.history", "2\t0/300000\tits own parent\n"),
        ("00000002.history", "# nothing\n"),
        ("000000010000000000000001.00000028.backup", "START WAL LOCATION: nowhere\n"),
        (
            "000000010000000000000001.00000028.backup",
            "START WAL LOCATION: 0/200028 (file 000000010000000000000002)\nSTOP WAL LOCATION: 0/2000F0 (file x)\n",
        ),
    ],
)
def test_small_files_are_checked(pg_wal: Path, name: str, text: str) -> None:
    (pg_wal / name).write_text(text)
    repository = memory_repository()
    with pytest.raises(IntegrityError, match=name.partition(".")[0]):
        push(repository, pg_wal / name)
    assert stored_names(repository) == []


@pytest.mark.parametrize("name", ["RECOVERYXLOG", "00000001000000000000000G", "000000010000000000001000", "x.history"])
def test_other_names_are_refused(pg_wal: Path, wal_sample: WalSample, name: str) -> None:
    (pg_wal / name).write_bytes(wal_sample.data(1, wal_sample.first))
    with pytest.raises(UsageError, match=name):
        push(memory_repository(), pg_wal / name)


def test_a_missing_file_is_an_error_for_people(pg_wal: Path) -> None:
    with pytest.raises(PitrError, match="No such file"):
        push(memory_repository(), pg_wal / "000000010000000000000FFF")


def test_a_history_file_without_its_data_directory_is_refused(tmp_path: Path, wal_sample: WalSample) -> None:
    shutil.copy(wal_sample.history_file, tmp_path)
    with pytest.raises(ConfigError, match="which cluster"):
        push(memory_repository(), tmp_path / "00000002.history")


class TestSeveralRepositories:
    @pytest.fixture
    def path(self, wal_sample: WalSample) -> Path:
        return wal_sample.path(1, wal_sample.first)

    def test_all_of_them_get_it(self, path: Path) -> None:
        repositories = [memory_repository(name) for name in ("a", "b", "c")]
        result = push_segment([Remote.opened(repository) for repository in repositories], "shop", path)
        assert result.outcomes == (("a", Put.STORED), ("b", Put.STORED), ("c", Put.STORED))

    @pytest.mark.parametrize("broken", [0, 1])
    def test_a_failing_one_fails_the_command_but_not_the_others(self, path: Path, broken: int) -> None:
        repositories = [memory_repository("a"), memory_repository("b")]
        good = repositories[1 - broken]
        remotes = [Remote.opened(repository) for repository in repositories]
        full = Repository(
            "full", FaultyStore(repositories[broken].store, "put:ok,put:full"), good.keyring, good.descriptor
        )
        remotes[broken] = Remote.opened(full)
        with pytest.raises(NoSpace):
            push_segment(remotes, "shop", path)
        assert any(name.endswith(path.name) for name in stored_names(good))
        assert not any(name.endswith(path.name) for name in stored_names(repositories[broken]))
        remotes[broken] = Remote.opened(repositories[broken])
        again = dict(push_segment(remotes, "shop", path).outcomes)
        assert again[good.name] is Put.ALREADY_THERE
        assert again[repositories[broken].name] is Put.STORED

    def test_one_that_cannot_be_opened_does_not_keep_it_from_the_others(self, path: Path) -> None:
        good = memory_repository("good")

        def down() -> Repository:
            raise StoreUnavailable("no route to host")

        with pytest.raises(StoreUnavailable, match="no route"):
            push_segment([Remote("down", down), Remote.opened(good)], "shop", path)
        assert any(name.endswith(path.name) for name in stored_names(good))

    def test_one_that_is_not_required_is_only_warned_about(self, path: Path) -> None:
        good = memory_repository("good")
        events: list[Event] = []

        def down() -> Repository:
            raise StoreUnavailable("no route to host")

        optional = Remote("extra", down, required=False)
        result = push_segment([optional, Remote.opened(good)], "shop", path, report=events.append)
        assert result.outcomes == (("good", Put.STORED),)
        (message,) = [event for event in events if isinstance(event, Message)]
        assert message.level == "warning"
        assert "extra" in message.text

    def test_without_a_required_one_nothing_is_acknowledged(self, path: Path) -> None:
        with pytest.raises(ConfigError):
            push_segment([Remote.opened(memory_repository(), required=False)], "shop", path)
        with pytest.raises(ConfigError):
            push_segment([], "shop", path)


def test_a_store_without_put_if_absent_still_refuses_other_content(pg_wal: Path, wal_sample: WalSample) -> None:
    repository = memory_repository(store=MemoryStore("plain"), if_absent=False)
    path = pg_wal / str(wal_sample.segment(1, wal_sample.first))
    push(repository, path)
    assert push(repository, path) is Put.ALREADY_THERE
    changed = bytearray(path.read_bytes())
    changed[8192 * 3 + 4000] ^= 1
    path.write_bytes(changed)
    with pytest.raises(OverwriteRefused):
        push(repository, path)


def test_an_answer_that_was_lost_is_no_conflict(pg_wal: Path, wal_sample: WalSample) -> None:
    """The store did it and the answer broke: the next archive_command finds the same content."""
    repository = memory_repository()
    path = pg_wal / str(wal_sample.segment(1, wal_sample.first))
    faulty = FaultyStore(repository.store, "put:ok,put:lost")
    with pytest.raises(StoreUnavailable):
        push(Repository("faulty", faulty, repository.keyring, repository.descriptor), path)
    assert push(repository, path) is Put.ALREADY_THERE
