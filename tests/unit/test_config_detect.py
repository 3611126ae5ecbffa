"""Finding clusters, on made-up machines."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pitr.config import load_settings
from pitr.config.detect import DetectedCluster, clean_name, detect, parse_lsclusters, to_toml

LISTING = """\
13 main    5432 down            postgres /var/lib/postgresql/13/main /var/log/postgresql/postgresql-13-main.log
15 main    5433 online,recovery postgres /var/lib/postgresql/15/main /var/log/postgresql/postgresql-15-main.log
garbage
"""


def server(proc: Path, data: Path, pid: int, *, lock_pid: int | None = None) -> None:
    """A process as the kernel shows it."""
    data.mkdir(exist_ok=True)
    (data / "PG_VERSION").write_text("16\n")
    (data / "postmaster.pid").write_text(f"{lock_pid or pid}\n{data}\n1700000000\n6543\n/run/pg\nlocalhost\n ready\n")
    entry = proc / str(pid)
    entry.mkdir(parents=True)
    (entry / "comm").write_text("postgres\n")
    (entry / "cwd").symlink_to(data)
    (entry / "exe").symlink_to("/opt/pg16/bin/postgres")


def test_debian_listing() -> None:
    old, new = parse_lsclusters(LISTING)
    assert (old.version, old.port, old.running) == ("13", 5432, False)
    assert (new.data_directory, new.port, new.running) == (Path("/var/lib/postgresql/15/main"), 5433, True)


@pytest.fixture
def empty_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "no-bin"))


@pytest.mark.usefixtures("empty_path")
class TestDetect:
    def test_a_running_server_and_its_children_are_one(self, tmp_path: Path) -> None:
        proc, data = tmp_path / "proc", tmp_path / "shop"
        server(proc, data, 100)
        server(proc, data, 101, lock_pid=100)
        (found,) = detect({"PGDATA": str(data)}, proc=proc)
        assert (found.name, found.version, found.port) == ("shop", "16", 6543)
        assert found.bin_dir == Path("/opt/pg16/bin")
        assert found.sources == ("process 100", "PGDATA")
        assert found.running

    def test_names_are_made_different(self, tmp_path: Path) -> None:
        proc = tmp_path / "proc"
        for number, parent in enumerate(("a", "b"), 100):
            (tmp_path / parent).mkdir()
            server(proc, tmp_path / parent / "data", number)
        assert len({found.name for found in detect({}, proc=proc)}) == 2

    def test_nothing(self, tmp_path: Path) -> None:
        assert detect({"PGDATA": str(tmp_path)}, proc=tmp_path) == ()


def test_the_proposal_is_a_valid_configuration(tmp_path: Path) -> None:
    odd = DetectedCluster(clean_name("it's"), Path('/da"ta\\ä'), "15", 5432, "/run/x", None, True, ("process 1",))
    text = to_toml([*parse_lsclusters(LISTING.splitlines()[0]), odd])
    assert set(tomllib.loads(text)["cluster"]) == {"main", "it-s"}
    path = tmp_path / "pitr.toml"
    path.write_text(text)
    settings = load_settings(config=str(path), cluster="it-s", environ={})
    assert settings.cluster.data_directory == Path('/da"ta\\ä')
