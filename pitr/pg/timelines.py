"""Timeline histories, by the rules of access/transam/timeline.c and xlogrecovery.c."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName

_LINE = r"\s*(?P<timeline>[0-9]+)\s+(?P<lsn>[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s+(?P<reason>.*))?"
_MAX_TIMELINE = 0xFFFFFFFF


class HistoryEntry(NamedTuple):
    """A timeline that was left at ``switch_lsn``: bytes from there on are not part of the history."""

    timeline: int
    switch_lsn: Lsn
    reason: str


@dataclass(frozen=True, slots=True)
class History:
    """The past of ``timeline``: the timelines it descends from, oldest first.

    Switch positions need not rise: a recovery towards timeline 2 that stops before 2 began names 2 as the parent of 3
    all the same. As in PostgreSQL the newest timeline that has begun wins, so that such a parent owns nothing.
    """

    timeline: int
    entries: tuple[HistoryEntry, ...] = ()

    @classmethod
    def initial(cls, timeline: int = 1) -> Self:
        """A timeline without ancestors."""
        return cls(timeline)

    @classmethod
    def parse(cls, timeline: int, content: str | bytes) -> Self:
        """Read the content of a history file as readTimeLineHistory does. Raises ValueError.

        Reasons hold names of restore points: in any encoding, with any character but a line feed.
        """
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        entries: list[HistoryEntry] = []
        for line in text.split("\n"):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = re.fullmatch(_LINE, line)
            if match is None:
                raise ValueError(f"syntax error in the history file of timeline {timeline}: {line!r}")
            entry = HistoryEntry(int(match["timeline"]), Lsn.parse(match["lsn"]), (match["reason"] or "").strip())
            if not (entries[-1].timeline if entries else 0) < entry.timeline <= _MAX_TIMELINE:
                raise ValueError(f"timelines do not rise in the history file of timeline {timeline}: {line!r}")
            entries.append(entry)
        if entries and entries[-1].timeline >= timeline:
            raise ValueError(f"timeline {entries[-1].timeline} cannot be an ancestor of timeline {timeline}")
        return cls(timeline, tuple(entries))

    def render(self) -> str:
        """The content of a history file, one line for each ancestor."""
        return "".join(f"{entry.timeline}\t{entry.switch_lsn}\t{entry.reason}\n" for entry in self.entries)

    @property
    def timelines(self) -> tuple[int, ...]:
        """Ancestors and the timeline itself, oldest first."""
        return (*(entry.timeline for entry in self.entries), self.timeline)

    def begin_of(self, timeline: int) -> Lsn:
        """Where the timeline was begun (0/0 for the oldest). Raises ValueError if it is not in this history."""
        index = self._index(timeline)
        return self.entries[index - 1].switch_lsn if index else Lsn(0)

    def end_of(self, timeline: int) -> Lsn | None:
        """Where this history leaves the timeline for good; None for the newest. Raises ValueError as begin_of does."""
        index = self._index(timeline)
        return min((entry.switch_lsn for entry in self.entries[index:]), default=None)

    def contains(self, timeline: int, lsn: int) -> bool:
        """Whether the position lsn reached on that timeline is part of this history.

        A position is the end of what was written, so the switch point itself belongs to both timelines.
        """
        if timeline not in self.timelines:
            return False
        end = self.end_of(timeline)
        return self.begin_of(timeline) <= lsn and (end is None or lsn <= end)

    def timeline_at(self, lsn: int) -> int:
        """The timeline that owns the byte at lsn (tliOfPointInHistory)."""
        for entry, newer in zip(reversed(self.entries), reversed(self.timelines), strict=False):
            if entry.switch_lsn <= lsn:
                return newer
        return self.timelines[0]

    def owner(self, segment_number: int, segment_size: int) -> int:
        """The newest timeline that begins in or before the segment: the only one whose file may be replayed.

        The file of an older one ends in abandoned records where the younger one begins (XLogFileReadAnyTLI).
        """
        return self.timeline_at((segment_number + 1) * segment_size - 1)

    def segments(self, start_lsn: int, end_lsn: int, segment_size: int) -> Iterator[SegmentName]:
        """The files that hold the bytes from start_lsn up to end_lsn (exclusive) of this history, in order."""
        if end_lsn <= start_lsn:
            return
        for number in range(int(start_lsn) // segment_size, (int(end_lsn) - 1) // segment_size + 1):
            yield SegmentName(self.owner(number, segment_size), number, segment_size)

    def is_prefix_of(self, other: History) -> bool:
        """Whether other has the same past up to and including this timeline (itself included).

        Two promoted copies are both "timeline 2": numbers and switch positions are compared, reasons are not.
        """
        depth = len(self.entries)
        return other.timelines[: depth + 1] == self.timelines and all(
            mine.switch_lsn == theirs.switch_lsn for mine, theirs in zip(self.entries, other.entries, strict=False)
        )

    def _index(self, timeline: int) -> int:
        try:
            return self.timelines.index(timeline)
        except ValueError:
            raise ValueError(f"timeline {timeline} is not in the history of timeline {self.timeline}") from None
