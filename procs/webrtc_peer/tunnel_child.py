"""The process of one peer of the tunnel: a session with it on one side, packets of tun_pump on the other. It lives for
as long as its leader wants the peer; the session is called again whenever it is lost.

Forked from the zygote (procs/brood.py), which has imported this module.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import uvloop

from procs import bus, line, log
from procs.agent.caps import Caps
from procs.agent.conduit import Conduit, packets_of
from procs.agent.identity import Identity, Trust, folder_in
from procs.agent.planes import PACKED, RECORDS
from procs.agent.session import PeerSession
from procs.agent.settings import AgentSettings
from procs.errors import PlanariaError, Refused
from procs.messages.tunnel import (
    AgentFrame,
    Packets,
    PeerAway,
    PeerUp,
    Signalling,
    TunnelBeat,
    TunnelSpec,
    decode_from_pump,
    decode_to_tunnel,
)
from procs.wire import signal
from procs.wire.signal import Error, Frame, Routed

BEAT_S = 1.0
LEADER_S = 20.0  # to be there


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
        self._conduit = Conduit()
        self._signalling = Signalling(is_up=False)
        self._why = "no answer from the signalling server yet"  # there has been no session so far

    async def run(self) -> None:
        """Until something breaks, which is raised."""
        spec = self._spec
        self._leader = line.connector(self._run_dir, bus.WEBRTC_PEER_TUNNELS, spec.peer, self._told)
        self._pump = line.connector(self._run_dir, bus.TUN_PUMP_PACKETS, spec.peer, self._from_pump)
        settings = AgentSettings(
            agent_id=spec.me,
            udp_range=spec.udp_range,
            listed_servers=tuple(spec.ice_servers),
            data_channel_label=spec.label,
        )
        can = Caps(planes=[RECORDS, PACKED], mtu=spec.mtu, addresses=spec.addresses)
        self._session = PeerSession(
            spec.me,
            spec.peer,
            settings,
            self._identity,
            self._signal,
            can=can,
            can_send=lambda: self._signalling.is_up,
            keep=True,
        )
        self._session.datagrams.on_packets = self._to_pump
        self._session.on_state = lambda _: self._tell()
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
            self._tell()
            await asyncio.sleep(BEAT_S)

    def _tell(self) -> None:
        """Say how it goes: to the leader, and while packets go through to tun_pump."""
        session, spec = self._session, self._spec
        self._why = session.why or self._why
        if self._signalling.why and not self._signalling.is_up:  # without a server there is no session but the old one
            self._why = f"the signalling server: {self._signalling.why}"
        self._leader.say(TunnelBeat(spec.peer, os.getpid(), session.state, session.why[:500]))
        if not session.datagrams.is_up or not session.path:
            self._pump.say(PeerAway(spec.peer, os.getpid(), self._why[:500]))
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
            at=self._conduit.at,
            seen=seen,
        )
        self._pump.say(up)

    # tun_pump

    def _from_pump(self, _: str, data: bytes, body: bytes) -> None:
        try:
            message = decode_from_pump(data)
            self._conduit.heard(message.at, message.seen)
            if isinstance(message, Packets):
                self._session.datagrams.send(packets_of(body))
                if self._conduit.is_news_due():
                    self._pump.say(self._conduit.news())
        except Refused as reason:
            log.warning("malformed bus message", reason=str(reason))

    def _to_pump(self, packets: Sequence[bytes]) -> None:
        for message, body in self._conduit.batches(packets):
            if not self._pump.say(message, body):
                self._conduit.lost(len(packets_of(body)))
