"""The command line as a process: signals, streams that are closed or full, bare environments, terminals."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLES = [sys.executable, "-m", "tests.support.cli_samples"]
BARE = {"PATH": "/usr/bin:/bin"}
DEADLINE_S = 20.0


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def popen(*argv: str, **how: object) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT, **how}
        started.append(subprocess.Popen([*SAMPLES, *argv], **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield popen
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def await_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"{text!r} was not printed")


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 143, "terminated")],
)
def test_a_signal_cleans_up_and_is_told(
    number: int, code: int, name: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start("sample", "wait", "--json")
    await_line(process, "ready")
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code
    assert err.splitlines() == ["cleaning up", f"error: {name}"]
    assert json.loads(out)["error"]["code"] == name
    assert json.loads(out)["exit_code"] == code


def test_a_second_signal_ends_at_once(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("sample", "wait", "--stubborn")
    await_line(process, "ready")
    process.send_signal(signal.SIGTERM)
    await_line(process, "cleaning up")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == -signal.SIGINT, "a shell shows this as 130"
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_cleaning_up_that_does_not_end_is_cut_short(
    number: int, code: int, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start("sample", "wait", "--stubborn", "--grace", "0.3", "--json")
    await_line(process, "ready")
    process.send_signal(number)
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code
    assert json.loads(out)["exit_code"] == code


def test_an_ignored_signal_stays_ignored(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("sample", "wait", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    await_line(process, "ready")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 143


def shell(script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script.replace("PITR", " ".join(SAMPLES))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**BARE, **environ},
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.mark.parametrize("command", ["sample say hello --exit-code 3", "help json", "--help"])
def test_a_reader_that_went_away_changes_nothing(command: str) -> None:
    code = 3 if "say" in command else 0
    done = shell(f"{{ PITR {command} 2>&3; echo $? >&3; }} 3>&2 | true")
    assert done.stderr.splitlines()[-1] == str(code)
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_streams() -> None:
    assert shell("PITR sample good >&-; exit $?").returncode == 0
    assert shell("PITR sample fail 2>&-; exit $?").returncode == 30
    assert shell("PITR sample good <&- >&- 2>&-; exit $?").returncode == 0


def test_a_full_disk_under_stdout_is_an_error() -> None:
    done = shell("PITR sample good --json >/dev/full; exit $?")
    assert done.returncode == 43
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_any_text_can_be_shown_in_the_c_locale() -> None:
    done = shell("PITR sample say 'für' && PITR sample fail", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert done.returncode == 30
    assert done.stdout == "f\\xfcr\n" or "f" in done.stdout
    assert "error: keine Sicherung f\\xfcr \\xe4" in done.stderr


def test_no_home_no_passwd_entry() -> None:
    unknown_user = ["unshare", "--user", "--map-user=54321"] if os.geteuid() == 0 else []
    for argv in (["config", "show", "--repo", "/b"], ["config", "validate", "--repo", "/b"], ["config", "detect"]):
        done = subprocess.run(
            [*unknown_user, "env", "-i", sys.executable, "-m", "pitr", *argv],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode in (0, 3), done.stderr
        assert done.stdout


def test_secrets_of_the_environment_never_show() -> None:
    secret = {"PITR_PASSPHRASE": "hunter2", "PITR_DSN": "postgresql://u:hunter2@h/d", "PITR_REPO": "/b"}
    for command in ("show", "show --json", "validate --json", "show --verbose --log json --cluster ../x"):
        done = shell(f"PITR config {command}", **secret)
        assert "hunter2" not in done.stdout + done.stderr
        assert done.returncode in (0, 3, 10)


def on_terminal(*argv: str) -> tuple[int, str]:
    """Exit code and what a terminal at stderr got."""
    master, slave = pty.openpty()
    environ = {**BARE, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*SAMPLES, *argv], stdin=slave, stdout=subprocess.DEVNULL, stderr=slave, cwd=ROOT, env=environ
    )
    os.close(slave)
    seen = b""
    deadline = time.monotonic() + DEADLINE_S
    try:
        while time.monotonic() < deadline and select.select([master], [], [], deadline - time.monotonic())[0]:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not chunk:
                break
            seen += chunk
        return process.wait(timeout=DEADLINE_S), seen.decode()
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_a_bar_on_a_terminal() -> None:
    code, seen = on_terminal("sample", "work")
    assert code == 0
    assert "copy" in seen
    assert "100.0/100.0 MiB" in seen
    assert "a line in between" in seen
    assert seen.rstrip().endswith("\x1b[2K") or "\x1b[?25h" in seen, "the cursor is back"


@pytest.mark.parametrize("option", ["--no-progress", "--quiet", "--log=json"])
def test_no_bar_when_not_wanted(option: str) -> None:
    code, seen = on_terminal("sample", "work", option)
    assert code == 0
    assert "\x1b" not in seen
