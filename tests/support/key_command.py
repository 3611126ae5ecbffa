"""A stand-in for a key service's command line: ``python key_command.py MODE wrap|unwrap``, base64 in, base64 out."""

import base64
import os
import sys

_PAD = bytes((7 * place + 3) % 256 for place in range(64))


def main(mode: str, verb: str) -> int:
    data = base64.b64decode(sys.stdin.buffer.read(), validate=True)
    if not (os.environ["PITR_REPOSITORY_ID"] and os.environ["PITR_SLOT_ID"]):
        return 3
    if mode == "denied" or (mode == "unwrap-denied" and verb == "unwrap"):
        sys.stderr.write("AccessDenied: the key is disabled\n")
        return 1
    if mode == "garbage":
        sys.stdout.write("Success! Your data is wrapped.\n")
        return 0
    if mode == "forgetful" and verb == "unwrap":
        data = bytes(len(data))
    flipped = bytes(byte ^ pad for byte, pad in zip(data, _PAD, strict=False))
    sys.stdout.write(base64.encodebytes(flipped).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
