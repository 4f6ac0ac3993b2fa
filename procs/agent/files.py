"""One file from one agent to another, over a channel that may be lost and come back, from a sender and to a receiver
that may die and begin anew. Pure: what is read and written is behind `Source` and `Part` (file_io.py).

The sender offers; the receiver says how much it has of that, and its digest; if the sender's own beginning is the
same, it goes on from there, else from 0. At the end both compare the digest of the whole. On the channel, text is one
of the messages below, and bytes are the file's, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Protocol

import msgspec

from procs.agent.words import plain
from procs.errors import Refused
from procs.wire.scalars import Count, Digest, Text

LABEL = "planaria-files"
CHUNK = 64 * 1024  # bytes of a message: the most that every peer takes
ACK_BYTES = 1024 * 1024  # after which the receiver says how far it is
WINDOW = 8 * 1024 * 1024  # bytes that the receiver has not spoken of: what its disk is behind
MAX_TEXT = 4096  # of a message

Transfer = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
# One name, no path: what is shown and written is what was meant.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^(?!\.{1,2}\Z)[^/\\\x00-\x1f\x7f]+\Z")]


class Offered(msgspec.Struct, frozen=True, tag="file"):
    """Sender to receiver: this is to come. `modified`: ns since the Unix epoch; with name and size it says whether it
    is the same file as before."""

    id: Transfer
    name: Name
    size: Count
    modified: int


class Want(msgspec.Struct, frozen=True, tag="want"):
    """Receiver to sender: I have so much of it, with this digest."""

    id: Transfer
    at: Count
    sha256: Digest


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Sender to receiver: what comes now begins here. 0, or where the receiver was."""

    id: Transfer
    at: Count


class Got(msgspec.Struct, frozen=True, tag="got"):
    """Receiver to sender: so much is here."""

    id: Transfer
    at: Count


class End(msgspec.Struct, frozen=True, tag="end"):
    """Sender to receiver: that was all, and this is the digest of the whole."""

    id: Transfer
    sha256: Digest


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Receiver to sender: it is whole, on disk, under this name."""

    id: Transfer
    name: Text


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Either: it is over, since... `again`: whether it may be tried again."""

    id: Transfer
    why: Text
    again: bool = False


Message = Offered | Want | Start | Got | End | Done | Failed
_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(message: Message) -> str:
    """As text."""
    return msgspec.json.encode(message).decode()


def decode(text: str) -> Message:
    """The opposite. Raises Refused."""
    try:
        if len(text) > MAX_TEXT:
            raise Refused("too long")
        return _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused(f"a message of a file: {error}"[:300]) from None


class Source(Protocol):
    """The file that is sent, and a digest of what was read of it so far."""

    name: str
    size: int
    modified: int

    def begin(self, at: int) -> str:
        """Read from here on; returns the digest of all before. Raises Refused."""

    def read(self) -> bytes:
        """The next chunk; b"" at the end. Raises Refused for a file that is another by now."""

    def digest(self) -> str:
        """Of all that was read, and what is before."""


class Part(Protocol):
    """What has come of a file."""

    at: int

    def digest(self) -> str:
        """Of all that is here."""

    def restart(self) -> None:
        """Nothing of it was right."""

    def write(self, data: bytes) -> None:
        """Append. Raises Refused when the disk takes it not."""

    def finish(self) -> str:
        """Put it on disk under its name, which is returned. Raises Refused."""


