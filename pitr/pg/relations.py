"""The relation map: which relation owns which files, taken from pg_class of every database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pitr.core.errors import ServerUnreachable
from pitr.pg.facts import Database, read_extensions
from pitr.pg.server import server_errors

if TYPE_CHECKING:
    from pitr.pg.server import Connection


class RelationRow(NamedTuple):
    """One relation. 0 stands for "none"."""

    oid: int
    namespace: str
    name: str
    kind: str
    """relkind: r table, i index, S sequence, t TOAST, v view, m materialised view, p and I partitioned, ..."""
    filenode: int
    """The number in the names of its files (of mapped catalogs too); 0 without storage."""
    tablespace: int
    """0: the tablespace of its database."""
    toast: int
    index_of: int
    """The table of an index."""
    parent: int
    """The partitioned table or index of a partition."""
    persistence: str
    """p permanent, u unlogged. Temporary relations are left out."""


@dataclass(frozen=True, slots=True)
class DatabaseMap:
    oid: int
    name: str
    relations: tuple[RelationRow, ...]
    extensions: tuple[tuple[str, str], ...]


_QUERY = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text,
       coalesce(pg_relation_filenode(c.oid), 0)::bigint, c.reltablespace::bigint, c.reltoastrelid::bigint,
       coalesce(i.indrelid, 0)::bigint,
       CASE WHEN c.relispartition THEN coalesce((SELECT min(h.inhparent::bigint) FROM pg_inherits h
                                                  WHERE h.inhrelid = c.oid), 0) ELSE 0 END,
       c.relpersistence::text
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_index i ON i.indexrelid = c.oid
 WHERE c.relpersistence <> 't'
 ORDER BY c.oid
"""


def relation_map(connection: Connection) -> tuple[RelationRow, ...]:
    """Every relation of the connected database, by OID; the shared catalogs are part of every database's map."""
    with server_errors("cannot read the catalog"), connection.cursor(binary=True) as cursor:
        return tuple(map(RelationRow._make, cursor.execute(_QUERY)))


def relation_maps(
    connection: Connection, connect: Callable[[str], Connection], databases: Iterable[Database]
) -> tuple[DatabaseMap, ...]:
    """The maps of all databases that can be connected to, each through ``connect(name)``.

    A database that was dropped since ``databases`` was read is left out; any other failure is raised.
    """
    maps = []
    for database in databases:
        if not (database.allows_connections and database.is_valid):
            continue
        try:
            with connect(database.name) as session:
                maps.append(DatabaseMap(database.oid, database.name, relation_map(session), read_extensions(session)))
        except ServerUnreachable:
            if _exists(connection, database.oid):
                raise
    return tuple(maps)


def _exists(connection: Connection, database_oid: int) -> bool:
    with server_errors("cannot read the catalog"):
        return connection.execute("SELECT 1 FROM pg_database WHERE oid = %s", (database_oid,)).fetchone() is not None
