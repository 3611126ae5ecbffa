"""Plan of a copy: every file that belongs into the backup, and where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pitr.base.configfiles import config_entries
from pitr.base.preflight import Server
from pitr.base.read import Source
from pitr.base.walk import Walk
from pitr.pg.control import CONTROL_FILE
from pitr.repo.maps import FileEntry, FileKind


@dataclass(frozen=True, slots=True)
class Plan:
    """``entries``: files and directories in the order in which they were found; the index is the file's number.

    ``control`` is the index of pg_control, which is copied last.
    """

    source: Source
    entries: list[FileEntry]
    tablespaces: dict[int, str]
    control: int

    @property
    def total_bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    def copied_by_workers(self) -> list[int]:
        return [
            index
            for index, entry in enumerate(self.entries)
            if entry.kind is not FileKind.DIRECTORY and index != self.control
        ]


def make_plan(server: Server, warn: Callable[[str], None]) -> Plan:
    """Walk the data directory; call it after pg_backup_start has returned."""
    facts, root = server.facts, str(server.data_directory)
    statistics = facts.settings.get("stats_temp_directory")
    walked = Walk(
        root,
        block_size=facts.block_size_bytes,
        major=facts.major,
        catalog_version=facts.catalog_version,
        warn=warn,
        emptied=frozenset({statistics.value} if statistics else ()),
    ).run()
    entries = walked.entries
    if facts.config_file is None:
        warn(
            f"role {facts.user} may not see where the configuration files are: "
            "those outside the data directory are left out"
        )
    outside = (facts.config_file, facts.hba_file, facts.ident_file)
    entries += config_entries(server.data_directory, outside, warn)
    control = next(index for index, entry in enumerate(entries) if entry.path == CONTROL_FILE)

    def path_of(entry: FileEntry) -> str:
        return entry.path if entry.kind is FileKind.CONFIG else f"{root}/{entry.path}"

    source = Source(entries, path_of, facts.block_size_bytes, server.control.relation_segment_blocks, facts.checksums)
    return Plan(source, entries, walked.tablespaces, control)
