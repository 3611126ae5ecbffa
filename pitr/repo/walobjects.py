"""Archived WAL files as objects: put only if absent, read verified, listed by timeline (FORMAT.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from pitr.codec import ObjectKind, Sealer, content_digest, open_whole, seal_chunks
from pitr.core.errors import IntegrityError, ObjectExists, ObjectNotFound, OverwriteRefused
from pitr.core.files import Buffer
from pitr.pg.lsn import Lsn
from pitr.pg.segments import ArchiveName, HistoryName, SegmentName
from pitr.pg.timelines import History
from pitr.repo.names import HistoryNames
from pitr.repo.objects import open_sealed
from pitr.repo.repository import Repository

Index = bytes | Callable[[], bytes]
"""The index payload of a segment's object; a callable is asked only when the object is really written."""


class Put(Enum):
    STORED = "stored"
    ALREADY_THERE = "already-there"


class ArchivedSegment(NamedTuple):
    segment: SegmentName
    stored_bytes: int


def put_wal(repository: Repository, names: HistoryNames, name: ArchiveName, data: Buffer, *, index: Index = b"") -> Put:
    """Archive one file, durably. The same content again is fine; other content under the same name is refused.

    Raises OverwriteRefused and leaves what is stored as it is.
    """
    return put_wal_object(repository, names.wal_file(name), data, index=index)


def put_wal_object(repository: Repository, object_name: str, data: Buffer, *, index: Index = b"") -> Put:
    """As put_wal, for a name that the caller built (partials)."""
    if not repository.descriptor.if_absent and _same_content_stored(repository, object_name, data):
        return Put.ALREADY_THERE
    sealer = Sealer(repository.keyring, object_name, ObjectKind.WAL, level=repository.level, digest=True)
    body = _SealedWhenRead(sealer, data, index)
    try:
        # Also where it may be there already: "it exists" is an answer of the store that says that it is durable.
        repository.store.put(object_name, body, if_absent=True)
    except ObjectExists:
        if _same_content_stored(repository, object_name, data):
            return Put.ALREADY_THERE
        raise
    return Put.STORED


