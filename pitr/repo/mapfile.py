"""The map as bytes: a directory of columns, then the columns (FORMAT.md, "The map")."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pitr.codec import ObjectParams
from pitr.core.errors import FormatTooNew, ManifestInvalid
from pitr.repo.maps import EXTENT_COLUMNS, FILE_COLUMNS, BackupMap, Extents, PackRef, check_coverage

FORMAT = 1
_SLICE = 4 * 1024 * 1024
_DIRECTORY_LIMIT = 1 << 20
Column = npt.NDArray[np.generic]


def encode_map(built: BackupMap) -> Iterator[memoryview]:
    """Plain content of the map object, in pieces."""
    columns = _columns(built)
    directory: list[dict[str, object]] = []
    offset = 0
    for name, column in columns.items():
        directory.append({"name": name, "dtype": column.dtype.str, "count": len(column), "offset": offset})
        offset += -(-column.nbytes // 8) * 8
    head = json.dumps({"format": FORMAT, "block_size": built.block_size, "columns": directory}).encode()
    head += b" " * (-len(head) % 8)
    yield memoryview(struct.pack("<Q", len(head)) + head)
    for column in columns.values():
        data = memoryview(np.ascontiguousarray(column).view(np.uint8).data)
        for start in range(0, len(data), _SLICE):
            yield data[start : start + _SLICE]
        if len(data) % 8:
            yield memoryview(bytes(-len(data) % 8))


def _columns(built: BackupMap) -> dict[str, Column]:
    packs = [_pack_to_json(pack) for pack in built.packs]
    frames = [len(pack.stored_lengths) for pack in built.packs]
    columns: dict[str, Column] = {"path_bytes": built.path_bytes, "path_end": built.path_end}
    columns |= {name: built.files[name] for name in FILE_COLUMNS}
    columns["extent_end"] = built.extent_end
    columns |= {f"ext_{name}": getattr(built.extents, name) for name in EXTENT_COLUMNS}
    columns["pack_json"] = np.frombuffer(json.dumps(packs).encode(), np.uint8)
    columns["pack_frame_end"] = np.cumsum(np.array(frames, np.uint64), dtype=np.uint64)
    columns["frame_stored"] = _joined([pack.stored_lengths for pack in built.packs])
    columns["frame_plain"] = _joined([pack.plain_lengths for pack in built.packs])
    return {name: column.astype(column.dtype.newbyteorder("<"), copy=False) for name, column in columns.items()}


def _joined(parts: list[npt.NDArray[np.uint32]]) -> Column:
    return np.concatenate(parts) if parts else np.empty(0, np.uint32)


def _pack_to_json(pack: PackRef) -> dict[str, object]:
    params = pack.params
    return {
        "backup": pack.backup_id, "number": pack.number, "size": pack.size_bytes, "salt": params.salt.hex(),
        "key_id": params.key_id, "version": params.version, "compression": int(params.compression),
        "cipher": int(params.cipher), "frame_size": params.frame_size,
    }  # fmt: skip


class _Reader:
    """Pulls exact lengths out of a stream of chunks, straight into preallocated arrays."""

    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")
        self._name = name

    def into(self, out: memoryview) -> None:
        while out:
            if not self._rest:
                try:
                    self._rest = memoryview(next(self._chunks))
                except StopIteration:
                    raise ManifestInvalid(f"{self._name}: the map ends early") from None
                continue
            take = min(len(out), len(self._rest))
            out[:take] = self._rest[:take]
            out, self._rest = out[take:], self._rest[take:]

    def bytes(self, length: int) -> bytes:
        data = bytearray(length)
        self.into(memoryview(data))
        return bytes(data)

    def finish(self) -> None:
        """Read to the end, so that the object's last checks run."""
        if len(self._rest) or any(len(chunk) for chunk in self._chunks):
            raise ManifestInvalid(f"{self._name}: there is something behind the map's columns")


def decode_map(chunks: Iterable[bytes], name: str, params_from: Callable[[dict[str, Any]], ObjectParams]) -> BackupMap:
    """Read a map from its plain content. ``params_from`` makes pack parameters of a pack's JSON (see pack_params).

    Raises ManifestInvalid when it does not hold together, FormatTooNew.
    """
    reader = _Reader(chunks, name)
    try:
        (length,) = struct.unpack("<Q", reader.bytes(8))
        if length > _DIRECTORY_LIMIT:
            raise ManifestInvalid(f"{name}: the map's directory is too long")
        head = json.loads(reader.bytes(length))
        if head["format"] > FORMAT:
            raise FormatTooNew(f"{name} has map format {head['format']}, this pitr reads up to {FORMAT}")
        columns = _read_columns(reader, head["columns"], name)
        reader.finish()
        return _assemble(int(head["block_size"]), columns, params_from)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ManifestInvalid(f"{name} is not a map", detail=str(error)) from error


def _read_columns(reader: _Reader, directory: list[dict[str, Any]], name: str) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    position = 0
    for entry in directory:
        if entry["offset"] != position or np.dtype(entry["dtype"]).kind not in "ui":
            raise ManifestInvalid(f"{name}: column {entry['name']} is out of place")
        column = np.empty(int(entry["count"]), np.dtype(entry["dtype"]))
        if len(column):
            reader.into(column.view(np.uint8).data)
        reader.bytes(-column.nbytes % 8)
        position += column.nbytes + -column.nbytes % 8
        columns[entry["name"]] = column
    return columns


def _assemble(
    block_size: int, columns: dict[str, Column], params_from: Callable[[dict[str, Any]], ObjectParams]
) -> BackupMap:
    packs: list[PackRef] = []
    start = 0
    described = json.loads(columns["pack_json"].tobytes() or b"[]")
    for entry, end in zip(described, columns["pack_frame_end"].tolist(), strict=True):
        packs.append(
            PackRef(
                backup_id=str(entry["backup"]),
                number=int(entry["number"]),
                size_bytes=int(entry["size"]),
                params=params_from(entry),
                stored_lengths=columns["frame_stored"][start:end].astype(np.uint32, copy=False),
                plain_lengths=columns["frame_plain"][start:end].astype(np.uint32, copy=False),
            )
        )
        start = end
    extents = Extents(*(columns[f"ext_{name}"].astype(dtype, copy=False) for name, dtype in EXTENT_COLUMNS.items()))
    built = BackupMap(
        block_size=block_size,
        path_bytes=columns["path_bytes"].astype(np.uint8, copy=False),
        path_end=columns["path_end"].astype(np.uint64, copy=False),
        files={name: columns[name].astype(dtype, copy=False) for name, dtype in FILE_COLUMNS.items()},
        extent_end=columns["extent_end"].astype(np.uint64, copy=False),
        extents=extents,
        packs=tuple(packs),
    )
    check_coverage(built)
    return built
