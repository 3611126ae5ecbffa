"""The map of a backup: every file of the cluster and where each of its pages lies (FORMAT.md, "The map").

Columnar numpy arrays throughout: a million files and ten million extents fit in about half a gigabyte. Values are
immutable by convention once built.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from pitr.codec import ObjectParams

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

HOLE = 0xFFFFFFFF
"""``ext_pack`` of an extent of zeros."""


class FileKind(IntEnum):
    RELATION = 1
    OTHER = 2
    DIRECTORY = 3
    CONFIG = 4


class FileFlag(IntFlag):
    PARTIAL_TAIL = 1
    CHANGED = 2


class ExtentFlag(IntFlag):
    BAD = 1


FILE_COLUMNS: dict[str, type[np.generic]] = {
    "size": np.uint64, "mode": np.uint32, "mtime_ns": np.int64, "inode": np.uint64, "kind": np.uint8, "flags": np.uint8,
    "tablespace": np.uint32, "database": np.uint32, "relation": np.uint32, "fork": np.uint8, "segment": np.uint32,
}  # fmt: skip
EXTENT_COLUMNS: dict[str, type[np.generic]] = {
    "first": np.uint64, "count": np.uint32, "pack": np.uint32, "frame": np.uint32, "offset": np.uint32,
    "flags": np.uint8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file as a row, for building a map and for looking at one. ``size``: bytes to restore."""

    path: str
    size: int
    mode: int
    mtime_ns: int
    inode: int
    kind: FileKind
    flags: FileFlag = FileFlag(0)  # noqa: RUF009 - an immutable enum value
    tablespace: int = 0
    database: int = 0
    relation: int = 0
    fork: int = 0
    segment: int = 0


@dataclass(frozen=True, slots=True)
class Extents:
    """Parallel columns. Within a map: sorted by file, then by ``first``; ``first`` and ``count`` in pages or bytes."""

    first: U64
    count: U32
    pack: U32
    frame: U32
    offset: U32
    flags: U8

    def __len__(self) -> int:
        return len(self.first)

    def slice(self, start: int, stop: int) -> Extents:
        return Extents(*(getattr(self, name)[start:stop] for name in EXTENT_COLUMNS))

    def take(self, order: npt.NDArray[np.intp]) -> Extents:
        return Extents(*(getattr(self, name)[order] for name in EXTENT_COLUMNS))

    @classmethod
    def concatenate(cls, parts: Sequence[Extents]) -> Extents:
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in EXTENT_COLUMNS))

    @classmethod
    def empty(cls) -> Extents:
        return cls(*(np.empty(0, dtype) for dtype in EXTENT_COLUMNS.values()))

    @classmethod
    def rows(cls, rows: Sequence[tuple[int, int, int, int, int, int]]) -> Extents:
        """From (first, count, pack, frame, offset, flags) tuples."""
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(EXTENT_COLUMNS)
        return cls(*(np.array(column, dtype) for column, dtype in zip(columns, EXTENT_COLUMNS.values(), strict=True)))


@dataclass(frozen=True, slots=True)
class PackRef:
    """A pack attempt that extents point into. Offsets of its frames follow from header length and stored lengths."""

    backup_id: str
    number: int
    size_bytes: int
    params: ObjectParams
    stored_lengths: U32
    plain_lengths: U32


@dataclass(frozen=True, slots=True)
class BackupMap:
    """``extent_end[i]``: end of file i's extents in ``extents``; they begin where those of file i-1 end."""

    block_size: int
    path_bytes: U8
    path_end: U64
    files: dict[str, npt.NDArray[np.generic]]
    extent_end: U64
    extents: Extents
    packs: tuple[PackRef, ...]

    @property
    def file_count(self) -> int:
        return len(self.path_end)

    def path(self, index: int) -> str:
        start = int(self.path_end[index - 1]) if index else 0
        return bytes(self.path_bytes[start : int(self.path_end[index])]).decode("utf-8", "surrogateescape")

    def paths(self) -> Iterator[str]:
        blob = self.path_bytes.tobytes()
        start = 0
        for end in self.path_end.tolist():
            yield blob[start:end].decode("utf-8", "surrogateescape")
            start = end

    def file(self, index: int) -> FileEntry:
        values = {name: int(column[index]) for name, column in self.files.items()}
        return FileEntry(
            path=self.path(index),
            **{**values, "kind": FileKind(values["kind"]), "flags": FileFlag(values["flags"])},  # type: ignore[arg-type]
        )

    def extent_range(self, index: int) -> tuple[int, int]:
        return (int(self.extent_end[index - 1]) if index else 0), int(self.extent_end[index])

    def extents_of(self, index: int) -> Extents:
        return self.extents.slice(*self.extent_range(index))

    def find(self, path: str) -> int | None:
        """Index of a path by binary search (files are sorted by path bytes)."""
        wanted = path.encode("utf-8", "surrogateescape")
        low, high = 0, self.file_count
        while low < high:
            middle = (low + high) // 2
            start = int(self.path_end[middle - 1]) if middle else 0
            if self.path_bytes[start : int(self.path_end[middle])].tobytes() < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < self.file_count and self.path(low) == path else None

    @property
    def total_bytes(self) -> int:
        return int(self.files["size"].sum(dtype=np.uint64)) if self.file_count else 0


def unit_of(kind: FileKind, block_size: int) -> int:
    """Bytes of one unit of ``first`` and ``count`` for a file of this kind."""
    return block_size if kind is FileKind.RELATION else 1


