"""pg_control: the state, identity and settings of a cluster (catalog/pg_control.h of PostgreSQL 13 to 18)."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pitr.core.errors import ConfigError, IntegrityError, VersionUnsupported
from pitr.core.files import os_errors_as_pitr
from pitr.pg.crc32c import crc32c
from pitr.pg.lsn import Lsn
from pitr.pg.segments import is_segment_size
from pitr.pg.versions import MAJOR_OF_CATALOG_VERSION, SUPPORTED_MAJORS, supported_text

CONTROL_FILE = "global/pg_control"
CONTROL_FILE_SIZE = 8192

RECOVERY_PARAMETERS = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)
"""The five parameters that a recovery needs at least as high as they were on the primary."""

_IDENTITY = struct.Struct("<QII")
_WAL_LEVELS = {0: "minimal", 1: "replica", 2: "logical"}
_PATIENCE_S = 1.0
_READ_INTERVAL_S = 0.02


class DbState(IntEnum):
    """DBState; ``label`` is what pg_controldata prints."""

    STARTUP = 0
    SHUTDOWNED = 1
    SHUTDOWNED_IN_RECOVERY = 2
    SHUTDOWNING = 3
    IN_CRASH_RECOVERY = 4
    IN_ARCHIVE_RECOVERY = 5
    IN_PRODUCTION = 6

    @property
    def label(self) -> str:
        return (
            "starting up",
            "shut down",
            "shut down in recovery",
            "shutting down",
            "in crash recovery",
            "in archive recovery",
            "in production",
        )[self]


# ControlFileData in order: type codes of the struct module in native alignment, and names ("18:": from that major on).
_FIELDS = """
    Q system_identifier  I control_version  I catalog_version  i state  q time  Q checkpoint
    Q redo  I timeline  I previous_timeline  ? full_page_writes  i 18:checkpoint_wal_level
    Q next_xid  I next_oid  I next_multi  I next_multi_offset  I oldest_xid  I oldest_xid_db  I oldest_multi
    I oldest_multi_db  q checkpoint_time  I oldest_commit_ts_xid  I newest_commit_ts_xid  I oldest_active_xid
    Q unlogged_lsn  Q min_recovery_point  I min_recovery_timeline  Q backup_start_point  Q backup_end_point
    ? backup_end_required  i wal_level  ? wal_log_hints  i max_connections  i max_worker_processes  i max_wal_senders
    i max_prepared_transactions  i max_locks_per_transaction  ? track_commit_timestamp
    I max_align  d float_format  I block_size  I relation_segment_blocks  I wal_block_size  I segment_size
    I name_data_length  I index_max_keys  I toast_max_chunk_size  I large_object_chunk_size  ? float8_by_value
    I checksum_version  ? 18:default_char_signedness  32s mock_authentication_nonce  I crc
