"""Every flip, cut, exchange, repetition and rename is an error, with and without a key."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from pitr.codec import (
    HEADER_BYTES,
    TRAILER_BYTES,
    FrameOpener,
    Keyring,
    ObjectKind,
    new_data_key,
    open_whole,
    seal_bytes,
)
from pitr.codec.frames import FrameKind, FrameSealer, compressor
from pitr.codec.layout import Trailer
from pitr.codec.tail import pack_index
from pitr.core.errors import FormatTooNew, IntegrityError, KeyUnavailable, ManifestInvalid, PitrError
from tests.support.codec_samples import (
    NAME,
    OTHER_NAME,
    PLAIN,
    SEALED,
    noise,
    read_by_frames,
    read_whole,
    seal_frames,
    tail_of,
)

MODES = pytest.mark.parametrize("keyring", [SEALED, PLAIN], ids=["sealed", "plain"])
FRAMES = [b"first frame", b"second frame", noise(40)]

# Looked at before a MAC can be computed: version, cipher, key id.
NOT_YET_KNOWN = {8, 11, *range(16, 24)}


def small(keyring: Keyring, *, digest: bool = True) -> list[bytes]:
    return seal_frames(keyring, FRAMES, index=b"what the kind needs", digest=digest)[1]


def collect(pieces: Iterable[bytes], into: bytearray) -> None:
    for piece in pieces:
        into += piece


@MODES
def test_every_flipped_bit_of_a_whole_object(keyring: Keyring) -> None:
    good = b"".join(small(keyring))
    content = read_whole(keyring, good)
    trailer_at = len(good) - TRAILER_BYTES
    for position, bit in itertools.product(range(len(good)), range(8)):
        bad = bytearray(good)
        bad[position] ^= 1 << bit
        early = position in NOT_YET_KNOWN or position - trailer_at in NOT_YET_KNOWN
        expected = (IntegrityError, KeyUnavailable, FormatTooNew) if early else IntegrityError
        seen = bytearray()
        with pytest.raises(expected) as caught:
            collect(open_whole(keyring, NAME, ObjectKind.PACK, [bytes(bad)]), seen)
        assert content.startswith(seen)
        assert NAME in caught.value.message
        assert caught.value.hint


@MODES
def test_every_flipped_bit_of_the_tail(keyring: Keyring) -> None:
    parts = small(keyring)
    good = b"".join(parts)
    for position, bit in itertools.product(range(len(good) - len(parts[-1]), len(good)), range(8)):
        bad = bytearray(good)
        bad[position] ^= 1 << bit
        with pytest.raises((IntegrityError, KeyUnavailable, FormatTooNew)):
            tail_of(keyring, bytes(bad))


@MODES
def test_every_flipped_bit_of_a_single_frame(keyring: Keyring) -> None:
    sealer, parts = seal_frames(keyring, FRAMES)
    opener = FrameOpener(keyring, NAME, sealer.params)
    out = memoryview(bytearray(100))
    for position, bit in itertools.product(range(len(parts[2])), range(8)):
        bad = bytearray(parts[2])
        bad[position] ^= 1 << bit
        with pytest.raises(IntegrityError, match="frame 1"):
            opener.open(1, bad)
        with pytest.raises(IntegrityError, match="frame 1"):
            opener.open_into(1, bad, out)
    assert bytes(out) == bytes(100)


@MODES
def test_every_cut(keyring: Keyring) -> None:
    good = b"".join(small(keyring))
    for length in range(len(good)):
        with pytest.raises(IntegrityError):
            read_whole(keyring, good[:length])
        with pytest.raises(IntegrityError):
            read_whole(keyring, good[length + 1 :])
        with pytest.raises(IntegrityError):
            tail_of(keyring, good[:length])


@MODES
@pytest.mark.parametrize("extra", [b"\0", b"garbage", bytes(TRAILER_BYTES)])
def test_bytes_behind_the_end(keyring: Keyring, extra: bytes) -> None:
    good = b"".join(small(keyring))
    for bad in (good + extra, good + good):
        with pytest.raises(IntegrityError):
            read_whole(keyring, bad)
        if bad[-TRAILER_BYTES:] != good[-TRAILER_BYTES:]:
            with pytest.raises(IntegrityError):
                tail_of(keyring, bad)
    with pytest.raises(IntegrityError, match="another size"):
        tail_of(keyring, good + good)


@MODES
@given(data=st.data())
def test_any_range_removed_repeated_or_overwritten(keyring: Keyring, data: st.DataObject) -> None:
    good = b"".join(small(keyring))
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, len(good)))
    at = data.draw(st.integers(0, len(good)))
    bad = data.draw(
        st.sampled_from(
            [
                good[:start] + good[end:],
                good[:at] + good[start:end] + good[at:],
                good[:at] + good[start:end] + good[at + end - start :],
                good[:start] + bytes(end - start) + good[end:],
            ]
        )
    )
    assume(bad != good)
    with pytest.raises(PitrError):
        read_whole(keyring, bad)


@MODES
def test_every_other_order_of_frames(keyring: Keyring) -> None:
    header, *frames, end = seal_frames(keyring, [b"same size 1", b"same size 2", b"same size 3"])[1]
    tried = 0
    for count in range(5):
        for order in itertools.product(range(3), repeat=count):
            if order == (0, 1, 2):
                continue
            bad = b"".join([header, *(frames[which] for which in order), end])
            with pytest.raises(IntegrityError):
                read_whole(keyring, bad)
            with pytest.raises(IntegrityError):
                read_by_frames(keyring, bad)
            tried += 1
    assert tried == 1 + 3 + 9 + 27 + 81 - 1


@MODES
@pytest.mark.parametrize("other_name", [NAME, OTHER_NAME], ids=["older attempt", "other object"])
def test_parts_of_two_objects_do_not_mix(keyring: Keyring, other_name: str) -> None:
    """Same content, same sizes, same name even: the salt tells the attempts apart."""
    sealer, one = seal_frames(keyring, FRAMES)
    two = seal_frames(keyring, FRAMES, name=other_name)[1]
    assert [len(part) for part in one] == [len(part) for part in two]
    for choice in itertools.product((one, two), repeat=len(one)):
        mixed = [parts[place] for place, parts in enumerate(choice)]
        if mixed not in (one, two):
            with pytest.raises(IntegrityError):
                read_whole(keyring, b"".join(mixed))
    opener = FrameOpener(keyring, NAME, sealer.params)
    for number, frame in enumerate(two[1:-1]):
        with pytest.raises(IntegrityError, match=f"frame {number}"):
            opener.open(number, frame)


@MODES
def test_renamed_or_taken_for_another_kind(keyring: Keyring) -> None:
    sealer, parts = seal_frames(keyring, FRAMES)
    stored = b"".join(parts)
    for read in (read_whole, tail_of):
        with pytest.raises(IntegrityError, match="renamed"):
            read(keyring, stored, name=OTHER_NAME)
        with pytest.raises(IntegrityError, match="MAP was expected"):
            read(keyring, stored, kind=ObjectKind.MAP)
    with pytest.raises(IntegrityError):
        FrameOpener(keyring, OTHER_NAME, sealer.params).open(0, parts[1])


@MODES
def test_frames_at_another_number_or_of_another_kind(keyring: Keyring) -> None:
    sealer, parts = seal_frames(keyring, FRAMES)
    opener = FrameOpener(keyring, NAME, sealer.params)
    index_frame = parts[-1][:-TRAILER_BYTES]
    for number, frame in [(1, parts[1]), (0, parts[2]), (3, index_frame), (0, b""), (0, b"\x01"), (0, parts[1] + b"x")]:
        with pytest.raises(IntegrityError):
            opener.open(number, frame)


def test_downgrade_is_refused() -> None:
    unsealed = seal_bytes(PLAIN, NAME, ObjectKind.PACK, b"forged")
    for read in (read_whole, tail_of):
        with pytest.raises(ManifestInvalid, match="downgrade") as caught:
            read(SEALED, unsealed)
        assert caught.value.code == "manifest-invalid"
    with pytest.raises(ManifestInvalid):
        FrameOpener(SEALED, NAME, tail_of(PLAIN, unsealed).params)


def test_a_sealed_object_needs_its_key() -> None:
    sealed = seal_bytes(SEALED, NAME, ObjectKind.PACK, b"secret")
    assert b"secret" not in sealed
    for ring in (PLAIN, Keyring(new_data_key())):
        for read in (read_whole, tail_of):
            with pytest.raises(KeyUnavailable) as caught:
                read(ring, sealed)
            assert SEALED.current.id in caught.value.message
            assert caught.value.hint


def test_a_newer_version_is_said_to_be_newer() -> None:
    good = bytearray(seal_bytes(SEALED, NAME, ObjectKind.PACK, b"x"))
    good[8] = 2
    with pytest.raises(FormatTooNew, match="version 2"):
        read_whole(SEALED, bytes(good))
    good[8], good[-TRAILER_BYTES + 8] = 1, 2
    with pytest.raises(FormatTooNew):
        tail_of(SEALED, bytes(good))


def forged(keyring: Keyring, packed: bytes) -> tuple[FrameOpener, bytes, bytes]:
    """An object whose one data frame is sealed properly around ``packed``: opener, frame, all stored bytes."""
    sealer, parts = seal_frames(keyring, [b"x"], frame_size=1 << 16)
    frame = FrameSealer(keyring, NAME, sealer.params).seal(0, FrameKind.DATA, packed)
    return FrameOpener(keyring, NAME, sealer.params), frame, b"".join([parts[0], frame, parts[-1]])


@MODES
@pytest.mark.parametrize(
    "packed",
    [
        compressor(3).compress(bytes(256 << 20)),
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 << 20)),
        b"no zstd",
    ],
    ids=["too large", "size not stated", "no zstd"],
)
def test_a_memory_bomb_is_refused_before_it_opens(keyring: Keyring, packed: bytes) -> None:
    opener, frame, stored = forged(keyring, packed)
    out = memoryview(bytearray(1 << 16))
    tracemalloc.start()
    try:
        for attempt in (
            lambda: opener.open(0, frame),
            lambda: opener.open_into(0, frame, out),
            lambda: read_whole(keyring, stored),
        ):
            with pytest.raises(IntegrityError, match="frame 0"):
                attempt()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@MODES
def test_a_length_prefix_cannot_ask_for_memory(keyring: Keyring) -> None:
    stored = bytearray(b"".join(small(keyring)))
    stored[HEADER_BYTES : HEADER_BYTES + 4] = (0x7FFFFFFF).to_bytes(4, "little")
    fed = 0

    def chunks() -> object:
        nonlocal fed
        yield bytes(stored)
        for _ in range(64):
            fed += 1 << 20
            yield bytes(1 << 20)

    with pytest.raises(IntegrityError, match="more than possible"):
        list(open_whole(keyring, NAME, ObjectKind.PACK, chunks()))
    assert fed == 0


@MODES
def test_zstd_checksum_and_size_are_checked_behind_the_seal(keyring: Keyring) -> None:
    """A frame that was damaged in memory before it was sealed."""
    packed = bytearray(compressor(3).compress(noise(1000)))
    packed[-1] ^= 1
    opener, frame, _ = forged(keyring, bytes(packed))
    with pytest.raises(IntegrityError, match="decompressed"):
        opener.open(0, frame)
    with pytest.raises(IntegrityError, match="decompressed"):
        opener.open_into(0, frame, memoryview(bytearray(1 << 16)))


@MODES
@pytest.mark.parametrize(
    "field", ["plain_bytes", "frame_count", "index_offset", "index_length", "content_digest", "params"]
)
def test_a_trailer_that_lies_with_a_valid_mac(keyring: Keyring, field: str) -> None:
    sealer, parts = seal_frames(keyring, FRAMES, digest=True)
    tail = tail_of(keyring, b"".join(parts))
    values = {
        "params": sealer.params,
        "plain_bytes": tail.plain_bytes,
        "frame_count": 3,
        "index_offset": tail.frame_offsets[-1],
        "index_length": len(parts[-1]) - TRAILER_BYTES,
        "content_digest": tail.content_digest,
    }
    truth = Trailer(**values).pack(keyring, NAME)
    assert b"".join(parts)[-TRAILER_BYTES:] == truth
    other = seal_frames(keyring, FRAMES, digest=True)[0].params
    lies = {"content_digest": noise(32), "params": other}
    values[field] = lies.get(field) or values[field] + 1
    bad = b"".join(parts)[:-TRAILER_BYTES] + Trailer(**values).pack(keyring, NAME)
    with pytest.raises(IntegrityError):
        read_whole(keyring, bad)
    if field != "content_digest":  # only reading the content can tell
        with pytest.raises(IntegrityError):
            tail_of(keyring, bad)


@MODES
def test_an_index_that_exchanges_two_lengths(keyring: Keyring) -> None:
    """All sums fit; only the frames themselves can tell."""
    sealer, parts = seal_frames(keyring, [noise(40), noise(50)])
    tail = tail_of(keyring, b"".join(parts))
    packed = compressor(3).compress(pack_index(sealer.stored_lengths[::-1], sealer.plain_lengths[::-1], b""))
    frame = FrameSealer(keyring, NAME, sealer.params).seal(2, FrameKind.INDEX, packed)
    trailer = Trailer(sealer.params, 90, 2, tail.frame_offsets[-1], len(frame), tail.content_digest)
    bad = b"".join([*parts[:-1], frame, trailer.pack(keyring, NAME)])
    assert list(tail_of(keyring, bad).plain_lengths) == [50, 40]
    with pytest.raises(IntegrityError, match="index frame does not fit its frames"):
        read_whole(keyring, bad)
    with pytest.raises(IntegrityError):
        read_by_frames(keyring, bad)
