"""Lines of postgresql.auto.conf, and what the server's log says."""

from __future__ import annotations

import pytest

from pitr.core.errors import HistoryMismatch, IntegrityError, PitrError, TargetUnreachable, WalGap
from pitr.pg.lsn import Lsn
from pitr.repo.manifest import Parameters
from pitr.restore.messages import explain_log
from pitr.restore.request import Role
from pitr.restore.settings import RecoverySettings, fetch_line, merge_auto_conf, quote, required_parameters


def lines(role: Role = "copy", major: int = 15, conninfo: str | None = None) -> list[str]:
    standby = role == "standby"
    return RecoverySettings(
        role=role,
        action="pause",
        major=major,
        restore_command=fetch_line(("pitr",), chain=2, until="000000020000000000000003"),
        target_lsn=None if standby else Lsn.parse("0/3000100"),
        inclusive=False,
        timeline=None if standby else 2,
        parameters=Parameters(200, 8, 10, 0, 64) if role == "copy" else None,
        primary_conninfo=conninfo,
    ).lines()


def test_the_other_targets_are_emptied_before_the_real_one() -> None:
    found = lines()
    real = found.index("recovery_target_lsn = '0/3000100'")
    for name in ("recovery_target", "recovery_target_name", "recovery_target_time", "recovery_target_xid"):
        assert found.index(f"{name} = ''") < real
    assert "recovery_target_timeline = '2'" in found
    assert "recovery_target_inclusive = 'off'" in found
    assert not any("latest" in line for line in found)


def test_a_copy_leaves_production_alone() -> None:
    found = lines()
    for line in ("archive_mode = 'off'", "max_logical_replication_workers = '0'", "max_connections = '200'"):
        assert line in found
    assert not any(line.startswith(("archive_mode", "max_connections")) for line in lines("primary"))
    assert "log_directory = 'log'" in found
    assert "stats_temp_directory = 'pg_stat_tmp'" in lines(major=14)
    assert not any(line.startswith("stats_temp") for line in [*found, *lines("primary", major=14)])
    assert "promote_trigger_file = ''" in lines(major=15)
    assert "promote_trigger_file = ''" not in lines(major=16)


def test_a_standby_has_no_target() -> None:
    found = lines("standby", conninfo="host=db1 password=it's")
    assert "recovery_target_lsn = ''" in found
    assert "primary_conninfo = 'host=db1 password=it''s'" in found
    assert "recovery_target_timeline = 'latest'" in found
    assert not any(line.startswith("recovery_target_action") for line in found)
    assert not any(line.startswith("primary_conninfo") for line in lines("standby"))


def test_quoting_survives_both_readers() -> None:
    assert quote("it's a \\ backslash") == "'it''s a \\\\ backslash'"
    line = fetch_line(("/opt/my tools/pitr", "--config", "/etc/100%.toml"), chain=1, until="00000001000000000000000A")
    assert line == (
        """'/opt/my tools/pitr' --config /etc/100%%.toml wal fetch %f "%p" --chain 1 --until 00000001000000000000000A"""
    )
    assert fetch_line(("pitr",), chain=None, until=None) == 'pitr wal fetch %f "%p"'


def test_settings_of_an_earlier_recovery_become_comments() -> None:
    existing = "# head\nwork_mem = '8MB'\nrecovery_target_xid = '5'\n RESTORE_COMMAND='cp'\nrecovery_target=''\n"
    merged = merge_auto_conf(existing, ["a = 'b'"], "restored").splitlines()
    assert merged == [
        "# head",
        "work_mem = '8MB'",
        "# recovery_target_xid = '5'",
        "#  RESTORE_COMMAND='cp'",
        "# recovery_target=''",
        "# restored",
        "a = 'b'",
    ]
    kept = merge_auto_conf("cluster_name = 'a\u2028b'\n", ["a = 'b'"], "restored")
    assert kept == "cluster_name = 'a\u2028b'\n# restored\na = 'b'\n"
    again = merge_auto_conf("\n".join(merged), ["a = 'c'"], "again").splitlines()
    assert again[-2:] == ["# again", "a = 'c'"]


def test_parameters_never_sink() -> None:
    backup = Parameters(100, 8, 10, 0, 64)
    risen = Parameters(50, 16, 10, 5, 64)
    assert required_parameters(backup, [risen]) == Parameters(100, 16, 10, 5, 64)
    assert required_parameters(backup, []) == backup


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("FATAL:  recovery ended before configured recovery target was reached", WalGap),
        ("FATAL:  requested recovery stop point is before consistent recovery point", TargetUnreachable),
        ("FATAL:  requested timeline 3 is not a child of this server's history", HistoryMismatch),
        ("PANIC:  could not locate required checkpoint record", WalGap),
        ("FATAL:  could not locate required checkpoint record", WalGap),
        ("PANIC:  WAL contains references to invalid pages", IntegrityError),
        ("FATAL:  recovery aborted because of insufficient parameter settings", PitrError),
        ('FATAL:  could not access file "timescaledb": No such file or directory', PitrError),
        ("FATAL:  multiple recovery targets specified", PitrError),
    ],
)
def test_known_failures_are_explained(line: str, error: type[PitrError]) -> None:
    log = f"2026-01-01 LOG:  starting\n2026-01-01 [7] {line}\n2026-01-01 LOG:  database system is shut down\n"
    found = explain_log(log)
    assert isinstance(found, error)
    assert found.detail is not None
    assert line in found.detail
    assert found.hint


def test_an_unknown_log_is_not_explained() -> None:
    assert explain_log("LOG:  redo starts at 0/2000028\nFATAL:  the database system is starting up\n") is None
    assert explain_log("LOG:  recovery ended before configured recovery target was reached (quoted)") is None
