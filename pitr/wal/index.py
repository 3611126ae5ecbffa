"""What one WAL segment holds, in a few kilobytes: the index payload of archived segments (pitr/repo/FORMAT.md).

A record belongs to the segment in which it begins. One that ends in a later segment is not in the index of either:
``tail`` and ``lead`` hold its pieces, and readers stitch them (pitr/wal/stitch.py).
"""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pitr.core.documents import from_json, to_json
from pitr.core.errors import FormatTooNew, IntegrityError
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.wal.catalog_rows import DatabaseBorn, RelationBorn
from pitr.wal.records import RelFileLocator
from pitr.wal.storage import ExclusiveLock, MappedFiles
from pitr.wal.xact import DroppedStats
from pitr.wal.xlog import (
    BackupEnd,
    Checkpoint,
    DatabaseCreated,
    DatabaseDropped,
    EndOfRecovery,
    FullPageWritesChange,
    OverwriteContrecord,
    ParameterChange,
    RestorePoint,
    TablespaceCreated,
    TablespaceDropped,
    XlogEvent,
    timestamp,
)

FORMAT = 1
ROW_THRESHOLD = 10
"""Transactions that begin and end in a segment and change fewer rows of each relation are not listed."""

_EVENTS: dict[str, type[Any]] = {
    "backup-end": BackupEnd,
    "checkpoint": Checkpoint,
    "database-created": DatabaseCreated,
    "database-dropped": DatabaseDropped,
    "end-of-recovery": EndOfRecovery,
    "full-page-writes": FullPageWritesChange,
    "overwrite-contrecord": OverwriteContrecord,
    "parameter-change": ParameterChange,
    "restore-point": RestorePoint,
    "tablespace-created": TablespaceCreated,
    "tablespace-dropped": TablespaceDropped,
}
_KIND_OF_EVENT = {kind: name for name, kind in _EVENTS.items()}


class End(NamedTuple):
    """A commit or abort. ``time``: microseconds since 2000-01-01 UTC."""

    lsn: int
    time: int
    xid: int


class Ends(NamedTuple):
    """All commits, or all aborts, of a segment. Times are not strictly ordered, so ``earliest`` and ``latest``."""

    number: int
    first: End
    last: End
    earliest: int
    latest: int


class Commit(NamedTuple):
    """A commit with its lists as they stand in the record. ``time``: microseconds since 2000-01-01 UTC."""

    lsn: int
    time: int
    xid: int
    prepared: bool
    database: int
    subxacts: tuple[int, ...]
    removed: tuple[RelFileLocator, ...]
    dropped: tuple[DroppedStats, ...]

    @property
    def moment(self) -> datetime:
        return timestamp(self.time)


class Rows(NamedTuple):
    """Records of one raw xid that change rows of one file, in one segment."""

    xid: int
    file: RelFileLocator
    inserted: int
    deleted: int
    updated: int


class Created(NamedTuple):
    """The main fork of a file was made."""

    xid: int
    file: RelFileLocator


Range = tuple[int, int]
"""First and last xid, both included."""


@dataclass(frozen=True, slots=True)
class SegmentIndex:
    """See FORMAT.md, "The index of a WAL segment", for what each member promises.

    name, major            the segment and the server's major version
    start, end             of its records: the first that begins here (None: none does), behind the last whole one
    complete               the server had finished the segment
    lead_length, lead      of the record that goes on here: how much of it, and that (None: too long to keep)
    lead_given_up          that record was never finished
    tail, tail_data        where a record begins that goes on in the next segment, and its beginning
    tail_cut               that is only the record's header: the rest is too long to keep
    threshold, horizon     see FORMAT.md
    commits, aborts        all of them in short; committed, aborted: which xids, subtransactions included
    transactions           the notable commits
    rows ... mapped        raw xids, of notable and of unfinished transactions, and of those up to the horizon
    marks                  databases marked as being dropped: LSN, and OID or 0
    """

    name: SegmentName
    major: int
    start: Lsn | None
    end: Lsn
    complete: bool
    lead_length: int
    lead: bytes | None
    lead_given_up: bool
    tail: Lsn | None
    tail_data: bytes
    tail_cut: bool
    threshold: int
    horizon: int
    commits: Ends | None = None
    aborts: Ends | None = None
    committed: tuple[Range, ...] = ()
    aborted: tuple[Range, ...] = ()
    transactions: tuple[Commit, ...] = ()
    rows: tuple[Rows, ...] = ()
    locks: tuple[ExclusiveLock, ...] = ()
    created: tuple[Created, ...] = ()
    relations: tuple[RelationBorn, ...] = ()
    databases: tuple[DatabaseBorn, ...] = ()
    events: tuple[XlogEvent, ...] = ()
    marks: tuple[tuple[Lsn, int], ...] = ()
    mapped: tuple[MappedFiles, ...] = ()

    def has_committed(self, xid: int) -> bool:
        return _contains(self.committed, xid)

    def has_aborted(self, xid: int) -> bool:
        return _contains(self.aborted, xid)


def _contains(ranges: Sequence[Range], xid: int) -> bool:
    at = bisect_right(ranges, (xid, 1 << 32)) - 1
    return at >= 0 and ranges[at][1] >= xid


