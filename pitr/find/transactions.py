"""Folds the indexes of consecutive segments into transactions: raw xids by their top-level transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pitr.pg.lsn import Lsn
from pitr.wal.catalog_rows import DatabaseBorn, RelationBorn
from pitr.wal.index import Commit, SegmentIndex
from pitr.wal.records import RelFileLocator
from pitr.wal.storage import MappedFiles
from pitr.wal.xact import DroppedStats
from pitr.wal.xlog import DatabaseCreated, DatabaseDropped, XlogEvent

DirectoryEvent = DatabaseCreated | DatabaseDropped


@dataclass(slots=True)
class Changes:
    """What was done under one or more xids. ``rows``: file to [inserted, deleted, updated]."""

    rows: dict[RelFileLocator, list[int]] = field(default_factory=dict)
    locks: set[tuple[int, int]] = field(default_factory=set)
    """(database, relation OID), AccessExclusive"""
    created: list[RelFileLocator] = field(default_factory=list)
    """Main forks, in order"""
    relations: list[RelationBorn] = field(default_factory=list)
    databases: list[DatabaseBorn] = field(default_factory=list)
    directories: list[DirectoryEvent] = field(default_factory=list)

    def merge(self, other: Changes) -> None:
        for file, counts in other.rows.items():
            self.add_rows(file, counts)
        self.locks |= other.locks
        self.created += other.created
        self.relations += other.relations
        self.databases += other.databases
        self.directories += other.directories

    def add_rows(self, file: RelFileLocator, counts: Iterable[int]) -> None:
        known = self.rows.setdefault(file, [0, 0, 0])
        for column, count in enumerate(counts):
            known[column] += count


@dataclass(frozen=True, slots=True)
class Transaction:
    """A commit and what was done under its xid and those of its subtransactions; aborted ones are left out."""

    major: int
    commit: Commit
    changes: Changes

    @property
    def xid(self) -> int:
        return self.commit.xid

    @property
    def lsn(self) -> Lsn:
        return Lsn(self.commit.lsn)

    @property
    def removed(self) -> tuple[RelFileLocator, ...]:
        return self.commit.removed

    @property
    def dropped(self) -> tuple[DroppedStats, ...]:
        return self.commit.dropped


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Directories that a transaction made or removed, for good, without ever committing."""

    xid: int
    directories: tuple[DirectoryEvent, ...]


@dataclass(frozen=True, slots=True)
class Marked:
    """A database marked as being dropped; ``oid`` 0: perhaps one, the row cannot be read."""

    lsn: Lsn
    oid: int


Happening = Transaction | Unfinished | Marked | XlogEvent | MappedFiles
"""What a stream of indexes tells, in the order of the WAL."""


def happenings(
    indexes: Iterable[SegmentIndex], exact: Callable[[SegmentIndex], SegmentIndex], wanted: int | None = None
) -> Iterator[Happening]:
    """Fold stitched indexes (pitr.wal.stitch). ``exact`` gives the index of the same segment with threshold 0.

    It is asked for when a transaction that was seen in an earlier segment, or the ``wanted`` one, ended in one that
    does not list its commit.
    """
    folder = _Folder(wanted)
    for index in indexes:
        yield from folder.feed(exact(index) if folder.misses_a_commit(index) else index)
    yield from folder.rest()


class _Folder:
    def __init__(self, wanted: int | None) -> None:
        self._open: dict[int, Changes] = {}
        self._wanted = () if wanted is None else (wanted,)

    def misses_a_commit(self, index: SegmentIndex) -> bool:
        if index.threshold == 0:
            return False
        ended = [xid for xid in (*self._open, *self._wanted) if index.has_committed(xid)]
        if not ended:
            return False
        listed = {xid for commit in index.transactions for xid in (commit.xid, *commit.subxacts)}
        return not listed.issuperset(ended)

    def feed(self, index: SegmentIndex) -> list[Happening]:
        self._take(index)
        found: list[tuple[int, Happening]] = []
        for commit in index.transactions:
            changes = Changes()
            for xid in (commit.xid, *commit.subxacts):
                part = self._open.pop(xid, None)
                if part is not None:
                    changes.merge(part)
            found.append((commit.lsn, Transaction(index.major, commit, changes)))
        found += [(event.lsn, event) for event in index.events]
        found += [(lsn, Marked(lsn, oid)) for lsn, oid in index.marks]
        found += [(mapped.lsn, mapped) for mapped in index.mapped]
        # Unfinished come last: their records were before, and no commit depends on them.
        unfinished = [self._give_up(xid) for xid in [xid for xid in self._open if index.has_aborted(xid)]]
        ordered = [happening for _, happening in sorted(found, key=lambda pair: pair[0])]
        return ordered + [one for one in unfinished if one.directories]

    def rest(self) -> list[Happening]:
        unfinished = [self._give_up(xid) for xid in list(self._open)]
        return [one for one in unfinished if one.directories]

    def _give_up(self, xid: int) -> Unfinished:
        return Unfinished(xid, tuple(self._open.pop(xid).directories))

    def _take(self, index: SegmentIndex) -> None:
        opened = self._changes
        for row in index.rows:
            opened(row.xid).add_rows(row.file, row[2:])
        for lock in index.locks:
            opened(lock.xid).locks.add((lock.database, lock.relation))
        for created in index.created:
            opened(created.xid).created.append(created.file)
        for relation in index.relations:
            opened(relation.xid).relations.append(relation)
        for database in index.databases:
            opened(database.xid).databases.append(database)
        for event in index.events:
            if isinstance(event, DatabaseCreated | DatabaseDropped) and event.xid:
                opened(event.xid).directories.append(event)

    def _changes(self, xid: int) -> Changes:
        return self._open.setdefault(xid, Changes())
