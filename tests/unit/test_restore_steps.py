"""What is printed to be typed after a restore."""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime
from pathlib import Path

from pitr.pg.cluster_files import DebianCluster
from pitr.restore.request import Action, RestorePlan
from pitr.restore.steps import next_steps, start_commands


def plan(action: Action = "pause", to: str = "/srv/my copy") -> RestorePlan:
    return RestorePlan(
        cluster="shop",
        system_id="42",
        backup_id="20260101T000000Z-0000",
        backup_ended_at=datetime(2026, 1, 1, tzinfo=UTC),
        role="primary",
        action=action,
        delta=False,
        to=to,
        timeline=1,
        target=None,
        segments=None,
        files=1,
        bytes=1,
        fetched_bytes=1,
        tablespaces=(),
        settings=(),
        warnings=(),
    )


def test_the_log_stands_where_the_servers_user_may_write() -> None:
    (line,) = start_commands(plan(), 15, None, None)
    assert " -D '/srv/my copy' -l '/srv/my copy/startup.log' " in line


def test_as_root_the_owner_starts_it_without_sudo() -> None:
    nobody, is_root = pwd.getpwnam("nobody"), os.geteuid() == 0
    (line,) = start_commands(plan(), 15, (nobody.pw_uid, nobody.pw_gid), None)
    assert line.startswith("runuser -u nobody -- ") is is_root
    (line,) = start_commands(plan(), 15, (54321, 54322), None)
    assert line.startswith("setpriv --reuid=54321 --regid=54322 --clear-groups ") is is_root
    assert "sudo" not in line


def test_a_directory_of_debian_is_started_by_its_program() -> None:
    """Started otherwise, systemd would not know of it, and other configuration files would be in use."""
    debian = DebianCluster(15, "main", Path("/etc/postgresql/15/main"))
    assert start_commands(plan(), 15, None, debian) == ("pg_ctlcluster 15 main start",)
    (line,) = start_commands(plan(), 17, None, debian)
    assert "pg_ctlcluster" not in line


def test_a_server_shut_down_at_its_target_keeps_its_signal_file() -> None:
    steps = " ".join(next_steps(plan("shutdown")))
    assert "recovery_target_action = 'promote' in" in steps
    assert "never remove recovery.signal" in steps
