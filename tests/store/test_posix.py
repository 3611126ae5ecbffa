"""What is particular to the directory driver: durability in order, modes, unmounted disks, vanishing directories."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from pitr.core.errors import ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from pitr.store import PosixStore
from pitr.store.posix import STALE_AFTER_S, TEMPORARY


def names(store: PosixStore, prefix: str = "") -> list[str]:
    return [info.name for info in store.list(prefix)]


def test_a_missing_directory_is_an_outage_and_not_an_empty_repository(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "mnt" / "repository")
    for attempt in (
        lambda: store.stat("a"),
        lambda: next(store.get("a")),
        lambda: next(store.list("")),
        lambda: store.delete(["a"]),
    ):
        with pytest.raises(StoreUnavailable, match="missing") as caught:
            attempt()
        assert not caught.value.transient
        assert caught.value.hint is not None


def test_a_directory_that_goes_away_is_an_outage(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    store = PosixStore(root)
    store.put("a", [b"x"])
    root.rename(tmp_path / "unmounted")
    for attempt in (lambda: store.stat("a"), lambda: next(store.list("")), lambda: store.put("b", [b"x"])):
        with pytest.raises(StoreUnavailable):
            attempt()
    root.mkdir()  # the mount point below
    for attempt in (lambda: store.stat("a"), lambda: list(store.list("")), lambda: store.put("b", [b"x"])):
        with pytest.raises(StoreUnavailable, match="another directory"):
            attempt()
    assert list(root.iterdir()) == []


def test_modes(tmp_path: Path) -> None:
    PosixStore(tmp_path / "own").put("a/b", [b"x"])
    PosixStore(tmp_path / "group", group_readable=True).put("a/b", [b"x"])
    modes = {
        str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777
        for path in tmp_path.rglob("*")
        if TEMPORARY not in path.parts
    }
    assert modes == {
        "own": 0o700,
        "own/a": 0o700,
        "own/a/b": 0o600,
        "group": 0o750,
        "group/a": 0o750,
        "group/a/b": 0o640,
    }


def test_temporary_files_are_not_listed_and_stale_ones_are_removed(tmp_path: Path) -> None:
    place = tmp_path / TEMPORARY
    place.mkdir()
    fresh, stale = place / "1-fresh", place / "1-stale"
    fresh.touch()
    stale.touch()
    old = time.time() - STALE_AFTER_S - 60
    os.utime(stale, (old, old))
    store = PosixStore(tmp_path)
    assert names(store) == []
    store.put("a", [b"x"])
    assert names(store) == ["a"]
    assert sorted(place.iterdir()) == [fresh]


def test_files_that_are_no_objects_are_passed_over(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.put("a/b", [b"x"])
    (tmp_path / "a" / "b~").touch()
    (tmp_path / "with space").mkdir()
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / "a" / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "a" / "fifo")
    assert names(store) == ["a/b"]


def test_a_killed_put_leaves_nothing_visible(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from pitr.store import PosixStore

def body():
    yield b"x" * 100_000
    os.kill(os.getpid(), signal.SIGKILL)

PosixStore(Path({str(tmp_path)!r})).put("a/b", body())
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    store = PosixStore(tmp_path)
    assert names(store) == []
    with pytest.raises(ObjectNotFound):
        store.stat("a/b")
    store.put("a/b", [b"after"], if_absent=True)


def test_empty_directories_go_and_puts_survive_that(tmp_path: Path) -> None:
    """Writers and deleters of the only object of a directory, all at once: no put fails, none is lost."""
    store = PosixStore(tmp_path)
    stop = threading.Event()

    def delete_endlessly() -> None:
        while not stop.is_set():
            store.delete(["deep/down/here/gone"])

    def write(number: int) -> None:
        for turn in range(60):
            store.put("deep/down/here/gone", [b"x"])
            name = f"deep/down/here/{number}-{turn}" if turn == 59 else f"deep/down/{number}/{turn}"
            store.put(name, [b"y"], if_absent=True)
            if turn != 59:
                store.delete([name])

    with ThreadPoolExecutor(6) as pool:
        deleters = [pool.submit(delete_endlessly) for _ in range(2)]
        writers = [pool.submit(write, number) for number in range(4)]
        wait(writers)
        stop.set()
        for future in (*writers, *deleters):
            future.result()
    store.delete(["deep/down/here/gone"])
    assert names(store) == [f"deep/down/here/{number}-59" for number in range(4)]
    store.delete(names(store))
    assert [path.name for path in tmp_path.iterdir()] == [TEMPORARY]


def test_names_in_the_way_of_each_other_are_refused(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.put("a", [b"x"])
    with pytest.raises(StoreError):
        store.put("a/b", [b"x"])
    store.put("d/e", [b"x"])
    with pytest.raises(StoreError):
        store.put("d", [b"x"])
    with pytest.raises(ObjectExists):
        store.put("d", [b"x"], if_absent=True)
    assert names(store) == ["a", "d/e"]
    assert list((tmp_path / TEMPORARY).iterdir()) == []


def test_a_full_disk_is_no_space(tmp_path: Path) -> None:
    """A file system of 256 KiB, mounted in a namespace of its own."""
    program = f"""
