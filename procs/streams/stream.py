"""One stream of a link: what its owner reads and writes, and its credit. Each is done by one task at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from procs.errors import Refused, StreamReset
from procs.wire import mux1
from procs.wire.mux1 import DROPPED_BEFORE, FIN, KEY, MORE, Head, Open

QUEUED = 128 * 1024  # bytes that one stream may have waiting to be sent before its writer has to wait; see `max_queued`


class Sender(Protocol):
    """What a stream needs of its link."""

    credit: int

    def control(self, frame: bytes) -> None:
        """Send a frame that costs no credit."""

    def wants_to_send(self, stream: Stream) -> None:
        """Something of this stream waits to be sent."""

    def has_read(self, stream: Stream, size: int) -> None:
        """So much of what has come has been handed on."""

    def forget(self, stream: Stream) -> None:
        """It is over."""


class Chunk(NamedTuple):
    """What one DATA frame brought."""

    data: memoryview
    flags: int


class Stream:
    """One request and its answer, or one WebSocket."""

    __slots__ = (
        "_credit",
        "_error",
        "_head",
        "_in",
        "_link",
        "_out",
        "_out_bytes",
        "_reader",
        "_returned",
        "_said_fin",
        "_writer",
        "has_sent_head",
        "id",
        "is_queued",
        "max_queued",
        "on_failure",
        "opening",
        "saw_fin",
        "window",
    )

    def __init__(self, link: Sender, sid: int, opening: Open, credit: int, window: mux1.Window) -> None:
        self.id, self.opening = sid, opening
        self._link, self._credit, self.window = link, credit, window
        self._head: Head | None = None
        self._in: deque[Chunk] = deque()
        self._returned = 0  # bytes given to the reader, who has not yet come back for more
        self._out: deque[Chunk] = deque()
        self._out_bytes = 0
        self.saw_fin = self._said_fin = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self.is_queued = False  # among those that the link sends of next
        self.has_sent_head = False
        self.max_queued = QUEUED  # 0: `write` returns when all has gone out, as suits pictures that may be left out
        self.on_failure: Callable[[], None] | None = None  # for an owner who waits for somebody else meanwhile

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be sent or received."""
        return self._error is not None or (self._said_fin and self.saw_fin)

    # Receiving

    @property
    def has_come(self) -> bool:
        """Whether `read` would return, or raise, at once."""
        return bool(self._in) or self.saw_fin or self._error is not None

    async def head(self) -> Head:
        """The beginning of the answer. Raises StreamReset or LinkLost."""
        while self._head is None:
            self._raise_error()
            await self._wait_to_read()
        return self._head

    async def read(self) -> Chunk | None:
        """The next piece, once there is one; None when the other side is done. Raises StreamReset or LinkLost.

        Coming back for more says that the piece before has been handed on: only then may the other side send more.
        """
        if self._returned:
            self._link.has_read(self, self._returned)
            self._returned = 0
        while not self._in:
            if self.saw_fin:
                return None
            self._raise_error()
            await self._wait_to_read()
        chunk = self._in.popleft()
        self._returned = mux1.cost(len(chunk.data), chunk.flags)
        return chunk

    async def _wait_to_read(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    # Sending

    def send_head(self, answer: Head) -> None:
        """Begin the answer. Raises Refused if it is too large to be sent."""
        self._raise_error()
        self._link.control(mux1.head(self.id, answer))
        self.has_sent_head = True

    async def write(self, data: bytes | memoryview, flags: int = 0) -> None:
        """Send a piece, in as many frames as it takes: it waits while too much of this stream waits already. Raises
        StreamReset or LinkLost."""
        self._raise_error()
        self._queue(data, flags)
        while self._is_full():
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None
            self._raise_error()

    def room(self) -> int:
        """Bytes that would be sent now, with what the other side has allowed."""
        return max(0, min(self._credit, self._link.credit) - self._out_bytes)

    def finish(self, data: bytes = b"") -> None:
        """Say that nothing more will be sent."""
        if not self._said_fin and self._error is None:
            self._said_fin = True
            self._queue(data, FIN)

    def reset(self, code: int, reason: str = "") -> None:
        """End the stream in both directions, at once."""
        if not self.is_over or self._out:
            self._link.control(mux1.reset(self.id, code, reason))
        self.fail(StreamReset(code, reason))

    def fail(self, error: Exception) -> None:
        """End the stream without a word to the other side. What has come whole may still be read."""
        if self._error is None:
            self._error = error
            if self.on_failure is not None:
                self.on_failure()
        self._out.clear()
        self._out_bytes = 0
        self._wake()
        self._link.forget(self)

    def _is_full(self) -> bool:
        return self._out_bytes + len(self._out) * mux1.MIN_COST > self.max_queued

    def _queue(self, data: bytes | memoryview, flags: int) -> None:
        self._out.append(Chunk(memoryview(data), flags))
        self._out_bytes += len(data)
        self._link.wants_to_send(self)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        for waiting in (self._reader, self._writer):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    # Called by the link

    @property
    def has_head(self) -> bool:
        """Whether the answer has begun to come."""
        return self._head is not None

    @property
    def has_unsent(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out)

    def head_came(self, answer: Head) -> None:
        """Take the beginning of the answer. Raises Refused for a second one."""
        if self._head is not None:
            raise Refused("a second HEAD")
        self._head = answer
        self._wake_reader()

    def data_came(self, data: memoryview, flags: int) -> None:
        """Take what one DATA frame brought."""
        if data or not flags & FIN:
            self._in.append(Chunk(data, flags))
        if flags & FIN:
            self.saw_fin = True
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def granted(self, credit: int) -> None:
        """The other side takes so much more. Raises Refused for more than can be used."""
        self._credit = topped_up(self._credit, credit)

    def next_frame(self, limit: int) -> bytes | None:
        """One DATA frame of what waits; None without credit for it, or where nothing waits."""
        if not self._out:
            return None
        data, flags = self._out[0]
        size, credit = min(len(data), limit), min(self._credit, self._link.credit)
        if (cost := mux1.cost(size, flags)) > credit:
            if credit < mux1.MIN_COST:
                return None
            size = cost = credit
        if size < len(data):
            self._out[0] = Chunk(data[size:], flags & ~(KEY | DROPPED_BEFORE))  # those are said where it begins
            flags = (flags | MORE) & ~FIN
        else:
            self._out.popleft()
        self._out_bytes -= size
        self._credit -= cost
        self._link.credit -= cost
        if self._writer is not None and not self._is_full() and not self._writer.done():
            self._writer.set_result(None)
        return mux1.data(self.id, data[:size], flags)


def topped_up(credit: int, grant: int) -> int:
    """Credit and what is granted on top. Raises Refused for more than can be used."""
    if credit + grant > 2**31:
        raise Refused("more CREDIT than can be used")
    return credit + grant
