"""Frames to files: a hand-made backup with holes, small files, frames of an older backup; then damage and delta."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitr.codec import KeyFile, new_key_file_text
from pitr.core.errors import IntegrityError, ManifestInvalid
from pitr.core.events import silent
from pitr.core.secrets import Secret
from pitr.repo.maps import HOLE, BackupMap, Extents, FileEntry, FileKind, MapBuilder, PackRef
from pitr.repo.names import HistoryNames
from pitr.repo.packs import PackBody
from pitr.repo.repository import Repository, create_repository, open_repository
from pitr.restore.copy import FrameCopier, clear_holes
from pitr.restore.destination import MARKER, PENDING_CONTROL, relative_path
from pitr.restore.files import Buffer, FileWriter, differing
from pitr.restore.slices import jobs_of, slices_of
from pitr.restore.tree import extra_paths, make_directories, make_files, make_root, remove_extra
from pitr.store.memory import MemoryStore

BLOCK = 8192
NAMES = HistoryNames("shop", 42)
RELATION = "base/5/16384"


@dataclass
class Made:
    repository: Repository
    store: MemoryStore
    built: BackupMap
    content: dict[str, bytes]


def page(seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(BLOCK // 2) + bytes(BLOCK // 2)


def put_pack(repository: Repository, backup_id: str, number: int, frames: list[bytes]) -> PackRef:
    body = PackBody(repository, NAMES, backup_id, number)
    stored = [body.begin(), *(body.frame(frame) for frame in frames), body.finish()]
    repository.store.put(body.name, stored)
    return body.stored().ref


@pytest.fixture(scope="module")
def made() -> Made:
    """One relation over two packs with a hole in its middle, a second one whose pages are scattered, small files."""
    store = MemoryStore()
    secret = KeyFile(Secret(new_key_file_text()))
    create_repository(store, [secret], now=datetime.now(UTC), if_absent_works=True)
    repository = open_repository("main", store, secret)
    pages = [page(seed) for seed in range(400)]
    small, odd, control = b"hello\n", os.urandom(100_001), os.urandom(8192)
    old = put_pack(repository, "20260101T000000Z-0000", 0, [b"".join(pages[:100]), b"".join(pages[100:200])])
    mixed = small + odd + control
    new = put_pack(repository, "20260102T000000Z-1111", 0, [b"".join(pages[200:300]), mixed, b"".join(pages[300:400])])
    builder = MapBuilder(BLOCK)
    plain = {"mode": 0o600, "mtime_ns": 0, "inode": 0}

    def add(path: str, size: int, kind: FileKind, rows: list[tuple[int, int, int, int, int, int]]) -> None:
        builder.add_extents(builder.add_file(FileEntry(path, size, kind=kind, **plain)), Extents.rows(rows))

    # pages 0-99, then 100 of zeros, then 100 of the new pack, then the odd pages of an old frame
    scattered = [(300 + index, 1, 0, 1, (2 * index + 1) * BLOCK, 0) for index in range(50)]
    add(
        RELATION, 350 * BLOCK, FileKind.RELATION,
        [(0, 100, 0, 0, 0, 0), (100, 100, HOLE, 0, 0, 0), (200, 100, 1, 0, 0, 0), *scattered],
    )  # fmt: skip
    add("base/5/16385", 100 * BLOCK, FileKind.RELATION, [(0, 60, 1, 2, 40 * BLOCK, 0), (60, 40, 1, 2, 0, 0)])
    add("base/5/16386", 0, FileKind.RELATION, [])
    add("PG_VERSION", len(small), FileKind.OTHER, [(0, len(small), 1, 1, 0, 0)])
    add("pg_xact/0000", len(odd), FileKind.OTHER, [(0, len(odd), 1, 1, len(small), 0)])
    add("global/pg_control", 8192, FileKind.OTHER, [(0, 8192, 1, 1, len(small) + len(odd), 0)])
    builder.add_file(FileEntry("pg_notify", 0, kind=FileKind.DIRECTORY, mode=0o700, mtime_ns=0, inode=0))
    content = {
        RELATION: b"".join(
            [*pages[:100], bytes(100 * BLOCK), *pages[200:300], *(pages[100 + 2 * index + 1] for index in range(50))]
        ),
        "base/5/16385": b"".join([*pages[340:400], *pages[300:340]]),
        "base/5/16386": b"",
        "PG_VERSION": small,
        "pg_xact/0000": odd,
        PENDING_CONTROL: control,
    }
    return Made(repository, store, builder.build([old, new]), content)


def restore(made: Made, to: Path, *, delta: bool = False) -> int:
    columns, holes = slices_of(made.built)
    make_root(to, 0o700, None)
    make_directories(to, made.built, 0o700, None)
    make_files(to, made.built, None, keep=delta, threads=2)
    kinds = made.built.files["kind"]
    copier = FrameCopier(made.repository, NAMES, made.built, columns, silent)
    writer = FileWriter(
        str(to),
        lambda index: relative_path(made.built.path(index), int(kinds[index])),
        delta=delta,
        buffer_size=copier.buffer_size,
    )
    try:
        if delta:
            clear_holes(holes, writer, 2)
        copier.run(writer, 2)
    finally:
        writer.close()
    return writer.bytes_written


def assert_restored(made: Made, to: Path) -> None:
    for path, content in made.content.items():
        assert (to / path).read_bytes() == content, path
        assert (to / path).stat().st_mode & 0o777 == 0o600


def test_everything_arrives_where_it_belongs(made: Made, tmp_path: Path) -> None:
    to = tmp_path / "copy"
    written = restore(made, to)
    assert_restored(made, to)
    assert written == sum(len(content) for content in made.content.values()) - 100 * BLOCK
    assert (to / RELATION).stat().st_blocks * 512 <= 251 * BLOCK + 65536, "the hole takes space"
    assert (to / "pg_notify").is_dir()
    assert (to / "pg_wal" / "archive_status").is_dir()
    assert not (to / "global" / "pg_control").exists()


def test_delta_leaves_the_other_end_of_a_hard_link_alone(made: Made, tmp_path: Path) -> None:
    """After pg_upgrade --link the old data directory shares its files with the running server's."""
    to, live = tmp_path / "old", tmp_path / "live"
    restore(made, to)
    with (to / RELATION).open("r+b") as file:
        file.write(b"newer")
    os.link(to / RELATION, live)
    before = live.read_bytes()
    restore(made, to, delta=True)
    assert_restored(made, to)
    assert live.read_bytes() == before


