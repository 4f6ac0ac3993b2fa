"""How two sessions agree on the keys of the lane between those who own the ports. Pure: it is told what was heard and
the time, and says what is to be said.

Whoever owns a port gives each peer's session a nonce, another one at each of its lives and before each new key. The
sessions tell each other theirs in HELLOs, which travel as records of plane 2, under DTLS:

    version u8, serial u32, mine 16, seen 16    (more may follow, and is ignored)

`serial` counts the nonces that this session has told. A HELLO that is older than another that was heard says nothing
any more: reordered or repeated, it brings no nonce back. `seen` is the other side's nonce as the teller knows it, zeros
where it knows none. Whoever reads its own nonce there may send: the other side has the keys by then.

The secret of a direction comes from the exporter of the DTLS session (RFC 5705) for LABEL and the context

    version, role of the sender in DTLS ("c" or "s"), nonce of the sender, nonce of the receiver

So keys are known to both ends of one DTLS session and to nobody else, no two sessions and no two directions have the
same, and each owner of a port makes them new by a new nonce of its own: a sender that was killed does not know its
counter any more, and a receiver that was killed does not know what it has had, so neither goes on with an old key.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

VERSION = 1
LABEL = b"EXPORTER-planaria-lane"
NONCE_BYTES = 16
SECRET_BYTES = 24  # as wire/records.py has it
HELLO_S = 1.0
_HELLO = struct.Struct(f"!BI{NONCE_BYTES}s{NONCE_BYTES}s")
_NONE = bytes(NONCE_BYTES)


class Keys(NamedTuple):
    """Secrets for one pair of nonces; `may_send`: the other side has them, too."""

    mine: bytes
    theirs: bytes
    sends: bytes
    receives: bytes
    may_send: bool

    def __repr__(self) -> str:
        return f"Keys(may_send={self.may_send})"


class Keying:
    """The agreement within one DTLS session. `export(context)` gives a secret of it, `say` sends a HELLO, `role` is our
    own in DTLS. `on_keys` is called with the keys of now, at each change and each second, always before the other side
    is told that we have them."""

    def __init__(self, export: Callable[[bytes], bytes], say: Callable[[bytes], object], role: str) -> None:
        self.on_keys: Callable[[Keys], object] = lambda keys: None
        self.refused = 0  # HELLOs that can't be used
        self._export, self._say = export, say
        self._us, self._them = (b"c", b"s") if role == "client" else (b"s", b"c")
        self._mine = self._theirs = _NONE
        self._serial, self._their_serial = 0, -1
        self._keys: Keys | None = None
        self._told_at = float("-inf")

    def ours(self, nonce: bytes) -> None:
        """The nonce of our port's owner is this one now."""
        if nonce != self._mine:
            self._mine = nonce
            self._serial += 1
            self._agree()
            self._hello()

    def heard(self, hello: bytes) -> None:
        """The other side has said this."""
        if len(hello) < _HELLO.size or hello[0] != VERSION:
            self.refused += 1
            return
        _, serial, theirs, seen = _HELLO.unpack_from(hello)
        is_other = serial == self._their_serial and theirs != self._theirs
        if theirs in (_NONE, self._mine) or is_other:  # a reflected one would be its own answer
            self.refused += 1
            return
        if serial < self._their_serial:
            return
        is_news = serial > self._their_serial
        if is_news:
            self._theirs, self._their_serial = theirs, serial
            self._agree()
        if self._keys and not self._keys.may_send and seen == self._mine:
            self._keys = self._keys._replace(may_send=True)
            self.on_keys(self._keys)
        if is_news:
            self._hello()

    def tick(self, now: float) -> None:
        """Say all again when it is time: a HELLO may be lost, and whoever reads the keys may have been killed."""
        if now - self._told_at >= HELLO_S:
            self._told_at = now
            if self._keys:
                self.on_keys(self._keys)
            self._hello()

    def _agree(self) -> None:
        self._keys = None
        if _NONE in (self._mine, self._theirs) or self._mine == self._theirs:
            return
        sends = self._export(bytes([VERSION]) + self._us + self._mine + self._theirs)
        receives = self._export(bytes([VERSION]) + self._them + self._theirs + self._mine)
        self._keys = Keys(self._mine, self._theirs, sends, receives, may_send=False)
        self.on_keys(self._keys)

    def _hello(self) -> None:
        if self._mine != _NONE:
            self._say(_HELLO.pack(VERSION, self._serial, self._mine, self._theirs))