class _Column:
    """A growing column without an object per value."""

    __slots__ = ("_dtype", "_values")

    def __init__(self, dtype: type[np.generic]) -> None:
        self._dtype = np.dtype(dtype)
        self._values = bytearray()

    def append(self, value: int) -> None:
        self._values += int(value).to_bytes(self._dtype.itemsize, sys.byteorder, signed=self._dtype.kind == "i")

    def extend(self, values: npt.NDArray[np.generic]) -> None:
        self._values += values.astype(self._dtype, copy=False).tobytes()

    def take(self, order: npt.NDArray[np.intp] | None) -> npt.NDArray[np.generic]:
        """The values in that order; the column is empty afterwards, so that its memory can go."""
        values = np.frombuffer(self._values, self._dtype)
        self._values = bytearray()
        return values if order is None else values[order]


class MapBuilder:
    """Collects files and extents in any order; build() sorts, checks coverage and makes the map. Not thread-safe."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._paths: list[bytes] = []
        self._files = {name: _Column(dtype) for name, dtype in FILE_COLUMNS.items()}
        self._extents = {name: _Column(dtype) for name, dtype in EXTENT_COLUMNS.items()}
        self._owners = _Column(np.uint32)

    def add_file(self, entry: FileEntry) -> int:
        """Returns the file's handle for add_extents."""
        self._paths.append(entry.path.encode("utf-8", "surrogateescape"))
        for name, column in self._files.items():
            column.append(getattr(entry, name))
        return len(self._paths) - 1

    def add_extents(self, handle: int, extents: Extents) -> None:
        """Extents of one file; several calls per file, in any order."""
        if len(extents):
            self._owners.extend(np.full(len(extents), handle, np.uint32))
            for name, column in self._extents.items():
                column.extend(getattr(extents, name))

    def add_owned_extents(self, handles: U32, extents: Extents) -> None:
        """Extents of many files in any order; ``handles[i]`` is the file of extent i."""
        self._owners.extend(handles)
        for name, column in self._extents.items():
            column.extend(getattr(extents, name))

    def build(self, packs: Sequence[PackRef]) -> BackupMap:
        """The map; the builder is empty afterwards.

        Raises ValueError when a file's extents do not cover exactly its size, each unit once.
        """
        paths, self._paths = self._paths, []
        order = np.array(sorted(range(len(paths)), key=paths.__getitem__), np.intp)
        files = {name: column.take(order) for name, column in self._files.items()}
        rank = np.empty(len(paths), np.uint32)
        rank[order] = np.arange(len(paths), dtype=np.uint32)
        owners = rank[self._owners.take(None).astype(np.uint32, copy=False)]
        first = self._extents["first"].take(None).astype(np.uint64, copy=False)
        extent_order = None if _is_sorted(owners, first) else np.lexsort((first, owners))
        if extent_order is not None:
            owners, first = owners[extent_order], first[extent_order]
        extent_end = np.searchsorted(owners, np.arange(len(paths)), side="right").astype(np.uint64)
        del owners
        rest = {name: column.take(extent_order) for name, column in self._extents.items() if name != "first"}
        lengths = np.fromiter((len(paths[index]) for index in order), np.uint64, len(paths))
        built = BackupMap(
            block_size=self.block_size,
            path_bytes=np.frombuffer(b"".join(paths[index] for index in order), np.uint8),
            path_end=np.cumsum(lengths, dtype=np.uint64),
            files=files,
            extent_end=extent_end,
            extents=Extents(first=first, **rest),  # type: ignore[arg-type]
            packs=tuple(packs),
        )
        check_coverage(built)
        return built


def _is_sorted(owners: U32, first: U64) -> bool:
    """By file, then by position: the usual case, which then costs no copy of ten million rows."""
    if len(owners) < 2:
        return True
    rises = owners[1:] > owners[:-1]
    rises |= (owners[1:] == owners[:-1]) & (first[1:] > first[:-1])
    return bool(rises.all())


def check_coverage(built: BackupMap) -> None:
    """Each file's extents follow one another without gap or overlap and end at its size. Raises ValueError."""
    if built.file_count == 0:
        return
    kind, size = built.files["kind"], built.files["size"].astype(np.uint64)
    unit = np.where(kind == FileKind.RELATION, built.block_size, 1).astype(np.uint64)
    counts = np.diff(built.extent_end, prepend=np.uint64(0)).astype(np.int64)
    if (counts < 0).any() or int(built.extent_end[-1]) != len(built.extents):
        raise ValueError("extent ranges are not in order")
    ends = built.extents.first + built.extents.count
    starts_file = np.zeros(len(built.extents) + 1, bool)
    begin = (built.extent_end - counts.astype(np.uint64)).astype(np.int64)
    starts_file[begin[counts > 0]] = True
    expected = np.where(starts_file[:-1], 0, np.concatenate((np.zeros(1, np.uint64), ends[:-1]))) if len(ends) else ends
    wrong = np.flatnonzero(expected != built.extents.first)
    if len(wrong):
        index = int(np.searchsorted(built.extent_end, wrong[0], side="right"))
        raise ValueError(f"{built.path(index)}: extents overlap or leave a gap at {int(built.extents.first[wrong[0]])}")
    covered = np.zeros(built.file_count, np.uint64)
    last = built.extent_end.astype(np.int64) - 1
    covered[counts > 0] = ends[last[counts > 0]]
    bad = np.flatnonzero(covered * unit != size)
    if len(bad):
        index = int(bad[0])
        raise ValueError(
            f"{built.path(index)}: extents cover {int(covered[index] * unit[index])} of {int(size[index])} bytes"
        )
    if len(built.extents):
        packs = built.extents.pack[built.extents.pack != HOLE]
        if len(packs) and int(packs.max()) >= len(built.packs):
            raise ValueError("an extent names a pack that is not in the pack table")
