"""The settings for archiving against a real server: plan, texts, applying, whose archiving it is, the server's user."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pitr.archive.configure import apply_plan, plan_configure, render_conf, render_patroni, render_sql
from pitr.archive.preflight import check_server_user
from pitr.archive.wal_status import read_archiver
from pitr.core.errors import OverwriteRefused, PrivilegeMissing
from pitr.pg.facts import ServerFacts, read_facts
from pitr.pg.server import connect
from tests.support.cluster import Cluster, ClusterFactory

pytestmark = pytest.mark.pg

PREFIX = ["/opt/my tools/pitr", "--config", "/etc/it's 100%\\p.toml", "--cluster", "shop"]


def facts_of(cluster: Cluster) -> ServerFacts:
    with connect(cluster.conninfo(), "test") as connection:
        return read_facts(connection)


def setting(cluster: Cluster, name: str) -> str:
    return str(cluster.value("SELECT reset_val FROM pg_settings WHERE name = %s", params=[name]))


def test_a_plan_changes_nothing(cluster: Cluster) -> None:
    plan = plan_configure(facts_of(cluster), PREFIX)
    assert {change.name: change.needs for change in plan.changes} == {
        "archive_mode": "restart",
        "archive_command": "reload",
        "archive_timeout": "reload",
    }
    assert plan.foreign is None
    assert plan.values()["wal_level"] == "replica"
    assert setting(cluster, "archive_command") == ""
    assert not (cluster.data_directory / "postgresql.auto.conf").read_text().count("archive")


def test_applied_and_after_a_restart_in_use(cluster: Cluster) -> None:
    plan = plan_configure(facts_of(cluster), PREFIX)
    with connect(cluster.conninfo(), "test") as connection:
        result = apply_plan(connection, plan)
    assert result.restart_needed == ("archive_mode",)
    assert setting(cluster, "archive_command") == plan.values()["archive_command"]
    cluster.restart()
    again = plan_configure(facts_of(cluster), PREFIX)
    assert again.changes == ()
    assert again.foreign is None
    with connect(cluster.conninfo(), "test") as connection:
        assert read_archiver(connection).is_ours


@pytest.mark.parametrize("form", ["conf", "sql"])
def test_the_texts_give_the_server_the_same_values(cluster: Cluster, form: str) -> None:
    plan = plan_configure(facts_of(cluster), PREFIX, archive_timeout_s=90)
    if form == "conf":
        with (cluster.data_directory / "postgresql.conf").open("a") as conf:
            conf.write("\n".join(render_conf(plan)) + "\n")
    else:
        with cluster.connect() as connection:
            for line in render_sql(plan):
                if not line.startswith("--"):
                    connection.execute(line.encode())
    cluster.restart()
    for name, value in plan.values().items():
        assert setting(cluster, name) == value
    assert setting(cluster, "archive_timeout") == "90"


def test_patroni_gets_yaml(cluster: Cluster) -> None:
    lines = render_patroni(plan_configure(facts_of(cluster), PREFIX))
    assert lines[:2] == ["postgresql:", "  parameters:"]
    (command,) = [line for line in lines if "archive_command" in line]
    assert "100%%" in command
    assert command.count("''") >= 2, "single quotes are doubled"


def test_another_tools_archiving_is_not_touched(cluster_factory: ClusterFactory) -> None:
    theirs = "cp %p /somewhere/%f"
    cluster = cluster_factory(conf={"archive_mode": "always", "archive_command": theirs, "archive_timeout": "300"})
    cluster.start()
    plan = plan_configure(facts_of(cluster), PREFIX)
    assert plan.foreign == f"archive_command = {theirs}"
    assert plan.values()["archive_mode"] == "always"
    assert plan.values()["archive_timeout"] == "300"
    with connect(cluster.conninfo(), "test") as connection:
        with pytest.raises(OverwriteRefused) as refused:
            apply_plan(connection, plan)
        assert theirs in (refused.value.detail or "")
        assert setting(cluster, "archive_command") == theirs
        result = apply_plan(connection, plan, replace=True)
    assert result.changed == ("archive_command",)
    assert setting(cluster, "archive_command") == plan.values()["archive_command"]


def test_an_archive_library_is_another_tool(cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory(conf={"archive_library": "basic_archive"}).start()
    plan = plan_configure(facts_of(cluster), PREFIX)
    assert plan.foreign == "archive_library = basic_archive"
    assert plan.values()["archive_library"] == ""


def test_wal_level_minimal_needs_a_restart_and_logical_stays(cluster_factory: ClusterFactory) -> None:
    minimal = cluster_factory(conf={"wal_level": "minimal", "max_wal_senders": "0"}).start()
    plan = plan_configure(facts_of(minimal), PREFIX)
    assert plan.restart_needed == ("wal_level", "archive_mode")
    minimal.sql("ALTER SYSTEM SET wal_level = logical")
    minimal.restart()
    assert plan_configure(facts_of(minimal), PREFIX).values()["wal_level"] == "logical"


def test_a_role_that_may_not(cluster: Cluster) -> None:
    cluster.sql("CREATE ROLE app LOGIN; GRANT pg_monitor TO app")
    plan = plan_configure(facts_of(cluster), PREFIX)
    with (
        connect(cluster.conninfo(user="app"), "test") as connection,
        pytest.raises(PrivilegeMissing) as refused,
    ):
        apply_plan(connection, plan)
    assert "ALTER SYSTEM" in (refused.value.hint or "")


def test_settings_of_the_command_line_are_refused(cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory()
    cluster.settings["archive_timeout"] = "0"
    cluster.start()
    plan = plan_configure(facts_of(cluster), PREFIX)
    assert [change.name for change in plan.changes if change.fixed] == ["archive_timeout"]
    with (
        connect(cluster.conninfo(), "test") as connection,
        pytest.raises(Exception, match="archive_timeout is set on the server's command line"),
    ):
        apply_plan(connection, plan)


class TestServersUser:
    """As root: another user without a passwd entry, as in containers. Else: this user itself."""

    @pytest.fixture
    def data_directory(self, tmp_path: Path) -> Path:
        directory = tmp_path / "data"
        directory.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(directory, 54321, 54321)
            for parent in [tmp_path, *tmp_path.parents]:
                if parent.owner() == "root" and stat.S_IMODE(parent.stat().st_mode) & 0o001 == 0:
                    parent.chmod(parent.stat().st_mode | 0o011)
        return directory

    def script(self, directory: Path, text: str = "exit 0") -> Path:
        path = directory / "pitr program"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def test_it_can(self, data_directory: Path, tmp_path: Path) -> None:
        program = self.script(tmp_path, 'test "$PATH" = /usr/bin:/bin && test -z "$HOME"')
        assert check_server_user([str(program)], data_directory) == []

    def test_what_the_program_says_is_told(self, data_directory: Path, tmp_path: Path) -> None:
        program = self.script(tmp_path, 'test "$1" = --version || { echo "error: no such key" >&2; exit 10; }')
        (problem,) = check_server_user([str(program)], data_directory)
        assert "config validate" in problem.message
        assert "no such key" in problem.message

    def test_doubts_are_told_as_doubts(self, data_directory: Path, tmp_path: Path) -> None:
        doubt = "printf 'cluster shop: main: valid, but\\n  everybody can read x\\n'; exit 3"
        program = self.script(tmp_path, f'test "$1" = --version || {{ {doubt}; }}')
        (problem,) = check_server_user([str(program)], data_directory)
        assert "cannot run" not in problem.message
        assert "everybody can read x" in problem.message

    def test_a_closed_directory_and_an_unreadable_key(self, data_directory: Path, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir()
        program = self.script(closed)
        closed.chmod(0o700 if os.geteuid() == 0 else 0)
        key = tmp_path / "key"
        key.write_text("secret")
        key.chmod(0o600 if os.geteuid() == 0 else 0)
        unreadable, closed_program = check_server_user([str(program)], data_directory, files=[key])
        closed.chmod(0o700)
        assert f"cannot read {key}" in unreadable.message
        assert f"cannot run {program}" in closed_program.message
