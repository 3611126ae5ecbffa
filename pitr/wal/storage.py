"""Records about files and locks: resource managers SMGR, STANDBY and RELMAP.

catalog/storage_xlog.h, storage/lockdefs.h, utils/relmapper.h.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pitr.pg.lsn import Lsn
from pitr.wal.records import RM_RELMAP, RM_SMGR, RM_STANDBY, Record, RelFileLocator
from pitr.wal.xlog import decode

SMGR_CREATE = 0x10
SMGR_TRUNCATE = 0x20
STANDBY_LOCK = 0x00
RELMAP_UPDATE = 0x00

STORAGE_KINDS = frozenset({(RM_SMGR, SMGR_CREATE), (RM_STANDBY, STANDBY_LOCK), (RM_RELMAP, RELMAP_UPDATE)})
"""What tells which files and relations a transaction lays hands on, for a reader's Selection."""

_MAX_MAPPINGS = 64


class ExclusiveLock(NamedTuple):
    """AccessExclusiveLock on a relation, temporary ones included: taken by DROP, TRUNCATE, rewrites, ALTER."""

    xid: int
    database: int
    relation: int


class FileCreated(NamedTuple):
    """``fork``: 0 main, 1 fsm, 2 vm, 3 init."""

    xid: int
    locator: RelFileLocator
    fork: int


class FileTruncated(NamedTuple):
    """To ``blocks`` blocks: by VACUUM, or whole when the file was made in the same transaction."""

    xid: int
    locator: RelFileLocator
    blocks: int


class MappedFiles(NamedTuple):
    """New files of mapped catalogs (VACUUM FULL of pg_class): relation OID to file number. ``database`` 0: shared."""

    lsn: Lsn
    database: int
    files: tuple[tuple[int, int], ...]


def exclusive_locks(record: Record) -> tuple[ExclusiveLock, ...]:
    """Of a LOCK record; also written anew with each snapshot of running transactions. Raises IntegrityError."""

    def locks(data: bytes) -> tuple[ExclusiveLock, ...]:
        (count,) = struct.unpack_from("<i", data)
        if count * 12 != len(data) - 4:
            raise ValueError(f"{count} locks in {len(data)} bytes")
        return tuple(map(ExclusiveLock._make, struct.iter_unpack("<III", data[4:])))

    return decode(record, locks)


def file_change(record: Record) -> FileCreated | FileTruncated:
    """Of a record of SMGR. Raises IntegrityError."""

    def change(data: bytes) -> FileCreated | FileTruncated:
        if record.operation == SMGR_CREATE:
            *locator, fork = struct.unpack_from("<IIIi", data)
            return FileCreated(record.xid, RelFileLocator(*locator), fork)
        if record.operation != SMGR_TRUNCATE:
            raise ValueError(f"unknown operation 0x{record.operation:02X} on a file")
        blocks, *locator = struct.unpack_from("<IIII", data)
        return FileTruncated(record.xid, RelFileLocator(*locator), blocks)

    return decode(record, change)


def mapped_files(record: Record) -> MappedFiles:
    """Of a RELMAP record, which carries the whole map (RelMapFile). Raises IntegrityError."""

    def files(data: bytes) -> MappedFiles:
        database, _tablespace, _size, _magic, count = struct.unpack_from("<IIiii", data)
        if not 0 <= count <= _MAX_MAPPINGS:
            raise ValueError(f"{count} mapped relations")
        values = struct.unpack_from(f"<{2 * count}I", data, 20)
        return MappedFiles(record.lsn, database, tuple(zip(values[::2], values[1::2], strict=True)))

    return decode(record, files)