class _SealedWhenRead:
    """An object that is sealed when a store asks for it (one that knows that it is there does not), and only once."""

    def __init__(self, sealer: Sealer, data: Buffer, index: Index) -> None:
        self._chunks = seal_chunks(sealer, [data], index)
        self._made: list[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        if self._made is None:
            self._made = list(self._chunks)
        yield from self._made


def _same_content_stored(repository: Repository, object_name: str, data: Buffer) -> bool:
    """False when there is no such object. Raises OverwriteRefused when its content is another."""
    try:
        stored = open_sealed(repository.store, repository.keyring, object_name, ObjectKind.WAL)
    except ObjectNotFound:
        return False
    if stored.tail.content_digest == content_digest(
        repository.keyring, object_name, [data], key_id=stored.params.key_id
    ):
        return True
    raise OverwriteRefused(
        f"{object_name.rpartition('/')[2]} is already in the archive with other content",
        detail=f"{object_name} in {repository.store.url} was left as it is",
        hint="two servers archive under one name: a copy that was promoted without leaving its timeline, or a wrong "
        '--cluster; give the stray server a cluster name of its own ("pitr wal status")',
    )


def get_wal(repository: Repository, names: HistoryNames, name: ArchiveName) -> bytes:
    """The whole file, all of it verified before anything is returned. Raises ObjectNotFound, IntegrityError."""
    return get_wal_object(repository, names.wal_file(name))


def get_wal_object(repository: Repository, object_name: str) -> bytes:
    chunks = open_whole(repository.keyring, object_name, ObjectKind.WAL, repository.store.get(object_name))
    return b"".join(chunks)


def get_wal_index(repository: Repository, names: HistoryNames, name: SegmentName) -> bytes:
    """The index payload of an archived segment, by one read of the object's end; empty when it was stored without.

    Raises ObjectNotFound, IntegrityError.
    """
    return open_sealed(repository.store, repository.keyring, names.wal_file(name), ObjectKind.WAL).tail.index


def get_history(repository: Repository, names: HistoryNames, timeline: int) -> History:
    """The history of a timeline. Timeline 1 has no file. Raises ObjectNotFound, IntegrityError."""
    if timeline == 1:
        return History.initial(1)
    data = get_wal(repository, names, HistoryName(timeline))
    try:
        return History.parse(timeline, data)
    except ValueError as error:
        raise IntegrityError(f"{HistoryName(timeline)} is not a timeline history file", detail=str(error)) from error


def list_histories(repository: Repository, names: HistoryNames) -> list[int]:
    """Timelines that have a history file in the archive, ascending."""
    found = []
    for info in repository.store.list(names.wal_history_prefix):
        text = info.name[len(names.wal_history_prefix) :]
        if re.fullmatch(r"[0-9A-F]{8}\.history", text):  # what others put there is none of ours
            found.append(int(text[:8], 16))
    return sorted(found)


def list_timelines(repository: Repository, names: HistoryNames) -> list[int]:
    """Timelines that have segments or a history file, ascending."""
    found = set(list_histories(repository, names))
    after = ""
    while (info := next(repository.store.list(names.wal_prefix, after=after), None)) is not None:
        part = info.name[len(names.wal_prefix) :].partition("/")[0]
        after = f"{names.wal_prefix}{part}/\x7f"
        if re.fullmatch(r"[0-9A-F]{8}", part):
            found.add(int(part, 16))
    return sorted(found)


def list_segments(
    repository: Repository, names: HistoryNames, timeline: int, segment_size: int, *, first: SegmentName | None = None
) -> Iterator[ArchivedSegment]:
    """Complete segments of one timeline in the archive, ascending, from ``first`` on."""
    after = "" if first is None else names.wal_file(first.previous()) if first.number else ""
    for info in repository.store.list(names.wal_timeline_prefix(timeline), after=after):
        text = info.name.rpartition("/")[2]
        if re.fullmatch(r"[0-9A-F]{24}", text):
            segment = SegmentName.parse(text, segment_size)
            if first is None or segment.number >= first.number:
                yield ArchivedSegment(segment, info.size_bytes)


def missing_segments(
    repository: Repository, names: HistoryNames, history: History, start: Lsn, stop: Lsn, segment_size: int
) -> list[SegmentName]:
    """Segments of [start, stop) on the history that are not in the archive, by listing (one request per 1,000)."""
    wanted = list(history.segments(start, stop, segment_size))
    missing: list[SegmentName] = []
    for timeline in sorted({segment.timeline for segment in wanted}):
        mine = [segment for segment in wanted if segment.timeline == timeline]
        last = mine[-1].number
        there = set()
        for archived in list_segments(repository, names, timeline, segment_size, first=mine[0]):
            if archived.segment.number > last:
                break
            there.add(archived.segment.number)
        missing += [segment for segment in mine if segment.number not in there]
    return missing


def contiguous_until(
    repository: Repository, names: HistoryNames, history: History, start: Lsn, segment_size: int
) -> SegmentName | None:
    """The last segment of the unbroken run on the history that begins with the segment holding ``start``.

    None when even that one is missing. Segments of timelines that do not own their number are not seen (owner rule).
    """
    number = SegmentName.containing(history.timeline, start, segment_size).number
    last: SegmentName | None = None
    listing: Callable[[SegmentName], Iterator[ArchivedSegment]] = lambda first: list_segments(  # noqa: E731
        repository, names, first.timeline, segment_size, first=first
    )
    while True:
        owner = history.owner(number, segment_size)
        advanced = False
        for archived in listing(SegmentName(owner, number, segment_size)):
            if archived.segment.number != number or history.owner(number, segment_size) != owner:
                break
            last, advanced = archived.segment, True
            number += 1
        if not advanced or history.owner(number, segment_size) == owner:
            return last
