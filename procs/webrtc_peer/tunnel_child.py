"""The process of one peer of the tunnel: a session with it on one side, tun_pump on the other. It lives for as long as
its leader wants the peer; the session is called again whenever it is lost.

The session goes by the UDP port of tun_pump, where that leads to the peer, and gives tun_pump the keys of the fast
lane, so that packets pass without us. Those of other planes come and go over the bus.

Forked from the zygote (procs/brood.py), which has imported this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import uvloop

from procs import bus, line, log
from procs.agent.caps import Caps
from procs.agent.conduit import Conduit, packets_of
from procs.agent.identity import Identity, Trust
from procs.agent.keyring import folder_in
from procs.agent.lane.keying import Keys
from procs.agent.lane.way import Address
from procs.agent.planes import LANE, PACKED, RECORDS
from procs.agent.session import NO_SERVER, SERVER_LOST, PeerSession
from procs.agent.settings import AgentSettings
from procs.errors import PlanariaError, Refused
from procs.messages.tunnel import (
    NO_SERVER_YET,
    NO_SESSION_YET,
    OF_SERVER,
    AgentFrame,
    Arrive,
    LaneKeys,
    PeerAway,
    PeerUp,
    PumpUp,
    Reached,
    Signalling,
    TunnelBeat,
    TunnelSpec,
    decode_from_pump,
    decode_to_tunnel,
)
from procs.webrtc_peer.bus_port import BusPort
from procs.webrtc_peer.pump_lives import PumpLives
from procs.wire import signal
from procs.wire.signal import Error, Frame, Routed

BEAT_S = 1.0
LEADER_S = 20.0  # to be there
PORT_S = 2.0  # for tun_pump to say its port; without it packets go over the bus, by sockets of our own


def live(spec: TunnelSpec) -> NoReturn:
    """Be the session with this peer, until killed."""
    code = 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(TunnelSession(spec).run())
    except PlanariaError as error:
        log.error(str(error), peer=spec.peer)
        code = error.exit_code
    except Exception as error:  # a crash is an exit, and the leader has another born
        log.error(f"unforeseen {type(error).__name__}: {error}", trace=True, peer=spec.peer)
    os._exit(code)


class TunnelSession:
    """What one child does. Raises ConfigError for a key or a memory of keys that can't be used."""

    def __init__(self, spec: TunnelSpec) -> None:
        self._spec, self._run_dir = spec, Path(spec.run_dir)
        known = {spec.peer: spec.key} if spec.key else {}
        self._identity = Identity(spec.me, folder_in(self._run_dir), Trust(spec.trust, spec.allow_unsigned, known))
        self._conduit, self._lives = Conduit(), PumpLives(time.monotonic())
        self._signalling = Signalling(is_up=False)
        self._port = BusPort(spec.peer, lambda message, body: self._pump.say(message, body))
        self._nonce, self._has_port, self._has_begun = b"", asyncio.Event(), False
        self._why = NO_SERVER_YET  # there has been no session so far

    async def run(self) -> None:
        """Until something breaks, which is raised."""
        spec = self._spec
        settings = AgentSettings(
            agent_id=spec.me,
            udp_range=spec.udp_range,
            listed_servers=tuple(spec.ice_servers),
            data_channel_label=spec.label,
        )
        can = Caps(planes=[LANE, RECORDS, PACKED], mtu=spec.mtu, addresses=spec.addresses)
        self._session = PeerSession(
            spec.me,
            spec.peer,
            settings,
            self._identity,
            self._signal,
            can=can,
            can_send=lambda: self._signalling.is_up,
            keep=True,
            way=self._port,
        )
        self._session.datagrams.on_keys = self._have_keys
        self._session.datagrams.on_packets = self._to_pump
        self._session.on_state = lambda _: self._tell()
        self._pump = line.connector(self._run_dir, bus.TUN_PUMP_PACKETS, spec.peer, self._from_pump)
        await self._port_is_there()
        self._leader = line.connector(self._run_dir, bus.WEBRTC_PEER_TUNNELS, spec.peer, self._told)
        await self._leader.connected(LEADER_S)
        beat: asyncio.Future[None] = asyncio.ensure_future(self._beat())
        doing = [self._leader.broken, self._pump.broken, beat]
        done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()

    # The leader

    def _told(self, _: str, data: bytes, body: bytes) -> None:
        try:
            message = decode_to_tunnel(data)
            if isinstance(message, Signalling):
                self._signalling_is(message)
            elif isinstance(frame := signal.decode(body), Routed | Error):
                if self._why == NO_SERVER_YET or self._why.startswith(OF_SERVER):  # it has taken us by now
                    self._why = NO_SESSION_YET
                self._session.take(frame)
        except Refused as reason:
            log.warning("malformed bus message", reason=str(reason))

    def _signalling_is(self, now: Signalling) -> None:
        self._signalling = now
        if now.is_up:
            self._session.offer()
            self._session.signalling_is_back()

    def _signal(self, frame: Frame) -> bool:
        return self._signalling.is_up and self._leader.say(AgentFrame(self._spec.peer), signal.encode(frame).encode())

    async def _beat(self) -> NoReturn:
        while True:
            self._port.tell()
            self._tell()
            await asyncio.sleep(BEAT_S)

    def _tell(self) -> None:
        """Say how it goes: to the leader, and while packets go through to tun_pump."""
        session, spec = self._session, self._spec
        if session.why not in ("", NO_SERVER, SERVER_LOST):  # the server's own words say more, until it takes ours
            self._why = session.why
        if self._signalling.why and not self._signalling.is_up:  # without a server there is no session but the old one
            self._why = f"{OF_SERVER}{self._signalling.why}"
        self._leader.say(TunnelBeat(spec.peer, os.getpid(), session.state, session.why[:500]))
        if (why := self._why_away()) or not session.path:
            trusted = self._identity.trusted(spec.peer)
            self._pump.say(PeerAway(spec.peer, os.getpid(), why[:500], trusted))
            return
        seen = self._conduit.news().seen
        up = PeerUp(
            peer=spec.peer,
            pid=os.getpid(),
            mtu=session.datagrams.mtu,
            plane=session.datagrams.plane,
            path="relayed" if session.path.kind == "relayed" else "direct",
            remote=session.path.remote,
            stats=session.stats,
            key=session.key,
            at=self._conduit.at,
            seen=seen,
            most=max(576, session.caps.mtu),
        )
        self._pump.say(up)

    def _why_away(self) -> str:
        """Why packets do not pass; "" where they do."""
        session, here = self._session, self._lives.why_not(time.monotonic())
        session.say_away(here)
        if not session.datagrams.is_up or not session.path:
            return self._why
        return f"here: {here}" if here else f"at the peer: {session.peer_away}" if session.peer_away else ""

    # tun_pump

    async def _port_is_there(self) -> None:
        """Wait for it, and not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PORT_S):
                await self._pump.connected(PORT_S)
                self._port.tell()
                await self._has_port.wait()
        self._has_begun = True

    def _from_pump(self, _: str, data: bytes, body: bytes) -> None:
        try:
            message = decode_from_pump(data)
            if isinstance(message, Arrive | Reached):
                self._port.heard(message, body)
                return
            self._conduit.heard(message.at, message.seen)
            if isinstance(message, PumpUp):
                self._pump_is_up(message)
            else:
                self._session.datagrams.send(packets_of(body))
                if self._conduit.is_news_due():
                    self._pump.say(self._conduit.news())
        except Refused as reason:
            log.warning("malformed bus message", reason=str(reason))

    def _pump_is_up(self, up: PumpUp) -> None:
        if self._has_begun and up.port not in (0, self._port.number):
            raise PlanariaError("the tunnel's UDP port is another one now: the session begins anew")
        self._lives.heard(up.pid, time.monotonic())
        self._port.is_up(up)
        self._has_port.set()
        if up.nonce != self._nonce:  # it is new, or has lived anew: it knows of no connection of ours
            self._nonce = up.nonce
            self._port.tell()
            self._session.datagrams.lane(up.nonce)
            if self._has_begun:
                self._tell()

    def _have_keys(self, keys: Keys, remote: Address | None) -> None:
        host, port = remote or ("", 0)
        self._pump.say(LaneKeys(self._spec.peer, os.getpid(), *keys, host, port))

    def _to_pump(self, packets: Sequence[bytes]) -> None:
        for message, body in self._conduit.batches(packets):
            if not self._pump.say(message, body):
                self._conduit.lost(len(packets_of(body)))
