"""Which pages of a buffer go into which frame, and what stays out as a hole."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

HOLE_PAGES = 64
"""Shorter runs of zero pages stay in their frame, where they cost a few bytes; as holes they would cost two extents."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Part:
    """``count`` pages of one file, from its page ``first`` on, at page ``at`` of the buffer."""

    file: int
    first: int
    count: int
    at: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of pages of one file within a frame (or a hole): buffer pages [start, stop)."""

    file: int
    first: int
    start: int
    stop: int
    bad: bool


def runs(mask: Bools) -> list[tuple[int, int]]:
    """[start, stop) of each run of true values."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def holes(parts: Sequence[Part], zero: Bools) -> list[tuple[int, int]]:
    """Buffer ranges that are not stored: long runs of zero pages of one file."""
    if not zero.any():
        return []
    found = []
    for part in parts:
        if part.count >= HOLE_PAGES:
            for start, stop in runs(zero[part.at : part.at + part.count]):
                if stop - start >= HOLE_PAGES:
                    found.append((part.at + start, part.at + stop))
    return found


def regions(page_count: int, without: Sequence[tuple[int, int]], frame_pages: int) -> Iterator[tuple[int, int, bool]]:
    """Cut the buffer into frames of at most frame_pages, and holes: (start, stop, is a hole), in order."""
    position = 0
    for hole_start, hole_stop in (*without, (page_count, page_count)):
        for start in range(position, hole_start, frame_pages):
            yield start, min(start + frame_pages, hole_start), False
        if hole_stop > hole_start:
            yield hole_start, hole_stop, True
        position = hole_stop


def pieces(parts: Sequence[Part], starts: Sequence[int], start: int, stop: int, bad: Bools | None) -> Iterator[Piece]:
    """What [start, stop) of the buffer holds, cut where a file ends and around bad pages. ``starts``: each part's."""
    index = bisect_right(starts, start) - 1
    position = start
    while position < stop:
        part = parts[index]
        end = min(stop, part.at + part.count)
        offset = part.first - part.at
        if bad is None or not bad[position:end].any():
            yield Piece(part.file, position + offset, position, end, False)
        else:
            edges = np.flatnonzero(np.diff(bad[position:end])) + 1
            cuts = [0, *edges.tolist(), end - position]
            for low, high in pairwise(cuts):
                yield Piece(
                    part.file, position + offset + low, position + low, position + high, bool(bad[position + low])
                )
        position = end
        index += 1
