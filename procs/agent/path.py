"""One RTCPeerConnection of a session, from its offer to its end. It never comes back; a session makes another.

Candidates are told as they are found, those of the other side are taken whenever they come (ice.py). Private names of
aiortc 1.16 are used here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from aioice import Candidate, Connection
from aiortc import RTCConfiguration, RTCDataChannel, RTCDtlsTransport, RTCPeerConnection, RTCSessionDescription

from procs import log
from procs.agent import ice, ice_servers, nomination
from procs.agent.dtls import Dtls
from procs.agent.lane.way import Address, Way
from procs.agent.settings import AgentSettings
from procs.errors import Refused

MAX_CANDIDATES = 64
STRAIGHT_S = (1.0, 4.0, 25.0)  # pauses between looking for a straight way, where there is only a relay
_OURS_TO_ADD = ("a=candidate:", "a=end-of-candidates")


class NoConnection(NamedTuple):
    """In the place of an RTCPeerConnection while there is none."""

    connectionState: str = "new"


class Path:
    """`changed()` is called when `state` may be another; `found(candidate)` with each candidate that is not in the
    description, and None after the last; `channel(below)` with each data channel that the other side opens. `way`: to
    a port that all sessions share, if there is one."""

    def __init__(
        self,
        settings: AgentSettings,
        changed: Callable[[], None],
        found: Callable[[str | None], None],
        channel: Callable[[RTCDataChannel], None],
        way: Way | None = None,
    ) -> None:
        self._settings, self._found, self._way = settings, found, way
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.pc.on("connectionstatechange", changed)
        self.pc.on("datachannel", channel)
        self._connection: Connection | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self._taken = 0
        self._heard_at = self.began_at = time.monotonic()
        self.refused_candidates = 0
        self._straight_at, self._straight_pauses = 0.0, iter(STRAIGHT_S)
        self._before = ("", False)  # when it was looked at last

    @property
    def state(self) -> str:
        """new, connecting, connected, failed or closed."""
        return self.pc.connectionState

    @property
    def kind(self) -> str:
        """direct, relayed, or "" while there is no way yet."""
        return ice.path_of(self._connection) if self._connection else ""

    @property
    def remote(self) -> str:
        """The address of the other side, as we send to it; "" while there is none."""
        host, port = self.remote_address or ("", 0)
        return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}") if host else ""

    @property
    def remote_address(self) -> Address | None:
        """The same, for who sends there."""
        return ice.remote_of(self._connection) if self._connection else None

    @property
    def is_by_way(self) -> bool:
        """Whether it leads from the port that all our sessions share to the same of the other side."""
        return self._connection is not None and ice.is_by_way(self._connection)

    @property
    def silent_s(self) -> float:
        """Since anything came from the other side."""
        return time.monotonic() - self._heard_at

    @property
    def dtls(self) -> RTCDtlsTransport:
        """What carries SCTP, and may carry other records beside it. Only of one that is described."""
        assert self.pc.sctp
        return self.pc.sctp.transport

    @property
    def round_trip_ms(self) -> float:
        """As SCTP has measured it; 0 before."""
        srtt = getattr(self.pc.sctp, "_srtt", None)
        return round(srtt * 1000, 3) if srtt else 0.0

    def quicken(self) -> Dtls:
        """Have SCTP go through dtls.py, as all does where IP packets go beside it."""
        return Dtls(self.dtls, lambda others: None)

    def open(self, label: str, **options: Any) -> RTCDataChannel:
        """A data channel of ours."""
        return self.pc.createDataChannel(label, **options)

    async def offer(self) -> str:
        """Our offer, once a channel was opened."""
        return await self._describe()

    async def answer(self, sdp: str) -> str:
        """Our answer to that offer. Raises Refused."""
        await self._take(sdp, "offer")
        if self.pc.sctp is None:
            raise Refused("an offer without data channels")
        return await self._describe()

    async def accept(self, sdp: str) -> None:
        """Take the answer to our offer. Raises Refused."""
        await self._take(sdp, "answer")

    def add_candidate(self, text: str) -> None:
        """Take a candidate of the other side."""
        self._taken += 1
        if self._connection is None or self._taken > MAX_CANDIDATES:
            self.refused_candidates += 1
            return
        try:
            self._begin(ice.add_remote(self._connection, text))
        except (ValueError, IndexError):
            self.refused_candidates += 1

    def gather(self) -> None:
        """Ask the STUN and TURN servers for more ways to us, from now on."""
        self._begin(self._gather())

    def straighten(self, now: float) -> bool:
        """Look once more for a path without a relay, or from port to port, if it is time and there is none yet; the
        other side does at the same times. Whether the path has become another. A few times a second, while it is
        connected."""
        if self._connection and now >= self._straight_at:
            is_relayed = self.kind == "relayed"
            if is_relayed or (self._way and not self.is_by_way):
                self._straight_at = now + next(self._straight_pauses, float("inf"))
                nomination.go_on(self._connection, nomination.is_straight if is_relayed else ice.joins_ports)
        before, self._before = self._before, (self.kind, self.is_by_way)
        return before[0] != "" and before != self._before

    async def close(self) -> None:
        """Tell the other side and the TURN server that it is over, and hold nothing any more, whether they hear it."""
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        # Not cancelled when it takes too long: in the middle of it, it would leave tasks and sockets behind.
        closing = asyncio.ensure_future(self.pc.close())
        await asyncio.wait([closing], timeout=ice_servers.CLOSE_S)
        if self._connection and not closing.done():
            for protocol in self._connection._protocols:
                ice_servers.let_go(protocol)
            await asyncio.wait([closing], timeout=ice_servers.CLOSE_S)
        if closing.done() and not closing.cancelled() and (error := closing.exception()):
            log.debug("a connection did not end well", why=f"{type(error).__name__}: {error}")

    async def _describe(self) -> str:
        assert self.pc.sctp
        self._connection = self.pc.sctp.transport.transport.iceGatherer._connection
        ice.prepare(self._connection, self._settings.udp_range, self._way)
        ice.on_sign(self._connection, self._heard)
        nomination.follow(self._connection)
        nomination.keep_the_best(self._connection)
        await self.pc.setLocalDescription()
        lines = [line for line in self.pc.localDescription.sdp.splitlines() if line != "a=end-of-candidates"]
        return "\r\n".join(lines) + "\r\n"

    async def _take(self, sdp: str, kind: str) -> None:
        lines = sdp.splitlines()
        plain = "\r\n".join(line for line in lines if not line.startswith(_OURS_TO_ADD)) + "\r\n"
        try:
            await self.pc.setRemoteDescription(RTCSessionDescription(plain, kind))
        except Exception as error:  # aiortc raises whatever comes to it, and the text is a stranger's
            raise Refused(f"the {kind} can't be taken: {type(error).__name__}: {error}") from None
        if self._connection is None and self.pc.sctp:
            self._connection = self.pc.sctp.transport.transport.iceGatherer._connection
        for line in lines:
            if line.startswith("a=candidate:"):
                self.add_candidate(line)

    async def _gather(self) -> None:
        assert self._connection

        def found(candidate: Candidate) -> None:
            self._found(f"candidate:{candidate.to_sdp()}")

        await ice_servers.gather_more(self._connection, self._settings.ice_servers, found)
        self._found(None)

    def _heard(self) -> None:
        self._heard_at = time.monotonic()

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.info("a candidate, or a server, is of no use", why=f"{type(error).__name__}: {error}")
