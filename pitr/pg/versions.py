"""The major versions that pitr knows."""

from __future__ import annotations

SUPPORTED_MAJORS = range(13, 19)

MAJOR_OF_CATALOG_VERSION = {
    202007201: 13,
    202107181: 14,
    202209061: 15,
    202307071: 16,
    202406281: 17,
    202506291: 18,
}
"""CATALOG_VERSION_NO (catalog/catversion.h) of each release: it never changes after the first one."""


def supported_text() -> str:
    return f"{SUPPORTED_MAJORS[0]} to {SUPPORTED_MAJORS[-1]}"
