"""What a transaction did to which tables (rules and their evidence: FORMAT.md, "What the index of a segment tells")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pitr.find.events import Event, Op, Table
from pitr.find.names import FIRST_USER_OID, Names, Relation
from pitr.find.transactions import Transaction
from pitr.wal.heap import DELETED, INSERTED, UPDATED
from pitr.wal.records import RelFileLocator

_PGSTAT_RELATION = 2
_PG_CLASS = 1259
_TOAST_SCHEMA = "pg_toast"
_TABLE_KINDS = frozenset("rpmfvS")
_INDEX_KINDS = frozenset("iI")
_WITH_ROWS = frozenset("rm")
_STORED_KINDS = frozenset("rmS")
_DROPPED_STATS_SINCE = 15

Key = tuple[int, int]
"""Database and relation OID"""


def classify(transaction: Transaction, names: Names, min_rows: int) -> list[Event]:
    """The events of one transaction, and what it tells of files and relations is learnt.

    ``min_rows``: a DELETE or UPDATE is one when it changed so many rows of one table; then all its tables are shown.
    """
    names.learn_relations(transaction.lsn, transaction.changes.relations)
    for database in transaction.changes.databases:
        names.learn_database(database.oid, database.name)
    fate = _Fate(transaction, names)
    fate.decide()
    fate.learn()
    return [*fate.events(), *_row_events(transaction, names, fate, min_rows)]


@dataclass(slots=True)
class _Fate:
    """What became of the relations that the transaction locked or dropped."""

    transaction: Transaction
    names: Names
    dropped: set[Key] = field(default_factory=set)
    rewritten: set[Key] = field(default_factory=set)
    truncated: set[Key] = field(default_factory=set)
    moved: set[Key] = field(default_factory=set)
    altered: set[Key] = field(default_factory=set)
    unsure: set[Key] = field(default_factory=set)
    indexes: set[Key] = field(default_factory=set)
    new_files: dict[RelFileLocator, RelFileLocator] = field(default_factory=dict)
    """Removed file to the one that took its place"""
    unread: bool = False
    """A transient relation of which the row in pg_class could not be read: it may be a rewrite"""

    def relation(self, key: Key) -> Relation | None:
        return self.names.relation(*key, self.transaction.lsn)

    def kind(self, key: Key) -> str | None:
        relation = self.relation(key)
        return None if relation is None else relation.kind

    # Decisions

    def decide(self) -> None:
        changes = self.transaction.changes
        born = {(one.database, one.oid) for one in changes.relations}
        # A new relation's first file has its OID as number (heap_create). Born and dropped at once: a transient one.
        made = {(file.database, file.number) for file in changes.created}
        gone = self._dropped(born | made)
        self.unread = bool((gone & made) - born)
        self.rewritten = {
            (one.database, one.rewrite_of)
            for one in changes.relations
            if one.rewrite_of and (one.database, one.rewrite_of) in changes.locks
        }
        self._pair_files(born, gone)
        removed = self._owners_of_removed()
        for key in sorted(changes.locks - born - gone - self.rewritten):
            if key[0] != 0 and key[1] >= FIRST_USER_OID:
                self._locked(key, removed)
        self.rewritten = {key for key in self.rewritten if key[1] >= FIRST_USER_OID and self.kind(key) != "t"}

    def _dropped(self, born: set[Key]) -> set[Key]:
        """Returns all that was dropped, of whatever kind, transient and temporary relations included."""
        transaction = self.transaction
        numbers = {(file.database, file.number) for file in transaction.removed}
        if transaction.major >= _DROPPED_STATS_SINCE:
            gone = {(one.database, one.object_id) for one in transaction.dropped if one.kind == _PGSTAT_RELATION}
        else:
            gone = self._dropped_by_the_rows(born)
        for key in gone - born:
            kind = self.kind(key)
            if kind in _INDEX_KINDS:
                self.indexes.add(key)
            elif kind in _TABLE_KINDS or (kind is None and key in numbers):
                # Unknown, but its file went: a table, or an index or TOAST of one. Without a file: a temporary one.
                self.dropped.add(key)
        return gone

    def _dropped_by_the_rows(self, born: set[Key]) -> set[Key]:
        """13 and 14 do not say what was dropped: a file removed, none made in its place, a row of pg_class deleted."""
        changes = self.transaction.changes
        deleted = sum(counts[DELETED] for file, counts in changes.rows.items() if self.names.owner(file) == _PG_CLASS)
        if not deleted:
            return set()
        removed = self._owners_of_removed()
        rewritten = {(one.database, one.rewrite_of) for one in changes.relations}
        locked = changes.locks - born - rewritten
        gone = set()
        for key in locked:
            kind = self.kind(key)
            if key[1] < FIRST_USER_OID or kind is None or kind not in _TABLE_KINDS:
                continue
            is_stored = kind in _STORED_KINDS
            if (key in removed) if is_stored else deleted >= len(locked):
                gone.add(key)
                if changes.created or not is_stored:
                    self.unsure.add(key)
        return gone

    def _owners_of_removed(self) -> dict[Key, RelFileLocator]:
        owners = {}
        for file in self.transaction.removed:
            oid = self.names.owner(file)
            if oid is not None:
                owners[file.database, oid] = file
        return owners

    def _pair_files(self, born: set[Key], gone: set[Key]) -> None:
        """TRUNCATE, SET TABLESPACE and REINDEX schedule the old file's end next to making the new one; COMMIT lists
        removed files the other way round (smgrGetPendingDeletes)."""
        changes = self.transaction.changes
        first_files = {(one.database, one.file) for one in changes.relations}
        created = [file for file in changes.created if (file.database, file.number) not in first_files]
        made = set(changes.created)
        removed = [file for file in reversed(self.transaction.removed) if file not in made and not self._is(file, gone)]
        if not self.rewritten and not self.unread and len(created) == len(removed):
            self.new_files = {
                old: new for old, new in zip(removed, created, strict=True) if old.database == new.database
            }

    def _is(self, file: RelFileLocator, keys: set[Key]) -> bool:
        oid = self.names.owner(file)
        return oid is not None and (file.database, oid) in keys

    def _locked(self, key: Key, removed: dict[Key, RelFileLocator]) -> None:
        kind = self.kind(key)
        old = removed.get(key)
        if kind in _INDEX_KINDS or kind == "t":
            if old is not None:
                self.indexes.add(key)
        elif old is not None:
            new = self.new_files.get(old)
            if new is None:
                tablespaces = {file.tablespace for file in self.transaction.changes.created}
                is_moved = bool(tablespaces) and old.tablespace not in tablespaces
            else:
                is_moved = new.tablespace != old.tablespace
            (self.moved if is_moved else self.truncated).add(key)
            if self.unread:
                self.unsure.add(key)
        elif kind in _WITH_ROWS and self._lost_a_file_of_unknown_owner():
            self.truncated.add(key)
            self.unsure.add(key)
        elif kind is not None and self._wrote_catalogs(key[0]):
            self.altered.add(key)

    def _lost_a_file_of_unknown_owner(self) -> bool:
        transaction = self.transaction
        if self.rewritten or self.dropped or not transaction.changes.created:
            return False
        return any(self.names.owner(file) is None for file in transaction.removed)

    def _wrote_catalogs(self, database: int) -> bool:
        return any(
            file.database == database and (self.names.owner(file) or FIRST_USER_OID) < FIRST_USER_OID
            for file in self.transaction.changes.rows
        )

    # Consequences

    def learn(self) -> None:
        """Whose the new files are, for what happens to them later."""
        for old, new in self.new_files.items():
            oid = self.names.owner(old)
            if oid is not None:
                self.names.learn_file(new.database, new.number, oid)
        for born in self.transaction.changes.relations:
            if born.rewrite_of and born.file:
                self.names.learn_file(born.database, born.file, born.rewrite_of)

    def inserted(self, key: Key) -> int:
        """Rows written to a table's new file, by the transaction that emptied it."""
        rows = self.transaction.changes.rows
        return sum(
            counts[INSERTED]
            for file, counts in rows.items()
            if file in self.transaction.changes.created and (file.database, self.names.owner(file)) == key
        )

    def events(self) -> Iterator[Event]:
        dropped = {key for key in self.dropped if not self._goes_with_its_owner(key)}
        yield from self._of("drop", dropped, note="or altered, or emptied")
        truncated = {key for key in self.truncated if self.kind(key) != "S"}
        yield from self._of("truncate", truncated, note="or rewritten")
        yield from self._of("rewrite", self.rewritten)
        yield from self._of("set-tablespace", self.moved)
        yield from self._of("alter", self.altered)
        if not (self.dropped or self.truncated or self.rewritten or self.moved or self.altered):
            yield from self._of("reindex", {key for key in self.indexes if not self._is_toast(key)})

    def _is_toast(self, key: Key) -> bool:
        relation = self.relation(key)
        return relation is not None and (relation.kind == "t" or relation.schema == _TOAST_SCHEMA)

    def _goes_with_its_owner(self, key: Key) -> bool:
        """A sequence, dropped together with tables."""
        return self.kind(key) == "S" and any(self.kind(other) != "S" for other in self.dropped)

    def _of(self, op: Op, keys: Iterable[Key], *, note: str | None = None) -> Iterator[Event]:
        keys = sorted(keys)
        for database in dict.fromkeys(database for database, _ in keys):
            mine = [key for key in keys if key[0] == database]
            is_certain = not self.unsure.intersection(mine)
            yield event_of(
                self.transaction,
                op,
                database,
                self.names,
                tuple(table_of(key, self.relation(key), inserted=self.inserted(key)) for key in mine),
                is_certain=is_certain,
                note=None if is_certain else note,
            )


