"""The tree of commands: help, completion, topics, names, and what it costs to start."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pitr import __version__
from pitr.cli import walcmd
from pitr.cli.app import build, run
from pitr.cli.catalog import ENTRIES, SECTIONS, Entry
from pitr.cli.command import PitrCommand
from pitr.cli.commands import walplumbing
from pitr.cli.options import FLAG_OPTIONS, VALUE_OPTIONS, global_parameters
from pitr.core import errors
from pitr.core.files import LocalFileError


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.words)
def test_every_command_is_complete(entry: Entry, capsys: pytest.CaptureFixture[str]) -> None:
    found: click.Command | None = build()
    for word in entry.path:
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word)
    assert isinstance(found, PitrCommand)
    assert found.schema == f"pitr.{'-'.join(entry.path)}/1"
    assert found.help
    assert entry.section in SECTIONS
    assert run([*entry.path, "--help"]) == 0
    assert f"Usage: pitr {entry.words}" in capsys.readouterr().out


def test_schemas_are_unique_and_words_too() -> None:
    assert len({entry.words for entry in ENTRIES}) == len(ENTRIES)


def test_pitr_alone_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    alone = capsys.readouterr().out
    assert run(["--help"]) == 0
    assert capsys.readouterr().out == alone
    for entry in ENTRIES:
        assert f" pitr {entry.words} " in alone
    for name in (*VALUE_OPTIONS, *FLAG_OPTIONS):
        assert name in alone


def test_the_lists_of_global_options_agree() -> None:
    flags = {option.opts[0] for option in global_parameters(hidden=True) if getattr(option, "is_flag", False)}
    every = {option.opts[0] for option in global_parameters(hidden=True)}
    assert flags == set(FLAG_OPTIONS) == set(walcmd._GLOBAL_FLAGS)
    assert every - flags == set(VALUE_OPTIONS) == set(walcmd._GLOBAL_VALUES)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"pitr {__version__}\n"
    assert run(["--json", "--version"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == {"version": __version__}


def subclasses(cls: type[errors.PitrError]) -> set[type[errors.PitrError]]:
    return {cls}.union(*(subclasses(child) for child in cls.__subclasses__()))


def test_exit_codes_topic_names_every_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "exit-codes"]) == 0
    listed = {int(line.split()[0]) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert LocalFileError in subclasses(errors.PitrError)
    assert listed == {error.exit_code for error in subclasses(errors.PitrError)} | {0, 3, 130, 143}


def test_topics(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help"]) == 0
    assert "pitr help json" in capsys.readouterr().out
    assert run(["help", "config"]) == 0
    text = capsys.readouterr().out
    assert "PITR_KEY_FILE" in text
    assert "policy.rpo" in text
    assert "@keys@" not in text
    assert run(["help", "nonsense"]) == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_PITR_COMPLETE" in script
    if shutil.which(shell):
        path = tmp_path / "script"
        path.write_text(script)
        assert subprocess.run([shell, "-n", str(path)], check=False).returncode == 0


def test_completion_answers() -> None:
    environ = {"_PITR_COMPLETE": "bash_complete", "COMP_WORDS": "pitr config ", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-m", "pitr"], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,show", "plain,validate", "plain,detect"]


HEAVY = ("click", "rich", "boto3", "botocore", "psycopg", "numpy", "cryptography", "zstandard")


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import pitr.cli.main, pitr.cli.walcmd", ()),
        ("import pitr.config", ()),
        ("from pitr.cli.app import run; run(['config', 'show'])", ("click",)),
        ("from pitr.cli.app import run; run([])", ("click",)),
    ],
)
def test_what_is_imported(code: str, allowed: tuple[str, ...]) -> None:
    probe = f"import sys; {code}; print(); print(*[name for name in {HEAVY!r} if name in sys.modules], sep=',')"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = set(filter(None, done.stdout.splitlines()[-1].split(",")))
    assert loaded == set(allowed)


class TestWalCommandLine:
    @pytest.mark.parametrize(
        ("argv", "action"),
        [
            (["wal", "push", "pg_wal/0"], "push"),
            (["--cluster", "wal", "wal", "fetch", "0", "x"], "fetch"),
            (["--quiet", "wal", "--config=/c", "push"], "push"),
            (["wal", "fetch", "--nonsense"], "fetch"),
            (["wal", "status"], None),
            (["config", "show"], None),
            ([], None),
        ],
    )
    def test_which(self, argv: list[str], action: str | None) -> None:
        assert walcmd.wal_action(argv) == action

    def test_parts(self) -> None:
        line = "--config /c wal --cluster=shop fetch 00000001000000000000000A dest --until X --quiet"
        found = walcmd.parse(line.split())
        assert found == (
            "fetch",
            ("00000001000000000000000A", "dest"),
            {"--config": "/c", "--cluster": "shop", "--until": "X"},
            frozenset({"--quiet"}),
        )

    @pytest.mark.parametrize(
        "line",
        ["wal push", "wal push a b", "wal fetch a", "wal push --help a", "wal push a --until x", "wal push a --repo"],
    )
    def test_what_the_full_parser_explains(self, line: str) -> None:
        assert walcmd.parse(line.split()) is None

    @pytest.mark.parametrize("action", ["push", "fetch"])
    def test_help_tells_of_the_options_there_are(self, action: walcmd.Action) -> None:
        shown = walplumbing.push if action == "push" else walplumbing.fetch
        own = [param for param in shown.params if not getattr(param, "hidden", False)]
        options = [param.opts[0] for param in own if isinstance(param, click.Option)]
        assert options == list(walcmd._OWN_VALUES[action])
        assert len(own) - len(options) == walcmd._ARGUMENTS[action]

    @pytest.mark.parametrize("code", range(256))
    def test_exit_codes_cannot_mislead_postgresql(self, code: int) -> None:
        pushed, fetched = walcmd.exit_status("push", code), walcmd.exit_status("fetch", code)
        assert (pushed == 0) == (fetched == 0) == (code == 0)
        assert pushed <= 125
        assert fetched in (0, 200)

    def test_only_a_proven_absence_ends_recovery(self) -> None:
        assert walcmd.exit_status("fetch", 42, missing=True) == 1
