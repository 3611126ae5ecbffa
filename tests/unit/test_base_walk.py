"""What a walk finds in a data directory, and configuration files outside it; no server needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitr.base.configfiles import config_entries
from pitr.base.walk import Walk
from pitr.core.errors import IntegrityError
from pitr.repo.maps import FileEntry, FileFlag, FileKind

VERSION = "PG_15_202209061"


def make(root: Path, *paths: str, size: int = 8192) -> None:
    for path in paths:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes(size))


def walk(root: Path, **words: frozenset[str]) -> tuple[dict[str, FileEntry], dict[int, str], list[str]]:
    warnings: list[str] = []
    found = Walk(str(root), block_size=8192, major=15, catalog_version=202209061, warn=warnings.append, **words).run()
    entries = {entry.path: entry for entry in found.entries}
    assert len(entries) == len(found.entries)
    return entries, found.tablespaces, warnings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    make(data, "global/pg_control", "PG_VERSION", "base/1/1259", "base/1/PG_VERSION")
    (data / "pg_tblspc").mkdir()
    return data


def test_relations_are_known_by_their_numbers(root: Path) -> None:
    make(root, "base/5/16384.2", "base/5/16384_vm", "global/1262", size=8192 * 3 + 10)
    entries, _, _ = walk(root)
    found = entries["base/5/16384.2"]
    assert (found.kind, found.tablespace, found.database, found.relation) == (FileKind.RELATION, 1663, 5, 16384)
    assert (found.segment, found.fork, found.size, found.flags) == (2, 0, 3 * 8192, FileFlag.PARTIAL_TAIL)
    assert entries["base/5/16384_vm"].fork == 2
    assert (entries["global/1262"].tablespace, entries["global/1262"].database) == (1664, 0)
    assert entries["base/1/PG_VERSION"].kind is FileKind.OTHER
    assert entries["base/5"].kind is FileKind.DIRECTORY


def test_tablespaces_by_link_and_in_place(root: Path, tmp_path: Path) -> None:
    space = tmp_path / "space"
    make(space, f"{VERSION}/5/20000", "PG_14_202107181/5/20000", "stray")
    make(root, f"pg_tblspc/30000/{VERSION}/5/20001", "pg_tblspc/notes.txt")
    (root / "pg_tblspc" / "40000").symlink_to(space)
    (root / "pg_tblspc" / "50000").symlink_to(tmp_path / "absent")
    entries, tablespaces, warnings = walk(root)
    assert tablespaces == {30000: "pg_tblspc/30000", 40000: str(space)}
    assert {path for path in entries if path.startswith("pg_tblspc/")} == {
        "pg_tblspc/30000",
        f"pg_tblspc/30000/{VERSION}",
        f"pg_tblspc/30000/{VERSION}/5",
        f"pg_tblspc/30000/{VERSION}/5/20001",
        "pg_tblspc/40000",
        f"pg_tblspc/40000/{VERSION}",
        f"pg_tblspc/40000/{VERSION}/5",
        f"pg_tblspc/40000/{VERSION}/5/20000",
    }
    assert entries[f"pg_tblspc/40000/{VERSION}/5/20000"].tablespace == 40000
    assert len(warnings) == 1
    assert "50000" in warnings[0]


def test_a_tablespace_inside_the_data_directory_is_taken_once(root: Path) -> None:
    make(root, f"inside/{VERSION}/5/20000")
    (root / "pg_tblspc" / "40000").symlink_to(root / "inside")
    entries, _, _ = walk(root)
    assert f"pg_tblspc/40000/{VERSION}/5/20000" in entries
    assert entries["inside"].kind is FileKind.DIRECTORY
    assert f"inside/{VERSION}" not in entries


def test_wal_elsewhere_and_emptied_directories(root: Path, tmp_path: Path) -> None:
    make(tmp_path / "wal", "000000010000000000000001", "archive_status/000000010000000000000001.done")
    (root / "pg_wal").symlink_to(tmp_path / "wal")
    make(root, "stats/db_0.stat", "pg_subtrans/0000", "lost+found/x")
    entries, _, warnings = walk(root, emptied=frozenset({"stats"}))
    assert warnings == []
    assert {path for path in entries if path.startswith(("pg_wal", "stats", "pg_subtrans", "lost"))} == {
        "pg_wal",
        "pg_wal/archive_status",
        "stats",
        "pg_subtrans",
    }


def test_no_data_directory(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="pg_control"):
        walk(tmp_path)


def test_configuration_with_its_includes(root: Path, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    make(etc, "hba.conf", "conf.d/b.conf", "conf.d/.hidden.conf", "conf.d/c.txt", "it's.conf")
    (etc / "postgresql.conf").write_text(
        "# include 'commented.conf'\n"
        "include = 'it''s.conf'\n"
        "  INCLUDE_DIR 'conf.d'  # here\n"
        "include_if_exists 'absent.conf'\n"
        "include 'missing.conf'\n"
        f"include '{root}/postgresql.auto.conf'\n"
        "include 'postgresql.conf'\n"
    )
    (root / "postgresql.auto.conf").touch()
    warnings: list[str] = []
    found = config_entries(root, [str(etc / "postgresql.conf"), str(etc / "hba.conf"), None], warnings.append)
    assert [entry.path for entry in found] == [
        str(etc / name) for name in ("postgresql.conf", "it's.conf", "conf.d/b.conf", "hba.conf")
    ]
    assert all(entry.kind is FileKind.CONFIG for entry in found)
    assert len(warnings) == 1
    assert "missing.conf" in warnings[0]


def test_symbolic_links_in_circles_are_passed_over(root: Path) -> None:
    (root / "itself").symlink_to("itself")
    (root / "extra").mkdir()
    (root / "extra" / "up").symlink_to("..")
    entries, _, warnings = walk(root)
    assert "extra" in entries
    assert not any(path.startswith(("itself", "extra/up")) for path in entries)
    assert any("itself is a symbolic link to itself" in text for text in warnings)
