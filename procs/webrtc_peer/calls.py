"""The leader's part in the tunnel: the connection to the signalling server, and a child for each peer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import NoReturn, Protocol

import msgspec

from procs import bus, line, log
from procs.agent.network import Tunnel
from procs.agent.settings import AgentSettings
from procs.agent.signaling import SignalingClient
from procs.errors import LinkLost, Refused
from procs.messages import encode
from procs.messages.tunnel import AgentFrame, Signalling, TunnelBeat, TunnelSpec, decode_from_tunnel
from procs.webrtc_peer.tunnels import Fork, Tunnels
from procs.wire import signal
from procs.wire.signal import Bye, Error, Offer, Routed

TICK_S = 0.1
REPLACED_S = 60.0  # somebody else has our name: not to be taken back from it each second


class Brood(Protocol):
    """What brood.hatch gives a leader."""

    def fork(self, child: str, spec: bytes) -> None:
        """Have a child born."""

    def kill(self, child: str) -> None:
        """Have it ended."""


class Calls:
    """Sessions with all peers of the tunnel, for ever."""

    def __init__(self, agent: AgentSettings, tunnel: Tunnel, run_dir: Path, brood: Brood) -> None:
        self._agent, self._tunnel, self._run_dir, self._brood = agent, tunnel, run_dir, brood
        self._tunnels = Tunnels(tunnel.allowed)
        self._client: SignalingClient | None = None
        self._told = Signalling(is_up=False)

    async def run(self) -> NoReturn:
        """Until something breaks, which is raised."""
        self._line = line.binder(self._run_dir, bus.WEBRTC_PEER_TUNNELS, self._heard)
        doing: list[asyncio.Future[None]] = [asyncio.ensure_future(each) for each in (self._signal(), self._tick())]
        done, _ = await asyncio.wait([self._line.broken, *doing], return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
        raise AssertionError("these never end")

    def born(self, child: str, pid: int) -> None:
        """A child is there, of these or not."""
        self._tunnels.born(child, pid)

    def ended(self, child: str, how: str) -> None:
        """A child has ended, of these or not."""
        if peer := self._tunnels.gone(child, time.monotonic()):
            log.warning("what had the session with a peer has ended", peer=peer, how=how)

    # Towards the signalling server

    async def _signal(self) -> NoReturn:
        while True:
            self._client = client = SignalingClient(self._agent)
            client.is_awaited = lambda: self._tunnels.is_one_down
            client.begin()
            try:
                while True:
                    self._said(await client.take())
            except LinkLost as error:
                log.error("signalling has ended", why=str(error), again_in_s=REPLACED_S)
            await asyncio.sleep(REPLACED_S)

    def _said(self, frame: signal.Frame) -> None:
        self._tell_up()  # before an offer gets to a child, which else believes that it could not answer
        if isinstance(frame, Error):
            peer = frame.sender or ""
        elif isinstance(frame, Routed):
            peer = frame.sender
        else:
            return
        if self._tunnels.hold(peer, signal.encode(frame).encode()):
            self._pass(peer)
        elif isinstance(frame, Offer) and self._client:
            log.warning("an offer of somebody who is no peer of the tunnel", peer=peer)
            why = f"{peer!r} is no peer of the tunnel of {self._agent.agent_id!r}, in whose planaria.yaml they stand"
            self._client.post(Bye(self._agent.agent_id, peer, frame.session, why))
        elif isinstance(frame, Error):
            log.warning("the signalling server says", error=frame.error)

    # Towards the children

    def _heard(self, peer: str, data: bytes, body: bytes) -> None:
        try:
            message = decode_from_tunnel(data)
            if message.peer != peer:
                raise Refused(f"{peer!r} speaks for {message.peer!r}")
            if isinstance(message, TunnelBeat):
                self._tell_up()
                if self._tunnels.beaten(message, time.monotonic()):
                    self._line.say(self._told, to=peer)
                self._pass(peer)
                return
            frame = signal.decode(body)
            if not isinstance(frame, Routed) or (frame.sender, frame.to) != (self._agent.agent_id, peer):
                raise Refused(f"a frame that is not for {peer!r}")
            if self._client:
                self._client.post(frame)
        except Refused as reason:
            log.warning("malformed bus message", reason=str(reason))

    def _pass(self, peer: str) -> None:
        waiting = self._tunnels.waiting(peer)
        while waiting and self._line.say(AgentFrame(peer), waiting[0], to=peer):
            waiting.popleft()

    def _tell_up(self) -> None:
        client = self._client
        is_up = bool(client and client.is_connected)
        now = Signalling(is_up, "" if is_up or client is None else client.why[:500])
        if now != self._told:
            self._told = now
            for peer in self._tunnels.alive:
                self._line.say(now, to=peer)

    async def _tick(self) -> NoReturn:
        while True:
            self._tell_up()
            for action in self._tunnels.tick(time.monotonic()):
                if isinstance(action, Fork):
                    self._brood.fork(action.child, encode(self._spec(action.peer)))
                else:
                    self._brood.kill(action.child)
            for peer in self._tunnels.alive:
                self._pass(peer)
            await asyncio.sleep(TICK_S)

    def _spec(self, peer: str) -> msgspec.Struct:
        agent, tunnel = self._agent, self._tunnel
        return TunnelSpec(
            me=agent.agent_id,
            peer=peer,
            run_dir=str(self._run_dir),
            udp_range=agent.udp_range,
            ice_servers=agent.ice_servers,
            mtu=tunnel.mtu,
            addresses=[str(each) for each in tunnel.address],
            trust=agent.trust,
            allow_unsigned=agent.allow_unsigned,
            key=tunnel.keys.get(peer, ""),
            label=agent.data_channel_label,
        )
