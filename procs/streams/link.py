"""One connection and the streams over it: what goes out next, and whom each message that comes is for.

Whoever has the connection hands each message to `Link.received`, runs `Link.write`, and calls `Link.lost` when it is
gone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal

from procs.errors import LinkLost, Refused, StreamReset
from procs.streams.stream import Stream, topped_up
from procs.wire import mux1
from procs.wire.mux1 import Code, MuxLimits, Open, Type

SHARED_FRAME = 16 * 1024  # bytes of a frame while other streams want to send too, so that none waits long
MAX_ID = 2**32 - 1
BATCH = 128 * 1024  # bytes of DATA that go out at once; whatever becomes urgent meanwhile waits for them
MAX_CONTROL = 20_000  # frames that cost no credit and wait to be sent; who makes us queue more is flooding us


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
        self.control(frame)
        return stream

    def ping(self, token: bytes) -> None:
        """Ask for a sign of life (8 bytes); `pongs` counts the answers."""
        self.control(mux1.ping(token))

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
                frame = stream.next_frame(limit)
                if frame is None:
                    continue  # without credit: it is put back when it gets some
                if stream.has_unsent:
                    self.wants_to_send(stream)
                elif stream.is_over:
                    self.forget(stream)
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
            self.credit = topped_up(self.credit, mux1.read_credit(frame.payload))
            for stream in self._streams.values():
                if stream.has_unsent:
                    self.wants_to_send(stream)
        elif frame.type == Type.PING and len(frame.payload) == 8:
            self.control(mux1.pong(frame.payload))
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
        self.control(mux1.reset(sid, code, reason))

    def _received_for(self, stream: Stream, frame: mux1.Frame) -> None:
        try:
            if frame.type == Type.HEAD and self._is_ours(stream.id):
                stream.head_came(mux1.read_head(frame.payload))
            elif frame.type == Type.CREDIT:
                stream.granted(mux1.read_credit(frame.payload))
                if stream.has_unsent:
                    self.wants_to_send(stream)
            elif frame.type == Type.RESET:
                stream.fail(StreamReset(*mux1.read_reset(frame.payload)))
            else:
                raise Refused(f"frame of type {frame.type} in a stream")
        except Refused as reason:
            stream.reset(Code.PROTOCOL, str(reason))

    def _received_data(self, stream: Stream, frame: mux1.Frame) -> None:
        size = len(frame.payload)
        wrong = self._wrong_data(stream, size)
        if not self._receiving.take(None if wrong else stream.window, mux1.cost(size, frame.flags)):
            stream.reset(Code.FLOW, "more DATA than there was credit for")
            return
        if wrong:
            stream.reset(Code.PROTOCOL, wrong)
            return
        stream.data_came(frame.payload, frame.flags)
        if stream.is_over and not stream.has_unsent:
            self.forget(stream)

    def _wrong_data(self, stream: Stream, size: int) -> str:
        """Why these bytes may not come now, or ""."""
        if size > self._ours.max_frame:
            return f"DATA of {size} bytes is over the limit"
        if stream.saw_fin:
            return "DATA after FIN"
        if not stream.has_head and self._is_ours(stream.id):
            return "DATA before HEAD"
        return ""

    # Called by streams

    def control(self, frame: bytes) -> None:
        """Send a frame that costs no credit, before all DATA."""
        if self._lost:
            return
        self._controls.append(frame)
        if len(self._controls) > MAX_CONTROL:
            self.lost("the other side asks for more than it takes")
        self._wake()

    def wants_to_send(self, stream: Stream) -> None:
        """Have this stream's turn come."""
        if not stream.is_queued:
            stream.is_queued = True
            self._ready[stream.opening.prio].append(stream)
            self._wake()

    def has_read(self, stream: Stream, size: int) -> None:
        """So much of what has come on a stream has been handed on: the other side may send more."""
        if stream.id not in self._streams:
            return  # counted when it ended
        if (grant := self._receiving.read(stream.window, size, time.monotonic())) and not stream.saw_fin:
            self.control(mux1.credit(stream.id, grant))
        self._grant_session()

    def _grant_session(self) -> None:
        if grant := self._receiving.session_grant():
            self.control(mux1.credit(0, grant))

    def forget(self, stream: Stream) -> None:
        """A stream is over; its reader may still read what has come, which costs nobody anything any more."""
        if self._streams.pop(stream.id, None):
            self._receiving.forget(stream.window)
            self._grant_session()

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
