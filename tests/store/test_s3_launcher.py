"""The launcher of the S3 server leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.s3server import LAUNCHER

pytestmark = pytest.mark.s3


def wait_gone(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 30)[0], f"process {pid} is still there"
    finally:
        os.close(fd)


@pytest.mark.parametrize("how", ["watched process ends", "SIGKILL"])
def test_the_server_ends_with_its_launcher(tmp_path: Path, how: str) -> None:
    watched = subprocess.Popen(["sleep", "600"])
    launcher = subprocess.Popen(
        [sys.executable, str(LAUNCHER), "--watch-pid", str(watched.pid)],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert launcher.stdout is not None
    with launcher.stdout:
        server = json.loads(launcher.stdout.readline())
    [weed] = map(int, Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split())
    assert server["pid"] == launcher.pid
    if how == "SIGKILL":
        launcher.kill()
    else:
        watched.kill()
    launcher.wait()
    wait_gone(weed)
    watched.kill()
    watched.wait()
    if how != "SIGKILL":
        assert list(tmp_path.iterdir()) == []
