"""Where a timeline really ends in the archive: evidence that WAL went on behind a segment that is not there.

PostgreSQL takes "no such file" for the end of the WAL and opens for writes, so the answer must rest on all timelines:
a later segment on the chain, or a timeline that was begun behind the missing segment, proves a hole.
"""

from __future__ import annotations

from typing import NamedTuple

from pitr.core.errors import ObjectNotFound
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository
from pitr.repo.walobjects import get_history, list_segments, list_timelines


class Evidence(NamedTuple):
    """The WAL of the segment's timeline is known to have reached ``lsn``; ``detail`` names what shows it."""

    lsn: Lsn
    detail: str


def evidence_behind(
    repository: Repository, names: HistoryNames, segment: SegmentName, chain: History | None
) -> Evidence | None:
    """The farthest proof that WAL existed in or behind this missing segment; None: the archive ends before it.

    ``chain``: history of the timeline to be reached; None (unknown) judges over every timeline in the archive.
    Raises what the store raises, and IntegrityError for a damaged history file.
    """
    found: list[Evidence] = []
    for timeline in list_timelines(repository, names):
        found += _later_segment(repository, names, segment, timeline, chain)
        if timeline >= segment.timeline:
            found += _from_history(repository, names, segment, timeline, chain)
    behind = (evidence for evidence in found if evidence.lsn > segment.start)
    return max(behind, key=lambda evidence: evidence.lsn, default=None)


def _later_segment(
    repository: Repository, names: HistoryNames, segment: SegmentName, timeline: int, chain: History | None
) -> list[Evidence]:
    """The last segments tell nothing more than the next: one listing that ends at once."""
    if chain is not None and timeline not in chain.timelines:
        return []
    # Without a known chain PostgreSQL would go on to the same segment of an older timeline: abandoned history.
    same_counts = chain is None and timeline != segment.timeline
    first = (segment if same_counts else segment.next()).at_timeline(timeline)
    later = next(list_segments(repository, names, timeline, segment.size_bytes, first=first), None)
    if later is None:
        return []
    return [Evidence(max(later.segment.start, segment.start + 1), f"{later.segment} is in the archive")]


def _from_history(
    repository: Repository, names: HistoryNames, segment: SegmentName, timeline: int, chain: History | None
) -> list[Evidence]:
    """A history file says how far the older timelines had come; without one, a younger timeline's segments count."""
    if timeline == 1:
        return []
    try:
        history = get_history(repository, names, timeline)
    except ObjectNotFound:
        if timeline == segment.timeline or (chain is not None and timeline in chain.timelines):
            return []
        first = segment.at_timeline(timeline)
        there = next(list_segments(repository, names, timeline, segment.size_bytes, first=first), None)
        detail = f"timeline {timeline} is in the archive without its history file"
        return [] if there is None else [Evidence(max(there.segment.start, segment.start + 1), detail)]
    if segment.timeline not in history.timelines:
        return []
    if chain is None or timeline in chain.timelines:
        reached = max(entry.switch_lsn for entry in history.entries) if history.entries else segment.start
        return [Evidence(reached, f"timeline {timeline} begins at {reached}")]
    left = history.end_of(segment.timeline)
    return [] if left is None else [Evidence(left, f"timeline {timeline} left timeline {segment.timeline} at {left}")]
