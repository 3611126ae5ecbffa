"""Map: building, coverage, bytes and back."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitr.codec import Cipher, ObjectKind, ObjectParams
from pitr.core.errors import FormatTooNew, ManifestInvalid
from pitr.repo.mapfile import decode_map, encode_map
from pitr.repo.maps import HOLE, BackupMap, ExtentFlag, Extents, FileEntry, FileFlag, FileKind, MapBuilder, PackRef
from pitr.repo.packs import pack_params

BLOCK = 8192


def pack(number: int = 0, frames: int = 3) -> PackRef:
    params = ObjectParams(
        kind=ObjectKind.PACK, salt=os.urandom(32), key_id="00112233445566ff", cipher=Cipher.AES_256_GCM
    )
    lengths = np.arange(1, frames + 1, dtype=np.uint32) * 1000
    return PackRef("20261123T041500Z-3fa2", number, 123456, params, lengths, lengths * 2)


def entry(path: str, size: int, kind: FileKind = FileKind.RELATION) -> FileEntry:
    return FileEntry(path=path, size=size, mode=0o600, mtime_ns=-5, inode=2**63, kind=kind)


def decode(built: BackupMap) -> BackupMap:
    return decode_map([bytes(chunk) for chunk in encode_map(built)], "x/map", pack_params)


def assert_equal(left: BackupMap, right: BackupMap) -> None:
    assert list(left.paths()) == list(right.paths())
    for index in range(left.file_count):
        assert left.file(index) == right.file(index)
        for column in ("first", "count", "pack", "frame", "offset", "flags"):
            ours, theirs = getattr(left.extents_of(index), column), getattr(right.extents_of(index), column)
            assert ours.tolist() == theirs.tolist()
    assert len(left.packs) == len(right.packs)
    for ours_pack, theirs_pack in zip(left.packs, right.packs, strict=True):
        assert ours_pack.params == theirs_pack.params
        assert (ours_pack.backup_id, ours_pack.number, ours_pack.size_bytes) == (
            theirs_pack.backup_id, theirs_pack.number, theirs_pack.size_bytes,
        )  # fmt: skip
        assert ours_pack.stored_lengths.tolist() == theirs_pack.stored_lengths.tolist()
        assert ours_pack.plain_lengths.tolist() == theirs_pack.plain_lengths.tolist()


def test_round_trip_with_everything() -> None:
    builder = MapBuilder(BLOCK)
    second = builder.add_file(entry("base/5/16384", 4 * BLOCK))
    builder.add_file(entry("base/5", 0, FileKind.DIRECTORY))
    other = builder.add_file(entry("PG_VERSION", 3, FileKind.OTHER))
    nasty = builder.add_file(entry("caf\udce9 \u263a", 1, FileKind.CONFIG))
    builder.add_extents(second, Extents.rows([(3, 1, HOLE, 0, 0, 0)]))
    builder.add_extents(second, Extents.rows([(0, 2, 1, 2, 8192, 0), (2, 1, 0, 1, 0, int(ExtentFlag.BAD))]))
    builder.add_extents(other, Extents.rows([(0, 3, 0, 0, 77, 0)]))
    builder.add_extents(nasty, Extents.rows([(0, 1, 0, 0, 80, 0)]))
    built = builder.build([pack(0), pack(1, 0), pack(2)])
    assert list(built.paths()) == ["PG_VERSION", "base/5", "base/5/16384", "caf\udce9 \u263a"]
    assert built.extents_of(2).first.tolist() == [0, 2, 3]
    assert built.extents_of(1).first.tolist() == []
    assert built.find("base/5/16384") == 2
    assert built.find("base/5/1638") is None
    assert built.find("zzz") is None
    assert built.total_bytes == 4 * BLOCK + 4
    assert_equal(built, decode(built))


def test_empty_map() -> None:
    built = MapBuilder(BLOCK).build([])
    assert decode(built).file_count == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 50), max_size=6), max_size=20), st.randoms(use_true_random=False))
def test_any_files_round_trip(shapes: list[list[int]], random: object) -> None:
    builder = MapBuilder(BLOCK)
    for number, counts in enumerate(shapes):
        handle = builder.add_file(entry(f"base/1/{number * 7919 % 101}.{number}", sum(counts) * BLOCK))
        starts = np.cumsum([0, *counts])[:-1].tolist()
        rows = [(start, count, 0, 1, 0, 0) for start, count in zip(starts, counts, strict=True)]
        random.shuffle(rows)  # type: ignore[attr-defined]
        for row in rows:
            builder.add_extents(handle, Extents.rows([row]))
    built = builder.build([pack()])
    assert_equal(built, decode(built))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(0, 1, 0, 0, 0, 0)], "cover"),
        ([(0, 1, 0, 0, 0, 0), (2, 1, 0, 0, 0, 0)], "gap"),
        ([(0, 2, 0, 0, 0, 0), (1, 1, 0, 0, 0, 0)], "overlap"),
        ([(0, 3, 0, 0, 0, 0)], "cover"),
        ([(1, 1, 0, 0, 0, 0)], "gap"),
        ([], "cover"),
        ([(0, 2, 5, 0, 0, 0)], "pack table"),
    ],
)
def test_wrong_coverage_is_refused(rows: list[tuple[int, int, int, int, int, int]], words: str) -> None:
    builder = MapBuilder(BLOCK)
    before = builder.add_file(entry("a", BLOCK))
    builder.add_extents(before, Extents.rows([(0, 1, 0, 0, 0, 0)]))
    handle = builder.add_file(entry("b", 2 * BLOCK))
    builder.add_extents(handle, Extents.rows(rows))
    with pytest.raises(ValueError, match=words):
        builder.build([pack()])


def test_damaged_or_newer_bytes_are_refused() -> None:
    builder = MapBuilder(BLOCK)
    handle = builder.add_file(entry("a", BLOCK))
    builder.add_extents(handle, Extents.rows([(0, 1, 0, 0, 0, 0)]))
    data = b"".join(bytes(chunk) for chunk in encode_map(builder.build([pack()])))
    for cut in (0, 7, 20, len(data) // 2, len(data) - 1):
        with pytest.raises(ManifestInvalid):
            decode_map([data[:cut]], "x/map", pack_params)
    with pytest.raises(ManifestInvalid):
        decode_map([data, b"more"], "x/map", pack_params)
    with pytest.raises(FormatTooNew):
        decode_map([data.replace(b'"format": 1', b'"format": 2')], "x/map", pack_params)


def test_flags_survive() -> None:
    builder = MapBuilder(BLOCK)
    flagged = FileEntry("a", 0, 0o600, 0, 1, FileKind.RELATION, FileFlag.PARTIAL_TAIL, 1663, 5, 16384, 0, 2)
    builder.add_file(flagged)
    assert decode(builder.build([])).file(0) == flagged
