"""The generated archive_command survives the server's %-escapes, the shell, and each place that a setting can stand."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitr.archive.configure import is_ours
from pitr.archive.quoting import archive_command, for_conf, for_sql, for_yaml
from pitr.core.errors import ConfigError

words = st.text(st.characters(codec="ascii", exclude_characters="\0\n\r"), min_size=1, max_size=12)


def as_the_server_runs_it(command: str, path: str) -> str:
    """BuildArchiveCommand's replacements: %p and %%."""
    out, at = [], 0
    while at < len(command):
        if command[at] == "%" and at + 1 < len(command) and command[at + 1] in "p%":
            out.append(path if command[at + 1] == "p" else "%")
            at += 2
        else:
            out.append(command[at])
            at += 1
    return "".join(out)


def in_the_shell(command: str) -> list[str]:
    """The words that a program in place of the first one would get."""
    done = subprocess.run(["/bin/sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    "prefix",
    [
        ["/usr/bin/pitr", "--cluster", "main"],
        ["/opt/my tools/pitr", "--config", "/etc/it's/100%/p.toml"],
        ["/a%p/pitr", "--config", '/b"$HOME`id`\\x'],
        ["/usr/bin/env", "PITR_REPO=file:///back ups", "/opt/pitr"],
    ],
)
def test_the_shell_gets_the_words(prefix: list[str]) -> None:
    command = archive_command(prefix)
    ran = as_the_server_runs_it(command, "pg_wal/000000010000000000000001")
    assert in_the_shell(ran) == [*prefix, "wal", "push", "pg_wal/000000010000000000000001"]


@given(st.lists(words, min_size=1, max_size=3))
def test_percent_signs_come_back(prefix: list[str]) -> None:
    import shlex

    ran = as_the_server_runs_it(archive_command(prefix), "P")
    assert shlex.split(ran) == [*prefix, "wal", "push", "P"]


def test_line_breaks_are_refused() -> None:
    with pytest.raises(ConfigError):
        archive_command(["/a\nb"])


def test_the_three_places() -> None:
    value = 'it\'s 100% \\ "x"'
    assert for_conf(value) == "'it''s 100% \\\\ \"x\"'"
    assert for_sql(value) == "E'it''s 100% \\\\ \"x\"'"
    assert for_sql("plain") == "'plain'"
    assert for_yaml(value) == "'it''s 100% \\ \"x\"'"


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        (archive_command(["/usr/bin/pitr", "--cluster", "main"]), True),
        (archive_command(["/opt/my tools/pitr", "--cluster", "main"]), True),
        (archive_command(["/usr/bin/env", "A=b", "/usr/bin/python3", "-m", "pitr", "--cluster", "x"]), True),
        ("", False),
        ("pgbackrest --stanza=main archive-push %p", False),
        ("test ! -f /arch/%f && cp %p /arch/%f", False),
        ("/usr/bin/pitr-old wal push %p", False),
        ("wal-g wal-push %p", False),
    ],
)
def test_whose_command(command: str, ours: bool) -> None:
    assert is_ours(command) is ours
