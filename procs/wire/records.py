"""The fast lane's record (plane 3): one UDP datagram, sealed by AES-128-GCM under a key that a DTLS session has given.

    0xF1 | index u32 | counter u64 | AES-128-GCM of the text, its tag of 16 bytes at the end

0xF1 is outside what STUN, ZRTP, DTLS, TURN and RTP begin with (RFC 7983), so one port can carry them all. A
direction's secret is 24 bytes of that session's exporter: index 4, salt 4, key 16. The nonce is salt | counter.
Counters begin at 0, each record takes the next. There is no associated data: another index means another key, another
counter another nonce, and the first byte says nothing, so that nothing of the head can be changed for one that opens
to another text.

Why it holds
- No nonce is used twice. The key comes from the master secret of the DTLS session, the sender's role in it, and a
  random nonce of 16 bytes of each end (agent/lane/keying.py). A Sealer counts up in the memory of one process. Killed,
  it takes key and counter with it: the next life draws another nonce, and so has another key, whatever the other end
  says. In one life no pair of nonces makes a second Sealer (agent/lane/lane.py).
- No record is taken twice. One that is new by the window, and only after its tag was right, changes the window, so
  that a forged one changes nothing. Older than the window is old. What the receiver's earlier life has had is
  worthless, as the receiver's nonce is in the key as well.
- The key is used little enough. MOST_RECORDS of 9,000 bytes are 2^35.2 blocks, by which an attacker tells the sealed
  from the random with a probability of at most 2^-58 (draft-irtf-cfrg-aead-limits 5.1: (blocks + records)^2 / 2^129;
  of 1,500 bytes it is 2^-63). RFC 8446 5.5 and RFC 9001 B.1 stop about there, at 2^34.5 and 2^35 blocks. New keys are
  to be had from REKEY_RECORDS on, half of that. A forgery of 9,000 bytes succeeds with 2^-117 a try, by the same
  draft, and a key lives for minutes: the count of `forged` is for people, and ends nothing. The salt is secret and
  differs from key to key, so that no work on one key helps with another.

Who can do what
- Somebody on the path: see when, how much, from where to where, what belongs to one key, and what is of a sparse flow
  (agent/lane/sockets.py); keep datagrams back, delay and reorder them. Sent on once from another address, the newest
  one moves the lane to there until the peer is heard from where it is, as with WireGuard; what goes there is as sealed
  as before, and little before somebody has answered there (agent/lane/lane.py). No text is read, made, changed or
  repeated.
- Somebody elsewhere: cost us the look at five bytes, or one failed decryption where they know an index.
- The signalling server: keep sessions from coming about. The DTLS certificates are signed by keys that the agents
  know.
- A peer: it has the keys of its own lane, and says what it likes there; agent/lane/slices.py and the switch judge
  that. It learns nothing of other lanes, and can't make us use a nonce twice.

What is not given: within one DTLS session there is no forward secrecy (who gets its master secret, opens all lanes of
it that were recorded; a new session has a new one), and sizes and times are not hidden.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
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
# How far behind the newest a record may come. Those of sparse flows pass all that waits for its receiver: megabytes of
# others' in its socket (agent/lane/sockets.py), of slices as small as they may be, and what finds no room behind those.
WINDOW = 1 << 19
REKEY_RECORDS = 1 << 25  # from here on other keys are to be had
MOST_RECORDS = 1 << 26  # of one key
_BLOCK = 256  # counters that differ in their last byte only; WINDOW is a multiple of it
_HEAD = struct.Struct("!5sQ")
_BYTES = [bytes([each]) for each in range(_BLOCK)]


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
        """The records of these texts, behind each other: of as many as the key may seal."""
        first, room = self.count, _BLOCK - self.count % _BLOCK
        if len(texts) > room:
            return self.seal(texts[:room]) + self.seal(texts[room:])
        if first >= MOST_RECORDS:
            return b""
        self.count += len(texts)  # before all else: whatever happens below, no counter is used twice
        high, last = _counters(first, len(texts))
        nonce, encrypt = self._salt + high, self._encrypt
        parts = [self._start + high] * (3 * len(texts))
        parts[1::3] = last
        parts[2::3] = [encrypt(nonce + byte, text, None) for byte, text in zip(last, texts, strict=True)]
        return b"".join(parts)


class Opener:
    """A direction's receiving end. `newest` is the highest counter that has come; -1 before any has."""

    def __init__(self, secret: bytes) -> None:
        self.index, self.newest = secret[:4], -1
        self.forged = self.replayed = 0
        self._start, self._salt = bytes([MAGIC]) + secret[:4], secret[4:8]
        aead = AESGCM(secret[8:SECRET])
        self._decrypt, self._decrypt_into = aead.decrypt, aead.decrypt_into
        self._seen = bytearray(WINDOW)  # of those that share a place, the last accepted: counter // WINDOW + 1

    def open(self, datagram: memoryview) -> tuple[int, bytes] | None:
        """Counter and text of a record that is genuine and new."""
        start, counter = _HEAD.unpack_from(datagram) if len(datagram) >= OVERHEAD else (b"", 0)
        if start != self._start or counter >= MOST_RECORDS:
            self.forged += 1
            return None
        if counter <= self.newest - WINDOW or self._seen[counter % WINDOW] == counter // WINDOW + 1:
            self.replayed += 1
            return None
        try:
            text = self._decrypt(self._salt + datagram[5:HEAD], datagram[HEAD:], None)
        except InvalidTag:
            self.forged += 1
            return None
        self._seen[counter % WINDOW] = counter // WINDOW + 1
        self.newest = max(self.newest, counter)
        return counter, text

    def follow(self, first: int, sealed: Sequence[memoryview], rooms: Sequence[memoryview]) -> int:
        """Open the records from the counter `first` on, as long as these are they: each is what lies behind the head,
        and its text goes to a room that is exactly as long. How many were opened; what is to be thought of the one
        behind, `open` says. It has to have opened the one before them last, so that none of these is too old.

        Their heads are not looked at: a record that opens under a counter's nonce is the one of that counter.
        """
        high, last = _counters(first, self._new(first, len(sealed)))
        done = 0
        nonces = map((self._salt + high).__add__, last)
        try:
            for _ in map(self._decrypt_into, nonces, sealed, repeat(None), rooms):
                done += 1  # what map decrypts counts for this line in profiles
        except InvalidTag:
            pass
        at = first % WINDOW
        self._seen[at : at + done] = bytes([first // WINDOW + 1]) * done
        self.newest = max(self.newest, first + done - 1)
        return done

    def _new(self, first: int, count: int) -> int:
        """How many of these, which are not too old, come before one that was accepted already."""
        at = first % WINDOW
        found = self._seen.find(first // WINDOW + 1, at, at + count)
        return count if found < 0 else found - at


def _counters(first: int, count: int) -> tuple[bytes, list[bytes]]:
    """These, in two parts: what they have in common, and the last byte of each; up to where that changes."""
    high, low = divmod(first, _BLOCK)
    return high.to_bytes(7, "big"), _BYTES[low : low + count]
