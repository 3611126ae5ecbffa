"""pitr.api: every name it announces is there, and loading it costs nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from pitr import api
from pitr.api.wal import remotes
from pitr.core.errors import StoreUnavailable


def test_every_announced_name_is_there() -> None:
    assert sorted(api._HOME_OF) == sorted(api.__all__)
    for name in api.__all__:
        assert getattr(api, name).__name__ == name
    with pytest.raises(AttributeError):
        api.no_such_name  # noqa: B018


def test_importing_it_loads_no_engine() -> None:
    code = "import sys, pitr.api; print([name for name in sys.modules if name.startswith('pitr.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pitr.api']"


def test_an_optional_repository_that_is_down_does_not_hold_up_the_archive(tmp_path: Path) -> None:
    """Nobody listens on port 9; the archiver would fall behind at a segment a minute."""
    (tmp_path / "pitr.toml").write_text(
        f"""
[repo.main]
url = "file://{tmp_path}/repository"
encryption = false
[repo.far]
url = "s3://bucket/prefix"
endpoint = "http://127.0.0.1:9"
access_key = "a"
secret_key = "env:FAR_SECRET"
encryption = false
required = false
[cluster.shop]
repos = ["main", "far"]
"""
    )
    settings = api.load_settings(config=str(tmp_path / "pitr.toml"), environ={"FAR_SECRET": "s"})
    (far,) = [remote for remote in remotes(settings, timedelta(seconds=60)) if not remote.required]
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        far.open()
    assert time.monotonic() - begun < 20


def test_init_and_list_from_python(tmp_path: Path) -> None:
    config = tmp_path / "pitr.toml"
    config.write_text(
        f'[repo.main]\nurl = "file://{tmp_path / "repository"}"\nkey_file = "{tmp_path / "main.key"}"\n[cluster.shop]\n'
    )
    settings = api.load_settings(config=str(config))
    (made,) = api.init_repositories(settings)
    assert made.created
    assert made.recovery_key is not None
    assert api.list_backups(settings).backups == ()
    assert api.status(settings).needs_look
    with pytest.raises(api.PitrError) as caught:
        api.restore_base(settings, api.RestoreOptions(to=tmp_path / "copy"))
    assert caught.value.exit_code == 30
