"""Extents as the workers of a copy collect them: millions of rows in typed arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pitr.repo.maps import HOLE, Extents

_CODES = {"owner": "I", "first": "Q", "count": "I", "pack": "I", "frame": "I", "offset": "I", "flags": "B"}
_DTYPES = {"I": np.uint32, "Q": np.uint64, "B": np.uint8}


class ExtentLog:
    """Rows in the order of reading; ``owner`` is the file's index in the plan."""

    def __init__(self) -> None:
        self._columns = {name: array(code) for name, code in _CODES.items()}

    def __len__(self) -> int:
        return len(self._columns["owner"])

    def add(self, owner: int, first: int, count: int, pack: int, frame: int, offset: int, flags: int = 0) -> None:
        columns = self._columns
        columns["owner"].append(owner)
        columns["first"].append(first)
        columns["count"].append(count)
        columns["pack"].append(pack)
        columns["frame"].append(frame)
        columns["offset"].append(offset)
        columns["flags"].append(flags)

    def add_hole(self, owner: int, first: int, count: int) -> None:
        """Zeros; a hole that goes on where the last row's ended makes that one longer."""
        columns = self._columns
        if (
            len(self)
            and columns["pack"][-1] == HOLE
            and columns["owner"][-1] == owner
            and columns["first"][-1] + columns["count"][-1] == first
        ):
            columns["count"][-1] += count
        else:
            self.add(owner, first, count, HOLE, 0, 0)

    @staticmethod
    def joined(logs: Iterable[ExtentLog]) -> tuple[npt.NDArray[np.uint32], Extents]:
        """Owners and extents of all logs, as parallel columns."""
        taken = list(logs)
        columns = {
            name: np.concatenate(
                [np.empty(0, _DTYPES[code]), *(np.frombuffer(log._columns[name], _DTYPES[code]) for log in taken)]
            )
            for name, code in _CODES.items()
        }
        owners = columns.pop("owner")
        return owners, Extents(**columns)
