"""Data keys of a repository, unwrapped and in memory (keys.py wraps and unwraps them)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pitr.codec.kdf import KEY_ID, hkdf_sha256
from pitr.core.errors import KeyUnavailable

DATA_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class DataKey:
    """32 secret bytes and the id (16 hex digits) that follows from them."""

    secret: bytes = field(repr=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        if len(self.secret) != DATA_KEY_BYTES:
            raise ValueError(f"a data key has {DATA_KEY_BYTES} bytes")
        object.__setattr__(self, "id", hkdf_sha256(self.secret, b"", KEY_ID)[:8].hex())


class Keyring:
    """The data keys of one repository. Immutable. New objects use ``current``; old ones name the key they need."""

    __slots__ = ("_current", "_keys")

    def __init__(self, current: DataKey, others: Iterable[DataKey] = ()) -> None:
        self._current: DataKey | None = current
        self._keys = {key.id: key for key in (*others, current)}

    @classmethod
    def unencrypted(cls) -> Keyring:
        """Of a repository made with --no-encryption; refuses sealed objects, as one with keys refuses unsealed ones."""
        ring = cls.__new__(cls)
        ring._current = None
        ring._keys = {}
        return ring

    @property
    def sealed(self) -> bool:
        return self._current is not None

    @property
    def current(self) -> DataKey:
        if self._current is None:
            raise KeyUnavailable("this repository is not encrypted, there is no data key")
        return self._current

    def get(self, key_id: str) -> DataKey:
        """Raises KeyUnavailable."""
        key = self._keys.get(key_id)
        if key is not None:
            return key
        if not self.sealed:
            raise KeyUnavailable(
                f"sealed with data key {key_id}, but no key is configured",
                hint="configure key_file, passphrase, key_command or recovery_key",
            )
        raise KeyUnavailable(
            f"data key {key_id} is needed, but no configured secret opens it",
            detail=f"at hand: {', '.join(self._keys)}",
            hint='the objects below keys/ say in "key" which data key each holds, and in "method" what opens it',
        )

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys) or 'unencrypted'})"
