"""Names of objects: what every driver accepts, so that a repository can be copied between any two of them."""

from __future__ import annotations

import re

from pitr.core.errors import UsageError

MAX_NAME_BYTES = 900
"""S3 allows 1024 bytes for prefix and name together; file names are checked against NAME_MAX per segment."""
MAX_SEGMENT_BYTES = 200

SEGMENT_CHARACTERS = "A-Za-z0-9._+=-"
_NAME = re.compile(rf"[{SEGMENT_CHARACTERS}]+(?:/[{SEGMENT_CHARACTERS}]+)*", re.ASCII)
_PREFIX = re.compile(rf"(?:[{SEGMENT_CHARACTERS}]+/)*[{SEGMENT_CHARACTERS}]*", re.ASCII)
_SEGMENT = re.compile(rf"[{SEGMENT_CHARACTERS}]+", re.ASCII)


class InvalidName(UsageError):
    """Not the name of an object. Never taken to a server or a file system."""

    code = "invalid-object-name"


def check_name(name: str) -> str:
    """The name itself. Raises InvalidName."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"not an object name: {name!r}", detail=f"segments of [{SEGMENT_CHARACTERS}] between single slashes"
        )
    if len(name) > MAX_NAME_BYTES:
        raise InvalidName(f"object name of {len(name)} bytes: {name[:80]}...", detail=f"at most {MAX_NAME_BYTES}")
    for segment in name.split("/"):
        if segment in (".", ".."):
            raise InvalidName(f"not an object name: {name!r}", detail="a segment is . or ..")
        if len(segment) > MAX_SEGMENT_BYTES:
            raise InvalidName(f"object name with a segment of {len(segment)} bytes", detail=segment[:80])
    return name


def check_prefix(prefix: str) -> str:
    """A beginning of names, empty or partial. Raises InvalidName."""
    if not _PREFIX.fullmatch(prefix) or any(part in (".", "..") for part in prefix.split("/")[:-1]):
        raise InvalidName(f"not a beginning of object names: {prefix!r}")
    return prefix


def is_name(text: str) -> bool:
    """Could this be a name? (Keys that could not are not objects of ours and are passed over.)"""
    return _NAME.fullmatch(text) is not None


def is_segment(text: str) -> bool:
    """Could this be a segment of a name? (Files that could not are not objects and are passed over.)"""
    return _SEGMENT.fullmatch(text) is not None and text not in (".", "..")
