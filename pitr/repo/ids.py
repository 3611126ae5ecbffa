"""Backup ids: ``20261123T041500Z-3fa2``. They sort by time, and a name says when."""

from __future__ import annotations

import os
from datetime import UTC, datetime


def new_backup_id(now: datetime) -> str:
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(2).hex()}"
