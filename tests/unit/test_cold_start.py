"""What wal push and wal fetch import: PostgreSQL starts one process for each segment and waits for it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pitr.codec import KeyFile, new_key_file_text
from pitr.repo.repository import create_repository
from pitr.store import open_store
from tests.support.wal_golden import golden

NEVER = (
    "boto3", "botocore", "click", "numpy", "psycopg", "rich", "concurrent.futures", "ctypes", "difflib",
    "importlib.metadata", "logging", "random", "shutil", "subprocess", "tempfile", "traceback", "uuid",
    "pitr.cli.app", "pitr.cli.render", "pitr.config.detect", "pitr.config.show", "pitr.core.pool",
    "pitr.core.processes", "pitr.repo.catalog", "pitr.repo.manifest", "pitr.repo.maps", "pitr.store.memory",
    "pitr.store.s3", "pitr.store.wrappers", "pitr.wal.facts", "pitr.wal.targets", "pitr.wal.xact", "pitr.wal.xlog",
)  # fmt: skip
INDEXING = ("pitr.wal.facts", "pitr.wal.xact", "pitr.wal.xlog")
"""Of NEVER, what a segment that is really stored needs: it gets an index."""
_PROBE = """
import sys
before = set(sys.modules)  # by the interpreter's own start
import pitr.cli.main
from pitr.cli.walrun import run
code = run(sys.argv[2:])
print(code, *[name for name in sys.argv[1].split(",") if name in sys.modules and name not in before])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a finished segment, an encrypted repository, and a configuration file that names them."""
    directory = tmp_path_factory.mktemp("cold")
    wal = golden(15)
    (directory / "data" / "pg_wal").mkdir(parents=True)
    segment = str(wal.finished[1])  # it does not end with a checkpoint, which would be decoded
    (directory / "data" / "pg_wal" / segment).write_bytes(wal.files[segment])
    key = directory / "key"
    key.write_text(new_key_file_text())
    key.chmod(0o600)
    (directory / "repo").mkdir()
    store = open_store(f"file://{directory}/repo")
    create_repository(store, [KeyFile(key)], now=datetime.now(UTC), if_absent_works=True)
    (directory / "pitr.toml").write_text(
        f'[repo.main]\nurl = "file://{directory}/repo"\nkey_file = "{key}"\n[cluster.shop]\n'
    )
    return directory


def probe(site: Path, *words: str) -> str:
    """The exit code, and which of NEVER were imported."""
    argv = [sys.executable, "-c", _PROBE, ",".join(NEVER), "--config", str(site / "pitr.toml"), "wal", *words]
    done = subprocess.run(argv, cwd=site / "data", capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.strip()


def test_push_and_fetch_load_what_they_use(site: Path) -> None:
    segment = next((site / "data" / "pg_wal").iterdir())
    system_id = str(golden(15).system_id)
    assert probe(site, "push", str(segment)) == " ".join(("0", *INDEXING))
    assert probe(site, "push", str(segment)) == "0", "the second time"
    assert probe(site, "fetch", segment.name, "fetched", "--system-id", system_id) == "0"
    assert (site / "data" / "fetched").read_bytes() == segment.read_bytes()
    absent = f"{segment.name[:8]}000000FF000000FF"
    assert probe(site, "fetch", absent, "nothing", "--system-id", system_id) == "1"


def test_the_list_names_real_modules() -> None:
    """A name that is wrong, or a module that was moved, would be found absent for ever."""
    assert [name for name in NEVER if importlib.util.find_spec(name) is None] == []
