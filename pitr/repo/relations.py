"""The relation maps of a backup: names, kinds and files of every relation of every database, at start and at stop."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pitr.core.documents import to_json
from pitr.repo.documents import read_as

FORMAT = 1

Row = tuple[int, str, str, str, str, int, int, int, int, int]
COLUMNS = (
    "oid", "namespace", "name", "kind", "persistence", "relfilenode", "tablespace", "toast", "index_of", "partition_of",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DatabaseRelations:
    """``columns[name][i]`` describes relation i; see COLUMNS. Zero means none."""

    oid: int
    name: str
    columns: dict[str, object]

    @classmethod
    def of(cls, oid: int, name: str, rows: list[Row]) -> DatabaseRelations:
        turned = zip(*rows, strict=True) if rows else [() for _ in COLUMNS]
        return cls(oid, name, {column: list(values) for column, values in zip(COLUMNS, turned, strict=True)})

    def __len__(self) -> int:
        values = self.columns["oid"]
        return len(values) if isinstance(values, list) else 0


@dataclass(frozen=True, slots=True)
class RelationMaps:
    """``unread`` names databases that could not be connected to (and why)."""

    format: int
    at_start: tuple[DatabaseRelations, ...]
    at_stop: tuple[DatabaseRelations, ...]
    unread: dict[str, str]


def dump_relations(maps: RelationMaps) -> bytes:
    return json.dumps(to_json(maps), separators=(",", ":")).encode()


def load_relations(data: bytes, name: str) -> RelationMaps:
    return read_as(RelationMaps, data, name, FORMAT)
