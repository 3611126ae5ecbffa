"""Files of a data directory: which belong to relations, and which a base backup leaves out (backup/basebackup.c).

Paths are relative to the data directory, with forward slashes; tablespaces appear as ``pg_tblspc/<oid>/...``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal, NamedTuple

Fork = Literal["main", "fsm", "vm", "init"]

_FORKS: dict[str | None, Fork] = {None: "main", "fsm": "fsm", "vm": "vm", "init": "init"}

DEFAULT_TABLESPACE = 1663
GLOBAL_TABLESPACE = 1664

_OID = "[1-9][0-9]{0,9}"
_RELATION_DIRECTORY = (
    rf"(?:base/(?P<base>{_OID})|global|pg_tblspc/(?P<tablespace>{_OID})/PG_[0-9]+_[0-9]+/(?P<database>{_OID}))"
)
_RELATION_NAME = rf"(?P<filenode>{_OID})(?:_(?P<fork>fsm|vm|init))?(?:\.(?P<segment>{_OID}))?"
_directory = re.compile(_RELATION_DIRECTORY).fullmatch
_path = re.compile(f"{_RELATION_DIRECTORY}/{_RELATION_NAME}").fullmatch
_name = re.compile(_RELATION_NAME).fullmatch
_temporary_name = re.compile(r"t[0-9]+_[0-9]+(?:_(?:fsm|vm|init))?(?:\.[0-9]+)?").fullmatch

_EMPTIED_DIRECTORIES = frozenset(
    {
        "pg_wal",
        "pg_wal/archive_status",
        "pg_wal/summaries",
        "pg_replslot",
        "pg_dynshmem",
        "pg_notify",
        "pg_serial",
        "pg_snapshots",
        "pg_stat_tmp",
        "pg_subtrans",
    }
)
_KEPT_SUBDIRECTORIES = {"pg_wal": ("archive_status", "summaries")}
_TEMPORARY_PREFIX = "pgsql_tmp"
_RELCACHE_PREFIX = "pg_internal.init"
_LEFT_OUT_AT_TOP = frozenset(
    {
        "postmaster.pid",
        "postmaster.opts",
        "recovery.signal",
        "standby.signal",
        "postgresql.auto.conf.tmp",
        "current_logfiles.tmp",
    }
)
_LEFT_OUT_PREFIXES_AT_TOP = ("backup_label", "tablespace_map", "backup_manifest")


class RelationFile(NamedTuple):
    """One segment file of one fork of a relation. Shared relations have database 0 and tablespace pg_global."""

    tablespace: int
    database: int
    filenode: int
    fork: Fork
    segment: int

    def first_block(self, relation_segment_blocks: int) -> int:
        """The number in the fork of the file's first block."""
        return self.segment * relation_segment_blocks


class RelationDirectory(NamedTuple):
    """A directory that holds relation files."""

    tablespace: int
    database: int


def classify(path: str) -> RelationFile | None:
    """The relation file at this path; None for everything else (temporary relations too)."""
    match = _path(path)
    if match is None:
        return None
    base, tablespace, database, filenode, fork, segment = match.groups()
    place = _place(base, tablespace, database)
    return RelationFile(*place, int(filenode), _FORKS[fork], int(segment or 0))


def relation_directory(directory: str) -> RelationDirectory | None:
    """``global``, ``base/<database>``, ``pg_tblspc/<oid>/PG_<major>_<catalog version>/<database>``, or None."""
    match = _directory(directory)
    return None if match is None else _place(*match.groups())


def _place(base: str | None, tablespace: str | None, database: str | None) -> RelationDirectory:
    if base is not None:
        return RelationDirectory(DEFAULT_TABLESPACE, int(base))
    if tablespace is not None and database is not None:
        return RelationDirectory(int(tablespace), int(database))
    return RelationDirectory(GLOBAL_TABLESPACE, 0)


def tablespace_version_directory(major: int, catalog_version: int) -> str:
    """The directory in a tablespace that belongs to this version; those of other versions are another cluster's."""
    return f"PG_{major}_{catalog_version}"


def files_to_back_up(directory: str, names: Collection[str]) -> list[str]:
    """The names of the *files* in a directory ("" is the data directory itself) that belong into a base backup.

    ``names``: all of its files. Left out: what the server rebuilds or must not find, temporary relations, and the forks
    of unlogged relations except ``_init``, from which a restored server makes them anew.
    """
    if directory in _EMPTIED_DIRECTORIES or _is_below_emptied(directory):
        return []
    kept = [name for name in names if not name.startswith((_TEMPORARY_PREFIX, _RELCACHE_PREFIX))]
    if directory == "":
        return [
            name for name in kept if name not in _LEFT_OUT_AT_TOP and not name.startswith(_LEFT_OUT_PREFIXES_AT_TOP)
        ]
    place = relation_directory(directory)
    if place is None or place.database == 0:
        return kept
    return _without_passing_relations(kept)


def directories_to_back_up(directory: str, names: Collection[str]) -> list[str]:
    """The names of the *directories* in a directory that a base backup makes (empty or not) and walks into."""
    if directory in _EMPTIED_DIRECTORIES or _is_below_emptied(directory):
        return [name for name in names if name in _KEPT_SUBDIRECTORIES.get(directory, ())]
    return [name for name in names if not name.startswith(_TEMPORARY_PREFIX)]


def _is_below_emptied(directory: str) -> bool:
    return "/" in directory and directory.split("/", 1)[0] in _EMPTIED_DIRECTORIES


def _without_passing_relations(names: list[str]) -> list[str]:
    unlogged = {name[: -len("_init")] for name in names if name.endswith("_init")}
    kept = []
    for name in names:
        match = _name(name)
        if match is None:
            if not _temporary_name(name):
                kept.append(name)
        elif match["fork"] == "init" or match["filenode"] not in unlogged:
            kept.append(name)
    return kept
