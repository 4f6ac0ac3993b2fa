"""Streams of mux1 (procs/wire/mux1.py) over a connection of asyncio: the same code at both ends.

Whoever has the connection hands each message to `Link.received`, runs `Link.write`, and calls `Link.lost` when it is
gone. Each stream is read and written by one task at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

from procs.errors import LinkLost, Refused, StreamReset
from procs.wire import mux1
from procs.wire.mux1 import DROPPED_BEFORE, FIN, KEY, MORE, Code, Head, MuxLimits, Open, Type

QUEUED = 128 * 1024  # bytes that one stream may have waiting to be sent before its writer has to wait; see `max_queued`
SHARED_FRAME = 16 * 1024  # bytes of a frame while other streams want to send too, so that none waits long
MAX_ID = 2**32 - 1
BATCH = 128 * 1024  # bytes of DATA that go out at once; whatever becomes urgent meanwhile waits for them
MAX_CONTROL = 20_000  # frames that cost no credit and wait to be sent; who makes us queue more is flooding us


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
        "_saw_fin",
        "_window",
        "_writer",
        "has_sent_head",
        "id",
        "is_queued",
        "max_queued",
        "on_failure",
        "opening",
    )

    def __init__(self, link: Link, sid: int, opening: Open, credit: int, window: mux1.Window) -> None:
        self.id, self.opening = sid, opening
        self._link, self._credit, self._window = link, credit, window
        self._head: Head | None = None
        self._in: deque[Chunk] = deque()
        self._returned = 0  # bytes given to the reader, who has not yet come back for more
        self._out: deque[Chunk] = deque()
        self._out_bytes = 0
        self._saw_fin = self._said_fin = False
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
        return self._error is not None or (self._said_fin and self._saw_fin)

    # Receiving

    @property
    def has_come(self) -> bool:
        """Whether `read` would return, or raise, at once."""
        return bool(self._in) or self._saw_fin or self._error is not None

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
            self._link._has_read(self, self._returned)
            self._returned = 0
        while not self._in:
            if self._saw_fin:
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
        self._link._control(mux1.head(self.id, answer))
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
            self._link._control(mux1.reset(self.id, code, reason))
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
        self._link._forget(self)

    def _is_full(self) -> bool:
        return self._out_bytes + len(self._out) * mux1.MIN_COST > self.max_queued

    def _queue(self, data: bytes | memoryview, flags: int) -> None:
        self._out.append(Chunk(memoryview(data), flags))
        self._out_bytes += len(data)
        self._link._wants_to_send(self)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        for waiting in (self._reader, self._writer):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    # Called by the link

    def _has_head(self, answer: Head) -> None:
        if self._head is not None:
            raise Refused("a second HEAD")
        self._head = answer
        self._wake_reader()

    def _has_data(self, data: memoryview, flags: int) -> None:
        if data or not flags & FIN:
            self._in.append(Chunk(data, flags))
        if flags & FIN:
            self._saw_fin = True
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _next_frame(self, limit: int) -> bytes | None:
        """One DATA frame of what waits; None without credit for it."""
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


class Link:
    """One connection and its streams. `send` sends messages, and returns when the transport will take more."""

    def __init__(
        self,
        send: Callable[[list[bytes]], Awaitable[None]],
        *,
        opens: Literal["odd", "even"],
        ours: MuxLimits,
        theirs: MuxLimits,
        accept: Callable[[Stream], None] | None = None,
    ) -> None:
        self._send, self._accept = send, accept
        self._ours, self._theirs = ours, theirs
        self._next_id = 1 if opens == "odd" else 2
        self._last_accepted = 0
        self._streams: dict[int, Stream] = {}
        self._receiving = mux1.Receiving(ours)
        self.credit = theirs.session_credit
        self._controls: deque[bytes] = deque()
        self._ready: tuple[deque[Stream], ...] = (deque(), deque(), deque(), deque())
        self._idle: asyncio.Future[None] | None = None
        self._lost = ""
        self.pongs = 0  # that have come
        self.refused = 0  # streams that were not taken

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    @property
    def is_full(self) -> bool:
        """Whether the other side takes no more streams now, or is gone."""
        return bool(self._lost) or len(self._streams) >= self._theirs.max_streams

    def open(self, opening: Open) -> Stream:
        """Open a stream. Raises LinkLost, or Refused when the other side takes no more or the request is too large."""
        if self._lost:
            raise LinkLost(self._lost)
        if self._next_id > MAX_ID:  # days of many requests a second
            self.lost("the ids of streams are used up")
            raise LinkLost(self._lost)
        if self.is_full:
            raise Refused(f"{len(self._streams)} streams are open already")
        sid = self._next_id
        frame = mux1.opening(sid, opening)
        self._next_id += 2
        stream = self._streams[sid] = Stream(self, sid, opening, self._theirs.init_credit, self._receiving.window())
        self._control(frame)
        return stream

    def ping(self, token: bytes) -> None:
        """Ask for a sign of life (8 bytes); `pongs` counts the answers."""
        self._control(mux1.ping(token))

    def lost(self, reason: str) -> None:
        """The connection is gone: every stream raises LinkLost, but what has come whole may still be read."""
        self._lost = self._lost or reason
        for stream in list(self._streams.values()):
            stream.fail(LinkLost(self._lost))
        self._wake()

    async def write(self) -> None:
        """Send what is to be sent, for as long as the connection lasts. Raises what `send` raises."""
        loop = asyncio.get_running_loop()
        while not self._lost:
            if frames := self._next_frames():
                await self._send(frames)
                continue
            self._idle = loop.create_future()
            await self._idle
            self._idle = None

    def _next_frames(self) -> list[bytes]:
        """What is to go out next: all controls, then a batch of DATA."""
        frames = list(self._controls)
        self._controls.clear()
        size = 0
        while size < BATCH and (frame := self._next_data()) is not None:
            frames.append(frame)
            size += len(frame)
        return frames

    def _next_data(self) -> bytes | None:
        """The next DATA frame: of the most urgent streams, each in its turn."""
        for waiting in self._ready:
            while waiting:
                stream = waiting.popleft()
                stream.is_queued = False
                is_shared = waiting or len(self._streams) > 1
                limit = min(self._theirs.max_frame, SHARED_FRAME if is_shared else self._theirs.max_frame)
                frame = stream._next_frame(limit) if stream._out else None
                if frame is None:
                    continue  # without credit: it is put back when it gets some
                if stream._out:
                    self._wants_to_send(stream)
                elif stream.is_over:
                    self._forget(stream)
                return frame
        return None

    # Received

    def received(self, message: bytes | memoryview) -> None:
        """Take one message of the other side. Raises Refused where it breaks the protocol: the connection is to be
        closed then."""
        if self._lost:
            return  # nobody would tell a stream that it opens that it is over
        frame = mux1.unpack(message)
        if frame.sid == 0:
            self._received_for_all(frame)
        elif frame.type == Type.OPEN:
            self._received_open(frame)
        elif stream := self._streams.get(frame.sid):
            if frame.type == Type.DATA:
                self._received_data(stream, frame)
            else:
                self._received_for(stream, frame)
        elif not self._is_old(frame.sid):
            raise Refused(f"frame of type {frame.type} for stream {frame.sid}, which was never opened")
        elif frame.type == Type.DATA:  # it was underway when the stream ended
            self._receiving.take(None, mux1.cost(len(frame.payload), frame.flags))
            self._grant_session()

    def _is_old(self, sid: int) -> bool:
        return sid < self._next_id if self._is_ours(sid) else sid <= self._last_accepted

    def _is_ours(self, sid: int) -> bool:
        return sid % 2 == self._next_id % 2

    def _received_for_all(self, frame: mux1.Frame) -> None:
        if frame.type == Type.CREDIT:
            self.credit = _more(self.credit, mux1.read_credit(frame.payload))
            for stream in self._streams.values():
                if stream._out:
                    self._wants_to_send(stream)
        elif frame.type == Type.PING and len(frame.payload) == 8:
            self._control(mux1.pong(frame.payload))
        elif frame.type == Type.PONG:
            self.pongs += 1
        else:
            raise Refused(f"frame of type {frame.type} without a stream")

    def _received_open(self, frame: mux1.Frame) -> None:
        if self._is_ours(frame.sid) or frame.sid <= self._last_accepted:
            raise Refused(f"stream {frame.sid} can't be opened by the other side now")
        self._last_accepted = frame.sid
        if self._accept is None or len(self._streams) >= self._ours.max_streams:
            code = Code.REFUSED if self._accept is None else Code.TOO_MANY
            self._refuse(frame.sid, code, "no streams are taken here" if self._accept is None else "too many streams")
            return
        try:
            opening = mux1.read_open(frame.payload)
        except Refused as reason:
            self._refuse(frame.sid, Code.PROTOCOL, str(reason))
            return
        window = self._receiving.window()
        stream = self._streams[frame.sid] = Stream(self, frame.sid, opening, self._theirs.init_credit, window)
        self._accept(stream)

    def _refuse(self, sid: int, code: int, reason: str) -> None:
        self.refused += 1
        self._control(mux1.reset(sid, code, reason))

    def _received_for(self, stream: Stream, frame: mux1.Frame) -> None:
        try:
            if frame.type == Type.HEAD and self._is_ours(stream.id):
                stream._has_head(mux1.read_head(frame.payload))
            elif frame.type == Type.CREDIT:
                stream._credit = _more(stream._credit, mux1.read_credit(frame.payload))
                if stream._out:
                    self._wants_to_send(stream)
            elif frame.type == Type.RESET:
                stream.fail(StreamReset(*mux1.read_reset(frame.payload)))
            else:
                raise Refused(f"frame of type {frame.type} in a stream")
        except Refused as reason:
            stream.reset(Code.PROTOCOL, str(reason))

    def _received_data(self, stream: Stream, frame: mux1.Frame) -> None:
        size = len(frame.payload)
        wrong = self._wrong_data(stream, size)
        if not self._receiving.take(None if wrong else stream._window, mux1.cost(size, frame.flags)):
            stream.reset(Code.FLOW, "more DATA than there was credit for")
            return
        if wrong:
            stream.reset(Code.PROTOCOL, wrong)
            return
        stream._has_data(frame.payload, frame.flags)
        if stream.is_over and not stream._out:
            self._forget(stream)

    def _wrong_data(self, stream: Stream, size: int) -> str:
        """Why these bytes may not come now, or ""."""
        if size > self._ours.max_frame:
            return f"DATA of {size} bytes is over the limit"
        if stream._saw_fin:
            return "DATA after FIN"
        if stream._head is None and self._is_ours(stream.id):
            return "DATA before HEAD"
        return ""

    # Called by streams

    def _control(self, frame: bytes) -> None:
        if self._lost:
            return
        self._controls.append(frame)
        if len(self._controls) > MAX_CONTROL:
            self.lost("the other side asks for more than it takes")
        self._wake()

    def _wants_to_send(self, stream: Stream) -> None:
        if not stream.is_queued:
            stream.is_queued = True
            self._ready[stream.opening.prio].append(stream)
            self._wake()

    def _has_read(self, stream: Stream, size: int) -> None:
        if stream.id not in self._streams:
            return  # counted when it ended
        if (grant := self._receiving.read(stream._window, size, time.monotonic())) and not stream._saw_fin:
            self._control(mux1.credit(stream.id, grant))
        self._grant_session()

    def _grant_session(self) -> None:
        if grant := self._receiving.session_grant():
            self._control(mux1.credit(0, grant))

    def _forget(self, stream: Stream) -> None:
        """A stream is over; its reader may still read what has come, which costs nobody anything any more."""
        if self._streams.pop(stream.id, None):
            self._receiving.forget(stream._window)
            self._grant_session()

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)


def _more(credit: int, grant: int) -> int:
    if credit + grant > 2**31:
        raise Refused("more CREDIT than can be used")
    return credit + grant
