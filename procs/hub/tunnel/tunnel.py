"""A request through the tunnel, from its beginning to its end, whatever dies behind the hub meanwhile.

A safe request (GET, HEAD, OPTIONS) whose connection is lost is sent again on another one, until its deadline; an answer
that had begun goes on where it broke, if it says how it can be recognized (ETag or Last-Modified, and a length). Any
other request is sent at most once: it ends well, or never happened (503), or nobody knows (502, outcome "unknown").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Literal, NamedTuple, Protocol

from procs.errors import LinkLost, PlanariaError, Refused, StreamReset
from procs.hub.tunnel import beginning, resume
from procs.streams.link import Link
from procs.streams.stream import Stream
from procs.wire.mux1 import Code, Head, Open

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
DEADLINE_S = 30.0  # to the beginning of the answer
SLACK_S = 2.0  # for which we wait longer than the device does, so that its own reason comes through
RETRY_PAUSE_S = 0.02
BACK_S = 10.0  # for which a device that was here is waited for
SENT_WITH = 64 * 1024  # a body up to this size can be sent again if it was never taken
Kind = Literal["http", "ws"]


class TunnelError(PlanariaError):
    """No answer can be had; `status` and `outcome` ("not-sent", "unknown" or "") are for whoever asked."""

    def __init__(self, status: int, reason: str, outcome: str = "") -> None:
        super().__init__(reason)
        self.status, self.outcome = status, outcome


class Links(Protocol):
    """Where the data connections of a device are found."""

    def links(self, device_id: str) -> list[Link]:
        """All of them."""

    def was_online_within(self, device_id: str, seconds: float) -> bool:
        """Whether it is here or was so lately."""

    async def link_for(self, device_id: str, deadline_s: float) -> Link:
        """One that takes a stream, if there is one. Raises TimeoutError if there is none in time."""


class Request(NamedTuple):
    """What is asked of a device. `body` is whole if it is short, or comes by and by; it then raises Refused for what is
    no body, and OSError when it stops coming."""

    device_id: str
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterator[bytes] = b""

    @property
    def is_safe(self) -> bool:
        """Whether it may be sent more than once."""
        return self.method in SAFE and isinstance(self.body, bytes)


class Answer(NamedTuple):
    """Its beginning, and its body: what has been gathered, and the rest to come (None: that was all)."""

    head: Head
    gathered: bytes
    rest: Rest | None


class Tunnel:
    """Sends requests to devices. `count` is told what happens: sent_again, resumed, unknown, broken."""

    def __init__(self, links: Links, count: Callable[[str], None]) -> None:
        self._links, self.count = links, count

    async def open(self, request: Request, kind: Kind, until: float) -> Stream:
        """A new stream for a request. Raises TunnelError when no connection takes it in time."""
        while True:
            left_s = until - time.monotonic()
            if not self._links.links(request.device_id):
                # Whoever was here a moment ago is on the way back, as every process of ours is after its death.
                is_expected = self._links.was_online_within(request.device_id, BACK_S)
                left_s = min(left_s, BACK_S if is_expected else 0.0)
            try:
                link = await self._links.link_for(request.device_id, left_s)
                return link.open(_opening(request, kind, until - time.monotonic()))
            except TimeoutError:
                raise TunnelError(503, "Device offline", "not-sent") from None
            except LinkLost:
                await asyncio.sleep(RETRY_PAUSE_S)
            except Refused as reason:
                if "over the limit" in str(reason):
                    raise TunnelError(431, str(reason), "not-sent") from None
                if left_s < 1:
                    raise TunnelError(503, "the device is busy", "not-sent") from None
                await asyncio.sleep(RETRY_PAUSE_S)

    async def request(self, request: Request) -> Answer:
        """The answer to a request. Raises TunnelError."""
        until = time.monotonic() + DEADLINE_S
        tries = 0
        while True:
            stream = await self.open(request, "http", until)
            tries += 1
            if tries > 1:
                self.count("sent_again")
            try:
                return await self._answer(request, stream, until)
            except (StreamReset, LinkLost) as error:
                self._raise_final(request, error)
            except TimeoutError:
                stream.reset(Code.TIMEOUT)
                raise TunnelError(504, "Gateway Timeout", "" if request.is_safe else "unknown") from None
            except BaseException:  # whoever asked has left, or we are at fault: the device is to stop in any case
                stream.reset(Code.CANCEL)
                raise
            if time.monotonic() >= until:
                raise TunnelError(504, "Gateway Timeout", "not-sent")
            await asyncio.sleep(RETRY_PAUSE_S)

    def _raise_final(self, request: Request, error: StreamReset | LinkLost) -> None:
        """Raise what the asker is to hear; return if the request may be sent again."""
        if isinstance(error, LinkLost):
            if request.is_safe:
                return
            self.count("unknown")
            raise TunnelError(502, "the connection to the device broke: this may have been done", "unknown") from None
        if error.code in (Code.NOT_SENT, Code.TOO_MANY):
            if request.is_safe or isinstance(request.body, bytes):
                return
            raise TunnelError(503, f"{error}: this was not done", "not-sent") from None
        if error.code == Code.UNKNOWN:
            if request.is_safe:
                return
            self.count("unknown")
            raise TunnelError(502, f"{error}: this may have been done", "unknown") from None
        raise TunnelError(_STATUSES.get(error.code, 502), str(error)) from None

    async def _answer(self, request: Request, stream: Stream, until: float) -> Answer:
        uploading = None
        if isinstance(request.body, bytes):
            stream.finish(request.body)
        else:
            uploading = asyncio.create_task(_upload(stream, request.body))
        try:
            # An upload takes the time it takes: of the deadline all is left at its end.
            limit_s = (DEADLINE_S if uploading else until - time.monotonic()) + SLACK_S
            head = await beginning.head(stream, limit_s, after=uploading)
            gathered, is_whole = (b"", False) if head.endless else await beginning.gather(stream, head)
        except BaseException as error:  # a cancellation, too: nobody else knows the upload
            is_uploaded = uploading is not None and not uploading.cancel()
            if uploading and is_uploaded and isinstance(error, StreamReset) and (broken := uploading.result()):
                raise broken from None  # it was we who reset the stream
            raise
        rest = Rest(self, request, stream, head, len(gathered), uploading)
        if is_whole:  # else a stream that was answered before the end of its upload stayed open
            rest.close()
        return Answer(head, gathered, None if is_whole else rest)

    async def resumed(self, request: Request, head: Head, had: int) -> Stream:
        """A new stream that goes on with an answer from a byte on. Raises TunnelError."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            stream = await self.open(request, "http", until)
            stream.finish()
            try:
                found = await beginning.head(stream, until - time.monotonic())
            except (StreamReset, LinkLost):
                await asyncio.sleep(RETRY_PAUSE_S)
                continue
            except TimeoutError:
                break
            except BaseException:  # whoever asked has left: the device is to stop
                stream.reset(Code.CANCEL)
                raise
            if not resume.is_rest(head, found, had):
                stream.reset(Code.CANCEL)
                raise TunnelError(502, "broken off, and it has changed since")
            self.count("resumed")
            return stream
        raise TunnelError(504, "broken off, and the device does not come back")


