"""Which devices are here, and how to reach them: one place to ask, so that several hubs may share it one day."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from procs.errors import LinkLost, Refused
from procs.hub.devices.announced import Stream
from procs.hub.devices.suite_link import CAP, SuiteLink
from procs.hub.viewers.peer import Peer
from procs.wire.envelope import MAX_BYTES, Payload
from procs.wire.frames.connection import Hello
from procs.wire.frames.device import ProxyHttp, ProxyHttpResp

if TYPE_CHECKING:
    from procs.streams.link import Link

MAX_ASKED = 64  # requests in flight to one device over its control connection
GRACE_S = 5.0  # beyond a request's own time limit, in which the device says that it was up
REMEMBERED_S = 300.0  # how long it is known that a device was here


class Control:
    """A device's control connection. `mux`, `caps`, `instance`, `agent_version`: as its hello said; `streams` as its
    last capabilities did. `connected_at` is by time.time."""

    __slots__ = (
        "_asked",
        "agent_version",
        "caps",
        "connected_at",
        "device_id",
        "instance",
        "key",
        "mux",
        "peer",
        "streams",
        "suite",
    )

    def __init__(self, peer: Peer, key: int, hello: Hello) -> None:
        self.peer, self.key, self.device_id = peer, key, hello.device_id
        self.caps = frozenset(hello.caps)
        self.instance, self.mux = hello.instance, hello.mux
        self.agent_version, self.connected_at = hello.agent_version, time.time()
        self.streams: tuple[Stream, ...] = ()
        self.suite = SuiteLink(peer) if CAP in self.caps else None
        self._asked: dict[str, asyncio.Future[ProxyHttpResp]] | None = None  # made when needed: most never are

    async def send(self, kind: str, payload: Payload, request_id: str | None = None) -> None:
        """Send a frame. Raises LinkLost."""
        await self.peer.send(kind, payload, request_id)

    async def request_http(self, ask: ProxyHttp) -> ProxyHttpResp:
        """Have the device make a request, over this connection. Raises LinkLost when it is gone before the answer,
        TimeoutError, or Refused when the device has too many to answer already or `ask` is too large."""
        asked = self._asked = {} if self._asked is None else self._asked
        if len(asked) >= MAX_ASKED:
            raise Refused("the device has too many requests to answer")
        if ask.rid in asked:
            raise Refused("a request of this rid is in flight")
        if self.peer.unsent > MAX_BYTES:
            raise Refused("the device reads too slowly")
        answer: asyncio.Future[ProxyHttpResp] = asyncio.get_running_loop().create_future()
        asked[ask.rid] = answer
        try:
            await self.peer.send("proxy_http", ask)
            async with asyncio.timeout(ask.timeout_ms / 1000 + GRACE_S):
                return await answer
        finally:
            asked.pop(ask.rid, None)

    def answered(self, response: ProxyHttpResp) -> bool:
        """Hand an answer to whoever waits for it; False when nobody does (any more)."""
        waiting = (self._asked or {}).get(response.rid)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(response)
        return True

    def lost(self, reason: str) -> None:
        """The connection is gone: nobody need wait for an answer."""
        if self.suite:
            self.suite.lost(reason)
        for waiting in (self._asked or {}).values():
            if not waiting.done():
                waiting.set_exception(LinkLost(reason))


class _Data(NamedTuple):
    link: Link
    instance: str
    drop: Callable[[int, str], None] | None


class _Gone(NamedTuple):
    """When a device went, by the clock of Presence and by time.time."""

    at: float
    wall: float


class Presence:
    """The devices that this hub holds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._controls: dict[str, Control] = {}
        self._data: dict[str, list[_Data]] = {}
        self._turn: dict[str, int] = {}
        self._gone: dict[str, _Gone] = {}  # by age
        self._arrivals: dict[str, list[asyncio.Future[None]]] = {}

    def control(self, device_id: str) -> Control | None:
        """The device's control connection, if it has one."""
        return self._controls.get(device_id)

    def controls(self) -> list[Control]:
        """All of them."""
        return list(self._controls.values())

    def links(self, device_id: str) -> list[Link]:
        """The device's data connections."""
        return [data.link for data in self._data.get(device_id, ())]

    @property
    def link_count(self) -> int:
        """Data connections of all devices."""
        return sum(map(len, self._data.values()))

    def is_online(self, device_id: str) -> bool:
        """Whether its control connection stands."""
        return device_id in self._controls

    def was_online_within(self, device_id: str, seconds: float) -> bool:
        """Whether it is here, or was so lately, or may have been: who was here before this hub's start is not known,
        and whoever was is on the way back."""
        now = self._clock()
        gone = self._gone.get(device_id)
        return device_id in self._controls or now - (gone.at if gone else self._started) <= seconds

    def went_at(self, device_id: str) -> float | None:
        """When it went, by time.time, if that was lately: the store hears of it only after a while."""
        gone = self._gone.get(device_id)
        return gone and gone.wall

    def arrived(self, control: Control) -> Control | None:
        """Take a control connection in; returns the one that it replaces, which the caller closes.

        One of another instance ends the data connections of the one before, too.
        """
        before = self._controls.get(control.device_id)
        self._controls[control.device_id] = control
        self._gone.pop(control.device_id, None)
        if before:
            before.lost("replaced by a new connection")
        for data in list(self._data.get(control.device_id, ())):
            if data.instance != control.instance and data.drop:
                data.drop(1012, "Replaced by new connection")
        return before

    def left(self, control: Control) -> bool:
        """A control connection is gone; False when another had replaced it before."""
        control.lost("the device's connection is gone")
        if self._controls.get(control.device_id) is not control:
            return False
        del self._controls[control.device_id]
        self._gone.pop(control.device_id, None)
        self._gone[control.device_id] = _Gone(self._clock(), time.time())
        return True

    def forget(self, device_id: str) -> Control | None:
        """The device is no longer one of ours: its data connections end; returns its control, for the caller to
        close."""
        self.drop_links(device_id, 1008, "Device not found")
        return self._controls.get(device_id)

    def drop_links(self, device_id: str, code: int, reason: str) -> None:
        """End the device's data connections, and with them every stream that they carry."""
        for data in list(self._data.get(device_id, ())):
            if data.drop:
                data.drop(code, reason)

    def takes(self, device_id: str, instance: str) -> bool:
        """Whether a data connection of this instance may come in: not when another instance has the device."""
        control = self._controls.get(device_id)
        return control is None or control.instance == instance

    def add_link(
        self, device_id: str, instance: str, link: Link, drop: Callable[[int, str], None] | None = None
    ) -> None:
        """A data connection stands. `drop(code, reason)` is called when it must end: it closes the WebSocket, and must
        neither wait nor raise."""
        self._data.setdefault(device_id, []).append(_Data(link, instance, drop))
        for waiting in self._arrivals.pop(device_id, ()):
            if not waiting.done():
                waiting.set_result(None)

    def remove_link(self, device_id: str, instance: str, link: Link) -> None:
        """It is gone."""
        left = [data for data in self._data.get(device_id, ()) if data.link is not link]
        if left:
            self._data[device_id] = left
        else:
            self._data.pop(device_id, None)
            self._turn.pop(device_id, None)

    async def link_for(self, device_id: str, deadline_s: float) -> Link:
        """The data connection with the fewest streams, of those that take one; waits for one to come.
        Raises TimeoutError."""
        if found := self._best(device_id):
            return found
        async with asyncio.timeout(deadline_s):
            while True:
                if found := self._best(device_id):
                    return found
                waiting = asyncio.get_running_loop().create_future()
                self._arrivals.setdefault(device_id, []).append(waiting)
                try:
                    await waiting
                finally:
                    self._forget_waiting(device_id, waiting)

    def _best(self, device_id: str) -> Link | None:
        links = self.links(device_id)
        if not links:
            return None
        # In turn among equals: two workers share what comes one by one, too.
        turn = self._turn[device_id] = self._turn.get(device_id, -1) + 1
        turned = links[turn % len(links) :] + links[: turn % len(links)]
        return min(turned, key=lambda link: (link.is_full, link.streams))

    def _forget_waiting(self, device_id: str, waiting: asyncio.Future[None]) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._arrivals[device_id].remove(waiting)
            if not self._arrivals[device_id]:
                del self._arrivals[device_id]

    def sweep(self) -> None:
        """Forget who went long ago."""
        now = self._clock()
        while self._gone and now - next(iter(self._gone.values())).at > REMEMBERED_S:
            del self._gone[next(iter(self._gone))]
