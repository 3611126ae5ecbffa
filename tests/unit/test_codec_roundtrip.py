"""What goes in comes out, however it is cut into chunks, and results say what was stored."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitr.codec import (
    HEADER_BYTES,
    NO_DIGEST,
    TAIL_BYTES,
    Cipher,
    DataKey,
    FrameOpener,
    Keyring,
    NeedMore,
    ObjectKind,
    Sealer,
    content_digest,
    fetch_tail,
    new_data_key,
    open_bytes,
    open_whole,
    read_tail,
    seal_bytes,
    seal_chunks,
)
from pitr.core.errors import IntegrityError, KeyUnavailable
from tests.support.codec_samples import NAME, OTHER_NAME, PLAIN, SEALED, noise, read_by_frames, seal_frames, tail_of

MODES = pytest.mark.parametrize("keyring", [SEALED, PLAIN], ids=["sealed", "plain"])
keyrings = st.sampled_from([SEALED, PLAIN])


def cut(data: bytes, lengths: list[int]) -> list[bytes]:
    pieces, start = [], 0
    for length in lengths:
        pieces.append(data[start : start + length])
        start += length
    return [*pieces, data[start:]]


@given(
    keyring=keyrings,
    content=st.binary(max_size=300),
    written=st.lists(st.integers(0, 100), max_size=8),
    read=st.lists(st.integers(0, 100), max_size=8),
    frame_size=st.integers(1, 64),
    index=st.binary(max_size=40),
    digest=st.booleans(),
)
def test_any_chunks_in_any_chunks_out(
    keyring: Keyring, content: bytes, written: list[int], read: list[int], frame_size: int, index: bytes, digest: bool
) -> None:
    sealer = Sealer(keyring, NAME, ObjectKind.WAL, frame_size=frame_size, digest=digest)
    stored = b"".join(seal_chunks(sealer, [bytearray(piece) for piece in cut(content, written)], lambda: index))
    reader = open_whole(keyring, NAME, ObjectKind.WAL, cut(stored, read))
    assert b"".join(reader) == content
    assert read_by_frames(keyring, stored, kind=ObjectKind.WAL) == content

    tail = tail_of(keyring, stored, kind=ObjectKind.WAL)
    assert tail == reader.tail
    assert tail.index == index
    assert tail.params == sealer.params
    assert tail.stored_lengths == sealer.stored_lengths
    assert tail.plain_lengths == sealer.plain_lengths
    assert tail.plain_bytes == sealer.plain_bytes == len(content)
    assert tail.stored_bytes == sealer.stored_bytes == len(stored)
    assert sealer.stored_sha256 == hashlib.sha256(stored).digest()
    assert tail.content_digest == sealer.content_digest
    assert tail.content_digest == (content_digest(keyring, NAME, [content]) if digest else NO_DIGEST)
    assert all(length == frame_size for length in tail.plain_lengths[:-1])
    assert stored[:HEADER_BYTES] == tail.params.header(keyring, NAME)


@MODES
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 12288, 12289])
def test_sizes_around_whole_frames(keyring: Keyring, size: int) -> None:
    content = noise(size)
    sealer = Sealer(keyring, NAME, ObjectKind.PACK, frame_size=4096)
    stored = b"".join(seal_chunks(sealer, [content]))
    assert len(sealer.plain_lengths) == -(-size // 4096)
    assert read_by_frames(keyring, stored) == content
    assert open_bytes(keyring, NAME, ObjectKind.PACK, stored) == content


@MODES
def test_frames_of_a_writers_choice_and_their_places(keyring: Keyring) -> None:
    frames = [noise(count, seed=count) for count in (7, 100_000, 1 << 20, 1)]
    sealer, parts = seal_frames(keyring, frames)
    stored = b"".join(parts)
    tail = tail_of(keyring, stored)
    assert list(tail.plain_lengths) == [7, 100_000, 1 << 20, 1]
    assert list(tail.plain_offsets) == [0, 7, 100_007, 100_007 + (1 << 20), 100_008 + (1 << 20)]
    offsets = tail.frame_offsets
    opener = FrameOpener(keyring, NAME, sealer.params)
    out = memoryview(bytearray(1 << 20))
    for number in (2, 0, 3, 1, 2):
        assert stored[offsets[number] : offsets[number + 1]] == parts[number + 1]
        assert opener.open(number, parts[number + 1]) == frames[number]
        written = opener.open_into(number, memoryview(parts[number + 1]), out)
        assert out[:written] == frames[number]


def test_open_into_needs_room() -> None:
    sealer, parts = seal_frames(SEALED, [b"x" * 100])
    out = bytearray(b"." * 99)
    with pytest.raises(ValueError, match="100 bytes"):
        FrameOpener(SEALED, NAME, sealer.params).open_into(0, parts[1], memoryview(out))
    assert out == b"." * 99


def test_a_chunk_may_be_reused_once_the_next_is_asked_for() -> None:
    buffer = bytearray(10)

    def chunks() -> object:
        for number in range(50):
            buffer[:] = bytes([number]) * 10
            yield memoryview(buffer)

    stored = b"".join(seal_chunks(Sealer(SEALED, NAME, ObjectKind.PACK, frame_size=64), chunks()))
    assert open_bytes(SEALED, NAME, ObjectKind.PACK, stored) == b"".join(bytes([n]) * 10 for n in range(50))


@MODES
def test_the_tail_asks_for_more_when_the_index_is_long(keyring: Keyring) -> None:
    index = noise(3 * TAIL_BYTES)
    stored = b"".join(seal_frames(keyring, [noise(5000)], index=index)[1])
    answer = read_tail(keyring, NAME, len(stored), stored[-TAIL_BYTES:], ObjectKind.PACK)
    assert isinstance(answer, NeedMore)
    asked: list[int] = []

    def fetch(offset: int) -> bytes:
        asked.append(offset)
        return stored[offset:]

    assert fetch_tail(keyring, NAME, len(stored), fetch, ObjectKind.PACK).index == index
    assert asked == [len(stored) - TAIL_BYTES, answer.offset]
    with pytest.raises(IntegrityError):
        fetch_tail(keyring, NAME, len(stored), lambda offset: stored[-TAIL_BYTES:], ObjectKind.PACK)


def test_one_opener_serves_many_threads() -> None:
    frames = [noise(20_000, seed) + bytes(seed * 100) for seed in range(40)]
    sealer, parts = seal_frames(SEALED, frames)
    opener = FrameOpener(SEALED, NAME, sealer.params)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda number: opener.open(number, parts[number + 1]), list(range(40)) * 3))
    assert opened == frames * 3


def test_the_same_content_never_looks_the_same() -> None:
    one, two = (seal_bytes(SEALED, NAME, ObjectKind.MARK, b"fact", digest=True) for _ in range(2))
    assert one[24:56] != two[24:56]
    assert one != two
    digests = {tail_of(SEALED, data, kind=ObjectKind.MARK).content_digest for data in (one, two)}
    assert digests == {content_digest(SEALED, NAME, [b"fa", b"ct"])}
    assert content_digest(SEALED, OTHER_NAME, [b"fact"]) not in digests
    assert content_digest(SEALED, NAME, [b"facts"]) not in digests
    assert content_digest(PLAIN, NAME, [b"fact"]) not in digests


def test_after_a_new_data_key_old_objects_open_and_compare() -> None:
    old, new = new_data_key(), new_data_key()
    stored = seal_bytes(Keyring(old), NAME, ObjectKind.WAL, b"segment", digest=True)
    ring = Keyring(new, [old])
    assert ring.current == new
    assert open_bytes(ring, NAME, ObjectKind.WAL, stored) == b"segment"
    tail = tail_of(ring, stored, kind=ObjectKind.WAL)
    assert content_digest(ring, NAME, [b"segment"], key_id=tail.params.key_id) == tail.content_digest
    assert content_digest(ring, NAME, [b"segment"]) != tail.content_digest
    with pytest.raises(KeyUnavailable) as caught:
        open_bytes(Keyring(new), NAME, ObjectKind.WAL, stored)
    assert old.id in caught.value.message
    assert NAME in caught.value.message
    assert caught.value.hint


def test_misuse_of_a_sealer_is_a_bug() -> None:
    sealer = Sealer(SEALED, NAME, ObjectKind.PACK, frame_size=10)
    with pytest.raises(RuntimeError):
        sealer.frame(b"x")
    sealer.begin()
    for wrong in (b"", b"x" * 11):
        with pytest.raises(ValueError, match="data frame"):
            sealer.frame(wrong)
    sealer.finish()
    for call in (sealer.begin, sealer.finish, lambda: sealer.frame(b"x")):
        with pytest.raises(RuntimeError):
            call()


def test_secrets_do_not_show() -> None:
    key = DataKey(b"S" * 32)
    for value in (key, Keyring(key), Sealer(Keyring(key), NAME, ObjectKind.PACK).params):
        assert "SSSS" not in repr(value)
        assert b"S".hex() * 8 not in repr(value)
    assert key.id in repr(key)
    assert Keyring(key).sealed
    assert not PLAIN.sealed
    with pytest.raises(KeyUnavailable):
        _ = PLAIN.current


def test_cipher_follows_the_keyring() -> None:
    assert Sealer(SEALED, NAME, ObjectKind.PACK).params.cipher is Cipher.AES_256_GCM
    assert Sealer(PLAIN, NAME, ObjectKind.PACK).params.cipher is Cipher.NONE


def test_the_import_is_light() -> None:
    heavy = "numpy boto3 botocore psycopg click rich subprocess asyncio"
    code = f"import sys, pitr.codec; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
