"""pitr.api: every name it announces is there, and loading it costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pitr import api


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