class Sending:
    """The sender's side. `state`: offered until the receiver has said what it wants, then sending, ended, and done or
    failed. `at`: how far we have sent; `got`: how far the receiver says it is."""

    def __init__(self, transfer: str, source: Source) -> None:
        self._id, self._source = transfer, source
        self.state: Literal["offered", "sending", "ended", "done", "failed"] = "offered"
        self.at = self.got = self.resumed_at = 0
        self.name = self.why = ""  # under which it was kept; it failed
        self.may_repeat = False

    def offer(self) -> Message:
        """First on every channel."""
        self.state = "offered"
        return Offered(self._id, self._source.name, self._source.size, self._source.modified)

    def take(self, message: Message) -> list[Message]:
        """What the receiver says; returns what to say to it. Raises Refused."""
        if message.id != self._id or self.state in ("done", "failed"):
            return []
        if isinstance(message, Want) and self.state == "offered":
            return [self._begin(message)]
        if isinstance(message, Got):
            self.got = max(self.got, message.at)
        elif isinstance(message, Done) and self.state == "ended":
            self.state, self.name, self.got = "done", plain(message.name), self._source.size
        elif isinstance(message, Failed):
            self.state, self.why, self.may_repeat = "failed", plain(message.why), message.again
        return []

    def _begin(self, want: Want) -> Message:
        at = want.at if want.at <= self._source.size else 0
        if self._source.begin(at) != want.sha256:
            at = 0
            self._source.begin(0)
        self.state, self.at, self.got, self.resumed_at = "sending", at, at, at
        return Start(self._id, at)

    def failed(self, why: str) -> Message:
        """It is over, and the receiver is to know."""
        self.state, self.why = "failed", why
        return Failed(self._id, why[:500])

    def next(self) -> bytes | Message:
        """What to send next, while sending. Raises Refused."""
        if data := self._source.read():
            self.at += len(data)
            return data
        self.state = "ended"
        return End(self._id, self._source.digest())


class Receiving:
    """The receiver's side of one channel. `open_part(offered)` gives what there is of a file already, and raises
    Refused for one that is not wanted."""

    def __init__(self, open_part: Callable[[Offered], Part]) -> None:
        self._open = open_part
        self.offered: Offered | None = None
        self.part: Part | None = None
        self._is_started = False
        self._told = 0

    def take(self, message: Message) -> list[Message]:
        """What the sender says; returns what to say to it."""
        if isinstance(message, Offered):
            return self._offered(message)
        if self.offered is None or self.part is None or message.id != self.offered.id:
            return []
        if isinstance(message, Start):
            return self._started(message, self.part)
        if isinstance(message, End) and self._is_started:
            return self._ended(message, self.offered, self.part)
        if isinstance(message, Failed):
            self._over()
        return []

    def take_data(self, data: bytes) -> list[Message]:
        """Bytes of the file; returns what to say."""
        if not self._is_started or self.offered is None or self.part is None:
            return []  # of one that was refused
        if self.part.at + len(data) > self.offered.size:
            return self._fail("more came than was offered")
        try:
            self.part.write(data)
        except Refused as reason:
            return self._fail(str(reason))
        if self.part.at - self._told >= ACK_BYTES:
            self._told = self.part.at
            return [Got(self.offered.id, self.part.at)]
        return []

    def _offered(self, message: Offered) -> list[Message]:
        self._over()
        self.offered = message
        try:
            self.part = self._open(message)
            return [Want(message.id, self.part.at, self.part.digest())]
        except Refused as reason:
            return self._fail(str(reason))

    def _started(self, message: Start, part: Part) -> list[Message]:
        if message.at not in (0, part.at):
            return self._fail(f"it was to go on at {part.at}, not at {message.at}")
        if message.at == 0 and part.at:
            part.restart()
        self._is_started, self._told = True, part.at
        return []

    def _ended(self, message: End, offered: Offered, part: Part) -> list[Message]:
        if part.at != offered.size or part.digest() != message.sha256:
            part.restart()
            return self._fail("what came is not what was sent", again=True)
        try:
            name = part.finish()
        except Refused as reason:
            return self._fail(str(reason))
        self._over()
        return [Done(offered.id, name)]

    def _fail(self, why: str, *, again: bool = False) -> list[Message]:
        assert self.offered is not None
        failed = Failed(self.offered.id, why[:500], again)
        self._over()
        return [failed]

    def _over(self) -> None:
        self.offered, self.part, self._is_started = None, None, False
