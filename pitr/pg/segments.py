"""Names of the files in pg_wal and in a WAL archive (access/xlog_internal.h)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from pitr.pg.lsn import Lsn

DEFAULT_SEGMENT_SIZE = 16 * 1024 * 1024
MIN_SEGMENT_SIZE = 1024 * 1024
MAX_SEGMENT_SIZE = 1024 * 1024 * 1024

_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_ARCHIVE_NAME = re.compile(
    r"(?P<history>[0-9A-F]{8})\.history"
    r"|(?P<segment>[0-9A-F]{24})(?:\.(?P<offset>[0-9A-F]{8})\.(?P<backup>backup)|\.(?P<partial>partial))?"
)


def is_segment_size(size_bytes: int) -> bool:
    """A power of two from 1 MiB to 1 GiB: what ``initdb --wal-segsize`` takes (IsValidWalSegSize)."""
    return MIN_SEGMENT_SIZE <= size_bytes <= MAX_SEGMENT_SIZE and size_bytes & (size_bytes - 1) == 0


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """One WAL segment of one timeline; ``number`` counts segments from LSN 0. ``str`` is the name of its file."""

    timeline: int
    number: int
    size_bytes: int

    def __str__(self) -> str:
        log, segment = divmod(self.number, 0x100000000 // self.size_bytes)
        return f"{self.timeline:08X}{log:08X}{segment:08X}"

    @property
    def start(self) -> Lsn:
        return Lsn(self.number * self.size_bytes)

    @property
    def end(self) -> Lsn:
        """The first position behind the segment."""
        return Lsn((self.number + 1) * self.size_bytes)

    def next(self) -> SegmentName:
        return SegmentName(self.timeline, self.number + 1, self.size_bytes)

    def previous(self) -> SegmentName:
        """Raises ValueError for segment 0."""
        if self.number == 0:
            raise ValueError(f"no segment before {self}")
        return SegmentName(self.timeline, self.number - 1, self.size_bytes)

    def at_timeline(self, timeline: int) -> SegmentName:
        return SegmentName(timeline, self.number, self.size_bytes)

    @classmethod
    def parse(cls, text: str, size_bytes: int) -> Self:
        """24 upper-case hexadecimal digits. Raises ValueError, also for a name that this segment size cannot have."""
        match = _SEGMENT.fullmatch(text)
        if match is None:
            raise ValueError(f"not the name of a WAL segment: {text!r}")
        if not is_segment_size(size_bytes):
            raise ValueError(f"not a WAL segment size: {size_bytes} bytes")
        timeline, log, segment = (int(part, 16) for part in match.groups())
        per_log = 0x100000000 // size_bytes
        if timeline == 0:
            raise ValueError(f"timeline 0 in the name of a WAL segment: {text!r}")
        if segment >= per_log:
            raise ValueError(f"{text!r} cannot be a WAL segment of {size_bytes} bytes")
        return cls(timeline, log * per_log + segment, size_bytes)

    @classmethod
    def containing(cls, timeline: int, lsn: int, size_bytes: int) -> Self:
        """The segment in which the byte at lsn lies (XLByteToSeg)."""
        return cls(timeline, int(lsn) // size_bytes, size_bytes)

    @classmethod
    def ending_at(cls, timeline: int, lsn: int, size_bytes: int) -> Self:
        """The segment that holds the last byte before lsn (XLByteToPrevSeg). Raises ValueError for LSN 0."""
        if lsn <= 0:
            raise ValueError("no segment ends at 0/0")
        return cls(timeline, (int(lsn) - 1) // size_bytes, size_bytes)


@dataclass(frozen=True, slots=True)
class HistoryName:
    """The history file of a timeline."""

    timeline: int

    def __str__(self) -> str:
        return f"{self.timeline:08X}.history"


@dataclass(frozen=True, slots=True)
class BackupHistoryName:
    """The small file that pg_backup_stop leaves in the archive; ``offset``: of the start LSN in its segment."""

    segment: SegmentName
    offset: int

    def __str__(self) -> str:
        return f"{self.segment}.{self.offset:08X}.backup"


@dataclass(frozen=True, slots=True)
class PartialName:
    """The unfinished last segment of a timeline that was left by a promotion."""

    segment: SegmentName

    def __str__(self) -> str:
        return f"{self.segment}.partial"


ArchiveName = SegmentName | HistoryName | BackupHistoryName | PartialName


def parse_archive_name(text: str, segment_size: int) -> ArchiveName:
    """What ``archive_command`` and ``restore_command`` may be given as ``%f``. Raises ValueError for anything else."""
    match = _ARCHIVE_NAME.fullmatch(text)
    if match is None:
        raise ValueError(f"not the name of a file in a WAL archive: {text!r}")
    if match["history"] is not None:
        timeline = int(match["history"], 16)
        if timeline == 0:
            raise ValueError(f"timeline 0 in the name of a history file: {text!r}")
        return HistoryName(timeline)
    segment = SegmentName.parse(match["segment"], segment_size)
    if match["partial"] is not None:
        return PartialName(segment)
    if match["backup"] is None:
        return segment
    offset = int(match["offset"], 16)
    if offset >= segment_size:
        raise ValueError(f"the offset in {text!r} lies behind a segment of {segment_size} bytes")
    return BackupHistoryName(segment, offset)
