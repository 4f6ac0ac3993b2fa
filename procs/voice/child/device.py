"""The link to a device: dialled again and again, one connection at a time.

A connection that is over is aborted before the next is dialled: a device lends itself to one at a time. One that
accepts and falls silent is noticed by its pings.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import Callable
from typing import Literal, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from procs import backoff, log
from procs.errors import Refused
from procs.messages.voice import VoiceSpec
from procs.voice.child.dial import Failed, dial, trusting, why
from procs.voice.child.far_end import Frame
from procs.wire import realtime as wire
from procs.wire.conversation import Session

CONNECT_S = 10.0
FIRST_S = 0.5  # for a device that is not ours to lend to say so; one that says nothing is ours to speak to
PING_EVERY_S = 5.0
PONG_S = 5.0
SEND_S = 5.0  # a device that reads nothing for so long is as good as gone
SERVED_S = 3.0  # a connection that lived for so long was a good one
AT_ONCE_S = 0.1
CAP_S = 30.0
MAX_SAID = 8  # problems of one row in the log: some take turns, and some hold what the other side says
MAX_SOUND = 128  # frames that were not sent yet: 2.5 s
MAX_TOLD = 1024  # of all frames
IN_A_ROW = 16  # frames, before others get their turn
BUSY = 1013
State = Literal["connecting", "connected", "waiting", "over"]


class Owner(Protocol):
    """Who talks over the link."""

    async def opened(self, protocol: str) -> None:
        """There is a connection."""

    def received(self, frame: Frame) -> None:
        """A frame of the device."""

    def lost(self) -> None:
        """There is none any more."""

    def changed(self) -> None:
        """`state` did, or `problem`."""

    def figure(self, name: str, value: float) -> None:
        """Something was seen."""


class Device:
    """The link."""

    def __init__(self, spec: VoiceSpec, session: Session, owner: Owner) -> None:
        self._spec, self._session, self._owner = spec, session, owner
        self.state: State = "connecting"
        self.problem = ""
        self.since = spec.since or time.time()
        self.attempts = spec.failures
        self.connections = 0
        self.protocol = ""
        self._said: set[str] = set()  # the problems that the log knows of, since it was last connected
        self._lives = False  # the other side of this connection has said something
        self._lost_at: float | None = None
        self._outbox = collections.deque[tuple[Frame, Callable[[], None] | None]]()
        self._waiting = asyncio.Event()

    async def run(self) -> None:
        """Until it is over: for ever, with auto_reconnect."""
        while True:
            self._become("connecting", self.problem)
            served_s, problem = await self._attempt()
            again = self._spec.auto_reconnect
            self.attempts = 0 if served_s >= SERVED_S else self.attempts + 1
            self._become("waiting" if again else "over", problem)
            if not again:
                return
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        """Before the next attempt: the first after a good connection comes at once, each later one waits at least
        `reconnect_delay` and at most twice as long as the one before it could."""
        if self.attempts == 0:
            return AT_ONCE_S * backoff.uniform()
        least = self._spec.reconnect_delay
        most = max(least, min(CAP_S, least * 2.0 ** min(self.attempts - 1, 30)))
        return least + (most - least) * backoff.uniform()

    def _become(self, state: State, problem: str) -> None:
        """One line in the log for each change, however many attempts fail."""
        if state == "connected":
            log.info("device connected", device=self._spec.name, protocol=self.protocol)
            self._said.clear()
        elif problem and problem not in self._said and len(self._said) < MAX_SAID:
            log.warning("device not connected", device=self._spec.name, why=problem)
            self._said.add(problem)
        if (state == "connected") != (self.state == "connected"):
            self.since = time.time()
        self.state, self.problem = state, problem
        self._owner.changed()

    async def _attempt(self) -> tuple[float, str]:
        """One: how long it served, and why no more."""
        spec = self._spec
        host = f"[{spec.host}]" if ":" in spec.host else spec.host
        try:
            ws = await dial(
                f"{'wss' if spec.tls else 'ws'}://{host}:{spec.port}/realtime",
                within_s=CONNECT_S,
                max_bytes=wire.MAX_BYTES,
                headers={"Authorization": f"Bearer {spec.token}"} if spec.token else {},
                protocols=wire.OFFERED,
                tls=trusting(spec.ca) if spec.tls else None,
            )
        except Failed as failed:
            return 0.0, str(failed)
        began = time.monotonic()
        try:
            problem = await self._hold(ws)
        except Failed as failed:
            return 0.0, str(failed)
        finally:
            ws.transport.abort()
        return time.monotonic() - began if self._lives else 0.0, problem

    async def _hold(self, ws: ClientConnection) -> str:
        """Talk until it breaks; returns why. Raises Failed where it is not ours to talk to."""
        self.protocol = ws.subprotocol or wire.PUBLISHED
        self._lives = False
        self._outbox.clear()
        self.send(wire.encode(wire.SessionUpdate(session=self._session)))
        works = [asyncio.ensure_future(each) for each in (self._write(ws), self._watch(ws))]
        try:
            first = await self._first(ws)
            self.connections += 1
            self._seen_connected()
            await self._owner.opened(self.protocol)
            works.append(asyncio.ensure_future(self._read(ws, first)))
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            if self.state == "connected":
                self._lost_at = time.monotonic()
                self._owner.lost()

    def _seen_connected(self) -> None:
        if self._lost_at is not None:
            self._owner.figure("planaria_voice_reconnect_seconds", time.monotonic() - self._lost_at)
        self._become("connected", "")

    async def _first(self, ws: ClientConnection) -> Frame | None:
        """The first frame, if one comes soon. Raises Failed for a device that is another's, or does not want us."""
        try:
            async with asyncio.timeout(FIRST_S):
                frame = await ws.recv()
        except TimeoutError:
            return None
        except ConnectionClosed as closed:
            raise Failed(_refusal(closed)) from None
        with contextlib.suppress(Refused):
            event = wire.decode(frame, wire.FROM_DEVICE) if isinstance(frame, str) else None
            if isinstance(event, wire.Error) and event.error.type == "fatal":
                raise Failed(_busy(event.error.code == "busy", event.error.message[:200]))
        return frame

    async def _read(self, ws: ClientConnection, frame: Frame | None) -> str:
        count = 0
        try:
            while True:
                if frame is not None:
                    self._lives = True
                    self._owner.received(frame)
                frame = await ws.recv()
                count += 1
                if count % IN_A_ROW == 0:
                    await asyncio.sleep(0)
        except ConnectionClosed as closed:
            return _refusal(closed)

    def send(self, frame: Frame, *, sound: bool = False, sent: Callable[[], None] | None = None) -> bool:
        """Say it, if there is a connection and the device reads; returns whether it may get there. `sent` is called
        once it has left us."""
        if len(self._outbox) >= (MAX_SOUND if sound else MAX_TOLD):
            return False
        self._outbox.append((frame, sent))
        self._waiting.set()
        return True

    async def _write(self, ws: ClientConnection) -> str:
        while True:
            if not self._outbox:
                self._waiting.clear()
                await self._waiting.wait()
            frame, sent = self._outbox.popleft()
            try:
                async with asyncio.timeout(SEND_S):
                    await ws.send(frame)
            except TimeoutError:
                return f"it has read nothing for {SEND_S:g} s"
            except ConnectionClosed as closed:
                return _refusal(closed)
            if sent:
                sent()

    async def _watch(self, ws: ClientConnection) -> str:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            try:
                async with asyncio.timeout(PONG_S):
                    await (await ws.ping())
                self._lives = True
            except TimeoutError:
                return f"it has not answered a ping for {PONG_S:g} s"
            except ConnectionClosed as closed:
                return _refusal(closed)


def _refusal(closed: ConnectionClosed) -> str:
    frame = closed.rcvd
    return _busy(True, frame.reason) if frame and frame.code == BUSY else why(closed)


def _busy(busy: bool, said: str) -> str:
    if not busy:
        return said or "it does not want us"
    return f"busy: {said}" if said else "busy: another backend holds it"
