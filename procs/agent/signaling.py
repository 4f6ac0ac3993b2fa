"""The connection to the signalling server: made again whenever it is lost, while sessions between agents live on.

The server is told who we are and sees who talks to whom; what it carries is signed by the agents (identity.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import aiohttp
import msgspec

from procs import log
from procs.agent.settings import AgentSettings
from procs.agent.words import plain
from procs.backoff import uniform
from procs.carrier import distrust, trust
from procs.errors import LinkLost, Refused
from procs.wire import signal
from procs.wire.signal import Bye, Error, Frame, Ping, Pong, Register

OPEN_S = 5.0
# Of a server whose socket is there: that is supervisord's, and who waits in it is served as soon as a new hub is there.
ANSWER_S = 15.0
ASK_S, DEAF_S = 4.0, 8.0  # after which, with nothing heard since we said something, it is asked, and held for dead
PONG_S = 15.0  # without a sign for so long after a ping the connection is dead
CLOSE_S = 1.0
LAST_WORDS_S = 0.2
SETTLED_S = 3.0  # a connection that lived so long starts the back-off anew
FIRST_S, CAP_S = 1.0, 60.0  # of the back-off, as published
LOOK_S = 1.0  # during a pause, whether it still has to be that long
AWAITED_S = 20.0  # the longest pause while somebody waits for it
MAX_WAITING = 256  # frames that came and were not taken
REFUSED = (401, 403)


def pause(failures: int, *, rng: Callable[[], float] = uniform) -> float:
    """Seconds to wait after so many failures in a row: at once but for a jitter, then 1 s doubling to 60 s, with 10 to
    30 % on top, as published."""
    if failures == 0:
        return 0.1 * rng()
    return min(FIRST_S * 2.0 ** min(failures - 1, 10), CAP_S) * (1.1 + 0.2 * rng())


class SignalingClient:
    """`recv` gives what comes, over as many connections as it takes. Made where an event loop runs. Raises ConfigError
    for a file of certificates or a token that can't be read."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._token, self._trust = settings.token, trust(settings.ca) if settings.ca else True
        self._in: asyncio.Queue[Frame] = asyncio.Queue(MAX_WAITING)
        self._out: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._over = asyncio.Event()
        self._unheard_since: float | None = None  # we have said something then, and nothing has come since
        self.why = ""  # there is no connection
        self.connections = 0  # made so far
        self.lost_frames = 0  # that nobody took in time, or that were none
        self.on_connected: Callable[[], None] = lambda: None
        self.is_awaited: Callable[[], bool] = lambda: False  # whether somebody can't go on without the server

    @property
    def is_connected(self) -> bool:
        """Whether what is sent now goes out."""
        return self._up.is_set()

    def begin(self) -> None:
        """Connect, and stay connected, from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._stay_connected(), name="signaling")

    async def connect(self, within_s: float | None = None) -> None:
        """`begin`, and wait until the server has us. Raises LinkLost when it has not within that time; it goes on
        being tried."""
        self.begin()
        try:
            async with asyncio.timeout(within_s):
                await self._up.wait()
        except TimeoutError:
            raise LinkLost(f"no connection to {self._settings.signaling_url}: {self.why or 'no answer'}") from None

    async def send(self, frame: Frame | Mapping[str, Any]) -> bool:
        """Send a frame, or an object that is one. False when there is no connection now; it is not kept then."""
        return self.post(signal.decode(msgspec.json.encode(frame)) if isinstance(frame, Mapping) else frame)

    def post(self, frame: Frame | None) -> bool:
        """The same, for who can't wait. Raises Refused for one that is too long."""
        if frame is None or not self.is_connected or self._out.full():
            return False
        self._out.put_nowait(signal.encode(frame))
        if self._unheard_since is None:
            self._unheard_since = time.monotonic()
        return True

    async def recv(self) -> dict[str, Any]:
        """The next frame for us, as an object. Raises LinkLost once there will be none: somebody else has our name,
        or it was closed."""
        found: dict[str, Any] = msgspec.to_builtins(await self.take())
        return found

    async def take(self) -> Frame:
        """The next frame for us. Raises as `recv`."""
        if not self._in.empty():
            return self._in.get_nowait()
        both = [asyncio.ensure_future(each) for each in (self._in.get(), self._over.wait())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if both[0].done():
                return cast(Frame, both[0].result())
        finally:
            for each in both:
                each.cancel()
        raise LinkLost(self.why)

    async def close(self) -> None:
        """Leave, and say so to the server."""
        if self._task:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    while self.is_connected and not self._out.empty():  # noqa: ASYNC110 - a courtesy
                        await asyncio.sleep(0.002)
            self._task.cancel()
            await asyncio.wait([self._task])
        self.why = self.why or "closed"
        self._over.set()

    async def _stay_connected(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        connector = aiohttp.TCPConnector(ssl=self._trust)
        failures = 0
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)
        more: dict[str, Any] = {"cookie_jar": aiohttp.DummyCookieJar(), "trace_configs": [trace]}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=OPEN_S)
        async with aiohttp.ClientSession(connector=connector, timeout=limits, **more) as http:
            while True:
                began, before = time.monotonic(), self.connections
                try:
                    await self._connection(http, headers)
                except (OSError, aiohttp.ClientError, LinkLost) as error:
                    self.why = _words(error)
                finally:
                    self._up.clear()
                if self.why == signal.REPLACED:
                    break
                was_good = self.connections > before and time.monotonic() - began > SETTLED_S
                failures = 0 if was_good else failures + 1
                wait_s = pause(failures)
                log.warning(
                    "no connection to the signalling server", why=self.why, again_in_s=round(self._no_longer(wait_s), 1)
                )
                await self._rest(wait_s)
        me = self._settings.agent_id
        self.why = f"somebody else has registered as {me!r} in the same room: give each a name of its own (AGENT_ID)"
        self._over.set()

    async def _rest(self, wait_s: float) -> None:
        """So long, or less where somebody has begun to wait meanwhile."""
        began = time.monotonic()
        while (left_s := began + self._no_longer(wait_s) - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(LOOK_S, left_s))

    def _no_longer(self, wait_s: float) -> float:
        return min(wait_s, AWAITED_S) if self.is_awaited() else wait_s

    async def _connection(self, http: aiohttp.ClientSession, headers: Mapping[str, str]) -> None:
        """One connection, until it ends, which always raises."""
        async with asyncio.timeout(ANSWER_S):
            ws = await http.ws_connect(
                self._settings.signaling_url,
                headers=headers,
                max_msg_size=signal.MAX_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
            )
            await ws.send_str(signal.encode(Register(self._settings.agent_id, self._token or None)))
        try:
            self.connections += 1
            self._out, self._unheard_since = asyncio.Queue(MAX_WAITING), None
            self._up.set()
            self.on_connected()
            both = [asyncio.ensure_future(each) for each in (self._read(ws), self._write(ws), self._watch())]
            try:
                done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if both[1] in done:  # what the server has said last tells more than that nothing goes out any more
                    await asyncio.wait(both[:1], timeout=LAST_WORDS_S)
                for each in both:
                    if each.done():
                        each.result()
            finally:
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            self._up.clear()
            with contextlib.suppress(TimeoutError, OSError, aiohttp.ClientError):
                async with asyncio.timeout(CLOSE_S):
                    await ws.close()

    async def _write(self, ws: aiohttp.ClientWebSocketResponse[bool]) -> NoReturn:
        """What is to go out, and a ping now and then."""
        loop = asyncio.get_running_loop()
        ping_at = loop.time() + signal.PING_S
        while True:
            try:
                async with asyncio.timeout_at(ping_at):
                    text = await self._out.get()
            except TimeoutError:
                text, ping_at = signal.encode(Ping()), loop.time() + signal.PING_S
            async with asyncio.timeout(OPEN_S):
                await ws.send_str(text)

    async def _watch(self) -> NoReturn:
        """Notice within seconds, when it matters, that nothing gets through."""
        asked = False
        while True:
            await asyncio.sleep(1.0)
            unheard_s = time.monotonic() - (self._unheard_since or time.monotonic())
            if unheard_s > DEAF_S:
                raise LinkLost(f"no answer from the server for {DEAF_S:g} s")
            if unheard_s > ASK_S and not asked:
                self.post(Ping())
            asked = unheard_s > ASK_S

    async def _read(self, ws: aiohttp.ClientWebSocketResponse[bool]) -> NoReturn:
        while True:
            try:
                got = await ws.receive(signal.PING_S + PONG_S)
            except TimeoutError:
                raise LinkLost(f"nothing from the server for {signal.PING_S + PONG_S:g} s") from None
            if got.type is not aiohttp.WSMsgType.TEXT:
                reason = got.extra if isinstance(got.extra, str) else ""
                raise LinkLost(reason or f"the server has closed the connection ({ws.close_code})")
            self._heard(got.data)

    def _heard(self, text: str) -> None:
        self._unheard_since = None
        try:
            frame = signal.decode(text)
        except Refused as reason:
            self.lost_frames += 1
            log.warning("malformed signalling frame", reason=str(reason))
            return
        if isinstance(frame, Ping):
            self.post(Pong())
        elif isinstance(frame, Error) and frame.error == signal.REPLACED:
            raise LinkLost(signal.REPLACED)
        elif frame is not None and not isinstance(frame, Pong | Register):
            if isinstance(frame, Bye):
                frame = msgspec.structs.replace(frame, why=plain(frame.why))
            elif isinstance(frame, Error):
                frame = msgspec.structs.replace(frame, error=plain(frame.error))
            if self._in.full():
                self.lost_frames += 1
                self._in.get_nowait()
            self._in.put_nowait(frame)


async def _refuse_redirect(
    _: aiohttp.ClientSession, __: SimpleNamespace, to: aiohttp.TraceRequestRedirectParams
) -> None:
    """It could lead from wss:// to ws://, and take the token along."""
    raise aiohttp.ClientError(f"redirected by {to.url.host}, which is not followed")


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"the server answers {error.status}" + (": a wrong token?" if error.status in REFUSED else "")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return distrust(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return f"nobody there: {error.os_error.strerror or error.os_error}"
    return plain(str(error)) or type(error).__name__
