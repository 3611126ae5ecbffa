"""pitr init on a directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pitr.cli.app import run


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PITR_REPO", "PITR_CONFIG", "PITR_KEY_FILE", "PGDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_once_and_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["init", "--repo", "./r", "--key-file", "k", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["result"]["repositories"]
    assert (made["created"], made["encrypted"], made["url"]) == (True, True, f"file://{tmp_path}/r")
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    assert made["recovery_key"]
    assert run(["init", "--repo", "./r", "--key-file", "k", "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)["result"]["repositories"]
    assert (again["created"], again["recovery_key"]) == (False, None)
    assert again["repository_id"] == made["repository_id"]


def test_the_recovery_key_opens_when_the_key_file_is_lost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["init", "--repo", "./r", "--key-file", "k", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["result"]["repositories"]
    (tmp_path / "k").unlink()
    (tmp_path / "typed").write_text(made["recovery_key"].lower() + "\n")
    (tmp_path / "pitr.toml").write_text("[repo.a]\nurl='r'\nrecovery_key_file='typed'\n[cluster.main]\n")
    assert run(["list", "--config", "pitr.toml"]) == 0
    assert run(["init", "--config", "pitr.toml"]) == 0
    assert run(["list", "--repo", "./r"]) == 10, "with no key at all"
    (tmp_path / "pitr.toml").write_text("[repo.a]\nurl='r'\nkey_file='k'\n[cluster.main]\n")
    capsys.readouterr()
    assert run(["list", "--config", "pitr.toml"]) == 14
    assert f"key file {tmp_path}/k cannot be read: No such file" in capsys.readouterr().err


def test_a_recovery_key_makes_no_repository(tmp_path: Path) -> None:
    (tmp_path / "pitr.toml").write_text("[repo.a]\nurl='r'\nrecovery_key='x'\n[cluster.main]\n")
    assert run(["init", "--config", "pitr.toml"]) == 10
    assert not (tmp_path / "r" / "pitr.json").exists()


def test_the_recovery_key_is_shown_even_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--repo", "./r", "--key-file", "k", "--quiet"]) == 0
    assert "Recovery key" in capsys.readouterr().out
    assert run(["init", "--repo", "./r", "--key-file", "k", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_the_recovery_key_survives_the_failure_of_the_next_repository(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "pitr.toml").write_text(
        "[repo.a]\nurl='a'\nkey_file='k'\n[repo.b]\nurl='file/below'\nkey_file='k'\n[cluster.main]\n"
    )
    assert run(["init", "--config", "pitr.toml", "--json"]) not in (0, 70)
    captured = capsys.readouterr()
    assert "Recovery key" in captured.err
    assert json.loads(captured.out)["ok"] is False


def test_status_tells_monitoring_that_there_is_no_backup(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--repo", "./r", "--key-file", "k"]) == 0
    capsys.readouterr()
    assert run(["status", "--nagios", "--repo", "./r"]) == 3  # no key
    assert capsys.readouterr().out.startswith("PITR UNKNOWN - ")


def test_without_encryption(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--repo", "./r", "--no-encryption"]) == 0
    out = capsys.readouterr().out
    assert "not encrypted" in out
    assert "Recovery key" not in out


@pytest.mark.parametrize(
    "options", [[], ["--key-file", "k", "--no-encryption"], ["--key-file", "k", "--key-command", "c"]]
)
def test_no_choice_or_two_are_refused(options: list[str], tmp_path: Path) -> None:
    assert run(["init", "--repo", "./r", *options]) in (10, 14)
    assert not (tmp_path / "r" / "pitr.json").exists()
