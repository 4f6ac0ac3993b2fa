"""The fast lane's record (plane 3): one UDP datagram, sealed by AES-128-GCM under a key that a DTLS session has given.

0xF1 | index u32 | counter u64 | AES-128-GCM of the text, its tag of 16 bytes at the end
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import repeat
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from cryptography.utils import Buffer

MAGIC = 0xF1
HEAD, TAG = 13, 16
OVERHEAD = HEAD + TAG
SECRET = 24  # bytes of a direction's secret: index, salt, key
WINDOW = 8192  # records that may come later than the newest
REKEY_RECORDS = 1 << 25
MOST_RECORDS = 1 << 26
_BYTES = [bytes([each]) for each in range(256)]


def index_of(datagram: Buffer) -> bytes:
    """Which key it names; b"" if it is too short to be a record. Its first byte is not looked at."""
    return bytes(memoryview(datagram)[1:5]) if len(memoryview(datagram)) >= OVERHEAD else b""


class Sealer:
    """A direction's sending end. `count` is the counter of the next record."""

    def __init__(self, secret: bytes) -> None:
        self.index, self.count = secret[:4], 0
        self._start, self._salt = bytes([MAGIC]) + secret[:4], secret[4:8]
        self._encrypt = AESGCM(secret[8:SECRET]).encrypt

    def seal(self, texts: Sequence[Buffer]) -> bytes:
        """The records of these texts, behind each other; b"" where the key may not seal so many any more."""
        first, count = self.count, len(texts)
        if first + count > MOST_RECORDS:
            return b""
        self.count += count  # first: whatever happens below, no counter is used twice
        parts = [b""] * (2 * count)
        parts[::2] = _numbered(self._start, first, count)
        parts[1::2] = map(self._encrypt, _numbered(self._salt, first, count), texts, repeat(None))
        return b"".join(parts)


class Opener:
    """A direction's receiving end. `newest` is the highest counter that has come; -1 before any has."""

    def __init__(self, secret: bytes) -> None:
        self.index, self.newest = secret[:4], -1
        self.forged = self.replayed = 0
        self._start, self._salt = bytes([MAGIC]) + secret[:4], secret[4:8]
        aead = AESGCM(secret[8:SECRET])
        self._decrypt, self._decrypt_into = aead.decrypt, aead.decrypt_into
        self._seen = [-1] * WINDOW  # of those that share a place, the last that was accepted

    def open(self, datagram: memoryview) -> tuple[int, bytes] | None:
        """Counter and text of a record that is genuine and new."""
        if len(datagram) < OVERHEAD or datagram[:5] != self._start:
            self.forged += 1
            return None
        counter = int.from_bytes(datagram[5:HEAD], "big")
        if counter <= self.newest - WINDOW or self._seen[counter % WINDOW] == counter:
            self.replayed += 1
            return None
        try:
            text = self._decrypt(self._salt + datagram[5:HEAD], datagram[HEAD:], None)
        except InvalidTag:
            self.forged += 1
            return None
        self._seen[counter % WINDOW] = counter
        self.newest = max(self.newest, counter)
        return counter, text

    def follow(self, sealed: Sequence[memoryview], rooms: Iterable[memoryview]) -> int:
        """Open the records that come next after `newest`, without their heads, each into its room, which is as long as
        its text. How many of them are; the one behind is to be given to `open`."""
        first, opened = self.newest + 1, list[int]()
        nonces = _numbered(self._salt, first, len(sealed))
        with suppress(InvalidTag):
            opened.extend(map(self._decrypt_into, nonces, sealed, repeat(None), rooms))
        for counter in range(first, first + len(opened)):
            self._seen[counter % WINDOW] = counter
        self.newest += len(opened)
        return len(opened)


def _numbered(prefix: bytes, first: int, count: int) -> list[bytes]:
    """The prefix before each of these numbers of 8 bytes."""
    found: list[bytes] = []
    while len(found) < count:
        high, low = divmod(first + len(found), 256)
        start = prefix + high.to_bytes(7, "big")
        found += [start + each for each in _BYTES[low : low + count - len(found)]]
    return found
