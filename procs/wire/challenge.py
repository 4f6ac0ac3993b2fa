"""Proof that a device has its secret, without sending it; the hub stores what checks it, never the secret. Pure.

After SCRAM (RFC 5802), with the names of that: the key is derived from secret and device id, the proof shows the
client key under a signature of both nonces, so that it is good for one exchange and worth nothing to whoever reads
it or the store. The hub proves in turn that it holds the verifier.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

from procs.errors import Refused

ITERATIONS = 4096
MAX_SECRET = 1024  # characters
_SALT = b"planaria device\0"
_TRANSCRIPT = b"planaria device challenge 1"
TEXT = r"^planaria-1:([0-9a-f]{64}):([0-9a-f]{64})\Z"  # of a verifier
_TEXT = re.compile(TEXT)
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Verifier(NamedTuple):
    """What the hub keeps: enough to check a proof, not enough to make one."""

    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return "Verifier(...)"

    def to_text(self) -> str:
        """One line, for the store and for registration."""
        return f"planaria-1:{self.stored_key.hex()}:{self.server_key.hex()}"

    @classmethod
    def from_text(cls, text: str) -> Verifier:
        """The opposite. Raises Refused."""
        if not (found := _TEXT.match(text)):
            raise Refused("not a verifier")
        return cls(bytes.fromhex(found[1]), bytes.fromhex(found[2]))


class Keys(NamedTuple):
    """What the device has of its secret."""

    client_key: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return "Keys(...)"


def keys(secret: str, device_id: str) -> Keys:
    """Some milliseconds of work. Raises Refused for a secret that is empty, too long or no text."""
    if not 0 < len(secret) <= MAX_SECRET:
        raise Refused(f"a device's secret has 1 to {MAX_SECRET} characters, not {len(secret)}")
    try:
        key = hashlib.pbkdf2_hmac("sha256", secret.encode(), _SALT + device_id.encode(), ITERATIONS)
    except UnicodeError:
        raise Refused("a device's secret and id are text that can be written as UTF-8") from None
    client_key = _mac(key, b"client")
    return Keys(client_key, hashlib.sha256(client_key).digest(), _mac(key, b"server"))


def verifier(secret: str, device_id: str) -> Verifier:
    """What the hub is to keep of a device. Raises Refused as `keys`."""
    mine = keys(secret, device_id)
    return Verifier(mine.stored_key, mine.server_key)


def nonce() -> str:
    """A fresh one: 256 bits in hex."""
    return secrets.token_hex(32)


def transcript(device_id: str, instance: str, client_nonce: str, hub_nonce: str) -> bytes:
    """What both sides sign. Each part goes with its length, so that no two exchanges have the same."""
    parts = [_TRANSCRIPT, *(part.encode() for part in (device_id, instance, client_nonce, hub_nonce))]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def proof(mine: Keys, said: bytes) -> str:
    """The device's answer to a challenge, of `transcript`, as 64 hex digits."""
    return _xor(mine.client_key, _mac(mine.stored_key, said)).hex()


def check(of_device: Verifier, said: bytes, proof_hex: str) -> bool:
    """Whether whoever made this proof has the secret."""
    if not _DIGEST.match(proof_hex):
        return False
    client_key = _xor(bytes.fromhex(proof_hex), _mac(of_device.stored_key, said))
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), of_device.stored_key)


def signature(of_device: Verifier, said: bytes) -> str:
    """The hub's own proof, as 64 hex digits."""
    return _mac(of_device.server_key, said).hex()


def check_signature(mine: Keys, said: bytes, signature_hex: str) -> bool:
    """Whether whoever made this signature holds the device's verifier."""
    return hmac.compare_digest(_mac(mine.server_key, said).hex().encode(), signature_hex.encode(errors="replace"))


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
