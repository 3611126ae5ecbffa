"""Running a command: envelope, exit codes, messages, global options."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from pitr.cli.render import result_json
from pitr.pg.lsn import Lsn
from pitr.pg.timelines import HistoryEntry
from tests.support.cli_samples import run_samples

Outcome = tuple[int, str, str]
Runner = Callable[..., Outcome]


@pytest.fixture
def pitr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    for name in ("PITR_CONFIG", "PITR_CLUSTER", "PITR_REPO"):
        monkeypatch.delenv(name, raising=False)

    def run(*argv: str) -> Outcome:
        code = run_samples(list(argv))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def document(text: str) -> dict[str, Any]:
    parsed = json.loads(text)
    assert list(parsed) == ["schema", "ok", "exit_code", "warnings", "result", "error"]
    return dict(parsed)


def test_success_as_json(pitr: Runner) -> None:
    code, out, _ = pitr("sample", "good", "--json")
    assert code == 0
    assert document(out) == {
        "schema": "pitr.sample-good/1",
        "ok": True,
        "exit_code": 0,
        "warnings": [],
        "error": None,
        "result": {
            "when": "2026-11-23T04:02:30Z",
            "took_s": 90.0,
            "size_bytes": 5,
            "lsn": "0/16B3748",
            "colour": "red",
            "path": "/a/\\udcff",
            "nothing": None,
            "parts": [1, 2],
            "ratio": None,
            "secret": "***",
        },
    }


def test_success_as_text(pitr: Runner) -> None:
    assert pitr("sample", "good") == (0, "sample of 5 bytes\n", "")


def test_failure(pitr: Runner) -> None:
    code, out, err = pitr("sample", "fail")
    assert (code, out) == (30, "")
    assert err.splitlines() == [
        "warning: a warning of postgresql://u:***@h/db",
        "error: keine Sicherung für ä\\x1b[31m",
        "detail: password=***",
        'hint: "pitr list" shows all',
    ]


def test_failure_as_json(pitr: Runner) -> None:
    code, out, err = pitr("--json", "sample", "fail")
    found = document(out)
    assert code == found["exit_code"] == 30
    assert (found["ok"], found["result"], found["schema"]) == (False, None, "pitr.sample-fail/1")
    assert found["warnings"] == ["a warning of postgresql://u:***@h/db"]
    assert found["error"]["code"] == "no-suitable-backup"
    assert found["error"]["detail"] == "password=***"
    assert "error: " in err
    assert out.isascii()


def test_something_needs_a_look(pitr: Runner) -> None:
    code, out, _ = pitr("sample", "say", "hello", "--exit-code", "3", "--json")
    found = document(out)
    assert code == found["exit_code"] == 3
    assert (found["ok"], found["result"]) == (True, {"text": "hello"})


def test_a_bug(pitr: Runner) -> None:
    code, out, err = pitr("sample", "bug", "--json")
    assert code == document(out)["exit_code"] == 70
    assert document(out)["error"]["code"] == "bug"
    assert "Traceback" in err
    assert "cli_samples.py" in err
    assert "report" in err
    assert "hunter2" not in out + err


def test_a_result_that_cannot_be_written_is_a_bug_and_leaves_stdout_empty(pitr: Runner) -> None:
    code, out, err = pitr("sample", "unjson", "--json")
    assert (code, out) == (70, "")
    assert "cannot be written as JSON" in err


@pytest.mark.parametrize(
    ("argv", "schema", "message"),
    [
        (["sample", "say", "--json"], "pitr.sample-say/1", "missing argument 'TEXT'"),
        (["--json", "sample", "say", "x", "--nonsense"], "pitr.sample-say/1", "--nonsense"),
        (["sample", "say", "x", "--exit-code", "y", "--json"], "pitr.sample-say/1", "'y' is not a valid integer"),
        (["sample", "gud", "--json"], "pitr.error/1", "no such command: pitr sample gud"),
        (["sample", "--json"], "pitr.error/1", "pitr sample needs a command: good, say"),
        (["--json"], "pitr.error/1", "pitr needs a command"),
        (["--jsn", "--json"], "pitr.error/1", "--jsn"),
        (["--lock-wait", "soon", "sample", "good", "--json"], "pitr.error/1", "not a duration"),
    ],
)
def test_usage_errors(argv: list[str], schema: str, message: str, pitr: Runner) -> None:
    code, out, err = pitr(*argv)
    found = document(out)
    assert code == found["exit_code"] == 2
    assert found["schema"] == schema
    assert message in found["error"]["message"]
    assert found["error"]["code"] == "usage"
    assert err.startswith("error: ")
    text_code, text_out, _ = pitr(*[word for word in argv if word != "--json"])
    if argv != ["--json"]:  # that is the list of commands
        assert (text_code, text_out) == (2, "")


def test_json_behind_two_dashes_belongs_to_another_command(pitr: Runner) -> None:
    code, out, _ = pitr("sample", "say", "--", "--json")
    assert (code, out) == (0, "--json\n")


def test_nearest_command(pitr: Runner) -> None:
    _, _, err = pitr("sampel")
    assert "did you mean pitr sample?" in err


@pytest.mark.parametrize(
    "argv",
    [
        ["--json", "--repo", "/b", "config", "show"],
        ["config", "--repo", "/b", "show", "--json"],
        ["config", "show", "--json", "--repo=/b"],
        ["--repo", "/other", "config", "show", "--repo", "/b", "--json"],
    ],
)
def test_global_options_stand_anywhere(argv: list[str], pitr: Runner) -> None:
    code, out, _ = pitr(*argv)
    assert code == 0
    rows = document(out)["result"]["settings"]
    assert next(row for row in rows if row["key"] == "url")["value"] == "file:///b"


class TestQuiet:
    def test_nothing_when_all_is_well(self, pitr: Runner) -> None:
        assert pitr("sample", "say", "hello", "--warning", "careful", "--quiet") == (0, "", "")

    def test_everything_when_not(self, pitr: Runner) -> None:
        code, out, err = pitr("--quiet", "sample", "say", "hello", "--warning", "careful", "--exit-code", "3")
        assert (code, out) == (3, "hello\n")
        assert err.splitlines() == ["an info", "warning: careful"]
        code, _, err = pitr("--quiet", "sample", "fail")
        assert err.splitlines()[0].startswith("warning: ")
        assert "error: " in err

    def test_what_cannot_be_asked_for_again_is_shown(self, pitr: Runner) -> None:
        assert pitr("sample", "say", "a recovery key", "--even-if-quiet", "--quiet") == (0, "a recovery key\n", "")

    def test_json_is_still_one_document(self, pitr: Runner) -> None:
        code, out, err = pitr("sample", "say", "hello", "--warning", "careful", "--quiet", "--json")
        assert (code, err) == (0, "")
        assert document(out)["warnings"] == ["careful"]


class TestProgress:
    def test_silent_without_a_terminal(self, pitr: Runner) -> None:
        assert pitr("sample", "work") == (0, "worked\n", "a line in between\n")

    def test_json_lines(self, pitr: Runner) -> None:
        _, out, err = pitr("sample", "work", "--log", "json")
        lines = [json.loads(line) for line in err.splitlines()]
        assert out == "worked\n"
        assert [line.get("event") for line in lines] == ["phase-started", None, "phase-ended"]
        assert lines[2]["done_bytes"] == lines[0]["total_bytes"] == 100 << 20
        assert lines[1]["text"] == "a line in between"
        assert all(re.fullmatch(r"2\d{3}-\d\d-\d\dT[\d:.]+Z", line["time"]) for line in lines)

    @pytest.mark.parametrize("argv", [["sample", "fail"], ["sample", "say"]])
    def test_errors_are_json_lines_too(self, argv: list[str], pitr: Runner) -> None:
        _, _, err = pitr(*argv, "--log", "json")
        last = json.loads(err.splitlines()[-1])
        assert last["level"] == "error"
        assert last["code"] in ("usage", "no-suitable-backup")


class TestConfigCommands:
    def test_show_names_origins_and_hides_secrets(
        self, pitr: Runner, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "pitr.toml"
        path.write_text("[repo.main]\nurl='/b'\npassphrase='hunter2'\n")
        monkeypatch.setenv("PITR_JOBS", "2")
        code, out, err = pitr("config", "show", "--config", str(path))
        assert code == 0
        assert re.search(rf"^url = file:///b +# {path}:2$", out, re.MULTILINE)
        assert re.search(r"^jobs = 2 +# PITR_JOBS$", out, re.MULTILINE)
        assert re.search(r"^passphrase = \*\*\* ", out, re.MULTILINE)
        assert "hunter2" not in out + err

    def test_unknown_key_ends_with_10(self, pitr: Runner, tmp_path: Any) -> None:
        path = tmp_path / "pitr.toml"
        path.write_text("[repo.main]\nurk='/b'\n")
        code, out, err = pitr("config", "validate", "--config", str(path), "--json")
        assert code == 10
        assert document(out)["error"]["hint"] == "did you mean url?"
        assert f"{path}:2" in err

    def test_validate_covers_all_clusters(self, pitr: Runner, tmp_path: Any) -> None:
        path = tmp_path / "pitr.toml"
        path.write_text(
            "[repo.main]\nurl='/b'\nencryption=false\n[cluster.a]\n[cluster.b]\ndata_directory='/no/such'\n"
        )
        code, out, _ = pitr("config", "validate", "--config", str(path))
        assert code == 3
        assert "cluster a: main: valid\n" in out
        assert "/no/such" in out
        assert pitr("config", "validate", "--config", str(path), "--cluster", "a")[0] == 0

    def test_unknown_variable_is_a_warning(self, pitr: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PITR_REGOIN", "x")
        code, out, err = pitr("config", "show", "--json", "--repo", "/b")
        assert code == 0
        assert "PITR_REGION" in document(out)["warnings"][0]
        assert err.count("PITR_REGOIN") == 1

    def test_detect_prints_toml(self, pitr: Runner) -> None:
        import tomllib

        code, out, _ = pitr("config", "detect")
        assert code == 0
        tomllib.loads(out)


def test_a_named_tuple_in_a_result_is_an_object() -> None:
    found = result_json({"entries": (HistoryEntry(1, Lsn(0x16), "why"),), "pair": (1, 2)})
    assert found == {"entries": [{"timeline": 1, "switch_lsn": "0/16", "reason": "why"}], "pair": [1, 2]}
