"""Files, environment, options: which value wins, what is refused, and what is said about it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from pitr.config import Settings, load_settings, read_configuration
from pitr.core.errors import AmbiguousName, ConfigError

BASIC = """
[repo.main]
url = "s3://bucket/prefix/"
region = "eu-central-1"
key_file = "keys/main.key"
part_size = "64MiB"

[cluster.shop]
data_directory = "/data"
jobs = 3

[cluster.shop.policy]
base = "26h"
"""


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    return tmp_path / "etc-pitr"


def write(directory: Path, text: str, name: str = "pitr.toml") -> str:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def load(text: str, tmp_path: Path, environ: dict[str, str] | None = None, **options: object) -> Settings:
    return load_settings(config=write(tmp_path, text), environ=environ or {}, **options)  # type: ignore[arg-type]


def refused(text: str, tmp_path: Path, environ: dict[str, str] | None = None, **options: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path, environ, **options)
    return caught.value


def test_values_have_their_types(tmp_path: Path) -> None:
    settings = load(BASIC, tmp_path)
    repo = settings.one_repo()
    assert repo.url == "s3://bucket/prefix"
    assert repo.key_file == tmp_path / "keys/main.key"
    assert repo.part_size == 64 << 20
    assert repo.required is True
    assert settings.cluster.jobs == 3
    assert settings.cluster.policy.base == timedelta(hours=26)
    assert settings.cluster.policy.rpo is None


def test_origins_name_file_and_line_variable_and_option(tmp_path: Path) -> None:
    settings = load(BASIC, tmp_path, {"PITR_REGION": "us-east-1"}, overrides={"jobs": 2})
    assert str(settings.origins["repo.main.url"]) == f"{tmp_path}/pitr.toml:3"
    assert str(settings.origins["cluster.shop.policy.base"]) == f"{tmp_path}/pitr.toml:13"
    assert str(settings.origins["repo.main.region"]) == "PITR_REGION"
    assert str(settings.origins["cluster.shop.jobs"]) == "--jobs"
    assert "repo.main.required" not in settings.origins


def test_option_wins_over_environment_over_file(tmp_path: Path) -> None:
    environ = {"PITR_JOBS": "5", "PITR_PART_SIZE": "8MiB", "PITR_POLICY_BASE": "1d"}
    settings = load(BASIC, tmp_path, environ, overrides={"jobs": 7})
    assert settings.cluster.jobs == 7
    assert settings.one_repo().part_size == 8 << 20
    assert settings.cluster.policy.base == timedelta(days=1)


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ("[repo.main]\nurl='file:///b'\nregoin='x'", "unknown key repo.main.regoin", "region"),
        ("[repo.main]\nurl='file:///b'\nsecret_key_fil='x'", "unknown key repo.main.secret_key_fil", "secret_key_file"),
        ("[cluster.a.policy]\nrop='5min'", "unknown key cluster.a.policy.rop", "policy.rpo"),
        ("[repos.main]\nurl='file:///b'", "unknown section repos", "did you mean repo?"),
        ("[repo]\nurl='file:///b'", "repo.url is not a section", "[repo.NAME]"),
    ],
)
def test_unknown_keys_name_the_nearest(wrong: str, message: str, hint: str, tmp_path: Path) -> None:
    error = refused(wrong, tmp_path)
    assert message in error.message
    assert f"{tmp_path}/pitr.toml" in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('jobs = "four"', 'expected a whole number, got "four"'),
        ('jobs = "4"', "expected a whole number"),
        ("jobs = true", "expected a whole number, got true"),
        ("jobs = 0", "expected at least 1"),
        ('kind = "cloud"', "expected one of auto, server, managed"),
        ("data_directory = 5", "expected text, got 5"),
        ('data_directory = "~/x"', "~ is not expanded"),
        ('repos = "main"', "expected a list of texts"),
        ('policy.base = "soon"', "not a duration"),
        ("policy.base = 1.5", "expected a duration"),
    ],
)
def test_wrong_types_name_the_place(line: str, expected: str, tmp_path: Path) -> None:
    error = refused(f"[cluster.a]\n{line}", tmp_path)
    assert expected in error.message
    assert f"{tmp_path}/pitr.toml:2" in error.message


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("gs://bucket", "expected file:///directory or s3://bucket/prefix"),
        ("file://backups", "three slashes"),
        ("s3://", "expected s3://bucket/prefix"),
        ("s3://AKIA:hunter2@bucket", "must not hold credentials"),
    ],
)
def test_bad_urls(url: str, expected: str, tmp_path: Path) -> None:
    error = refused(f"[repo.main]\nurl = '{url}'", tmp_path)
    assert expected in error.message
    assert "hunter2" not in str(error)


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    error = refused("[cluster.a]\njbos = 1\nspol = 'x'", tmp_path)
    assert "jbos" in error.message
    assert "spol" in (error.detail or "")


def test_drop_in_files_add_and_override(tmp_path: Path) -> None:
    write(tmp_path, BASIC)
    write(tmp_path, "[repo.main]\nregion = 'us-west-2'\npassphrase_file = '/p'", "conf.d/10-region.toml")
    write(tmp_path, "[repo.second]\nurl = 'file:///second'", "conf.d/20-second.toml")
    write(tmp_path, "this is no TOML", "conf.d/README")
    configuration = read_configuration(environ={}, default=tmp_path)
    first, second = configuration.settings().repos
    assert (first.region, second.url) == ("us-west-2", "file:///second")
    assert first.key_file is None, "the later file's choice of key replaces the earlier one's"
    assert first.passphrase is not None
    assert configuration.settings().location == tmp_path
    assert read_configuration(str(tmp_path), {}).settings().repos == (first, second)


def test_missing_chosen_file_is_an_error_and_missing_default_is_not(tmp_path: Path, nowhere: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist") as caught:
        read_configuration(None, {"PITR_CONFIG": str(tmp_path / "no.toml")}, default=nowhere)
    assert "PITR_CONFIG" in (caught.value.detail or "")
    assert read_configuration(None, {}, default=nowhere).settings().files == ()


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    error = refused("[repo.main]\nurl = \n", tmp_path)
    assert "not valid TOML" in error.message
    assert "line 2" in (error.detail or "")


def test_environment_alone_is_enough(nowhere: Path) -> None:
    configuration = read_configuration(
        None, {"PITR_REPO": "file:///backups", "PITR_ENCRYPTION": "off"}, default=nowhere
    )
    settings = configuration.settings()
    assert settings.single_repo("backup").url == "file:///backups"
    assert settings.single_repo("backup").encryption is False
    assert settings.cluster.name == "main"
    assert not settings.cluster_is_given


def test_repository_by_path_is_absolute(nowhere: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_configuration(None, {"PITR_REPO": "./backups"}, default=nowhere).settings()
    assert settings.one_repo().url == f"file://{tmp_path}/backups"


def test_repository_by_name_or_by_its_url_keeps_its_keys(tmp_path: Path) -> None:
    text = BASIC + "[repo.other]\nurl = 'file:///other'\nencryption = false\n"
    assert load(text, tmp_path, repo="other").one_repo().name == "other"
    assert load(text, tmp_path, repo="s3://bucket/prefix").one_repo().key_file == tmp_path / "keys/main.key"
    fresh = load(text, tmp_path, repo="s3://elsewhere").one_repo()
    assert (fresh.name, fresh.key_file) == ("given", None)
    error = refused(text, tmp_path, repo="othr")
    assert "did you mean other?" in (error.hint or "")


def test_environment_needs_one_repository(tmp_path: Path) -> None:
    text = BASIC + "[repo.other]\nurl = 'file:///other'\n"
    error = refused(text, tmp_path, {"PITR_KEY_FILE": "/k"})
    assert "PITR_KEY_FILE needs one repository of main, other" in error.message
    environ = {"PITR_KEY_FILE": "/k", "PITR_REPO": "other"}
    assert load(text, tmp_path, environ).one_repo().key_file == Path("/k")


def test_unknown_variables_are_warned_about(nowhere: Path) -> None:
    settings = read_configuration(None, {"PITR_KEYFILE": "/k", "PITR_REPO": "/b"}, default=nowhere).settings()
    assert settings.warnings == ("environment variable PITR_KEYFILE is not known, did you mean PITR_KEY_FILE?",)


def test_wrong_variable_is_an_error(nowhere: Path) -> None:
    with pytest.raises(ConfigError, match=r"PITR_JOBS.*expected a whole number"):
        read_configuration(None, {"PITR_JOBS": "many"}, default=nowhere).settings()


class TestClusterSelection:
    TWO = "[cluster.a]\n[cluster.b]\n"

    def test_the_only_one(self, tmp_path: Path) -> None:
        settings = load("[cluster.a]\n", tmp_path)
        assert settings.cluster.name == "a"
        assert settings.cluster_is_given

    def test_option_over_environment(self, tmp_path: Path) -> None:
        assert load(self.TWO, tmp_path, {"PITR_CLUSTER": "a"}).cluster.name == "a"
        assert load(self.TWO, tmp_path, {"PITR_CLUSTER": "a"}, cluster="b").cluster.name == "b"

    def test_several_and_none_named(self, tmp_path: Path) -> None:
        with pytest.raises(AmbiguousName, match="a, b"):
            load(self.TWO, tmp_path)

    def test_unknown_while_others_are_configured(self, tmp_path: Path) -> None:
        error = refused("[cluster.shop]\n", tmp_path, cluster="shpo")
        assert error.hint == "did you mean shop?"

    def test_any_name_without_configured_ones(self, nowhere: Path) -> None:
        settings = read_configuration(None, {"PITR_CLUSTER": "lost"}, default=nowhere).settings()
        assert settings.cluster.name == "lost"

    @pytest.mark.parametrize("name", ["../x", "keys", "a/b", ".hidden", "x" * 64])
    def test_names_that_cannot_be_part_of_object_names(self, name: str, nowhere: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be the name"):
            read_configuration(None, {}, default=nowhere).settings(cluster=name)

    def test_all(self, tmp_path: Path) -> None:
        configuration = read_configuration(write(tmp_path, self.TWO), {})
        assert [settings.cluster.name for settings in configuration.all_settings()] == ["a", "b"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("key_file='/k'\npassphrase_file='/p'", "key_file and passphrase_file exclude one another"),
        ("secret_key_file='/k'\nsecret_key_env='X'\naccess_key='a'", "secret_key_file and secret_key_env exclude"),
        ("encryption=false\nkey_file='/k'", "exclude one another"),
        ("access_key='a'", "access_key"),
        ("profile='p'\naccess_key='a'\nsecret_key_file='/k'", "profile and access_key exclude"),
        ("", "repo.main has no url"),
    ],
)
def test_contradictions(lines: str, expected: str, tmp_path: Path) -> None:
    url = "url = 's3://b'\n" if lines else ""
    assert expected in refused(f"[repo.main]\n{url}{lines}", tmp_path).message


def test_unencrypted_by_file_cannot_be_overridden_silently(tmp_path: Path) -> None:
    error = refused("[repo.main]\nurl='/b'\nencryption=false", tmp_path, {"PITR_KEY_FILE": "/k"})
    assert "PITR_KEY_FILE" in error.message


def test_repository_that_is_not_configured(tmp_path: Path) -> None:
    error = refused("[repo.main]\nurl='/b'\n[cluster.a]\nrepos=['mian']", tmp_path)
    assert 'repository "mian" is not configured' in error.message
    assert error.hint == "did you mean main?"
    with pytest.raises(ConfigError, match="no repository is configured"):
        load("[cluster.a]\n", tmp_path).require_repos()
