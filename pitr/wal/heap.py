"""Changes of rows: resource managers HEAP and HEAP2 (access/heapam_xlog.h), counted by file."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import repeat

from pitr.wal.records import RM_HEAP, RM_HEAP2, Record, RelFileLocator
from pitr.wal.stream import Stream
from pitr.wal.xlog import decode

HEAP_INSERT = 0x00
HEAP_DELETE = 0x10
HEAP_UPDATE = 0x20
HEAP_HOT_UPDATE = 0x40
HEAP2_MULTI_INSERT = 0x50
_OPERATION = 0x70
_INIT_PAGE = 0x80
_IMAGE = 0x10

INSERTED, DELETED, UPDATED = 0, 1, 2
_COLUMN = {HEAP_INSERT: INSERTED, HEAP_DELETE: DELETED, HEAP_UPDATE: UPDATED, HEAP_HOT_UPDATE: UPDATED}

ROW_KINDS = frozenset(
    (rmid, operation | init)
    for rmid, operations in ((RM_HEAP, tuple(_COLUMN)), (RM_HEAP2, (HEAP2_MULTI_INSERT,)))
    for operation in operations
    for init in (0, _INIT_PAGE)
)
"""Records that insert, delete or update rows, for a reader's Selection."""

_PLAIN = struct.Struct("<BBxxxxxxBB2x12s")
"""From xl_info on: info, rmid, block id, flags of the block, locator when the block has no image."""
_PLAIN_OFFSET = 16
_FLAGS_OFFSET = 25

RowCounts = dict[RelFileLocator, list[int]]
"""File to [inserted, deleted, updated]."""


def count_row(counts: RowCounts, record: Record) -> None:
    """Add one record of ROW_KINDS. Raises IntegrityError."""
    block = next((block for block in record.body().blocks if block.id == 0), None)
    if block is None:
        return
    row = counts.setdefault(block.locator, [0, 0, 0])
    if record.rmid == RM_HEAP2:
        row[INSERTED] += _rows_of_multi_insert(record)
    else:
        row[_COLUMN[record.info & _OPERATION]] += 1


def count_rows(counts: RowCounts, stream: Stream, positions: Sequence[int]) -> None:
    """Add many records of ROW_KINDS at once; others among them are passed over. Raises IntegrityError."""
    body = stream.body
    slow: list[int] = []
    for (info, rmid, block, flags, locator), count in Counter(
        map(_PLAIN.unpack_from, repeat(body), (position + _PLAIN_OFFSET for position in positions))
    ).items():
        if rmid == RM_HEAP and block == 0 and not flags & _IMAGE:
            row = counts.setdefault(RelFileLocator(*struct.unpack("<III", locator)), [0, 0, 0])
            row[_COLUMN[info & _OPERATION]] += count
        elif rmid in (RM_HEAP, RM_HEAP2):
            slow.append(1)
    if slow:
        for position in _not_plain(body, positions):
            count_row(counts, stream.record(position))


def _not_plain(body: bytes, positions: Iterable[int]) -> Iterable[int]:
    for position in positions:
        rmid = body[position + 17]
        if rmid == RM_HEAP2 or (rmid == RM_HEAP and (body[position + 24] or body[position + _FLAGS_OFFSET] & _IMAGE)):
            yield position


def _rows_of_multi_insert(record: Record) -> int:
    """xl_heap_multi_insert: flags, then ntuples."""
    (count,) = decode(record, lambda data: struct.unpack_from("<2xH", data))
    return int(count)
