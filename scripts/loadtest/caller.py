"""One user's connection to a voice backend by the published messages alone: a microphone that sends in real time, and
a log of what comes. Sound that comes is counted, not decoded."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from procs.errors import PlanariaError, Refused
from procs.media.ogg import OggReader, OggWriter
from procs.media.opuspackets import packet_samples
from procs.wire import realtime
from procs.wire.conversation import Session
from scripts.loadtest.figures import Heard, Spoken

PAGE_S = 0.04
OPEN_S = 10.0
_SLOW_S = 5.0  # that saying something may take longer than it lasts
_LOOK_S = 0.02
_REASON = 200  # characters
_TOLD = realtime.Transcription | realtime.TextReady | realtime.TextDelta


class Failed(PlanariaError):
    """A conversation that can't go on; the text says why, without what is different each time."""


class Place(NamedTuple):
    """Where the backend is, and how one gets in."""

    url: str
    key: str
    session: Session
    silence: bytes


class Caller:
    """A connection that stands."""

    def __init__(self, socket: ClientConnection, silence: bytes) -> None:
        self._socket, self._silence = socket, silence
        self._writer, self._reader = OggWriter(random.getrandbits(32)), OggReader()
        self._saying: deque[list[bytes]] = deque()
        self._said: asyncio.Future[Spoken] | None = None
        self._began = 0.0
        self._news = asyncio.Event()
        self.heard: list[Heard] = []
        self.late = 0.0  # seconds, at worst

    async def microphone(self) -> None:
        """Send a page each 40 ms, for ever; silence where nothing is to be said."""
        due = time.monotonic()
        while True:
            self.late = max(self.late, time.monotonic() - due)
            page = self._saying.popleft() if self._saying else [self._silence] * 2
            await self._send(realtime.Append(audio=self._writer.write(page)))
            self._mark()
            due += PAGE_S
            await asyncio.sleep(due - time.monotonic())

    def _mark(self) -> None:
        """Note when what is said began, and has ended."""
        if self._said is None:
            return
        now = time.monotonic()
        self._began = self._began or now
        if not self._saying:
            self._said.set_result(Spoken(self._began, now))
            self._said = None

    async def say(self, packets: list[bytes]) -> Spoken:
        """Say it; returns when it is out. Raises Failed."""
        assert self._said is None, "one thing at a time"
        self._began = 0.0
        self._saying.extend(packets[at : at + 2] for at in range(0, len(packets), 2))
        said: asyncio.Future[Spoken] = asyncio.get_running_loop().create_future()
        self._said = said
        try:
            async with asyncio.timeout(len(packets) * PAGE_S / 2 + _SLOW_S):
                return await said
        except TimeoutError:
            raise Failed("the backend does not take the sound in real time") from None

    async def update(self, session: Session) -> None:
        """Say how the conversation is to be."""
        await self._send(realtime.SessionUpdate(session=session))

    async def _send(self, event: realtime.FromBrowser) -> None:
        try:
            await self._socket.send(realtime.encode(event))
        except ConnectionClosed:
            raise self._gone() from None

    async def ears(self) -> None:
        """Log what comes, for ever. Raises Failed at the end of it, and for what is not of the protocol."""
        try:
            async for frame in self._socket:
                self._take(frame)
                self._news.set()
        except ConnectionClosed:
            pass
        except Refused as refused:
            raise Failed(f"the backend sends what is not of the protocol: {refused}"[:_REASON]) from None
        raise self._gone()

    def _gone(self) -> Failed:
        return Failed(f"the backend has closed: {self._socket.close_code} {self._socket.close_reason}"[:_REASON])

    def _take(self, frame: str | bytes) -> None:
        now = time.monotonic()
        try:
            event = realtime.decode(frame, realtime.FROM_BACKEND)
        except realtime.UnknownType:
            return
        samples, text = 0, ""
        if isinstance(event, realtime.AudioDelta):
            samples = sum(packet_samples(each.packet) for each in self._reader.feed(event.delta))
        elif isinstance(event, _TOLD):
            text = event.delta
        elif isinstance(event, realtime.Error) and event.error.type != "warning":
            raise Failed(f"the backend says: {event.error.message}"[:_REASON])
        self.heard.append(Heard(now, type(event), samples, text))

    async def until(self, is_there: Callable[[Sequence[Heard]], bool], within_s: float) -> bool:
        """Wait until the log has what is looked for; False if it has not, in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not is_there(self.heard):
                    self._news.clear()
                    await self._news.wait()
                    await asyncio.sleep(_LOOK_S)
        return is_there(self.heard)


async def call(place: Place, talk: Callable[[Caller], Awaitable[None]]) -> float:
    """Connect, say how the conversation is to be, and send and listen while `talk` goes on; returns how late it sent at
    worst. Raises Failed."""
    socket = await _connected(place)
    caller = Caller(socket, place.silence)
    try:
        await caller.update(place.session)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(caller.microphone()), group.create_task(caller.ears())]
            await talk(caller)
            for task in tasks:
                task.cancel()
    except* Failed as several:
        raise Failed(str(several.exceptions[0])) from None
    finally:
        await socket.close()
    return caller.late


async def _connected(place: Place) -> ClientConnection:
    try:
        return await connect(
            place.url,
            subprotocols=[Subprotocol(realtime.PUBLISHED)],
            additional_headers={"Authorization": f"Bearer {place.key}"} if place.key else {},
            compression=None,
            max_size=realtime.MAX_BYTES,
            open_timeout=OPEN_S,
            ping_interval=None,
            close_timeout=1,
        )
    except InvalidStatus as error:
        said = (error.response.body or b"").decode(errors="replace").strip()
        raise Failed(f"HTTP {error.response.status_code} {said}"[:_REASON]) from None
    except TimeoutError:
        raise Failed(f"no answer to the handshake within {OPEN_S:g} s") from None
    except (OSError, InvalidHandshake) as error:
        raise Failed(f"cannot connect: {error}"[:_REASON]) from None
