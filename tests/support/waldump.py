"""What PostgreSQL's own pg_waldump says about a chain of segments, to compare with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.tools import find_tools

# In the order of their ids (access/rmgrlist.h).
RMGRS = (
    *("XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap", "Standby"),
    *("Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN", "CommitTs"),
    *("ReplicationOrigin", "Generic", "LogicalMessage"),
)
FORKS = (None, "fsm", "vm", "init")

_RECORD = re.compile(
    r"rmgr: (?P<rmgr>\S+) +len \(rec/tot\): +\d+/ *(?P<total>\d+), tx: +(?P<xid>\d+), "
    r"lsn: (?P<lsn>\S+), prev (?P<prev>\S+), desc: (?P<desc>.*)",
    re.DOTALL,
)
_BLOCK = re.compile(
    r"blkref #(?P<id>\d+): rel (?P<rel>\d+/\d+/\d+)(?: fork (?P<fork>\w+))? blk (?P<block>\d+)(?P<fpw> \(?FPW\)?)?"
)


@dataclass(frozen=True)
class Line:
    lsn: Lsn
    prev: Lsn
    xid: int
    rmid: int
    total: int
    desc: str

    @property
    def blocks(self) -> list[tuple[int, str, str | None, int, bool]]:
        return [
            (int(m["id"]), m["rel"], m["fork"], int(m["block"]), m["fpw"] is not None)
            for m in _BLOCK.finditer(self.desc)
        ]


def dump(major: int, directory: Path, chain: Iterable[SegmentName], start: Lsn) -> list[Line]:
    """All records from start on. The chain's files are shown under the names of its newest timeline.

    (pg_waldump knows one timeline; from pages it asks only that timelines rise.)
    """
    names = list(chain)
    timeline = names[-1].timeline
    with tempfile.TemporaryDirectory() as copy:
        for name in names:
            shutil.copy(directory / str(name), Path(copy) / str(name.at_timeline(timeline)))
        argv = [
            find_tools(major, ("pg_waldump",)).path("pg_waldump"),
            "-p",
            copy,
            "-t",
            str(timeline),
            "-s",
            str(start),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", env={**os.environ, "TZ": "UTC"})
    # It always ends with an error: at the end of WAL, or where a file is missing.
    assert done.stdout, done.stderr
    lines = []
    for text in re.split(r"\n(?=rmgr: )", done.stdout):
        match = _RECORD.match(text)
        assert match is not None, text
        lines.append(
            Line(
                lsn=Lsn.parse(match["lsn"]),
                prev=Lsn.parse(match["prev"]),
                xid=int(match["xid"]),
                rmid=RMGRS.index(match["rmgr"]),
                total=int(match["total"]),
                desc=match["desc"].rstrip("\n"),
            )
        )
    return lines
