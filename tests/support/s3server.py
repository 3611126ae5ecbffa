"""The fixture ``s3_server``: one real S3 server (SeaweedFS) for all workers of a test run."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import pytest

from pitr.core.secrets import Secret
from pitr.store.settings import S3Settings

LAUNCHER = Path(__file__).resolve().parents[2] / "scripts" / "s3_server.py"


@dataclass(frozen=True, slots=True)
class S3Endpoint:
    """A running server with an existing bucket. Tests keep to a prefix of their own."""

    endpoint: str
    bucket: str
    region: str
    access_key: str
    secret_key: str
    pid: int

    def settings(self, **changes: object) -> S3Settings:
        """S3Settings without a bucket (open_store takes it from the URL)."""
        options: dict[str, object] = {
            "endpoint": self.endpoint,
            "region": self.region,
            "access_key": Secret(self.access_key),
            "secret_key": Secret(self.secret_key),
        }
        return S3Settings(**(options | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Endpoint]:
    """The first worker to come starts the server; it ends by itself when the process that runs pytest is gone."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        process, server = _start(os.getpid())
        yield server
        process.terminate()
        process.wait()
        return
    shared = tmp_path_factory.getbasetemp().parent / "s3_server.json"
    with open(shared.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            _, server = _start(os.getppid())
            shared.write_text(json.dumps(asdict(server)))
    yield S3Endpoint(**json.loads(shared.read_text()))


def _start(watch_pid: int) -> tuple[subprocess.Popen[bytes], S3Endpoint]:
    process, server = _launcher().start_launcher("pitr", watch_pid=watch_pid)
    return process, S3Endpoint(**asdict(server))


def _launcher() -> ModuleType:
    """scripts/ is no package: the module is loaded from its file."""
    spec = importlib.util.spec_from_file_location("s3_server", LAUNCHER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