"""


class _Layout(NamedTuple):
    names: tuple[str, ...]
    fields: struct.Struct

    @property
    def crc_offset(self) -> int:
        return self.fields.size - 4


_MAJOR_OF_LAYOUT = {1300: 13, 1700: 17, 1800: 18}  # 1300: 13 to 16


@cache
def _layout(major: int) -> _Layout:
    words = _FIELDS.split()
    names, codes = [], []
    for code, name in zip(words[::2], words[1::2], strict=True):
        since, separator, bare = name.rpartition(":")
        if not separator or major >= int(since):
            names.append(bare)
            codes.append(code)
    return _Layout(tuple(names), struct.Struct("@" + "".join(codes)))


@dataclass(frozen=True, slots=True)
class ControlData:
    """What pg_control says. An LSN of 0/0 stands for "none", as in the file."""

    system_identifier: int
    control_version: int
    catalog_version: int
    major: int
    state: DbState
    time: datetime
    checkpoint_lsn: Lsn
    redo_lsn: Lsn
    timeline: int
    previous_timeline: int
    full_page_writes: bool
    next_xid: int
    """64 bits: epoch and xid."""
    next_oid: int
    checkpoint_time: datetime
    min_recovery_lsn: Lsn
    min_recovery_timeline: int
    backup_start_lsn: Lsn
    backup_end_lsn: Lsn
    backup_end_required: bool
    wal_level: str
    wal_log_hints: bool
    recovery_parameters: Mapping[str, int]
    """The five of RECOVERY_PARAMETERS by their names."""
    track_commit_timestamp: bool
    max_align: int
    float_format: float
    block_size_bytes: int
    relation_segment_blocks: int
    wal_block_size_bytes: int
    segment_size_bytes: int
    checksum_version: int

    @property
    def checksums(self) -> bool:
        return self.checksum_version > 0


def parse_control(data: bytes) -> ControlData:
    """Decode the content of global/pg_control. Raises IntegrityError (torn, damaged) and VersionUnsupported."""
    if len(data) < _IDENTITY.size:
        raise IntegrityError("pg_control is too short", detail=f"{len(data)} bytes")
    _, control_version, catalog_version = _IDENTITY.unpack_from(data)
    layout_of = _MAJOR_OF_LAYOUT.get(control_version)
    if layout_of is None:
        if control_version == 0 or control_version > 10000:
            raise IntegrityError("pg_control is damaged", detail=f"its version field says {control_version}")
        raise VersionUnsupported(
            f"pg_control of version {control_version} cannot be read",
            hint=f"PostgreSQL {supported_text()} are",
        )
    layout = _layout(layout_of)
    if len(data) < layout.fields.size:
        raise IntegrityError("pg_control is too short", detail=f"{len(data)} bytes")
    (stored_crc,) = struct.unpack_from("@I", data, layout.crc_offset)
    if crc32c(data[: layout.crc_offset]) != stored_crc:
        raise IntegrityError("the checksum of pg_control does not match", detail="it is torn or damaged")
    major = MAJOR_OF_CATALOG_VERSION.get(catalog_version)
    if major is None:
        raise VersionUnsupported(
            f"the catalog version {catalog_version} belongs to no supported release of PostgreSQL",
            hint=f"PostgreSQL {supported_text()} are",
        )
    return _control_data(dict(zip(layout.names, layout.fields.unpack_from(data), strict=True)), major)


def _control_data(found: dict[str, Any], major: int) -> ControlData:
    if not is_segment_size(found["segment_size"]) or found["wal_level"] not in _WAL_LEVELS:
        raise IntegrityError("pg_control holds impossible values", detail=f"segment size {found['segment_size']}")
    return ControlData(
        system_identifier=found["system_identifier"],
        control_version=found["control_version"],
        catalog_version=found["catalog_version"],
        major=major,
        state=DbState(found["state"]),
        time=datetime.fromtimestamp(found["time"], UTC),
        checkpoint_lsn=Lsn(found["checkpoint"]),
        redo_lsn=Lsn(found["redo"]),
        timeline=found["timeline"],
        previous_timeline=found["previous_timeline"],
        full_page_writes=bool(found["full_page_writes"]),
        next_xid=found["next_xid"],
        next_oid=found["next_oid"],
        checkpoint_time=datetime.fromtimestamp(found["checkpoint_time"], UTC),
        min_recovery_lsn=Lsn(found["min_recovery_point"]),
        min_recovery_timeline=found["min_recovery_timeline"],
        backup_start_lsn=Lsn(found["backup_start_point"]),
        backup_end_lsn=Lsn(found["backup_end_point"]),
        backup_end_required=bool(found["backup_end_required"]),
        wal_level=_WAL_LEVELS[found["wal_level"]],
        wal_log_hints=bool(found["wal_log_hints"]),
        recovery_parameters={name: found[name] for name in RECOVERY_PARAMETERS},
        track_commit_timestamp=bool(found["track_commit_timestamp"]),
        max_align=found["max_align"],
        float_format=found["float_format"],
        block_size_bytes=found["block_size"],
        relation_segment_blocks=found["relation_segment_blocks"],
        wal_block_size_bytes=found["wal_block_size"],
        segment_size_bytes=found["segment_size"],
        checksum_version=found["checksum_version"],
    )


def read_control(path: Path) -> ControlData:
    """Read a pg_control file; the server may be writing it, so it is read again until its checksum holds.

    Raises IntegrityError when it does not within a second, ConfigError when there is no such file.
    """
    return read_control_file(path)[1]


def read_control_file(path: Path) -> tuple[bytes, ControlData]:
    """As read_control, with the bytes that were checked: what a backup must store."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        data = _read(path)
        try:
            return data, parse_control(data)
        except IntegrityError as error:
            if time.monotonic() > deadline:
                raise IntegrityError(f"{path}: {error.message}", detail=error.detail) from error
        time.sleep(_READ_INTERVAL_S)


def _read(path: Path) -> bytes:
    with os_errors_as_pitr(f"cannot read {path}"):
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise _no_data_directory(path.parent.parent, CONTROL_FILE) from None


def read_major_version(data_directory: Path) -> int:
    """The major in PG_VERSION. Raises ConfigError (not a data directory) and VersionUnsupported."""
    path = data_directory / "PG_VERSION"
    try:
        text = path.read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        raise _no_data_directory(data_directory, "PG_VERSION") from None
    except UnicodeDecodeError:
        text = ""
    if not text.isdigit():
        if text.replace(".", "", 1).isdigit():
            raise VersionUnsupported(f"PostgreSQL {text} is not supported", hint=f"PostgreSQL {supported_text()} are")
        raise IntegrityError(f"{path} holds no version number", detail=text[:40] or None)
    major = int(text)
    if major not in SUPPORTED_MAJORS:
        raise VersionUnsupported(f"PostgreSQL {major} is not supported", hint=f"PostgreSQL {supported_text()} are")
    return major


def _no_data_directory(directory: Path, missing: str) -> ConfigError:
    return ConfigError(
        f"{directory} is not a PostgreSQL data directory",
        detail=f"it has no {missing}",
        hint="set data_directory of the cluster in the configuration",
    )