import os, sys
from pathlib import Path
from pitr.core.errors import NoSpace
from pitr.store import PosixStore

store = PosixStore(Path({str(tmp_path)!r}))
store.put("fits", [b"x" * 100_000])
try:
    store.put("a/b", [os.urandom(100_000)] * 4)
except NoSpace as error:
    assert error.exit_code == 43 and not error.transient
    assert [info.name for info in store.list("")] == ["fits"]
    store.put("c", [b"x" * 50_000])
    sys.exit(0)
sys.exit("there was room")
"""
    mounted = f'mount -t tmpfs -o size=256k tmpfs "{tmp_path}" && exec "$0" -c "$1"'
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, sys.executable, program]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_denied_directory_is_a_denial(tmp_path: Path) -> None:
    """As another user than root, whom no mode stops."""
    repository = tmp_path / "repository"
    PosixStore(repository).put("a/b", [b"x"])
    (repository / "a").chmod(0)
    try:
        program = f"""
import sys
from pathlib import Path
from pitr.core.errors import StoreDenied
from pitr.store import PosixStore

store = PosixStore(Path({str(repository)!r}))
for attempt in (lambda: store.stat("a/b"), lambda: list(store.list("")), lambda: store.put("a/c", [b"x"])):
    try:
        attempt()
    except StoreDenied:
        continue
    sys.exit(f"not denied: {{attempt}}")
"""
        as_user = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
        done = subprocess.run([*as_user, sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        (repository / "a").chmod(0o700)


def test_get_reads_the_version_it_opened(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.put("a", [b"1" * (3 << 20)])
    reading = store.get("a")
    first = next(reading)
    store.put("a", [b"2"])
    assert first + b"".join(reading) == b"1" * (3 << 20)


def test_a_body_that_raises_an_os_error_passes_it_on(tmp_path: Path) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise PermissionError("of the source")

    with pytest.raises(PermissionError, match="of the source"):
        PosixStore(tmp_path).put("a", body())
    assert names(PosixStore(tmp_path)) == []


def test_what_exists_is_durable_before_that_is_said(tmp_path: Path) -> None:
    """A writer may have been killed between giving the name and syncing the directory."""
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" and recording else None)
    recording = False
    PosixStore(tmp_path / "r").put("a/b/c", [b"x"])
    store = PosixStore(tmp_path / "r")
    recording = True
    with pytest.raises(ObjectExists):
        store.put("a/b/c", [b"x"], if_absent=True)
    recording = False
    assert {str(tmp_path / "r" / "a" / "b"), str(tmp_path / "r" / "a"), str(tmp_path / "r")} <= set(opened)
