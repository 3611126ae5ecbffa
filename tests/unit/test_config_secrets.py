"""Secrets: fetched when used, never shown; and the prefix of generated commands, which holds none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pitr.config import SecretSource, command_prefix, load_settings, prefix_warnings
from pitr.config.show import doubts, effective
from pitr.core.errors import ConfigError, KeyUnavailable
from pitr.core.secrets import Secret

S3 = "[repo.main]\nurl = 's3://bucket'\nkey_file = '/k'\naccess_key = 'AKIA1'\n"


def config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "pitr.toml"
    path.write_text(text)
    return str(path)


def test_the_four_ways(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("from file\r\n")
    ways = {
        "secret_key = 'plain'": "plain",
        "secret_key_file = 's'": "from file",
        "secret_key_env = 'MY_SECRET'": "from environment",
        "secret_key_command = ['printf', 'from command\\n']": "from command",
    }
    for line, expected in ways.items():
        repo = load_settings(config=config(tmp_path, S3 + line), environ={}).one_repo()
        assert repo.secret_key is not None
        assert repo.secret_key.load({"MY_SECRET": "from environment"}).reveal() == expected


@pytest.mark.parametrize("source", ["missing", "empty", "command", "variable"])
def test_unavailable_secrets_say_why(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    made = {
        "missing": SecretSource("passphrase", file=tmp_path / "missing"),
        "empty": SecretSource("passphrase", file=tmp_path / "empty"),
        "command": SecretSource("passphrase", command=("sh", "-c", "echo locked >&2; exit 3")),
        "variable": SecretSource("passphrase", variable="NOT_THERE"),
    }[source]
    with pytest.raises(KeyUnavailable, match="passphrase is not available") as caught:
        made.load({})
    assert caught.value.exit_code == 14


def test_a_higher_layer_replaces_the_way(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("new")
    path = config(tmp_path, S3 + "secret_key = 'old'")
    repo = load_settings(config=path, environ={"PITR_SECRET_KEY_FILE": str(tmp_path / "s")}).one_repo()
    assert repo.secret_key is not None
    assert repo.secret_key.load({}).reveal() == "new"


def test_nothing_shows_a_secret(tmp_path: Path) -> None:
    path = config(
        tmp_path, S3 + "secret_key = 'hunter2'\n[cluster.a]\ndsn = 'postgresql://u:hunter2@h/db?sslpassword=hunter2'"
    )
    environ = {"PITR_SESSION_TOKEN": "hunter2", "PITR_PASSPHRASE": "hunter2"}
    settings = load_settings(config=path, environ=environ)
    shown = repr(effective(settings)) + repr(settings) + str(doubts(settings))
    assert "hunter2" not in shown
    rows = {row.key: row for row in effective(settings)}
    assert rows["secret_key"].value == "***"
    assert rows["dsn"].value is not None
    assert rows["dsn"].value.startswith("postgresql://u:***@h/db")
    assert rows["session_token"].origin == "PITR_SESSION_TOKEN"


def test_a_wrong_secret_does_not_appear_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(config=config(tmp_path, S3 + "secret_key = ['hunter2']"), environ={})
    assert "hunter2" not in str(caught.value)


def test_doubts_about_files(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(0o644)
    text = f"[repo.main]\nurl='/b'\nkey_file='{key}'\n[cluster.a]\ndata_directory='/no/such'"
    found = doubts(load_settings(config=config(tmp_path, text), environ={}))
    assert any("readable by everybody" in doubt for doubt in found)
    assert any("/no/such: No such file" in doubt for doubt in found)
    key.chmod(0o600)
    assert len(doubts(load_settings(config=config(tmp_path, text), environ={}))) == 1


class TestCommandPrefix:
    def test_from_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config(tmp_path, "[repo.main]\nurl='/b'\n[cluster.shop]\n")
        monkeypatch.chdir(tmp_path)
        prefix = command_prefix(load_settings(config="pitr.toml", environ={}))
        assert Path(prefix[0]).is_absolute()
        assert os.access(prefix[0], os.X_OK)
        assert prefix[-4:] == ["--config", f"{tmp_path}/pitr.toml", "--cluster", "shop"]

    def test_from_the_environment_gives_the_same_settings_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty").mkdir()
        environ = {
            "PITR_REPO": "s3://bucket/x",
            "PITR_KEY_COMMAND": "unlock 'two words'",
            "PITR_ACCESS_KEY": "AKIA",
            "PITR_SECRET_KEY_FILE": "secret",
            "PITR_PATH_STYLE": "yes",
            "PITR_RETRY_DEADLINE": "1min",
            "PITR_DSN": "password=hunter2",
            "PITR_POLICY_RPO": "1h",
        }
        first = load_settings(environ=environ)
        prefix = command_prefix(first)
        assert prefix[0].endswith("/env")
        assert "hunter2" not in str(prefix)
        variables = dict(word.split("=", 1) for word in prefix if word.startswith("PITR_"))
        assert variables["PITR_SECRET_KEY_FILE"] == f"{tmp_path}/secret"
        assert not any("POLICY" in name or "DSN" in name for name in variables)
        monkeypatch.chdir("/")
        assert load_settings(environ=variables).repos == first.repos

    def test_an_option_above_a_file(self, tmp_path: Path) -> None:
        path = config(tmp_path, "[repo.a]\nurl='/a'\n[repo.b]\nurl='/b'\n[cluster.shop]\n")
        prefix = command_prefix(load_settings(config=path, repo="b", overrides={"key_file": Path("/k")}, environ={}))
        assert prefix[1:3] == ["PITR_KEY_FILE=/k", "PITR_REPO=b"]

    def test_a_secret_of_the_environment_is_refused(self, tmp_path: Path) -> None:
        settings = load_settings(environ={"PITR_REPO": "/b", "PITR_PASSPHRASE": "hunter2"})
        with pytest.raises(ConfigError, match="PITR_PASSPHRASE holds a secret") as caught:
            command_prefix(settings)
        assert "PITR_PASSPHRASE_FILE" in (caught.value.hint or "")

    def test_credentials_of_the_aws_chain_are_warned_about(self) -> None:
        settings = load_settings(environ={"PITR_REPO": "s3://b", "PITR_ENCRYPTION": "false"})
        assert "AWS_ACCESS_KEY_ID" in prefix_warnings(settings, {"AWS_ACCESS_KEY_ID": "x"})[0]
        assert prefix_warnings(settings, {}) == []


def test_a_dsn_with_an_unquoted_password_is_masked_as_a_whole() -> None:
    assert SecretSource("dsn", value=Secret("host=h password=hun ter2")).describe() == "***"
    assert SecretSource("dsn", value=Secret("host=h password=hunter2")).describe() == "host=h password=***"
    assert SecretSource("dsn", value=Secret("service=shop")).describe() == "service=shop"
