"""wal push and wal fetch as PostgreSQL starts them: exit codes whatever goes wrong, a lean start, words for the log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pitr.cli.app import run as run_full
from pitr.cli.walrun import run
from tests.support.archive import program_environment

SEGMENT = "000000010000000000000001"


def program(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pitr", *words],
        cwd=cwd,
        env={**program_environment(f"file://{cwd}/repo"), **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["wal", "fetch"],
        ["wal", "fetch", SEGMENT],
        ["wal", "fetch", SEGMENT, "dest", "extra"],
        ["wal", "fetch", SEGMENT, "dest", "--nonsense"],
        ["wal", "fetch", SEGMENT, "dest", "--chain"],
        ["wal", "fetch", SEGMENT, "dest", "--chain", "one"],
        ["wal", "fetch", SEGMENT, "dest", "--chain", "0"],
        ["wal", "fetch", SEGMENT, "dest", "--retry-for", "soon"],
        ["wal", "fetch", SEGMENT, "dest", "--cluster", "no/such"],
        ["wal", "fetch", SEGMENT, "dest", "--config", "/does/not/exist.toml"],
        ["wal", "fetch", SEGMENT, "dest", "--retry-for", "0s"],
    ],
)
def test_a_fetch_that_fails_is_never_an_absence(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in program_environment(f"file://{tmp_path}/repo").items():
        monkeypatch.setenv(name, value)
    assert run(words) == 200
    assert "error: " in capsys.readouterr().err
    (tmp_path / "standby.signal").touch()
    assert run(words) == 1, "a standby may not hear more than 125"


def test_by_way_of_the_full_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--repo", f"file://{tmp_path}/repo", "--cluster=shop", "--quiet"]
    for line in (
        ["wal", "fetch", SEGMENT, "dest", "--retry-for", "0s", "--chain=2", "--system-id=7"],
        ["wal", "fetch", SEGMENT, "dest", "--chain", "one", "--until", SEGMENT],
        ["wal", "push", f"pg_wal/{SEGMENT}"],
    ):
        direct = run([*options, *line]), capsys.readouterr()
        assert (run_full([*options, *line]), capsys.readouterr()) == direct
        assert "error: " in direct[1].err


@pytest.mark.parametrize("words", [["wal", "fetch", "--help"], ["wal", "push", "-h"]])
def test_help(words: list[str], tmp_path: Path) -> None:
    done = program(*words, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: pitr {words[0]} {words[1]}")
    assert program(*words, "--nonsense", cwd=tmp_path).returncode == (2 if words[1] == "push" else 200)


@pytest.mark.parametrize("broken", ["pitr.cli.walrun", "pitr.api.wal", "pitr.archive.fetch", "cryptography"])
def test_a_broken_installation_is_never_an_absence(broken: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{broken!r}] = None; from pitr.cli.main import entry; entry()"
    argv = [sys.executable, "-c", code, "wal", "fetch", SEGMENT, "dest"]
    environment = program_environment(f"file://{tmp_path}/repo")
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 200, done.stderr
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["wal", "push"],
        ["wal", "push", f"pg_wal/{SEGMENT}"],
        ["wal", "push", "pg_wal/x", "y"],
        ["wal", "push", f"pg_wal/{SEGMENT}", "--config", "/does/not/exist.toml"],
    ],
)
def test_a_push_that_fails_does_not_restart_the_archiver(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in program_environment(f"file://{tmp_path}/repo").items():
        monkeypatch.setenv(name, value)
    assert 1 <= run(words) <= 125
    assert "error: " in capsys.readouterr().err


def test_the_log_gets_a_few_lines_and_no_traceback(tmp_path: Path) -> None:
    done = program("wal", "fetch", SEGMENT, "dest", "--retry-for", "0s", cwd=tmp_path)
    assert done.returncode == 200
    assert done.stdout == ""
    assert 1 <= len(done.stderr.splitlines()) <= 3
    assert "Traceback" not in done.stderr


def test_no_home_no_terminal_no_standard_streams(tmp_path: Path) -> None:
    environment = {name: value for name, value in program_environment("file:///nowhere").items() if name[:4] == "PITR"}
    argv = [sys.executable, "-m", "pitr", "wal", "fetch", SEGMENT, "dest", "--retry-for", "0s"]
    done = subprocess.run(["/bin/sh", "-c", '"$@" <&- >&- 2>&-', "sh", *argv], cwd=tmp_path, env=environment)
    assert done.returncode == 200


def test_a_log_on_a_full_disk(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pitr", "wal", "fetch", SEGMENT, "dest", "--retry-for", "0s", "--verbose", "--json"]
    with open("/dev/full", "w") as full:
        environment = program_environment("file:///nowhere")
        done = subprocess.run(argv, cwd=tmp_path, env=environment, stdout=full, stderr=full)
    assert done.returncode == 200
