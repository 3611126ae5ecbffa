"""Reading files of the cluster into frames of a pack: pages checked and laid out, other files byte by byte."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pitr.base.cachestate import CacheKeeper
from pitr.base.extents import ExtentLog
from pitr.base.jobs import Bundle, Slice
from pitr.base.layout import Bools, Part, holes, pieces, regions
from pitr.base.notes import FailedPage, Notes
from pitr.codec import DEFAULT_FRAME_SIZE
from pitr.core.errors import PitrError
from pitr.pg.lsn import Lsn
from pitr.pg.pages import PageCheck, PageChecker
from pitr.repo.maps import ExtentFlag, FileEntry
from pitr.repo.packs import PackBody

READ_BYTES = 4 << 20
"""The page check is vectorised and needs long buffers."""
OTHER_GROWTH_BYTES = 16 << 20
"""How much longer than planned a small file may have become and still be taken whole (a file replaced by another)."""
_REREADS = (0.0, 0.01, 0.05, 0.1)
_PATIENT_PAGES = 1000
"""So many bad pages are given time to become whole; behind that it is the disk, and no torn read."""


class SourceUnreadable(PitrError):
    """A file of the data directory cannot be read."""

    code = "source-unreadable"
    exit_code = 21


@dataclass(frozen=True, slots=True)
class Source:
    """Where the planned files are and how their pages look. ``path_of`` gives the path to open."""

    entries: Sequence[FileEntry]
    path_of: Callable[[FileEntry], str]
    block_size: int
    relation_segment_blocks: int
    checksums: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """What a reader leaves behind, and the hooks it calls: ``account`` with the bytes of each read, which may wait
    (rate limit) or raise Cancelled."""

    extents: ExtentLog
    notes: Notes
    account: Callable[[int], None]


@contextlib.contextmanager
def opened(path: str) -> Iterator[int | None]:
    """A file descriptor for reading; None when the file is gone. Raises SourceUnreadable for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def unreadable(path: str, error: OSError) -> SourceUnreadable:
    return SourceUnreadable(
        f"cannot read {path}: {os.strerror(error.errno or 0)}",
        hint="run the backup as the operating system user that owns the data directory",
    )


def read_into(fd: int, path: str, view: memoryview, offset: int) -> int:
    """Fill view from the file; fewer bytes only at its end."""
    done = 0
    while done < len(view):
        try:
            count = os.preadv(fd, [view[done:]], offset + done)
        except OSError as error:
            raise unreadable(path, error) from error
        if count == 0:
            break
        done += count
    return done


