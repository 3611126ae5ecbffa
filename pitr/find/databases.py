"""DROP DATABASE: its files go before its commit, so what matters is where the first of them went."""

from __future__ import annotations

from pitr.find.events import Event
from pitr.find.names import Names
from pitr.find.transactions import DirectoryEvent, Marked, Transaction, Unfinished
from pitr.pg.lsn import Lsn
from pitr.wal.xlog import Checkpoint, DatabaseCreated, DatabaseDropped, XlogEvent

_CHECKPOINTS_BETWEEN = 2
"""dropdb() asks for a checkpoint between marking the database and removing its files; one may be running already."""


class Databases:
    """Follows marks, drops and moves of databases."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._marked: dict[int, Lsn] = {}
        self._perhaps: Lsn | None = None
        self._checkpoints = 0

    def mark(self, mark: Marked) -> None:
        if mark.oid:
            self._marked[mark.oid] = mark.lsn
        else:
            self._perhaps, self._checkpoints = mark.lsn, 0

    def note(self, event: XlogEvent) -> None:
        if isinstance(event, Checkpoint):
            self._checkpoints += 1
            if self._checkpoints > _CHECKPOINTS_BETWEEN:
                self._perhaps = None

    def of_transaction(self, transaction: Transaction) -> list[Event]:
        directories = transaction.changes.directories
        moved = [one for one in directories if isinstance(one, DatabaseCreated) and (one.source or (0,))[0] == one.oid]
        return [self._dropped(drop, transaction) for drop in _drops(directories)] + [
            Event(
                op="set-tablespace",
                lsn=transaction.lsn,
                xid=transaction.xid,
                time=transaction.commit.moment,
                database_oid=one.oid,
                database=self._names.database(one.oid),
                tables=(),
                rows=None,
            )
            for one in moved
        ]

    def of_unfinished(self, unfinished: Unfinished) -> list[Event]:
        """The server crashed in the middle, or WAL ends there."""
        return [self._dropped(drop, None) for drop in _drops(unfinished.directories)]

    def _dropped(self, drop: DatabaseDropped, transaction: Transaction | None) -> Event:
        marked = self._marked.pop(drop.oid, self._perhaps)
        first = drop.lsn if marked is None else min(marked, drop.lsn)
        return Event(
            op="drop-database",
            lsn=drop.lsn if transaction is None else transaction.lsn,
            xid=drop.xid,
            time=None if transaction is None else transaction.commit.moment,
            database_oid=drop.oid,
            database=self._names.database(drop.oid),
            tables=(),
            rows=None,
            stop_before=first,
            note="its files go before its commit"
            if transaction is not None
            else "it did not commit, but its files went",
        )


def _drops(directories: list[DirectoryEvent] | tuple[DirectoryEvent, ...]) -> list[DatabaseDropped]:
    """Those of databases that were not made by the same transaction (CREATE DATABASE that failed)."""
    made = {event.oid for event in directories if isinstance(event, DatabaseCreated)}
    return [event for event in directories if isinstance(event, DatabaseDropped) and event.oid not in made]
