"""Names of relations by OID, and whose a file is: from the relation maps of backups and from what the WAL tells."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from pitr.pg.lsn import Lsn
from pitr.repo.manifest import BackupManifest
from pitr.repo.relations import RelationMaps
from pitr.wal.catalog_rows import RelationBorn
from pitr.wal.records import RelFileLocator

FIRST_USER_OID = 16384
"""FirstNormalObjectId: below are the system catalogs."""
_KNOWN_SCHEMAS = {11: "pg_catalog", 99: "pg_toast", 2200: "public"}


class Relation(NamedTuple):
    """``schema`` None: not known. ``kind``: relkind."""

    schema: str | None
    name: str
    kind: str


@dataclass(slots=True)
class Names:
    """Relations are known from ``since`` on; of several names the last before the moment asked for is given."""

    _relations: dict[tuple[int, int], list[tuple[Lsn, Relation]]] = field(default_factory=dict)
    _owners: dict[tuple[int, int], int] = field(default_factory=dict)
    """(database, file number) to relation OID. Numbers are not used again for a long time."""
    _databases: dict[int, str] = field(default_factory=dict)
    _schemas: dict[tuple[int, int], str] = field(default_factory=dict)

    def add_backup(self, manifest: BackupManifest, maps: RelationMaps | None) -> None:
        for database in manifest.server.databases:
            self._databases[database.oid] = database.name
        if maps is None:
            return
        for lsn, taken in ((manifest.wal.start_lsn, maps.at_start), (manifest.wal.stop_lsn, maps.at_stop)):
            for one in taken:
                self._databases[one.oid] = one.name
                self._add_map(lsn, one.oid, one.columns)

    def _add_map(self, lsn: Lsn, database: int, columns: dict[str, object]) -> None:
        oids = cast("list[int]", columns["oid"])
        schemas, names, kinds = (cast("list[str]", columns[name]) for name in ("namespace", "name", "kind"))
        files = cast("list[int]", columns["relfilenode"])
        for oid, schema, name, kind, file in zip(oids, schemas, names, kinds, files, strict=True):
            self._know(lsn, database, oid, Relation(schema, name, kind))
            if file:
                self._owners[database, file] = oid

    def _know(self, lsn: Lsn, database: int, oid: int, relation: Relation) -> None:
        known = self._relations.setdefault((database, oid), [])
        if not known or known[-1][1] != relation:
            known.insert(bisect_right(known, lsn, key=lambda entry: entry[0]), (lsn, relation))

    # What the WAL tells

    def learn_relations(self, lsn: Lsn, born: Iterable[RelationBorn]) -> None:
        for relation in born:
            schema = _KNOWN_SCHEMAS.get(relation.namespace)
            self._know(lsn, relation.database, relation.oid, Relation(schema, relation.name, relation.kind))
            if relation.file:
                self._owners[relation.database, relation.file] = relation.oid

    def learn_database(self, oid: int, name: str) -> None:
        self._databases[oid] = name

    def learn_file(self, database: int, number: int, oid: int) -> None:
        self._owners[database, number] = oid

    # Questions

    def relation(self, database: int, oid: int, lsn: Lsn) -> Relation | None:
        known = self._relations.get((database, oid))
        if known is None:
            return None
        return known[max(0, bisect_right(known, lsn, key=lambda entry: entry[0]) - 1)][1]

    def owner(self, file: RelFileLocator) -> int | None:
        """OID of the relation whose main fork this is or was; of system catalogs, it may be the number itself."""
        found = self._owners.get((file.database, file.number))
        return file.number if found is None and file.number < FIRST_USER_OID else found

    def database(self, oid: int) -> str | None:
        return self._databases.get(oid)
