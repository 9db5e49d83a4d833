"""Sealing credentials with the keys of FLOWLEDGER_ENCRYPTION_KEY.

A seal is a Fernet token (AES-128-CBC and HMAC-SHA256) over the owner's id and the credential, so
that a row put in the place of another one does not open. The first key seals, all of them open.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from domain.errors import NoEncryptionKey

VARIABLE: Final = "FLOWLEDGER_ENCRYPTION_KEY"
_MAKE_KEY: Final = f"make a key with `flowledger make-key`, set it as {VARIABLE} and start again"


class BadEncryptionKey(ValueError):
    """FLOWLEDGER_ENCRYPTION_KEY cannot be used; the message does not repeat it."""


class _Sealed(msgspec.Struct, frozen=True):
    agent_id: str
    credential: str


class Keys:
    """The keys of this process, newest first; prints as their number only."""

    def __init__(self, keys: Sequence[Fernet]) -> None:
        self._keys = tuple(keys)
        self._all = MultiFernet(keys) if keys else None

    def __repr__(self) -> str:
        return f"Keys({len(self._keys)})"

    @classmethod
    def parse(cls, text: str) -> "Keys":
        """Keys separated by commas; none in an empty text. Raises BadEncryptionKey."""
        keys = []
        for number, part in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
            try:
                keys.append(Fernet(part))
            except (ValueError, UnicodeError):
                raise BadEncryptionKey(
                    f"{VARIABLE}: key {number} is not 32 bytes in URL-safe base64; make one with "
                    "`flowledger make-key`"
                ) from None
        return cls(keys)

    def seal(self, agent_id: UUID, credential: str) -> str:
        """Raises NoEncryptionKey."""
        if self._all is None:
            raise NoEncryptionKey(
                "This server has no key to seal a credential with. Write ${secret.NAME} instead "
                f"and set that secret, or {_MAKE_KEY}."
            )
        plain = msgspec.json.encode(_Sealed(str(agent_id), credential))
        return self._all.encrypt(plain).decode()

    def open(self, agent_id: UUID, sealed: str) -> str:
        """Raises NoEncryptionKey."""
        if self._all is not None:
            try:
                plain = self._all.decrypt(sealed)
            except InvalidToken:
                pass
            else:
                found = msgspec.json.decode(plain, type=_Sealed)
                if found.agent_id == str(agent_id):
                    return found.credential
        raise NoEncryptionKey(
            f"The credential of agent {agent_id} was sealed with a key that {VARIABLE} does not "
            "have: add that key behind the newer ones, or change the agent's auth_config."
        )

    def resealed(self, sealed: str) -> str | None:
        """Under the newest key; None when it is already. Raises NoEncryptionKey."""
        if self._all is not None:
            try:
                self._keys[0].decrypt(sealed)
            except InvalidToken:
                try:
                    return self._all.rotate(sealed).decode()
                except InvalidToken:
                    pass
            else:
                return None
        raise NoEncryptionKey(
            f"A credential was sealed with a key that {VARIABLE} does not have; add that key "
            "behind the newer ones."
        )


def make_key() -> str:
    """A new key."""
    return Fernet.generate_key().decode()
