"""Which bytes of which frames go where: a map's extents, turned into work in the order of the packs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pitr.core.errors import ManifestInvalid
from pitr.repo.maps import HOLE, U32, U64, BackupMap, Extents, FileKind

_JOB_BYTES = 8 << 20
"""Stored bytes that one job fetches by one request, about."""
_FRAME_BITS, _OFFSET_BITS = 20, 24
"""Of a sort key; a frame has at most 16 MiB (FORMAT.md of the codec)."""
_CHECKED_AT_ONCE = 1 << 20
_GAP_BYTES = 512 << 10
"""Stored bytes that are fetched for nothing rather than ask a second time."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Parallel columns, sorted by pack, frame and offset: ``length`` bytes at ``offset`` of the plain frame belong at
    ``position`` of file ``file``. Neighbours in both frame and file are joined."""

    file: U32
    position: U64
    length: U32
    pack: U32
    frame: U32
    offset: U32

    def __len__(self) -> int:
        return len(self.file)


@dataclass(frozen=True, slots=True)
class Holes:
    """Ranges of zeros, in bytes."""

    file: U32
    position: U64
    length: U64


@dataclass(frozen=True, slots=True)
class Job:
    """Frames ``first`` to ``last`` of a pack, fetched by one request; the slices ``start`` to ``stop`` need them."""

    pack: int
    first: int
    last: int
    start: int
    stop: int


def slices_of(built: BackupMap) -> tuple[Slices, Holes]:
    """Raises ManifestInvalid when an extent lies outside its frame.

    Ten million extents pass through here: temporaries are few and short-lived.
    """
    extents = built.extents
    _require_inside_frames(built)
    counts = np.diff(built.extent_end, prepend=np.uint64(0)).astype(np.int64)
    owner = np.repeat(np.arange(built.file_count, dtype=np.uint32), counts)
    unit = np.where(built.files["kind"] == FileKind.RELATION, built.block_size, 1).astype(np.uint32)
    hole = np.flatnonzero(extents.pack == HOLE)
    holes = Holes(
        owner[hole],
        extents.first[hole] * unit[owner[hole]],
        extents.count[hole].astype(np.uint64) * unit[owner[hole]],
    )
    order = _in_pack_order(extents)
    columns = Slices(
        owner[order],
        extents.first[order] * unit[owner[order]],
        extents.count[order] * unit[owner[order]],
        extents.pack[order],
        extents.frame[order],
        extents.offset[order],
    )
    del owner, order
    return _joined(columns), holes


def _in_pack_order(extents: Extents) -> npt.NDArray[np.intp]:
    """Indexes of the extents that are no holes, by pack, frame and offset."""
    stored = np.flatnonzero(extents.pack != HOLE)
    key = extents.pack[stored].astype(np.uint64)
    key <<= np.uint64(_FRAME_BITS)
    key += extents.frame[stored]
    key <<= np.uint64(_OFFSET_BITS)
    key += extents.offset[stored]
    return stored[np.argsort(key, kind="stable")]


def _require_inside_frames(built: BackupMap) -> None:
    bases = np.zeros(len(built.packs) + 1, np.int64)
    np.cumsum([len(pack.plain_lengths) for pack in built.packs], out=bases[1:])
    plain = np.concatenate([pack.plain_lengths for pack in built.packs]) if built.packs else np.empty(0, np.uint32)
    if len(plain) and (int(plain.max()) > 1 << _OFFSET_BITS or int(np.diff(bases).max()) > 1 << _FRAME_BITS):
        raise ManifestInvalid("the map of the backup has frames or packs of an impossible size")
    unit = np.where(built.files["kind"] == FileKind.RELATION, built.block_size, 1).astype(np.uint64)
    for start in range(0, len(built.extents), _CHECKED_AT_ONCE):
        part = built.extents.slice(start, start + _CHECKED_AT_ONCE)
        owner = np.searchsorted(built.extent_end, np.arange(start, start + len(part)), side="right")
        stored = part.pack != HOLE
        pack, frame = part.pack[stored], part.frame[stored]
        index = bases[pack] + frame
        if (index >= bases[pack + 1]).any():
            raise ManifestInvalid("the map of the backup names frames that its packs do not have")
        if (part.offset[stored] + part.count[stored] * unit[owner[stored]] > plain[index]).any():
            raise ManifestInvalid("the map of the backup names bytes behind the end of a frame")


def _joined(columns: Slices) -> Slices:
    if not len(columns):
        return columns
    follows = (
        (columns.file[1:] == columns.file[:-1])
        & (columns.pack[1:] == columns.pack[:-1])
        & (columns.frame[1:] == columns.frame[:-1])
        & (columns.position[1:] == columns.position[:-1] + columns.length[:-1])
        & (columns.offset[1:] == columns.offset[:-1] + columns.length[:-1])
    )
    if not follows.any():
        return columns
    starts = np.concatenate((np.zeros(1, np.intp), np.flatnonzero(~follows) + 1))
    return Slices(
        columns.file[starts],
        columns.position[starts],
        np.add.reduceat(columns.length, starts).astype(np.uint32),
        columns.pack[starts],
        columns.frame[starts],
        columns.offset[starts],
    )


def jobs_of(built: BackupMap, columns: Slices) -> Iterator[Job]:
    """Every frame that is needed in exactly one job."""
    total = len(columns)
    if not total:
        return
    changes = (np.diff(columns.pack) != 0) | (np.diff(columns.frame) != 0)
    starts = np.concatenate((np.zeros(1, np.intp), np.flatnonzero(changes) + 1))
    packs, frames = columns.pack[starts].tolist(), columns.frame[starts].tolist()
    bounds = [*starts.tolist(), total]
    begin = 0
    size = 0
    for index, (pack, frame) in enumerate(zip(packs, frames, strict=True)):
        stored = built.packs[pack].stored_lengths
        if index > begin:
            gap = int(stored[frames[index - 1] + 1 : frame].sum()) if pack == packs[index - 1] else _GAP_BYTES + 1
            if gap > _GAP_BYTES or size + gap + int(stored[frame]) > _JOB_BYTES:
                yield Job(packs[begin], frames[begin], frames[index - 1], bounds[begin], bounds[index])
                begin, size = index, 0
            else:
                size += gap
        size += int(stored[frame])
    yield Job(packs[begin], frames[begin], frames[-1], bounds[begin], total)


def fetched_bytes(built: BackupMap, columns: Slices) -> int:
    """Stored bytes of the frames that are needed."""
    if not len(columns):
        return 0
    bases = np.zeros(len(built.packs) + 1, np.int64)
    np.cumsum([len(pack.stored_lengths) for pack in built.packs], out=bases[1:])
    stored = np.concatenate([pack.stored_lengths for pack in built.packs])
    return int(stored[np.unique(bases[columns.pack] + columns.frame)].sum(dtype=np.uint64))