def _row_events(transaction: Transaction, names: Names, fate: _Fate, min_rows: int) -> Iterator[Event]:
    for column in (DELETED, UPDATED):
        by_database: dict[int, list[Table]] = {}
        for file, counts in transaction.changes.rows.items():
            if counts[column] and file not in transaction.changes.created:
                table = _changed_table(transaction, names, fate, file, counts)
                if table is not None:
                    by_database.setdefault(file.database, []).append(table)
        for database, tables in by_database.items():
            rows = [table.deleted if column == DELETED else table.updated for table in tables]
            if max(rows) >= min_rows:
                ordered = sorted(zip(rows, tables, strict=True), key=lambda pair: -pair[0])
                yield event_of(
                    transaction, "delete" if column == DELETED else "update", database, names,
                    tuple(table for _, table in ordered), rows=sum(rows),
                )  # fmt: skip


def _changed_table(
    transaction: Transaction, names: Names, fate: _Fate, file: RelFileLocator, counts: list[int]
) -> Table | None:
    """None for catalogs, TOAST, what is gone with its table anyway."""
    oid = names.owner(file)
    if oid is None:
        return Table(None, None, None, None, counts[DELETED], counts[UPDATED], counts[INSERTED], file.number)
    key = file.database, oid
    relation = names.relation(*key, transaction.lsn)
    if oid < FIRST_USER_OID or key in fate.dropped or (relation is not None and relation.kind != "r"):
        return None
    return table_of(key, relation, deleted=counts[DELETED], updated=counts[UPDATED], inserted=counts[INSERTED])


def table_of(key: Key, relation: Relation | None, *, deleted: int = 0, updated: int = 0, inserted: int = 0) -> Table:
    if relation is None:
        return Table(key[1], None, None, None, deleted, updated, inserted)
    return Table(key[1], relation.schema, relation.name, relation.kind, deleted, updated, inserted)


def event_of(
    transaction: Transaction,
    op: Op,
    database: int,
    names: Names,
    tables: tuple[Table, ...],
    *,
    rows: int | None = None,
    is_certain: bool = True,
    note: str | None = None,
) -> Event:
    return Event(
        op=op,
        lsn=transaction.lsn,
        xid=transaction.xid,
        time=transaction.commit.moment,
        database_oid=database,
        database=names.database(database),
        tables=tables,
        rows=rows,
        is_certain=is_certain,
        note=note,
    )