class PageReader:
    """Relation files. One for each worker: it owns a buffer that every frame is cut from."""

    def __init__(self, source: Source, taken: Taken) -> None:
        self._source = source
        self._taken = taken
        self._block_size = source.block_size
        self._checker = PageChecker(source.block_size, verify=source.checksums)
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._frame_pages = DEFAULT_FRAME_SIZE // source.block_size

    def slice(self, pack: PackBody, job: Slice) -> Iterator[bytes]:
        path = self._source.path_of(self._source.entries[job.file])
        with opened(path) as fd:
            if fd is None:
                self._taken.notes.vanished.add(job.file)
                return
            keeper = CacheKeeper(fd, job.start, job.size)
            end = job.start + job.size
            for start in range(job.start, end, READ_BYTES):
                wanted = min(READ_BYTES, end - start)
                count = self._read(fd, path, job.file, start, wanted, 0)
                if count:
                    yield from self._frames(pack, [Part(job.file, start // self._block_size, count, 0)], count)
                    keeper.done(start, count * self._block_size)
                if count * self._block_size < wanted:
                    return

    def bundle(self, pack: PackBody, job: Bundle) -> Iterator[bytes]:
        parts: list[Part] = []
        used = 0
        for file in job.files:
            entry = self._source.entries[file]
            path = self._source.path_of(entry)
            with opened(path) as fd:
                if fd is None:
                    self._taken.notes.vanished.add(file)
                    continue
                count = self._read(fd, path, file, 0, entry.size, used * self._block_size)
            if count:
                parts.append(Part(file, 0, count, used))
                used += count
        if used:
            yield from self._frames(pack, parts, used)

    def _read(self, fd: int, path: str, file: int, start: int, wanted: int, at: int) -> int:
        """Whole pages read into the buffer from byte ``at`` on."""
        size = read_into(fd, path, self._buffer[at : at + wanted], start)
        self._taken.account(size)
        pages, rest = divmod(size, self._block_size)
        if rest:
            self._taken.notes.partial.add(file)
        if size < wanted:
            self._taken.notes.ended(file, start + pages * self._block_size)
        return pages

    def _frames(self, pack: PackBody, parts: Sequence[Part], count: int) -> Iterator[bytes]:
        view = self._buffer[: count * self._block_size]
        check = self._checker.check(view, self._block_numbers(parts))
        bad = None if check.all_ok else self._reread(parts, check)
        starts = [part.at for part in parts]
        log, size = self._taken.extents, self._block_size
        for start, stop, hole in regions(count, holes(parts, check.zero), self._frame_pages):
            for piece in pieces(parts, starts, start, stop, None if hole else bad):
                length = piece.stop - piece.start
                if hole:
                    log.add_hole(piece.file, piece.first, length)
                else:
                    flags = int(ExtentFlag.BAD) if piece.bad else 0
                    offset = (piece.start - start) * size
                    log.add(piece.file, piece.first, length, pack.number, pack.frames, offset, flags)
            if not hole:
                yield pack.frame(view[start * size : stop * size])

    def _block_numbers(self, parts: Sequence[Part]) -> int | np.ndarray[tuple[int], np.dtype[np.uint32]]:
        firsts = [self._first_block(part.file) + part.first for part in parts]
        if len(parts) == 1:
            return firsts[0]
        numbers = [
            np.arange(first, first + part.count, dtype=np.uint32) for first, part in zip(firsts, parts, strict=True)
        ]
        return np.concatenate(numbers)

    def _first_block(self, file: int) -> int:
        return self._source.entries[file].segment * self._source.relation_segment_blocks

    def _reread(self, parts: Sequence[Part], check: PageCheck) -> Bools | None:
        """Read failing pages again: the server may have been writing them. What stays bad is noted.

        None when all of them became whole.
        """
        bad: Bools = ~check.ok
        for pause in _REREADS:
            if len(self._taken.notes.failed_pages) < _PATIENT_PAGES:
                time.sleep(pause)
            for part in parts:
                failing = np.flatnonzero(bad[part.at : part.at + part.count])
                if len(failing):
                    self._reread_part(part, failing.tolist(), bad, check)
            if not bad.any():
                return None
        for part in parts:
            for index in np.flatnonzero(bad[part.at : part.at + part.count]).tolist():
                lsn = Lsn(int(check.lsn[part.at + index]))
                self._taken.notes.failed_pages.append(FailedPage(part.file, part.first + index, lsn))
        return bad

    def _reread_part(self, part: Part, failing: Sequence[int], bad: Bools, check: PageCheck) -> None:
        path = self._source.path_of(self._source.entries[part.file])
        size = self._block_size
        with opened(path) as fd:
            if fd is None:
                self._taken.notes.vanished.add(part.file)
                return
            for index in failing:
                page = self._buffer[(part.at + index) * size : (part.at + index + 1) * size]
                if read_into(fd, path, page, (part.first + index) * size) < size:
                    self._taken.notes.ended(part.file, (part.first + index) * size)
                    continue
                again = self._checker.check(page, self._first_block(part.file) + part.first + index)
                bad[part.at + index] = not again.ok[0]
                check.zero[part.at + index] = again.zero[0]
                check.lsn[part.at + index] = again.lsn[0]


class ByteReader:
    """Files that are not relations'. Small ones are taken whole as they are now, big ones up to their planned size."""

    def __init__(self, source: Source, taken: Taken) -> None:
        self._source = source
        self._taken = taken
        self._buffer = memoryview(bytearray(DEFAULT_FRAME_SIZE))

    def slice(self, pack: PackBody, job: Slice) -> Iterator[bytes]:
        path = self._source.path_of(self._source.entries[job.file])
        notes = self._taken.notes
        with opened(path) as fd:
            if fd is None:
                notes.vanished.add(job.file)
                return
            keeper = CacheKeeper(fd, job.start, job.size)
            end = job.start + job.size
            for start in range(job.start, end, len(self._buffer)):
                wanted = min(len(self._buffer), end - start)
                size = read_into(fd, path, self._buffer[:wanted], start)
                self._taken.account(size)
                if size:
                    self._taken.extents.add(job.file, start, size, pack.number, pack.frames, 0)
                    yield pack.frame(self._buffer[:size])
                    keeper.done(start, size)
                if size < wanted:
                    notes.ended(job.file, start + size)
                    notes.changed.add(job.file)
                    return

    def bundle(self, pack: PackBody, job: Bundle) -> Iterator[bytes]:
        used = 0
        for file in job.files:
            path = self._source.path_of(self._source.entries[file])
            with opened(path) as fd:
                if fd is None:
                    self._taken.notes.vanished.add(file)
                    continue
                position, limit = 0, self._limit(fd, file)
                while position < limit:
                    room = min(len(self._buffer) - used, limit - position)
                    size = read_into(fd, path, self._buffer[used : used + room], position)
                    if size:
                        self._taken.account(size)
                        self._taken.extents.add(file, position, size, pack.number, pack.frames, used)
                    used += size
                    position += size
                    if used == len(self._buffer):
                        yield pack.frame(self._buffer)
                        used = 0
                    if size < room:
                        break
                self._finish(fd, file, position)
        if used:
            yield pack.frame(self._buffer[:used])

    def _limit(self, fd: int, file: int) -> int:
        return max(self._source.entries[file].size, min(os.fstat(fd).st_size, OTHER_GROWTH_BYTES))

    def _finish(self, fd: int, file: int, size: int) -> None:
        entry, now = self._source.entries[file], os.fstat(fd)
        if (entry.size, entry.mtime_ns, entry.inode) != (
            now.st_size,
            now.st_mtime_ns,
            now.st_ino,
        ) or size != entry.size:
            self._taken.notes.changed.add(file)
        self._taken.notes.sizes[file] = size