class Rest:
    """The body of an answer from byte `had` on, whatever breaks. To be closed when nobody wants it any more."""

    def __init__(
        self,
        tunnel: Tunnel,
        request: Request,
        stream: Stream,
        head: Head,
        had: int,
        uploading: asyncio.Task[TunnelError | None] | None,
    ) -> None:
        self._tunnel, self._request, self._stream = tunnel, request, stream
        self._head, self._had, self._uploading = head, had, uploading

    async def read(self) -> memoryview | None:
        """The next piece; None after the last. Raises TunnelError when it can't go on."""
        while True:
            try:
                chunk = await self._stream.read()
            except (StreamReset, LinkLost) as error:
                again = resume.request(self._request, self._head, self._had)
                if again is None or (isinstance(error, StreamReset) and error.code != Code.UPSTREAM_ERROR):
                    self._tunnel.count("broken")
                    raise TunnelError(502, f"broken off: {error}") from None
                self._stream = await self._tunnel.resumed(again, self._head, self._had)
                continue
            if chunk is None:
                return None
            self._had += len(chunk.data)
            return chunk.data

    def close(self, code: int = Code.CANCEL) -> None:
        """Nobody wants the rest: the device is to stop at once."""
        if self._uploading:
            self._uploading.cancel()
        if not self._stream.is_over:
            self._stream.reset(code)


_STATUSES: dict[int, int] = {Code.REFUSED: 403, Code.TIMEOUT: 504}


def _opening(request: Request, kind: Kind, left_s: float) -> Open:
    timeout_ms = max(1, int(1000 * left_s))
    return Open(kind, request.method, request.target, request.headers, timeout_ms=timeout_ms)


async def _upload(stream: Stream, body: AsyncIterator[bytes]) -> TunnelError | None:
    """Hand a body on as it comes; returns what is wrong with it. What is wrong with the stream its reader hears of."""
    try:
        async for piece in body:
            await stream.write(piece)
        stream.finish()
        return None
    except (StreamReset, LinkLost):
        return None
    except Refused as reason:
        broken = TunnelError(400, str(reason))
    except TimeoutError:
        broken = TunnelError(408, "the body did not come")
    except OSError:  # whoever uploads is gone
        broken = TunnelError(400, "the upload broke off")
    stream.reset(Code.CANCEL, str(broken))
    return broken
