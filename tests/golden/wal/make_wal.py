"""Make pgNN.tar.zst: WAL of one major as a server wrote it, and what pg_waldump says about it. Append only.

``python -m tests.golden.wal.make_wal 18`` on a machine with that major; existing files are left alone.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

import zstandard

from tests.support import wal_workload, waldump

HERE = Path(__file__).parent
# Full-page images would be most of it.
SMALL = {"full_page_writes": "off", "wal_log_hints": "off"}


def main(major: int) -> None:
    target = HERE / f"pg{major}.tar.zst"
    if target.exists():
        raise SystemExit(f"{target.name} exists")
    with tempfile.TemporaryDirectory() as directory:
        work = wal_workload.make(major, Path(directory), big_bytes=2_500_000, bench=False, conf=SMALL)
        chain = list(work.history.segments(work.start, work.lsns["end"], wal_workload.SEGMENT_SIZE))
        known = {
            "system_id": work.system_id,
            "start": str(work.start),
            "end": str(work.lsns["end"]),
            "live": str(chain[-1]),
            "history": work.history.render(),
            "xids": work.xids,
            "records": [
                [str(line.lsn), str(line.prev), line.xid, line.rmid, line.total, line.desc.split(" payload ")[0][:200]]
                for line in waldump.dump(major, work.directory, chain, work.start)
            ],
        }
        content = {str(name): (work.directory / str(name)).read_bytes() for name in chain}
        old = chain[-1].containing(1, work.history.entries[0].switch_lsn, wal_workload.SEGMENT_SIZE)
        content[f"{old}.partial"] = (work.directory / f"{old}.partial").read_bytes()
    content["known.json"] = json.dumps(known, indent=0).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=25, enable_ldm=True)
    target.write_bytes(zstandard.ZstdCompressor(compression_params=parameters).compress(buffer.getvalue()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
