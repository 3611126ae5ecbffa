"""Finding programs of a major version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pitr.core.errors import ToolMissing
from pitr.pg.tools import find_tools


def install(directory: Path, version: str, *names: str) -> Path:
    directory.mkdir(parents=True)
    for name in names:
        program = directory / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return directory


def test_configured_directory_is_taken(tmp_path: Path) -> None:
    directory = install(tmp_path / "bin", "13.2 (Debian 13.2-1)", "pg_dump", "psql")
    tools = find_tools(13, ["pg_dump", "psql"], configured=directory)
    assert (tools.bin_dir, tools.version, tools.major) == (directory, "13.2", 13)
    assert tools.path("psql") == str(directory / "psql")
    assert tools.has("psql")
    assert not tools.has("pg_ctl")
    with pytest.raises(ToolMissing, match="pg_ctl is not in"):
        tools.path("pg_ctl")


def test_configured_directory_is_not_replaced_by_another(tmp_path: Path) -> None:
    directory = install(tmp_path / "bin", "14.1", "pg_dump")
    with pytest.raises(ToolMissing) as caught:
        find_tools(15, ["pg_dump"], configured=directory)
    assert "14.1" in str(caught.value.detail)
    with pytest.raises(ToolMissing) as caught:
        find_tools(14, ["pg_dump", "psql"], configured=directory)
    assert "not there" in str(caught.value.detail)


def test_newer_is_taken_only_when_allowed(tmp_path: Path) -> None:
    directory = install(tmp_path / "bin", "17beta2", "pg_dump")
    assert find_tools(14, ["pg_dump"], configured=directory, or_newer=True).major == 17
    with pytest.raises(ToolMissing):
        find_tools(14, ["pg_dump"], configured=directory)
    with pytest.raises(ToolMissing):
        find_tools(18, ["pg_dump"], configured=directory, or_newer=True)


def test_path_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = install(tmp_path / "bin", "13.7", "made_for_this_test")
    with pytest.raises(ToolMissing):
        find_tools(13, ["made_for_this_test"])
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    assert find_tools(13, ["made_for_this_test"]).bin_dir == directory


def test_missing_program_tells_what_to_install() -> None:
    with pytest.raises(ToolMissing) as caught:
        find_tools(15, ["pg_ctl", "no_such_program"])
    assert "postgresql-15" in str(caught.value.hint)
    with pytest.raises(ToolMissing) as caught:
        find_tools(13, ["no_such_program"])
    assert "postgresql-client-13" in str(caught.value.hint)


def test_program_that_does_not_run_is_no_installation(tmp_path: Path) -> None:
    directory = install(tmp_path / "bin", "15.1", "pg_dump")
    (directory / "pg_dump").write_text("#!/nonexistent/interpreter\n")
    with pytest.raises(ToolMissing):
        find_tools(15, ["pg_dump"], configured=directory)


@pytest.mark.pg
@pytest.mark.majors
def test_installed_majors(major: int) -> None:
    tools = find_tools(major, ["postgres", "pg_dump", "pg_controldata"])
    assert tools.major == major
    assert Path(tools.path("pg_dump")).is_absolute()
