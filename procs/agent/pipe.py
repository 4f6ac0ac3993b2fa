"""Bytes both ways between two agents, of which none is lost or comes twice, over connections that come and go. Pure.

Each side keeps what the other has not confirmed yet, and on every new connection both say how much they have. Each
direction has an end of its own. On the channel, text is a message below, and bytes are 8 of offset, then data.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import Annotated

import msgspec

from procs.agent.words import plain
from procs.errors import LinkLost, Refused
from procs.wire.scalars import Count, Text

LABEL = "planaria-pipe"
HEAD = 8
CHUNK = 64 * 1024 - HEAD  # bytes of a message, at most
UNCONFIRMED = 4 * 1024 * 1024  # bytes that are kept; more is not taken
CONFIRM_BYTES = 256 * 1024
MAX_TEXT = 4096

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First on each connection: this run of ours has so much of what you say."""

    id: Id
    got: Count


class Got(msgspec.Struct, frozen=True, tag="got"):
    """So much is handed on here. `all`: and that was the end."""

    at: Count
    all: bool = False


class End(msgspec.Struct, frozen=True, tag="end"):
    """Nothing comes after so many bytes."""

    at: Count


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """What you say is wanted no more."""

    why: Text = ""


Message = Hello | Got | End | Broken
_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


class Pipe:
    """`on_connected` on each new connection, then `next` until it gives None, and `take` with what comes."""

    def __init__(self) -> None:
        self._id = secrets.token_hex(8)
        self._theirs = ""  # their run
        self._kept = bytearray()  # what is not confirmed
        self._written = self._confirmed = self._sent = 0
        self._is_ended = self._is_end_sent = False
        self._first: deque[str] = deque()  # messages, before data
        self._has_met = False  # on this connection
        self._got = self._handed = self._told = 0
        self._their_end = -1
        self.is_sent = False  # the other side has all of ours, and knows that it was all

    # Ours

    @property
    def has_room(self) -> bool:
        """Whether `write` takes more."""
        return self._written - self._confirmed < UNCONFIRMED

    def write(self, data: bytes) -> None:
        """Have it sent."""
        self._kept += data
        self._written += len(data)

    def end(self) -> None:
        """That was all of ours."""
        self._is_ended = True

    def on_connected(self) -> None:
        """There is a new connection: what the last one had is not to be relied on."""
        self._has_met = self._is_end_sent = False
        self._first.clear()
        self._say(Hello(self._id, self._got))

    def next(self) -> str | bytes | None:
        """What to send next; None: nothing now."""
        if self._first:
            return self._first.popleft()
        if not self._has_met:
            return None
        if self._sent < self._written:
            at, begins = self._sent, self._sent - self._confirmed
            piece = self._kept[begins : begins + CHUNK]
            self._sent += len(piece)
            return at.to_bytes(HEAD, "big") + piece
        if self._is_ended and not self._is_end_sent:
            self._is_end_sent = True
            return _text(End(self._written))
        return None

    def broken(self, why: str) -> None:
        """We want nothing of what they say any more."""
        self._say(Broken(why[:500]))

    # Theirs

    @property
    def is_over(self) -> bool:
        """Whether all of theirs is here and handed on."""
        return self._handed == self._their_end

    def take(self, message: str | bytes) -> bytes:
        """What the other side says; returns what is new of its bytes. Raises Refused for what breaks these rules, and
        LinkLost when the other side is not the run that we know, or wants no more."""
        if isinstance(message, bytes):
            return self._taken(message)
        try:
            if len(message) > MAX_TEXT:
                raise Refused("a message of a pipe: too long")
            said = _DECODER.decode(message)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Refused(f"a message of a pipe: {error}"[:300]) from None
        if isinstance(said, Hello):
            self._met(said)
        elif isinstance(said, Got):
            self._confirm(said.at)
            self.is_sent = self.is_sent or (said.all and self._is_ended and said.at == self._written)
        elif isinstance(said, End):
            if said.at < self._got or self._their_end not in (-1, said.at):
                raise Refused("a pipe that ends before its end")
            self._their_end = said.at
            self.handed(0)
        else:
            raise LinkLost(f"the other side takes no more: {plain(said.why)}")
        return b""

    def handed(self, size: int) -> None:
        """So many bytes more of theirs were handed on; the other side may forget them."""
        self._handed += size
        if self.is_over or self._handed - self._told >= CONFIRM_BYTES:
            self._told = self._handed
            self._say(Got(self._handed, self.is_over))

    def _met(self, hello: Hello) -> None:
        if self._theirs not in ("", hello.id):
            raise LinkLost("the other side has begun anew")
        if hello.got < self._confirmed:
            raise Refused("a pipe that has lost what it had")
        self._theirs, self._has_met = hello.id, True
        # It may not have handed on all of it yet, so what is not confirmed stays; but none of it is sent again.
        self._sent = hello.got
        if self._sent > self._written:
            raise Refused("a pipe that has more than was sent")
        if self._their_end >= 0:
            self.handed(0)

    def _confirm(self, at: int) -> None:
        if not self._confirmed <= at <= self._written:
            raise Refused("a pipe that confirms what it can't have")
        del self._kept[: at - self._confirmed]
        self._confirmed, self._sent = at, max(at, self._sent)

    def _taken(self, message: bytes) -> bytes:
        at, data = int.from_bytes(message[:HEAD], "big"), message[HEAD:]
        if len(message) <= HEAD or at > self._got:
            raise Refused("a pipe with a hole")
        new = data[self._got - at :]
        self._got += len(new)
        if 0 <= self._their_end < self._got or self._got - self._handed > 2 * UNCONFIRMED:
            raise Refused("a pipe that brings more than it may")
        return new

    def _say(self, message: Message) -> None:
        self._first.append(_text(message))


def _text(message: Message) -> str:
    return msgspec.json.encode(message).decode()
