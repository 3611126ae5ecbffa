"""Rows inserted into pg_class and pg_database, found in WAL: relations and databases born after any backup's map.

pg_class has another file number after VACUUM FULL, so its rows are recognised by their shape: the number of columns and
what stands in the fixed part (catalog/pg_class.h).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pitr.wal.heap import HEAP_INSERT
from pitr.wal.images import page_image
from pitr.wal.records import PG_DATABASE, RM_HEAP, Record
from pitr.wal.stream import Stream

_GLOBAL_TABLESPACE = 1664
_COLUMNS_MASK = 0x07FF
_TUPLE_HEADER = 23
_LINE_POINTERS = 24
_PERSISTENCE = b"put"
_KINDS = b"rtiSvmcfpI"
_NAME_BYTES = 64
_IMAGE = 0x10
_OPERATION = 0x70
_MAIN_DATA_OFFSET = 44
_SHORT_MAIN_DATA = 255
"""In an INSERT with one block reference and nothing unusual, the row's t_infomask2 follows the main data's header."""
_PG_DATABASE_FILE = struct.pack("<I", PG_DATABASE.number)


class RelationBorn(NamedTuple):
    """A new row of pg_class. ``rewrite_of``: it is the transient copy of that table (relrewrite), 0 otherwise."""

    xid: int
    database: int
    oid: int
    namespace: int
    name: str
    kind: str
    persistence: str
    file: int
    rewrite_of: int


class DatabaseBorn(NamedTuple):
    xid: int
    oid: int
    name: str


def columns_of_pg_class(major: int) -> int:
    return 34 if major >= 18 else 33


def births(stream: Stream, positions: Iterable[int], major: int) -> Iterator[RelationBorn | DatabaseBorn]:
    """Of the heap records at these positions, those that insert such rows."""
    body, columns = stream.body, columns_of_pg_class(major)
    for position in positions:
        if body[position + 17] == RM_HEAP and body[position + 16] & _OPERATION == HEAP_INSERT:
            plain = not body[position + 25] & _IMAGE and body[position + _MAIN_DATA_OFFSET] == _SHORT_MAIN_DATA
            file = body[position + 36 : position + 40]
            if plain and body[position + _MAIN_DATA_OFFSET + 2] != columns and file != _PG_DATABASE_FILE:
                continue
            born = birth(stream.record(position))
            if born is not None:
                yield born


def birth(record: Record) -> RelationBorn | DatabaseBorn | None:
    """What an INSERT of the resource manager HEAP adds to pg_class or pg_database; None for other rows.

    Raises IntegrityError.
    """
    body = record.body()
    block = next(iter(body.blocks), None)
    if block is None or block.fork != 0 or (block.locator.number < 16384 and block.locator.number not in (1259, 1262)):
        return None
    found = _from_data(block.data) if block.data else _from_image(record, body.main_data)
    if found is None:
        return None
    columns, row = found
    if block.locator == PG_DATABASE:
        name = _name(row)
        return None if name is None else DatabaseBorn(record.xid, struct.unpack_from("<I", row)[0], name)
    if columns != columns_of_pg_class(record.major) or block.locator.tablespace == _GLOBAL_TABLESPACE:
        return None
    return _relation(record.xid, block.locator.database, row, record.major)


def _from_data(data: bytes) -> tuple[int, bytes] | None:
    """xl_heap_header (infomask2, infomask, hoff), then the tuple behind its fixed header."""
    if len(data) < 5:
        return None
    return struct.unpack_from("<H", data)[0] & _COLUMNS_MASK, data[5 + data[4] - _TUPLE_HEADER :]


def _from_image(record: Record, main_data: bytes) -> tuple[int, bytes] | None:
    page = page_image(record, 0)
    if page is None or len(main_data) < 2:
        return None
    (offset_number,) = struct.unpack_from("<H", main_data)
    at = _LINE_POINTERS + 4 * (offset_number - 1)
    if not _LINE_POINTERS <= at <= len(page) - 4:
        return None
    (pointer,) = struct.unpack_from("<I", page, at)
    begin, length = pointer & 0x7FFF, pointer >> 17
    if length < _TUPLE_HEADER or begin + length > len(page):
        return None
    (infomask2,) = struct.unpack_from("<H", page, begin + 18)
    return infomask2 & _COLUMNS_MASK, page[begin + page[begin + 22] : begin + length]


def _relation(xid: int, database: int, row: bytes, major: int) -> RelationBorn | None:
    widened = 4 if major >= 18 else 0  # relallfrozen, before reltoastrelid
    if len(row) < 132 + widened:
        return None
    name = _name(row)
    persistence, kind = row[114 + widened], row[115 + widened]
    if name is None or persistence not in _PERSISTENCE or kind not in _KINDS:
        return None
    (oid,), (namespace,), (file,) = (struct.unpack_from("<I", row, at) for at in (0, 68, 88))
    (rewrite_of,) = struct.unpack_from("<I", row, 128 + widened)
    return RelationBorn(xid, database, oid, namespace, name, chr(kind), chr(persistence), file, rewrite_of)


def _name(row: bytes) -> str | None:
    """The second column, of type name, behind an OID."""
    raw = row[4 : 4 + _NAME_BYTES]
    name = raw.rstrip(b"\0")
    if len(raw) < _NAME_BYTES or not name or b"\0" in name:
        return None
    return name.decode("utf-8", "surrogateescape")
