"""Key slots: each secret opens its own slot of its own repository, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitr.codec import (
    DataKey,
    KeyCommand,
    KeyFile,
    KeySecret,
    Passphrase,
    RecoveryKey,
    new_data_key,
    new_key_file_text,
    new_recovery_key,
    parse_recovery_key,
    parse_slot,
    unwrap_slot,
    wrap_slot,
)
from pitr.codec.kdf import hkdf_sha256
from pitr.codec.recovery import format_recovery_key
from pitr.core.errors import (
    ConfigError,
    FormatTooNew,
    IntegrityError,
    KeyUnavailable,
    PitrError,
    ToolFailed,
    ToolMissing,
)
from pitr.core.secrets import Secret

REPOSITORY = "9f2c7c1e5b0d4a3e"
CHEAP = 1 << 10
SCRIPT = Path(__file__).parents[1] / "support" / "key_command.py"


def command(mode: str) -> KeyCommand:
    return KeyCommand(f"{sys.executable} '{SCRIPT}' {mode}")


def key_text() -> KeyFile:
    return KeyFile(Secret(new_key_file_text()))


def passphrase(text: str = "correct horse") -> Passphrase:
    return Passphrase(Secret(text))


def recovery() -> RecoveryKey:
    return RecoveryKey(Secret(new_recovery_key()))


KINDS = [key_text, passphrase, recovery, lambda: command("good")]
METHODS = pytest.mark.parametrize("make", KINDS, ids=["key-file", "passphrase", "recovery", "command"])


@METHODS
def test_a_slot_opens_with_its_secret_only(make: object) -> None:
    key, secret = new_data_key(), make()
    slot_id, text = wrap_slot(key, REPOSITORY, secret, scrypt_n=CHEAP)
    assert unwrap_slot(text, REPOSITORY, secret) == key
    slot = parse_slot(text)
    assert (slot.slot_id, slot.key_id, slot.method) == (slot_id, key.id, secret.method)
    assert key.secret.hex() not in text.decode()
    for other in (key_text(), passphrase("wrong"), recovery()):
        with pytest.raises(KeyUnavailable) as caught:
            unwrap_slot(text, REPOSITORY, other)
        assert slot_id in caught.value.message
        assert caught.value.hint
    with pytest.raises(KeyUnavailable):
        unwrap_slot(text, "another repository", secret)


@METHODS
def test_two_slots_of_one_key_differ(make: object) -> None:
    key, secret = new_data_key(), make()
    one, two = (parse_slot(wrap_slot(key, REPOSITORY, secret, scrypt_n=CHEAP)[1]) for _ in range(2))
    for member in ("slot_id", "salt", "nonce", "wrapped"):
        assert getattr(one, member) != getattr(two, member)


@pytest.mark.parametrize("make", KINDS[:3], ids=["key-file", "passphrase", "recovery"])
@given(data=st.data())
def test_a_changed_slot_never_gives_another_key(make: object, data: st.DataObject) -> None:
    key, secret = DataKey(b"k" * 32), make()
    _, text = wrap_slot(key, REPOSITORY, secret, scrypt_n=CHEAP)
    bad = bytearray(text)
    bad[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(PitrError):
        assert unwrap_slot(bytes(bad), REPOSITORY, secret) == key


@pytest.mark.parametrize("member", ["slot", "key", "method", "salt", "nonce", "wrapped"])
def test_each_member_is_bound(member: str) -> None:
    secret = key_text()
    mine, other = (json.loads(wrap_slot(new_data_key(), REPOSITORY, secret)[1]) for _ in range(2))
    mine[member] = "recovery" if member == "method" else other[member]
    with pytest.raises(KeyUnavailable):
        unwrap_slot(json.dumps(mine).encode(), REPOSITORY, secret)


def scrypt_slot(**changed: object) -> bytes:
    document = json.loads(wrap_slot(new_data_key(), REPOSITORY, passphrase(), scrypt_n=CHEAP)[1])
    document["kdf"] |= changed
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "changed",
    [
        {"n": 1 << 30},
        {"n": 1 << 21},
        {"n": 1 << 20, "r": 16},
        {"n": 1 << 20, "p": 16},
        {"n": 1 << 19, "r": 16},
        {"n": 1 << 16, "r": 1},
        {"n": 3000},
        {"n": 0},
        {"n": -1024},
        {"n": 1024.0},
        {"n": "1024"},
        {"n": True},
        {"n": 10**400},
        {"r": 0},
        {"r": 1 << 20},
        {"p": 1 << 20},
        {"name": "md5"},
    ],
    ids=str,
)
def test_a_slot_cannot_ask_for_memory_or_time(changed: dict[str, object]) -> None:
    with pytest.raises(IntegrityError, match="scrypt"):
        unwrap_slot(scrypt_slot(**changed), REPOSITORY, passphrase())


def test_the_default_cost() -> None:
    key, secret = new_data_key(), passphrase()
    _, text = wrap_slot(key, REPOSITORY, secret)
    assert json.loads(text)["kdf"] == {"name": "scrypt", "n": 131072, "r": 8, "p": 1}
    assert unwrap_slot(text, REPOSITORY, secret) == key


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b"[" * 60_000, b'{"format": "1"}', b" " * (65 << 10)],
    ids=lambda text: repr(text[:10]),
)
def test_what_is_no_slot(text: bytes) -> None:
    with pytest.raises(IntegrityError, match="key slot"):
        parse_slot(text)


@pytest.mark.parametrize("changed", [{"format": 2}, {"method": "hardware"}], ids=str)
def test_a_newer_slot(changed: dict[str, object]) -> None:
    document = json.loads(wrap_slot(new_data_key(), REPOSITORY, key_text())[1]) | changed
    with pytest.raises(FormatTooNew):
        parse_slot(json.dumps(document).encode())


def test_passphrases_are_compared_as_people_see_them() -> None:
    key = new_data_key()
    _, text = wrap_slot(key, REPOSITORY, passphrase("café"), scrypt_n=CHEAP)
    assert unwrap_slot(text, REPOSITORY, passphrase("cafe\N{COMBINING ACUTE ACCENT}")) == key
    not_text = passphrase(b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert unwrap_slot(wrap_slot(key, REPOSITORY, not_text, scrypt_n=CHEAP)[1], REPOSITORY, not_text) == key
    with pytest.raises(ConfigError, match="empty"):
        wrap_slot(key, REPOSITORY, passphrase(""), scrypt_n=CHEAP)


# key files


@pytest.mark.parametrize("form", ["text", "hex", "hex and blanks"])
def test_forms_of_a_key_file(tmp_path: Path, form: str) -> None:
    text = new_key_file_text()
    raw = KeyFile(Secret(text)).read()
    path = tmp_path / "main.key"
    path.write_text({"text": text, "hex": raw.hex(), "hex and blanks": f"  {raw.hex().upper()}\r\n"}[form])
    path.chmod(0o600)
    assert KeyFile(path).read() == raw
    assert KeyFile(path).warning() is None


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_key_file_open_to_others_is_a_warning_only(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "main.key"
    path.write_text(new_key_file_text())
    path.chmod(mode)
    assert f"{mode:04o}" in (KeyFile(path).warning() or "")
    assert len(KeyFile(path).read()) == 32


@pytest.mark.parametrize(
    "content",
    [b"", b"hunter2-hunter2", b"pitr-key-1:aHVudGVyMg==", b"pitr-key-1:hunter2!", b"\xff" * 64, b"hunter2" * 10_000],
    ids=["empty", "text", "short", "no base64", "binary", "long"],
)
def test_what_is_no_key_file_is_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "main.key"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        KeyFile(path).read()
    shown = f"{caught.value} {caught.value.hint}"
    assert str(path) in shown
    assert "hunter2" not in shown
    assert "aHVu" not in shown


def test_a_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.key", tmp_path):
        with pytest.raises(KeyUnavailable, match=str(path)):
            KeyFile(path).read()


@pytest.mark.parametrize("make", KINDS[:3])
def test_secrets_do_not_show(make: object) -> None:
    secret: KeySecret = make()
    assert "***" in repr(secret)


# commands


def test_a_command_gets_a_secret_of_its_own_not_the_data_key() -> None:
    key = new_data_key()
    _, text = wrap_slot(key, REPOSITORY, command("good"))
    assert parse_slot(text).blob
    assert unwrap_slot(text, REPOSITORY, command("good")) == key
    for mode in ("unwrap-denied", "garbage", "forgetful"):
        with pytest.raises(KeyUnavailable) as caught:
            unwrap_slot(text, REPOSITORY, command(mode))
        assert caught.value.hint
        if mode == "unwrap-denied":
            assert "AccessDenied" in str(caught.value)


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (command("denied"), ToolFailed),
        (command("garbage"), ToolFailed),
        (command("forgetful"), ToolFailed),
        (command("unwrap-denied"), KeyUnavailable),
        (KeyCommand("/nonexistent/kms"), ToolMissing),
        (KeyCommand("unbalanced 'quote"), ConfigError),
        (KeyCommand("  "), ConfigError),
    ],
    ids=str,
)
def test_a_broken_command_makes_no_slot(broken: KeyCommand, error: type[PitrError]) -> None:
    with pytest.raises(error):
        wrap_slot(new_data_key(), REPOSITORY, broken)


# recovery keys


def test_a_recovery_key_may_be_typed_loosely() -> None:
    secret = bytes(range(100, 125))
    text = format_recovery_key(secret)
    assert [len(group) for group in text.split("-")] == [5] * 10
    for typed in (text, text.lower(), text.replace("-", " "), text.replace("0", "o").replace("1", "l"), f" {text}\n"):
        assert parse_recovery_key(typed) == secret


def test_each_mistyped_recovery_key_is_noticed_and_its_group_named() -> None:
    text = format_recovery_key(hashlib.sha256(b"recovery").digest()[:25])
    for place, letter in itertools.product(range(len(text)), "0123456789ABCDEFGHJKMNPQRSTVWXYZU*"):
        if text[place] not in ("-", letter):
            with pytest.raises(ConfigError, match=f"group {place // 6 + 1} ") as caught:
                parse_recovery_key(text[:place] + letter + text[place + 1 :])
            assert text[:5] not in str(caught.value)
    for place in range(len(text) - 1):
        left, right = text[place], text[place + 1]
        # Two data digits exchanged are found for certain, a data digit and the check digit nearly always.
        if left != right and place % 6 < 3:
            with pytest.raises(ConfigError):
                parse_recovery_key(text[:place] + right + left + text[place + 2 :])
    groups = text.split("-")
    for one, two in itertools.combinations(range(10), 2):
        swapped = groups.copy()
        swapped[one], swapped[two] = swapped[two], swapped[one]
        with pytest.raises(ConfigError):
            parse_recovery_key("-".join(swapped))
    for wrong in ("", text[:-1], text + "0", "-".join(groups[:9])):
        with pytest.raises(ConfigError, match="10 groups"):
            parse_recovery_key(wrong)


def test_recovery_keys_round_trip_and_differ() -> None:
    source = random.Random(5)
    for _ in range(200):
        secret = source.randbytes(25)
        assert parse_recovery_key(format_recovery_key(secret)) == secret
    assert len({new_recovery_key() for _ in range(20)}) == 20


def test_hkdf_against_rfc_5869() -> None:
    ikm = bytes([0x0B]) * 22
    one = hkdf_sha256(ikm, bytes(range(13)), bytes(range(0xF0, 0xFA)))
    assert one.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    three = hkdf_sha256(ikm, b"", b"")
    assert three.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
