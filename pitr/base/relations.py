"""Relation maps of all databases for the backup, one database at a time so that one refusal costs no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pitr.core.errors import PitrError
from pitr.pg.facts import Database
from pitr.pg.relations import RelationRow, relation_maps
from pitr.pg.server import connect
from pitr.repo.relations import COLUMNS, DatabaseRelations

if TYPE_CHECKING:
    from pitr.pg.server import Connection


@dataclass(slots=True)
class RelationsTaken:
    """``extensions`` by database OID, name to version; ``unread`` names databases and why they could not be read."""

    databases: list[DatabaseRelations] = field(default_factory=list)
    extensions: dict[int, dict[str, str]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


def take_relations(
    connection: Connection, conninfo: str, databases: Iterable[Database], warn: Callable[[str], None]
) -> RelationsTaken:
    taken = RelationsTaken()
    for database in databases:
        try:
            maps = relation_maps(connection, lambda name: connect(conninfo, "backup base", database=name), [database])
        except PitrError as error:
            taken.unread[database.name] = str(error)
            warn(f"the tables of database {database.name} are not recorded by name: {error}")
            continue
        for one in maps:
            taken.databases.append(_in_columns(one.oid, one.name, one.relations))
            taken.extensions[one.oid] = dict(one.extensions)
    return taken


def _in_columns(oid: int, name: str, rows: tuple[RelationRow, ...]) -> DatabaseRelations:
    """RelationRow's order is not that of COLUMNS."""
    names = dict(zip(COLUMNS, _ROW_FIELDS, strict=True))
    return DatabaseRelations(oid, name, {column: [getattr(row, names[column]) for row in rows] for column in COLUMNS})


_ROW_FIELDS = (
    "oid", "namespace", "name", "kind", "persistence", "filenode", "tablespace", "toast", "index_of", "parent",
)  # fmt: skip