def ranges_of(xids: Iterable[int]) -> tuple[Range, ...]:
    found: list[list[int]] = []
    for xid in sorted(xids):
        if found and xid <= found[-1][1] + 1:
            found[-1][1] = xid
        else:
            found.append([xid, xid])
    return tuple((first, last) for first, last in found)


def encode_index(index: SegmentIndex) -> bytes:
    """The payload of a WAL object's index frame, compressed there."""
    files = list(
        dict.fromkeys(
            [row.file for row in index.rows]
            + [created.file for created in index.created]
            + [file for commit in index.transactions for file in commit.removed]
        )
    )
    number = {file: position for position, file in enumerate(files)}
    document = {
        "format": FORMAT,
        "segment": str(index.name),
        "segment_size": index.name.size_bytes,
        "major": index.major,
        "start": index.start,
        "end": index.end,
        "complete": index.complete,
        "lead_length": index.lead_length,
        "lead": None if index.lead is None else _text(index.lead),
        "lead_given_up": index.lead_given_up,
        "tail": index.tail,
        "tail_data": _text(index.tail_data),
        "tail_cut": index.tail_cut,
        "threshold": index.threshold,
        "horizon": index.horizon,
        "commits": index.commits,
        "aborts": index.aborts,
        "committed": index.committed,
        "aborted": index.aborted,
        "files": files,
        "transactions": [
            (*commit[:5], ranges_of(commit.subxacts), [number[file] for file in commit.removed], commit.dropped)
            for commit in index.transactions
        ],
        "rows": [(row.xid, number[row.file], *row[2:]) for row in index.rows],
        "locks": index.locks,
        "created": [(created.xid, number[created.file]) for created in index.created],
        "relations": index.relations,
        "databases": index.databases,
        "events": [{"kind": _KIND_OF_EVENT[type(event)], **to_json(event)} for event in index.events],
        "marks": index.marks,
        "mapped": index.mapped,
    }
    return json.dumps(document, separators=(",", ":"), default=int).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decode_index(payload: bytes, what: str) -> SegmentIndex:
    """The inverse of encode_index. ``what`` names the object. Raises FormatTooNew, IntegrityError."""
    try:
        document = json.loads(payload)
        if document["format"] > FORMAT:
            raise FormatTooNew(
                f"the index of {what} has format {document['format']}", detail=f"this version reads up to {FORMAT}"
            )
        return _decode(document)
    except (ValueError, KeyError, TypeError, IndexError, binascii.Error) as error:
        raise IntegrityError(
            f"the index of {what} cannot be read", detail=f"{type(error).__name__}: {error}"
        ) from error


def _decode(document: dict[str, Any]) -> SegmentIndex:
    files = [RelFileLocator(*values) for values in document["files"]]
    name = SegmentName.parse(document["segment"], document["segment_size"])
    return SegmentIndex(
        name=name,
        major=document["major"],
        start=_lsn(document["start"]),
        end=Lsn(document["end"]),
        complete=document["complete"],
        lead_length=document["lead_length"],
        lead=None if document["lead"] is None else base64.b64decode(document["lead"]),
        lead_given_up=document["lead_given_up"],
        tail=_lsn(document["tail"]),
        tail_data=base64.b64decode(document["tail_data"]),
        tail_cut=document["tail_cut"],
        threshold=document["threshold"],
        horizon=document["horizon"],
        commits=_ends(document["commits"]),
        aborts=_ends(document["aborts"]),
        committed=tuple((first, last) for first, last in document["committed"]),
        aborted=tuple((first, last) for first, last in document["aborted"]),
        transactions=tuple(_commit(values, files) for values in document["transactions"]),
        rows=tuple(Rows(xid, files[file], *counts) for xid, file, *counts in document["rows"]),
        locks=tuple(ExclusiveLock(*values) for values in document["locks"]),
        created=tuple(Created(xid, files[file]) for xid, file in document["created"]),
        relations=tuple(RelationBorn(*values) for values in document["relations"]),
        databases=tuple(DatabaseBorn(*values) for values in document["databases"]),
        events=tuple(from_json(_EVENTS[event["kind"]], event) for event in document["events"]),
        marks=tuple((Lsn(lsn), oid) for lsn, oid in document["marks"]),
        mapped=tuple(
            MappedFiles(Lsn(lsn), database, tuple((oid, file) for oid, file in pairs))
            for lsn, database, pairs in document["mapped"]
        ),
    )


def _lsn(value: int | None) -> Lsn | None:
    return None if value is None else Lsn(value)


def _ends(values: list[Any] | None) -> Ends | None:
    if values is None:
        return None
    number, first, last, earliest, latest = values
    return Ends(number, End(*first), End(*last), earliest, latest)


def _commit(values: list[Any], files: Sequence[RelFileLocator]) -> Commit:
    lsn, time, xid, prepared, database, subxacts, removed, dropped = values
    return Commit(
        lsn, time, xid, prepared, database,
        tuple(sub for first, last in subxacts for sub in range(first, last + 1)),
        tuple(files[file] for file in removed),
        tuple(DroppedStats(*one) for one in dropped),
    )  # fmt: skip
