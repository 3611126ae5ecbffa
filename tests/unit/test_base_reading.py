"""Jobs, layout of pages in frames, and reading files into packs, on files made for the purpose."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitr.base.cachestate import CacheKeeper, is_cached
from pitr.base.copy import Copied
from pitr.base.extents import ExtentLog
from pitr.base.jobs import BUNDLE_BYTES, Bundle, Slice, cut_jobs
from pitr.base.layout import HOLE_PAGES, Part, holes, pieces, regions, runs
from pitr.base.notes import FailedPage, Notes
from pitr.base.outcome import bad_pages
from pitr.base.pace import Progress, RateLimit
from pitr.base.plan import Plan
from pitr.base.read import ByteReader, PageReader, Source, Taken
from pitr.core.events import Advanced, Event
from pitr.core.pool import Cancelled, Stop
from pitr.pg.lsn import Lsn
from pitr.pg.pages import PageChecker
from pitr.repo.maps import HOLE, ExtentFlag, Extents, FileEntry, FileKind, PackRef
from pitr.repo.names import HistoryNames
from pitr.repo.packs import PackBody
from tests.support.archive import memory_repository

BLOCK = 8192
MIB = 1 << 20


def entry(path: str, size: int, kind: FileKind = FileKind.RELATION, segment: int = 0) -> FileEntry:
    return FileEntry(path, size, 0o600, 0, 0, kind, segment=segment)


def page(block: int, lsn: int = 0x1000000, fill: int = 1) -> bytes:
    """A page with a right checksum."""
    data = np.zeros(BLOCK // 2, "<u2")
    data[200:] = fill + block % 1000
    words = data.view("<u4")
    words[0], words[1] = lsn >> 32, lsn & 0xFFFFFFFF
    data[7] = 100  # pd_upper
    data[4] = PageChecker(BLOCK).checksums(data.tobytes(), block)[0]
    return data.tobytes()


class Reading:
    """Readers on a directory, and the frames that they make."""

    def __init__(self, root: Path, entries: list[FileEntry], *, checksums: bool = True) -> None:
        self.extents, self.notes = ExtentLog(), Notes()
        self.read_bytes = 0
        source = Source(entries, lambda one: str(root / one.path), BLOCK, 131072, checksums)
        taken = Taken(self.extents, self.notes, self._account)
        self.pages, self.others = PageReader(source, taken), ByteReader(source, taken)
        self.pack = _Frames()

    def _account(self, size_bytes: int) -> None:
        self.read_bytes += size_bytes

    def run(self, job: Slice | Bundle, relation: bool = True) -> None:
        reader = self.pages if relation else self.others
        body = self.pack.body
        for _ in reader.slice(body, job) if isinstance(job, Slice) else reader.bundle(body, job):  # type: ignore[arg-type]
            pass

    def rows(self, file: int) -> list[tuple[int, int, int, int]]:
        """(first, count, frame or -1 for a hole, flags) of one file."""
        owners, extents = ExtentLog.joined([self.extents])
        return [
            (
                int(extents.first[row]),
                int(extents.count[row]),
                -1 if extents.pack[row] == HOLE else int(extents.frame[row]),
                int(extents.flags[row]),
            )
            for row in np.flatnonzero(owners == file)
        ]

    def content(self, file: int, unit: int = BLOCK) -> bytes:
        owners, extents = ExtentLog.joined([self.extents])
        data = bytearray()
        for row in np.flatnonzero(owners == file):
            size, offset = int(extents.count[row]) * unit, int(extents.offset[row])
            assert int(extents.first[row]) * unit == len(data)
            frame = self.pack.plain[int(extents.frame[row])]
            data += bytes(size) if extents.pack[row] == HOLE else frame[offset : offset + size]
        return bytes(data)


class _Frames:
    """Stands in for a pack: remembers plain frames."""

    def __init__(self) -> None:
        self.plain: list[bytes] = []
        self.body = self
        self.number = 0

    @property
    def frames(self) -> int:
        return len(self.plain)

    def frame(self, plain: memoryview) -> bytes:
        assert 0 < len(plain) <= MIB
        self.plain.append(bytes(plain))
        return b"sealed"


def test_jobs_put_big_slices_first_and_bundle_the_rest() -> None:
    entries = [
        entry("small", 3 * BLOCK),
        entry("big", 5 * MIB),
        entry("log", 2 * MIB + 5, FileKind.OTHER),
        entry("conf", 10, FileKind.OTHER),
        entry("empty", 0),
        entry("empty.conf", 0, FileKind.OTHER),
        entry("directory", 0, FileKind.DIRECTORY),
    ]
    jobs = list(cut_jobs(entries, range(len(entries)), 2 * MIB))
    assert jobs == [
        Slice(1, 0, 2 * MIB),
        Slice(1, 2 * MIB, 2 * MIB),
        Slice(2, 0, 2 * MIB),
        Slice(1, 4 * MIB, MIB),
        Slice(2, 2 * MIB, 5),
        Bundle((0,), True),
        Bundle((3, 5), False),
    ]


@given(st.lists(st.integers(0, 3 * MIB), max_size=60), st.booleans())
def test_jobs_cover_every_byte_once(sizes: list[int], relation: bool) -> None:
    unit = BLOCK if relation else 1
    kind = FileKind.RELATION if relation else FileKind.OTHER
    entries = [entry(str(number), size // unit * unit, kind) for number, size in enumerate(sizes)]
    covered = [0] * len(entries)
    for job in cut_jobs(entries, range(len(entries)), MIB):
        if isinstance(job, Slice):
            assert job.start == covered[job.file] or job.start % MIB == 0
            covered[job.file] += job.size
        else:
            assert sum(entries[file].size for file in job.files) <= BUNDLE_BYTES
            for file in job.files:
                covered[file] += entries[file].size
    assert covered == [one.size for one in entries]


@given(st.lists(st.booleans(), max_size=300))
def test_runs(mask: list[bool]) -> None:
    found = runs(np.array(mask, np.bool_))
    again = np.zeros(len(mask), np.bool_)
    for start, stop in found:
        assert start < stop
        again[start:stop] = True
    assert again.tolist() == mask
    assert all(first[1] < second[0] for first, second in pairwise(found))


@given(st.data())
def test_layout_covers_each_page_once(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=5))
    total = sum(counts)
    zero, bad = np.zeros(total, np.bool_), np.zeros(total, np.bool_)
    for start, length in data.draw(st.lists(st.tuples(st.integers(0, total), st.integers(1, 150)), max_size=4)):
        zero[start : start + length] = True
    for start in data.draw(st.lists(st.integers(0, total - 1), max_size=6)):
        bad[start] = not zero[start]
    ats = np.cumsum([0, *counts[:-1]]).tolist()
    parts = [Part(file, 1000 * file, count, at) for file, (count, at) in enumerate(zip(counts, ats, strict=True))]
    position = 0
    for start, stop, hole in regions(total, holes(parts, zero), 128):
        assert start == position
        assert stop - start <= 128 or hole
        assert not hole or (zero[start:stop].all() and stop - start >= HOLE_PAGES)
        for piece in pieces(parts, ats, start, stop, None if hole else bad):
            part = parts[piece.file]
            assert piece.start == position
            assert piece.first - part.first == piece.start - part.at
            assert part.at <= piece.start < piece.stop <= part.at + part.count
            assert hole or (bad[piece.start : piece.stop] == piece.bad).all()
            position = piece.stop
        assert position == stop
    assert position == total


def test_a_file_is_cut_into_frames_of_one_mib(tmp_path: Path) -> None:
    data = b"".join(page(block) for block in range(700))
    (tmp_path / "a").write_bytes(data)
    reading = Reading(tmp_path, [entry("a", len(data))])
    reading.run(Slice(0, 0, len(data)))
    assert [row[:3] for row in reading.rows(0)] == [
        *((128 * frame, 128, frame) for frame in range(5)),
        (640, 60, 5),
    ]
    assert reading.content(0) == data
    assert reading.read_bytes == len(data)
    assert not reading.notes.failed_pages


def test_small_files_share_frames_and_are_checked_by_their_own_numbers(tmp_path: Path) -> None:
    sizes = [1, 60, 100, 2, 127]
    entries = []
    for number, count in enumerate(sizes):
        segment = number % 2
        data = b"".join(page(131072 * segment + block) for block in range(count))
        (tmp_path / str(number)).write_bytes(data)
        entries.append(entry(str(number), len(data), segment=segment))
    reading = Reading(tmp_path, entries)
    reading.run(Bundle(tuple(range(len(sizes))), True))
    assert not reading.notes.failed_pages
    assert [len(frame) // BLOCK for frame in reading.pack.plain] == [128, 128, 34]
    for number in range(len(sizes)):
        assert reading.content(number) == (tmp_path / str(number)).read_bytes()


def test_long_runs_of_zeros_are_holes_and_short_ones_are_not(tmp_path: Path) -> None:
    data = bytearray(b"".join(page(block) for block in range(300)))
    data[10 * BLOCK : 20 * BLOCK] = bytes(10 * BLOCK)
    data[100 * BLOCK : 200 * BLOCK] = bytes(100 * BLOCK)
    (tmp_path / "a").write_bytes(data)
    reading = Reading(tmp_path, [entry("a", len(data))])
    reading.run(Slice(0, 0, len(data)))
    assert [row[:3] for row in reading.rows(0)] == [(0, 100, 0), (100, 100, -1), (200, 100, 1)]
    assert reading.content(0) == data


def test_a_hole_goes_on_over_several_reads(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(20 * MIB)
    reading = Reading(tmp_path, [entry("a", 20 * MIB)])
    reading.run(Slice(0, 0, 20 * MIB))
    assert reading.rows(0) == [(0, 2560, -1, 0)]
    assert reading.pack.plain == []


def test_bad_pages_are_extents_of_their_own(tmp_path: Path) -> None:
    data = bytearray(b"".join(page(block) for block in range(200)))
    for block in (5, 6, 130):
        data[block * BLOCK + 4000] ^= 1
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(data[5 * BLOCK : 6 * BLOCK])
    reading = Reading(tmp_path, [entry("a", len(data)), entry("b", BLOCK)])
    reading.run(Slice(0, 0, len(data)))
    reading.run(Bundle((1,), True))
    bad = int(ExtentFlag.BAD)
    assert reading.rows(0) == [
        (0, 5, 0, 0),
        (5, 2, 0, bad),
        (7, 121, 0, 0),
        (128, 2, 1, 0),
        (130, 1, 1, bad),
        (131, 69, 1, 0),
    ]
    assert reading.content(0) == data
    found = [(failed.file, failed.block) for failed in reading.notes.failed_pages]
    assert found == [(0, 5), (0, 6), (0, 130), (1, 0)]

    unchecked = Reading(tmp_path, [entry("a", len(data))], checksums=False)
    unchecked.run(Slice(0, 0, len(data)))
    assert unchecked.notes.failed_pages == []


def test_vanished_short_and_torn_files(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"".join(page(block) for block in range(3)) + b"x" * 100)
    reading = Reading(tmp_path, [entry("gone", BLOCK), entry("short", 10 * BLOCK), entry("gone-too", 2 * MIB)])
    reading.run(Bundle((0, 1), True))
    reading.run(Slice(2, 0, 2 * MIB))
    assert reading.notes.vanished == {0, 2}
    assert reading.notes.ends == {1: 3 * BLOCK}
    assert reading.notes.partial == {1}
    assert reading.rows(1) == [(0, 3, 0, 0)]


def test_other_files_are_taken_as_they_are_now(tmp_path: Path) -> None:
    texts = {"same": b"a" * 100, "longer": b"b" * 300, "shorter": b"c" * 5, "long": os.urandom(MIB + 77)}
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
    planned = [entry(name, 100, FileKind.OTHER) for name in (*texts, "gone")]
    status = (tmp_path / "same").stat()
    planned[0] = FileEntry("same", 100, 0o600, status.st_mtime_ns, status.st_ino, FileKind.OTHER)
    reading = Reading(tmp_path, planned)
    reading.run(Bundle(tuple(range(5)), False), relation=False)
    for number, text in enumerate(texts.values()):
        assert reading.content(number, unit=1) == text
        assert reading.notes.sizes[number] == len(text)
    assert reading.notes.changed == {1, 2, 3}
    assert reading.notes.vanished == {4}

    big = Reading(tmp_path, [entry("long", 3 * MIB, FileKind.OTHER)])
    big.run(Slice(0, 0, 3 * MIB), relation=False)
    assert big.content(0, unit=1) == texts["long"]
    assert big.notes.ends == {0: MIB + 77}


def test_pages_that_wal_will_replace_are_not_bad() -> None:
    start, stop = Lsn(1000), Lsn(2000)
    failed = [FailedPage(0, block, Lsn(lsn)) for block, lsn in enumerate((999, 1000, 2000, 2001))]
    failed += [FailedPage(0, 9, Lsn(0)), FailedPage(1, 0, Lsn(0))]
    notes = Notes(vanished={1}, ends={0: 9 * BLOCK}, failed_pages=failed)
    entries = [entry("a", 20 * BLOCK), entry("b", BLOCK)]
    plan = Plan(Source(entries, lambda one: one.path, BLOCK, 131072, True), entries, {}, 0)
    copied = Copied(np.empty(0, np.uint32), Extents.empty(), notes, (), 0)
    assert [(bad.path, bad.blocks) for bad in bad_pages(plan, copied, start, stop)] == [("a", (0, 3))]


def test_what_was_not_cached_is_dropped_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(os.urandom(MIB))
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    try:
        CacheKeeper(fd, 0, MIB).done(0, MIB)
        assert is_cached(fd, 0, MIB).all()  # it was there before
        os.posix_fadvise(fd, 0, MIB, os.POSIX_FADV_DONTNEED)
        before = is_cached(fd, 0, MIB)
        keeper = CacheKeeper(fd, 0, MIB)
        os.pread(fd, MIB, 0)
        keeper.done(0, MIB)
        assert is_cached(fd, 0, MIB).tolist() == before.tolist()
    finally:
        os.close(fd)


def test_rate_limit_waits_and_ends_with_the_copy() -> None:
    limit = RateLimit(1 << 30)
    limit.take(1 << 20, Stop())
    stop = Stop()
    stop.set()
    slow = RateLimit(10)
    with pytest.raises(Cancelled):
        slow.take(1000, stop)
    RateLimit(None).take(1 << 60, stop)


def test_progress_reports_everything_in_few_events() -> None:
    events: list[Event] = []
    progress = Progress(events.append, "copy")
    for _ in range(10000):
        progress.add(3)
    progress.flush()
    assert sum(event.delta_bytes for event in events if isinstance(event, Advanced)) == 30000
    assert len(events) < 20


def test_a_pack_written_by_a_reader_is_read_back(tmp_path: Path) -> None:
    repository = memory_repository(sealed=True)
    names = HistoryNames("shop", 1)
    data = b"".join(page(block) for block in range(300))
    (tmp_path / "a").write_bytes(data)
    reading = Reading(tmp_path, [entry("a", len(data))])
    body = PackBody(repository, names, "20260101T000000Z-0000", 0)
    stored = [body.begin(), *reading.pages.slice(body, Slice(0, 0, len(data))), body.finish()]
    repository.store.put(body.name, stored)
    ref: PackRef = body.stored().ref
    assert ref.size_bytes == sum(map(len, stored))
    assert ref.plain_lengths.tolist() == [MIB, MIB, 44 * BLOCK]
