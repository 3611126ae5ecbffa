"""The result's vocabulary: what can have happened to tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from pitr.pg.lsn import Lsn

Op = Literal[
    "drop-database",
    "drop",
    "truncate",
    "delete",
    "update",
    "rewrite",
    "set-tablespace",
    "alter",
    "reindex",
    "restore-point",
]
OPS: tuple[Op, ...] = get_args(Op)
SHOWN: tuple[Op, ...] = tuple(op for op in OPS if op != "reindex")
"""What is shown when no op is asked for."""


_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


@dataclass(frozen=True, slots=True)
class Table:
    """``schema`` and ``name`` are None where no backup and no WAL tells them; ``oid`` None: only its file is known.

    ``kind``: relkind. ``deleted``, ``updated``: rows; ``inserted``: rows written afterwards in the same transaction
    (of a truncated table).
    """

    oid: int | None
    schema: str | None
    name: str | None
    kind: str | None
    deleted: int = 0
    updated: int = 0
    inserted: int = 0
    file: int | None = None

    @property
    def shown(self) -> str:
        if self.name is not None:
            return _quoted(self.name) if self.schema is None else f"{_quoted(self.schema)}.{_quoted(self.name)}"
        return f"relation OID {self.oid}" if self.oid is not None else f"a relation with file {self.file}"


def _quoted(name: str) -> str:
    """As it must be written in SQL, reserved words aside."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of thing that one transaction did.

    lsn            of the commit record; of a restore point, that record; of a database removed without a commit, the
                   first record that removed its files
    xid, time      None for a restore point; time also None where no commit is known
    rows           deleted or updated in all its tables; None where the WAL does not count them
    is_certain     False: it may be the other thing that ``note`` names
    restore        argv that restores the state just before, DIR to be replaced; None when no backup reaches back so far
    """

    op: Op
    lsn: Lsn
    xid: int | None
    time: datetime | None
    database_oid: int | None
    database: str | None
    tables: tuple[Table, ...]
    rows: int | None
    is_certain: bool = True
    name: str | None = None
    """Of a restore point"""
    note: str | None = None
    stop_before: Lsn | None = None
    """Where to stop when that is not the commit: the first record whose effect no rollback undoes"""
    restore: tuple[str, ...] | None = None
