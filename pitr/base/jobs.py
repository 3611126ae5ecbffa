"""The copy's work, cut so that workers end together: slices of big files first, then bundles of small ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pitr.repo.maps import FileEntry, FileKind

SMALL_BYTES = 1 << 20
BUNDLE_BYTES = 4 << 20
BUNDLE_FILES = 256


@dataclass(frozen=True, slots=True)
class Slice:
    """``start`` and ``size`` in bytes; of a relation file whole pages."""

    file: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """Whole small files, all of relations (pages) or none; at most BUNDLE_BYTES by the plan."""

    files: tuple[int, ...]
    relation: bool


Job = Slice | Bundle


def cut_jobs(entries: Sequence[FileEntry], wanted: Iterable[int], slice_bytes: int) -> deque[Job]:
    """Jobs for the files with these indexes, longest first. Directories and empty relation files need none."""
    slices: list[Slice] = []
    bundles: list[Bundle] = []
    open_bundles: dict[bool, list[int]] = {True: [], False: []}
    open_bytes = {True: 0, False: 0}

    def close(relation: bool) -> None:
        if open_bundles[relation]:
            bundles.append(Bundle(tuple(open_bundles[relation]), relation))
        open_bundles[relation], open_bytes[relation] = [], 0

    for index in wanted:
        entry = entries[index]
        relation = entry.kind is FileKind.RELATION
        if entry.kind is FileKind.DIRECTORY or (relation and entry.size == 0):
            continue
        if entry.size >= SMALL_BYTES:
            slices += [
                Slice(index, start, min(slice_bytes, entry.size - start)) for start in range(0, entry.size, slice_bytes)
            ]
            continue
        if open_bytes[relation] + entry.size > BUNDLE_BYTES or len(open_bundles[relation]) == BUNDLE_FILES:
            close(relation)
        open_bundles[relation].append(index)
        open_bytes[relation] += entry.size
    close(True)
    close(False)
    slices.sort(key=lambda job: -job.size)  # stable: neighbours stay neighbours
    return deque([*slices, *bundles])