def test_each_needed_frame_is_in_one_job(made: Made) -> None:
    columns, _holes = slices_of(made.built)
    jobs = list(jobs_of(made.built, columns))
    seen = [(job.pack, frame) for job in jobs for frame in range(job.first, job.last + 1)]
    assert len(seen) == len(set(seen))
    assert {(pack, frame) for pack, frame in zip(columns.pack.tolist(), columns.frame.tolist(), strict=True)} <= set(
        seen
    )
    assert [(job.start, job.stop) for job in jobs] == [
        (start, stop) for start, stop in zip([0, *(job.stop for job in jobs)], [job.stop for job in jobs], strict=False)
    ]
    assert jobs[-1].stop == len(columns)


def test_delta_writes_what_differs_and_nothing_else(made: Made, tmp_path: Path) -> None:
    to = tmp_path / "copy"
    restore(made, to)
    assert restore(made, to, delta=True) == 0
    relation = bytearray(made.content[RELATION])
    relation[5 * BLOCK + 17] ^= 1
    relation[150 * BLOCK] = 7  # in the hole
    (to / RELATION).write_bytes(relation + b"longer")
    (to / "base/5/16385").write_bytes(made.content["base/5/16385"][:-3])  # shorter
    (to / "pg_xact/0000").unlink()
    (to / "PG_VERSION").unlink()
    (to / "PG_VERSION").symlink_to("/etc/hostname")
    written = restore(made, to, delta=True)
    assert_restored(made, to)
    assert 0 < written <= 4096 + (1 << 20) + BLOCK + len(made.content["pg_xact/0000"]) + 6


def test_what_the_backup_does_not_have_is_found_and_removed(made: Made, tmp_path: Path) -> None:
    to, outside = tmp_path / "copy", tmp_path / "outside"
    restore(made, to)
    outside.mkdir()
    (outside / "precious").write_text("keep")
    (to / "base/5/99999").write_text("x")
    (to / "base/6/sub").mkdir(parents=True)
    (to / "base/6/sub/file").write_text("x")
    (to / "pg_wal/000000010000000000000001").write_text("x")
    (to / "link").symlink_to(outside)
    (to / "pg_tblspc/777").symlink_to(outside)
    (to / MARKER).write_text("{}")
    files, directories = extra_paths(to, made.built)
    assert sorted(files) == [
        "base/5/99999", "base/6/sub/file", "link", "pg_tblspc/777", "pg_wal/000000010000000000000001",
    ]  # fmt: skip
    assert directories == ["base/6/sub", "base/6"]
    assert remove_extra(to, files, directories) == 5
    assert (outside / "precious").exists()
    assert (to / MARKER).exists()
    assert extra_paths(to, made.built) == ([], [])
    assert_restored(made, to)


