"""From what was planned and what was read to the map of the backup."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pitr.base.copy import Copied, CopiedControl
from pitr.base.notes import FailedPage
from pitr.base.plan import Plan
from pitr.pg.lsn import Lsn
from pitr.repo.manifest import BadPages, Sizes
from pitr.repo.maps import BackupMap, Extents, FileEntry, FileFlag, FileKind, MapBuilder, unit_of
from pitr.repo.packs import StoredPack


@dataclass(frozen=True, slots=True)
class Outcome:
    """``packs``: all of this backup, by number. ``bad_pages``: by path, those that WAL replay will not replace."""

    map: BackupMap
    packs: tuple[StoredPack, ...]
    bad_pages: tuple[BadPages, ...]
    sizes: Sizes


def assemble(plan: Plan, copied: Copied, control: CopiedControl, start_lsn: Lsn, stop_lsn: Lsn) -> Outcome:
    """The map of a full backup. Raises ValueError (a bug) when extents do not cover a file."""
    packs = (*copied.packs, control.pack)
    builder = MapBuilder(plan.source.block_size)
    handles = np.full(len(plan.entries), np.iinfo(np.uint32).max, np.uint32)
    files = 0
    for index, entry in enumerate(plan.entries):
        if index in copied.notes.vanished:
            continue
        handles[index] = builder.add_file(_as_read(index, entry, plan, copied, control))
        files += entry.kind is not FileKind.DIRECTORY
    owners, extents = _trimmed(plan, copied)
    builder.add_owned_extents(handles[owners], extents)
    builder.add_extents(int(handles[plan.control]), control.extents)
    built = builder.build([pack.ref for pack in packs])
    stored = sum(pack.ref.size_bytes for pack in packs)
    plain = sum(int(pack.ref.plain_lengths.sum(dtype=np.int64)) for pack in packs)
    sizes = Sizes(files, built.total_bytes, copied.read_bytes + control.size, plain, stored, 0)
    return Outcome(built, packs, bad_pages(plan, copied, start_lsn, stop_lsn), sizes)


def _as_read(index: int, entry: FileEntry, plan: Plan, copied: Copied, control: CopiedControl) -> FileEntry:
    notes = copied.notes
    if index == plan.control:
        return replace(entry, size=control.size)
    if not (index in notes.ends or index in notes.sizes or index in notes.changed or index in notes.partial):
        return entry
    size = min(notes.sizes.get(index, entry.size), notes.ends.get(index, entry.size))
    if index in notes.sizes:
        size = notes.sizes[index]
    flags = entry.flags
    if index in notes.changed:
        flags |= FileFlag.CHANGED
    if index in notes.partial:
        flags |= FileFlag.PARTIAL_TAIL
    return replace(entry, size=size, flags=flags)


def _trimmed(plan: Plan, copied: Copied) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint32]], Extents]:
    """Without the extents of vanished files and what lies behind the end of a file that became shorter.

    A truncation is replayed from WAL, and so is whatever was written behind it afterwards.
    """
    notes, owners, extents = copied.notes, copied.owners, copied.extents
    if not notes.vanished and not notes.ends:
        return owners, extents
    limits = np.full(len(plan.entries), np.iinfo(np.uint64).max, np.uint64)
    for index, end in notes.ends.items():
        limits[index] = end // unit_of(plan.entries[index].kind, plan.source.block_size)
    limits[list(notes.vanished)] = 0
    limit = limits[owners]
    keep = extents.first < limit
    owners, limit = owners[keep], limit[keep]
    extents = extents.take(np.flatnonzero(keep))
    count = np.minimum(extents.count.astype(np.uint64), limit - extents.first).astype(np.uint32)
    return owners, replace(extents, count=count)


def bad_pages(plan: Plan, copied: Copied, start_lsn: Lsn, stop_lsn: Lsn) -> tuple[BadPages, ...]:
    """Pages that fail their checksum and that recovery will not write anew.

    A page last written after the backup began is in the WAL of the backup as a whole (full-page writes are on while a
    backup runs), so that a torn one does no harm; pg_basebackup passes those over too. An LSN behind the stop position
    cannot be genuine.
    """
    blocks: dict[int, list[int]] = {}
    notes = copied.notes
    for page in notes.failed_pages:
        end = notes.ends.get(page.file, plan.entries[page.file].size)
        beyond = page.block * plan.source.block_size >= end
        if page.file not in notes.vanished and not beyond and not _replayed(page, start_lsn, stop_lsn):
            blocks.setdefault(page.file, []).append(page.block)
    found = [BadPages(plan.entries[file].path, tuple(sorted(set(numbers)))) for file, numbers in blocks.items()]
    return tuple(sorted(found, key=lambda bad: bad.path))


def _replayed(page: FailedPage, start_lsn: Lsn, stop_lsn: Lsn) -> bool:
    return start_lsn <= page.lsn <= stop_lsn
