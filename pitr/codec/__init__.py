"""Objects as bytes: compressed, sealed frames; and the key slots that hold the data key. Sans-I/O; see FORMAT.md.

Writers stream an object through a Sealer (seal_chunks, or frame by frame); readers stream it through open_whole, read
its end through read_tail, or open single frames through a FrameOpener when they know its parameters from a map.
"""

from pitr.codec.frames import FrameOpener
from pitr.codec.keyring import DataKey, Keyring
from pitr.codec.keys import KeySlot, OtherMethod, new_data_key, parse_slot, unwrap_slot, wrap_slot
from pitr.codec.keysecrets import KeyCommand, KeyFile, KeySecret, Passphrase, RecoveryKey, new_key_file_text
from pitr.codec.layout import (
    DEFAULT_FRAME_SIZE,
    FORMAT_VERSION,
    HEADER_BYTES,
    NO_DIGEST,
    TRAILER_BYTES,
    Cipher,
    Compression,
    ObjectKind,
    ObjectParams,
)
from pitr.codec.reader import ObjectReader, open_bytes, open_whole
from pitr.codec.recovery import new_recovery_key, parse_recovery_key
from pitr.codec.sealer import DEFAULT_LEVEL, Sealer, content_digest, seal_bytes, seal_chunks
from pitr.codec.tail import TAIL_BYTES, NeedMore, ObjectTail, fetch_tail, read_tail

__all__ = [
    "DEFAULT_FRAME_SIZE",
    "DEFAULT_LEVEL",
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "NO_DIGEST",
    "TAIL_BYTES",
    "TRAILER_BYTES",
    "Cipher",
    "Compression",
    "DataKey",
    "FrameOpener",
    "KeyCommand",
    "KeyFile",
    "KeySecret",
    "KeySlot",
    "Keyring",
    "NeedMore",
    "ObjectKind",
    "ObjectParams",
    "ObjectReader",
    "ObjectTail",
    "OtherMethod",
    "Passphrase",
    "RecoveryKey",
    "Sealer",
    "content_digest",
    "fetch_tail",
    "new_data_key",
    "new_key_file_text",
    "new_recovery_key",
    "open_bytes",
    "open_whole",
    "parse_recovery_key",
    "parse_slot",
    "read_tail",
    "seal_bytes",
    "seal_chunks",
    "unwrap_slot",
    "wrap_slot",
]