@pytest.mark.parametrize("where", ["first", "last"])
def test_a_flipped_bit_stops_the_restore(made: Made, tmp_path: Path, where: str) -> None:
    name = NAMES.backup("20260101T000000Z-0000").pack(0)
    data = bytearray(b"".join(made.store.get(name)))
    first = int(made.built.packs[0].stored_lengths[0])
    data[(96 + 40) if where == "first" else (96 + first + 40)] ^= 1
    other = MemoryStore()
    for info in made.store.list(""):
        other.put(info.name, [bytes(data)] if info.name == name else made.store.get(info.name))
    broken = Repository("main", other, made.repository.keyring, made.repository.descriptor)
    with pytest.raises(IntegrityError, match="frame"):
        restore(Made(broken, other, made.built, made.content), tmp_path / "copy")


def test_two_exchanged_packs_are_refused(made: Made, tmp_path: Path) -> None:
    old, new = (NAMES.backup(pack.backup_id).pack(pack.number) for pack in made.built.packs)
    other = MemoryStore()
    for info in made.store.list(""):
        source = {old: new, new: old}.get(info.name, info.name)
        other.put(info.name, made.store.get(source))
    broken = Repository("main", other, made.repository.keyring, made.repository.descriptor)
    with pytest.raises(IntegrityError):
        restore(Made(broken, other, made.built, made.content), tmp_path / "copy")


def test_paths_never_leave_the_directory() -> None:
    for path, kind in (
        ("../etc/passwd", FileKind.OTHER),
        ("/etc/passwd", FileKind.OTHER),
        ("base/../../x", FileKind.RELATION),
        ("base//x", FileKind.OTHER),
        ("etc/postgresql.conf", FileKind.CONFIG),
        ("/etc/../../postgresql.conf", FileKind.CONFIG),
    ):
        with pytest.raises(ManifestInvalid):
            relative_path(path, kind)
    assert relative_path("/etc/postgresql/15/main/x.conf", FileKind.CONFIG) == (
        "restored-config/etc/postgresql/15/main/x.conf"
    )


def test_a_map_that_reaches_outside_its_frames_is_refused(made: Made) -> None:
    builder = MapBuilder(BLOCK)
    entry = FileEntry("base/5/1", 2 * BLOCK, kind=FileKind.RELATION, mode=0o600, mtime_ns=0, inode=0)
    for row in ((0, 2, 0, 1, 99 * BLOCK, 0), (0, 2, 0, 2, 0, 0)):
        builder = MapBuilder(BLOCK)
        builder.add_extents(builder.add_file(entry), Extents.rows([row]))
        with pytest.raises(ManifestInvalid):
            slices_of(builder.build(made.built.packs))


@given(st.binary(max_size=40_000), st.lists(st.integers(0, 39_999), max_size=5))
def test_differing_finds_exactly_the_changed_blocks(wanted: bytes, positions: list[int]) -> None:
    existing = bytearray(wanted)
    touched = {position for position in positions if position < len(wanted)}
    for position in touched:
        existing[position] ^= 0xFF
    found = list(differing(np.frombuffer(existing, np.uint8), np.frombuffer(wanted, np.uint8)))
    covered = {block for start, stop in found for block in range(start // 4096, -(-stop // 4096))}
    assert covered == {position // 4096 for position in touched}
    assert all(start < stop <= len(wanted) for start, stop in found)


def test_direct_and_buffered_writes_mix(tmp_path: Path) -> None:
    """Unaligned memory, unaligned positions and odd ends of one file, written by the same writer."""
    source = Buffer(1 << 20)
    source.view[:] = os.urandom(1 << 20)
    size = 3 << 20
    expected = bytearray(size)
    (tmp_path / "f").write_bytes(bytes(size))
    writer = FileWriter(str(tmp_path), lambda _index: "f", delta=False, buffer_size=1 << 20)
    for position, offset, length in (
        (0, 0, 1 << 20),
        (1 << 20, 100, 200_000),
        ((1 << 20) + 200_000, 4096, 70_001),
        (2 << 20, 8192, 65_536),
        ((2 << 20) + 65_536, 3, 5),
    ):
        writer.write(0, position, source, offset, length)
        expected[position : position + length] = source.view[offset : offset + length]
    writer.close()
    assert (tmp_path / "f").read_bytes() == bytes(expected)
    assert writer.bytes_written == (1 << 20) + 200_000 + 70_001 + 65_536 + 5
