"""The WAL in tests/golden/wal, see make_wal.py there."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import zstandard

from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.wal.stream import Segment

DIRECTORY = Path(__file__).parent.parent / "golden" / "wal"
MAJORS = sorted(int(path.name[2:4]) for path in DIRECTORY.glob("pg*.tar.zst"))
SEGMENT_SIZE = 1024 * 1024


@dataclass(frozen=True)
class Golden:
    """``files``: the chain's segments by name and the old timeline's ``.partial``; ``known``: what was true of them."""

    major: int
    files: dict[str, bytes]
    known: dict[str, Any]

    @property
    def start(self) -> Lsn:
        return Lsn.parse(self.known["start"])

    @property
    def end(self) -> Lsn:
        return Lsn.parse(self.known["end"])

    @property
    def history(self) -> History:
        return History.parse(2, self.known["history"])

    @property
    def system_id(self) -> int:
        return int(self.known["system_id"])

    @property
    def chain(self) -> list[SegmentName]:
        return list(self.history.segments(self.start, self.end, SEGMENT_SIZE))

    @property
    def finished(self) -> list[SegmentName]:
        """All but the one that was being written."""
        return [name for name in self.chain if str(name) != self.known["live"]]

    def fetch(self, name: SegmentName) -> Segment | None:
        data = self.files.get(str(name))
        if data is None:
            return None
        return Segment.read(data, name, complete=str(name) != self.known["live"], system_id=self.system_id)


@cache
def golden(major: int) -> Golden:
    archive = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(
        (DIRECTORY / f"pg{major}.tar.zst").read_bytes()
    )
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    known = json.loads(files.pop("known.json"))
    return Golden(major, files, known)
