"""URLs, settings, and the order of listing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitr.core.errors import ConfigError, StoreDenied, StoreError
from pitr.store import ObjectInfo, S3Settings, StoreSettings, open_store
from pitr.store.memory import MemoryStore
from pitr.store.s3_list import Page, listed, start_before


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/var/lib/pitr",
        "file://host/path",
        "file:relative",
        "file:///",
        "s3://",
        "s3:///prefix",
        "s3://bucket/a b",
        "s3://bucket/../a",
        "s3://bucket/a//b",
        "s3://key:secret@bucket/a",
        "s3://bucket/a?region=x",
        "ftp://host/path",
        "s3://bucket/" + "x" * 200,
        "file://[bad",
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_urls_come_back(tmp_path: Path) -> None:
    settings = StoreSettings(s3=S3Settings(region="eu-west-1"))
    for url in (f"file://{tmp_path}/x", "s3://bucket/some/prefix", "s3://bucket", "memory://name"):
        store = open_store(url, settings)
        assert store.url == url
        store.close()
    assert open_store("s3://bucket/prefix/", settings).url == "s3://bucket/prefix"


def test_escaped_paths(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/with%20space").put("a", [b"x"])
    assert (tmp_path / "with space" / "a").read_bytes() == b"x"


def test_wrappers_by_settings() -> None:
    open_store("memory://shared").put("a", [b"x"])
    settings = StoreSettings(read_only=True, upload_rate=1 << 30, download_rate=1 << 30)
    store = open_store("memory://shared", settings)
    assert b"".join(store.get("a")) == b"x"
    with pytest.raises(StoreDenied):
        store.put("a", [b"y"])


def test_boto3_is_loaded_for_s3_only() -> None:
    program = """
import sys
from pitr.store import S3Settings, StoreSettings, open_store
open_store("file:///tmp/x"), open_store("memory://x")
assert not [name for name in sys.modules if name.startswith(("boto", "urllib3"))]
open_store("s3://bucket/x", StoreSettings(s3=S3Settings(region="eu-west-1")))
assert "botocore" in sys.modules and "boto3.resources" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


SEGMENTS = st.text("a0.-+=_A", min_size=1, max_size=3).filter(lambda text: text not in (".", ".."))
NAMES = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)


def by_directory(name: str) -> list[str]:
    return name.split("/")


@given(st.sets(NAMES, max_size=25), NAMES, st.integers(0, 8), st.booleans(), st.integers(1, 6), st.integers(0, 4))
def test_listing_is_in_order_or_refused(
    names: set[str], after: str, cut: int, by_tree: bool, page_size: int, prefix_length: int
) -> None:
    """Whatever order a server has: nothing out of order, and nothing left out without an error."""
    server = sorted(names, key=by_directory) if by_tree else sorted(names)
    prefix = after[:prefix_length] if cut % 2 else ""
    wanted = sorted(name for name in names if name.startswith(prefix) and name > after)

    def pages(start: str) -> Iterator[Page]:
        behind = (lambda name: by_directory(name) > by_directory(start)) if by_tree else (lambda name: name > start)
        found = [name for name in server if name.startswith(prefix) and (not start or behind(name))]
        for first in range(0, len(found), page_size):
            page = found[first : first + page_size]
            yield [ObjectInfo(name, 1, datetime(2026, 1, 1, tzinfo=UTC)) for name in page]

    got = []
    try:
        got.extend(info.name for info in listed(pages, prefix, after))
    except StoreError:
        assert by_tree
        assert got == sorted(got)
        assert set(got) <= set(wanted)
    else:
        assert got == wanted


def test_start_of_a_listing_is_close() -> None:
    wal = "main/7/wal/00000001/00000002/0000000100000002000000"
    assert start_before("main/7/wal/", f"{wal}41") == f"{wal}40~"
    assert start_before("main/7/wal/", f"{wal}41.partial-0-ab") == f"{wal}40~"
    assert start_before("main-2/", "main-2/") == ""
    assert start_before("b", "a") == ""


def test_memory_stores_of_different_names_are_different() -> None:
    open_store("memory://one").put("a", [b"x"])
    assert list(open_store("memory://two").list("")) == []
    assert isinstance(MemoryStore("x").url, str)
