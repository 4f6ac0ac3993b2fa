"""/v1/realtime: browsers and programs that call us, as the published clients do. Each gets a child, which gets its
frames over the bus, and answers the same way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path

from aiohttp import WSMsgType, web

from procs import log
from procs.line import Line
from procs.messages import encode
from procs.messages.voice import Incoming, Outgoing, Services, VoiceBeat, VoiceSpec
from procs.voice.metrics import Metrics
from procs.wire import realtime

PATH = "/v1/realtime"
MAX_HELD = 512  # frames for a child that is not there yet or does not take them: 20 s of sound
MAX_HELD_BYTES = 1024 * 1024
MAX_WAITING = 512  # frames for a browser that reads slowly
WAIT_S = 10.0  # for a browser to take a frame
CLOSE_S = 2.0
PING_S = 20.0
RETRY_S = 5
GONE_WRONG, SLOW = 1011, 1008  # codes of a close


class _Browser:
    def __init__(self) -> None:
        self.out: asyncio.Queue[tuple[Outgoing, bytes]] = asyncio.Queue(MAX_WAITING)
        self.held: deque[tuple[Incoming, bytes]] = deque()
        self.held_bytes = 0
        self.dropped = 0
        self.is_slow = False  # it does not take what it is sent
        self.is_heard = False  # its child has said that it takes frames


class Browsers:
    """All that are there."""

    def __init__(
        self,
        most: int,
        run_dir: Path,
        services: Services,
        metrics: Metrics,
        named: str,
        fork: Callable[[str, bytes], None],
        kill: Callable[[str], None],
    ) -> None:
        self._most, self._run_dir, self._services, self._metrics = most, run_dir, services, metrics
        self._fork, self._kill = fork, kill
        self._ids = (f"{named}-{number}" for number in itertools.count(1))
        self._browsers: dict[str, _Browser] = {}
        self.wire: Line  # to the children

    def __len__(self) -> int:
        return len(self._browsers)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One, until it is gone."""
        offered = request.headers.get("Sec-WebSocket-Protocol", "").replace(",", " ").split()
        if realtime.PUBLISHED not in offered:
            raise web.HTTPBadRequest(text=f"the WebSocket subprotocol has to be {realtime.PUBLISHED}")
        if len(self._browsers) >= self._most:
            self._metrics.figures.add("planaria_voice_browsers_refused_total")
            said = f"{self._most} browsers talk to this backend, which is as many as may (PLANARIA_VOICE_BROWSERS)"
            raise web.HTTPServiceUnavailable(text=said, headers={"Retry-After": str(RETRY_S)})
        child, browser = next(self._ids), _Browser()
        self._browsers[child] = browser  # before anything is waited for, so that no more than may get in
        self._metrics.figures.add("planaria_voice_browsers")
        socket = web.WebSocketResponse(
            protocols=(realtime.PUBLISHED,),
            heartbeat=PING_S,
            max_msg_size=realtime.MAX_BYTES,
            compress=False,
            timeout=CLOSE_S,
        )
        try:
            await socket.prepare(request)
            spec = VoiceSpec(id=child, run_dir=str(self._run_dir), services=self._services, instructions="")
            self._fork(child, encode(spec))
            await self._talk(child, browser, socket)
        finally:
            if not socket.closed and request.transport:
                request.transport.abort()  # who takes nothing would also not take a farewell
            del self._browsers[child]
            self._metrics.figures.add("planaria_voice_browsers", -1)
            self._kill(child)
        return socket

    async def _talk(self, child: str, browser: _Browser, socket: web.WebSocketResponse) -> None:
        works = [asyncio.ensure_future(each) for each in (self._read(child, browser, socket), _write(browser, socket))]
        try:
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in works:
                each.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            if browser.dropped:
                log.warning("frames of a browser were dropped: its process did not take them", frames=browser.dropped)

    async def _read(self, child: str, browser: _Browser, socket: web.WebSocketResponse) -> None:
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                self._hold(browser, Incoming(text=True), message.data.encode())
            elif message.type == WSMsgType.BINARY:
                self._hold(browser, Incoming(text=False), message.data)
            self._pass(child, browser)

    def _hold(self, browser: _Browser, frame: Incoming, body: bytes) -> None:
        if len(browser.held) >= MAX_HELD or browser.held_bytes + len(body) > MAX_HELD_BYTES:
            browser.dropped += 1
            return
        browser.held.append((frame, body))
        browser.held_bytes += len(body)

    def _pass(self, child: str, browser: _Browser) -> None:
        while browser.held and browser.is_heard:
            frame, body = browser.held[0]
            if not self.wire.say(frame, body, to=child):
                return
            browser.held.popleft()
            browser.held_bytes -= len(body)

    # What the children say

    def has(self, child: str) -> bool:
        """Whether a child is one of these."""
        return child in self._browsers

    def beaten(self, child: str, beat: VoiceBeat) -> None:
        """How it does. Once it is ready it takes what waits."""
        browser = self._browsers[child]
        browser.is_heard = browser.is_heard or beat.state == "connected"
        self._pass(child, browser)

    def out(self, child: str, frame: Outgoing, body: bytes) -> None:
        """A frame for the browser of this child."""
        browser = self._browsers[child]
        if browser.is_slow:
            return
        try:
            browser.out.put_nowait((frame, body))
        except asyncio.QueueFull:
            log.warning("a browser reads too slowly, and is closed")
            browser.is_slow = True
            while not browser.out.empty():
                browser.out.get_nowait()
            browser.out.put_nowait((Outgoing(close=SLOW), b"what is sent is read too slowly"))

    def ended(self, child: str) -> None:
        """It is dead."""
        if browser := self._browsers.get(child):
            with contextlib.suppress(asyncio.QueueFull):  # there is a close in it, or it will be found slow
                browser.out.put_nowait((Outgoing(close=GONE_WRONG), b"the process of this conversation has ended"))


async def _write(browser: _Browser, socket: web.WebSocketResponse) -> None:
    while True:
        frame, body = await browser.out.get()
        if frame.close:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await socket.close(code=frame.close, message=body[:120])
            return
        try:
            async with asyncio.timeout(WAIT_S):
                await (socket.send_str(body.decode()) if frame.text else socket.send_bytes(body))
        except (TimeoutError, ConnectionError):  # it takes nothing, or is gone
            return
