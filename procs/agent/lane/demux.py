"""Whose a datagram is that comes to the port all sessions share. Pure: times are seconds of CLOCK_MONOTONIC.

A STUN request names its connection (USERNAME, RFC 8445, 7.3), a STUN answer has the transaction id of a question that
was asked, and DTLS comes from an address that a connection has to do with. Everything else is nobody's. To ask an
address something claims nothing there: a peer may name any as its candidate, also another peer's. To send DTLS there
does, as only a pair that was checked both ways carries any. To have answered a check that came from there is enough for
the other side to begin a handshake, but not to have what another connection gets from there: senders can be forged.
Nobody loses a claim but to a younger connection: the older of two with one peer is the one that ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from procs.agent.udp import Address

T = TypeVar("T")
MAX_CONNECTIONS = 1024
MAX_QUESTIONS = 4096  # of all
MAX_CLAIMS = 64  # of one connection
QUESTION_S = 40.0  # aioice waits 32 s for the answer to what it has asked for the last time
CLAIM_S = 40.0  # both sides ask each other every 5 s
MAX_ATTRIBUTES = 16
_HEAD = struct.Struct("!HHI12s")  # of STUN: type, length of what follows, cookie, transaction id
_COOKIE = 0x2112A442
_REQUEST, _SUCCESS, _ANSWER = 0x0001, 0x0101, 0x0100  # the first two of the method "binding", the last of any
_USERNAME = 0x0006
_DTLS = range(20, 64)  # first bytes (RFC 7983)
_HANDSHAKE, _EPOCH, _FIRST = (
    22,
    slice(3, 5),
    bytes(2),
)  # of a DTLS record: its type, where its epoch is, that of a handshake
_Claim = tuple[bool, Address]  # by DTLS sent, or by an answer


class _Connection(Generic[T]):
    def __init__(self, number: int, take: T) -> None:
        self.number, self.take = number, take
        self.claims: dict[_Claim, None] = {}  # those made last are at the end


class Demux(Generic[T]):
    """`T` is what takes a connection's datagrams. Who has not been told of a connection for long has to be forgotten by
    whoever knows; the other tables are leases."""

    def __init__(self) -> None:
        self._connections: dict[str, _Connection[T]] = {}
        self._number = 0
        self._questions: dict[bytes, tuple[str, float]] = {}  # the oldest is the first
        self._claims: dict[_Claim, tuple[str, float]] = {}
        self.strangers = 0  # datagrams that are nobody's
        self.malformed = 0  # of no protocol

    def __len__(self) -> int:
        """Entries of all tables."""
        return len(self._connections) + len(self._questions) + len(self._claims)

    def expect(self, ufrag: str, take: T) -> bool:
        """`take` is for the connection of this username fragment; False if there are too many."""
        if known := self._connections.get(ufrag):
            known.take = take
        elif len(self._connections) >= MAX_CONNECTIONS:
            return False
        else:
            self._number += 1
            self._connections[ufrag] = _Connection(self._number, take)
        return True

    def heard(self, ufrag: str, senders: Sequence[Address], now: float) -> None:
        """That connection has had datagrams from there, in an earlier life of ours, as if it had answered them now."""
        if connection := self._connections.get(ufrag):
            for sender in senders:
                self._claim(ufrag, connection, (False, sender), now)

    def forget(self, ufrag: str) -> None:
        """That connection has gone."""
        gone = self._connections.pop(ufrag, None)
        for claim in gone.claims if gone else ():
            del self._claims[claim]
        if gone:
            self._questions = {asked: its for asked, its in self._questions.items() if its[0] != ufrag}

    def sent(self, ufrag: str, to: Address, datagram: bytes, now: float) -> bool:
        """That connection sends this; False if nobody expects anything for it."""
        connection = self._connections.get(ufrag)
        if connection is None:
            return False
        if datagram[:1] and datagram[0] in _DTLS:
            self._claim(ufrag, connection, (True, to), now)
        elif head := _head(datagram):
            if head[0] == _REQUEST:
                self._ask(head[1], ufrag, now)
            elif head[0] == _SUCCESS:
                self._claim(ufrag, connection, (False, to), now)
        return True

    def of_dtls(self, datagram: bytes, sender: Address, now: float, count: int = 1) -> T | None:
        """Whose this is, that begins as DTLS does, and the rest of `count` datagrams of its kind."""
        found = self._holder((True, sender), now)
        begins = datagram[0] == _HANDSHAKE and datagram[_EPOCH] == _FIRST
        if found is None or begins:
            answerer = self._holder((False, sender), now)
            if found is None or (answerer and answerer.number > found.number):
                found = answerer
        if found is None:
            self.strangers += count
            return None
        return found.take

    def of_stun(self, datagram: bytes, now: float) -> T | None:
        """Whose this is, that begins as STUN does."""
        head = _head(datagram)
        if head is None:
            self.malformed += 1
            return None
        if head[0] & _ANSWER:
            ufrag, until = self._questions.get(head[1], ("", 0.0))
            connection = self._connections.get(ufrag) if now <= until else None
        else:
            connection = self._connections.get(_named(datagram)) if head[0] == _REQUEST else None
        if connection is None:
            self.strangers += 1
            return None
        return connection.take

    def _ask(self, question: bytes, ufrag: str, now: float) -> None:
        self._questions.pop(question, None)  # it is asked again
        self._questions[question] = ufrag, now + QUESTION_S
        while (oldest := next(iter(self._questions))) and (
            len(self._questions) > MAX_QUESTIONS or self._questions[oldest][1] < now
        ):
            del self._questions[oldest]

    def _claim(self, ufrag: str, connection: _Connection[T], claim: _Claim, now: float) -> None:
        holder = self._holder(claim, now)
        if holder and holder.number > connection.number:
            return
        if claim in self._claims:
            del self._connections[self._claims[claim][0]].claims[claim]
        connection.claims[claim] = None
        self._claims[claim] = ufrag, now + CLAIM_S
        if len(connection.claims) > MAX_CLAIMS:
            oldest = next(iter(connection.claims))
            del connection.claims[oldest], self._claims[oldest]

    def _holder(self, claim: _Claim, now: float) -> _Connection[T] | None:
        ufrag, until = self._claims.get(claim, ("", 0.0))
        return self._connections[ufrag] if now < until else None


def _head(datagram: bytes) -> tuple[int, bytes] | None:
    """Type and transaction id of a STUN message; None if it is none."""
    if len(datagram) < _HEAD.size:
        return None
    kind, length, cookie, transaction = _HEAD.unpack_from(datagram)
    if kind >> 14 or length & 3 or cookie != _COOKIE or len(datagram) != _HEAD.size + length:
        return None
    return kind, transaction


def _named(datagram: bytes) -> str:
    """The first part of the USERNAME: the username fragment of whom it is for."""
    for kind, value in _attributes(datagram):
        if kind == _USERNAME:
            return value.partition(b":")[0].decode("ascii", "replace")
    return ""


def _attributes(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    at = _HEAD.size
    for _ in range(MAX_ATTRIBUTES):
        if at + 4 > len(datagram):
            return
        kind, size = struct.unpack_from("!HH", datagram, at)
        yield kind, datagram[at + 4 : at + 4 + size]
        at += 4 + size + -size % 4
