"""The process: one interface, one UDP port, one socket of the bus, and what was decided between them.

Packets for a peer whose fast lane is up leave by the port, from here. Those of others go over the bus to who has the
session, whose own datagrams (ICE, DTLS) come and go by the port, too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any, NoReturn

import msgspec
import uvloop
import zmq
import zmq.asyncio

from procs import bus, line, log
from procs.agent.conduit import packets_of
from procs.agent.forwarder import Forwarder, least_of
from procs.agent.lane.lanes import Lanes
from procs.agent.network import Tunnel
from procs.agent.switch import Switch
from procs.errors import Refused
from procs.messages.tunnel import (
    Depart,
    LaneKeys,
    Listening,
    Packets,
    PeerAway,
    PeerUp,
    PumpUp,
    Reached,
    decode_to_pump,
)
from procs.messages.warden import TunnelState
from procs.tun_pump import ends
from procs.tun_pump.interface import Alive, Claimed
from procs.tun_pump.rows import Rows
from procs.tun_pump.ways import Ways

TELL_S = 1.0
LOOK_S = 0.1
GREET_S = 0.005
WAIT_S = 0.1  # with packets, which the kernel keeps, for sessions to come back that could carry them


def serve(tunnel: Tunnel, claimed: Claimed | None, alive: Alive) -> None:
    """Be the pump, for ever."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Pump(tunnel, claimed, alive).run() if claimed else _idle(alive))


async def _idle(alive: Alive) -> NoReturn:
    """There is no tunnel."""
    warden = bus.connector(zmq.asyncio.Context.instance(), zmq.PUSH, alive.run_dir, bus.WARDEN_HEARTBEAT)
    log.info("idle: not configured")
    alive.serving()
    while True:
        alive.beat()
        bus.send_one(warden, TunnelState(os.getpid(), ""))
        await asyncio.sleep(TELL_S)


class Pump:
    """All of it, in one event loop."""

    def __init__(self, tunnel: Tunnel, claimed: Claimed, alive: Alive) -> None:
        self._tunnel, self._alive = tunnel, alive
        self._device, self._port, self._bus = claimed
        self._port.shun(socket.if_nametoindex(self._device.name))
        self._addresses = [str(address) for address in tunnel.address]
        self._switch = Switch(tunnel)
        self._ends = ends.Ends(tunnel.allowed, time.monotonic())
        self._lanes = Lanes(self._port, most=tunnel.mtu, least=least_of(tunnel))
        self._forwarder = Forwarder(self._device, self._switch, self._lanes, self._to_session)
        self._lanes.on_nonce = lambda peer, _: self._tell(peer)
        self._ways = Ways(self._port, [*tunnel.allowed], self._say)
        self._rows = Rows(self._ends, self._switch, self._lanes)
        self._strangers = self._spoofed = 0

    async def run(self) -> None:
        """Until something breaks, which is raised."""
        self._line = line.Line(self._bus, self._heard)
        context = zmq.asyncio.Context.instance()
        self._warden = bus.connector(context, zmq.PUSH, self._alive.run_dir, bus.WARDEN_HEARTBEAT)
        self._port.start()
        self._device.offload(on=False)
        greeting = asyncio.ensure_future(self._greet())
        await asyncio.wait([greeting, self._line.broken], timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        self._forwarder.start()
        told = {"addresses": ",".join(self._addresses), "port": self._port.number}
        log.info("the tunnel is there", interface=self._device.name, **told)
        self._alive.serving()
        doing: list[asyncio.Future[Any]] = [asyncio.ensure_future(each) for each in (self._tick(), self._look())]
        doing += [self._line.broken, self._port.broken, *([self._device.broken] if self._device.broken else [])]
        done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
        greeting.cancel()
        for task in done:
            task.result()

    # Packets

    def _to_session(self, peer: str, packets: list[bytes]) -> int:
        """How many of them went, where the lane is not up."""
        if not self._ends.is_there(peer, time.monotonic()):
            return 0
        conduit, before = self._ends[peer].conduit, self._ends[peer].conduit.dropped
        for message, body in conduit.batches(packets):
            if not self._say(peer, message, body):
                conduit.lost(len(packets_of(body)))
        return len(packets) - (conduit.dropped - before)

    def _from_session(self, peer: str, end: ends.End, packets: list[bytes]) -> None:
        self._forwarder.from_session(peer, packets)
        if end.conduit.is_news_due():
            self._say(peer, end.conduit.news())

    # The sessions

    def _say(self, peer: str, message: msgspec.Struct, body: bytes = b"") -> bool:
        return self._line.say(message, body, to=peer)

    def _heard(self, peer: str, data: bytes, body: bytes) -> None:
        try:
            message = decode_to_pump(data)
            if peer not in self._tunnel.allowed:
                self._strangers += 1
            elif getattr(message, "peer", peer) != peer:
                raise Refused(f"{peer!r} speaks for another")
            elif isinstance(message, PeerUp | Packets):
                self._of_packets(peer, message, body)
            elif isinstance(message, PeerAway):
                self._away(peer, message)
            elif isinstance(message, LaneKeys):
                self._lanes.keys(message)
            elif isinstance(message, Listening):
                self._listening(peer, message)
            elif isinstance(message, Depart):
                self._ways.depart(peer, message, body)
            elif isinstance(message, Reached):
                self._ways.reached(peer, message)
        except Refused as reason:
            log.warning("malformed bus message", reason=str(reason))

    def _of_packets(self, peer: str, message: PeerUp | Packets, body: bytes) -> None:
        end = self._ends.heard(peer, message.at, message.seen, time.monotonic())
        if isinstance(message, PeerUp):
            self._is_up(end, message)
        else:
            self._from_session(peer, end, packets_of(body))

    def _listening(self, peer: str, message: Listening) -> None:
        if self._ends.listens(peer, message.pid, time.monotonic()):
            self._tell(peer)
        self._ways.listening(peer, message)

    def _away(self, peer: str, message: PeerAway) -> None:
        if self._ends[peer].up:
            log.info("a peer's session is gone", peer=peer, why=message.why)
        self._ends.away(peer, message.why, time.monotonic())
        self._stands_on(peer, message.key)

    def _stands_on(self, peer: str, key: str) -> None:
        """What was agreed with the owner of another key is void."""
        end = self._ends[peer]
        if end.key not in ("", key):
            log.info("a peer's fast lane is closed: its key is another, or none", peer=peer)
            self._lanes.drop(peer)
            self._tell(peer)
        end.key = key

    def _is_up(self, end: ends.End, message: PeerUp) -> None:
        before, end.up, end.most = end.up, message, message.most
        self._stands_on(message.peer, message.key)
        traffic = self._switch.traffic[message.peer]
        traffic.unreadable += end.more("unreadable", message)
        traffic.lost += end.more("dropped", message) + end.more("refused", message)
        self._takes(message.peer)
        if ends.has_changed(before, message):
            told = {"peer": message.peer, "plane": message.plane, "path": message.path, "mtu": message.mtu}
            log.info("a peer's session", **told, remote=message.remote)

    def _tell(self, peer: str) -> bool:
        """Say what there is for its session."""
        news, nonce = self._ends[peer].conduit.news(), self._lanes.nonce(peer)
        port, pid = self._port.number, os.getpid()
        return self._say(peer, PumpUp(self._tunnel.mtu, self._addresses, news.at, news.seen, port, nonce, pid))

    # By the clock

    async def _greet(self) -> None:
        """Whoever had a session while we were away has keys of one who died: it is to know as soon as it can."""
        until, waiting = time.monotonic() + ends.SILENT_S, [*self._tunnel.allowed]
        while waiting and time.monotonic() < until:
            waiting = [peer for peer in waiting if not self._tell(peer)]
            await asyncio.sleep(GREET_S)

    async def _look(self) -> NoReturn:
        while True:
            now = time.monotonic()
            self._forwarder.tick(now)
            for peer in self._tunnel.allowed:
                self._takes(peer)
            for peer in self._ends.gone(now):
                log.info("a peer's session is gone", peer=peer)
                self._ways.gone(peer)
            await asyncio.sleep(LOOK_S)

    def _takes(self, peer: str) -> None:
        """The largest packet that goes to it whole."""
        if self._lanes.is_up(peer):
            self._switch.takes(peer, min(self._lanes.mtu(peer), self._ends[peer].most))
        elif up := self._ends[peer].up:
            self._switch.takes(peer, up.mtu)

    async def _tick(self) -> NoReturn:
        while True:
            self._alive.beat()
            for peer in self._ends.there(time.monotonic()):
                self._tell(peer)
            self._warn()  # first: who reads of it in status finds it in the log
            bus.send_one(self._warden, self._told())
            await asyncio.sleep(TELL_S)

    def _warn(self) -> None:
        spoofed = sum(each.spoofed for each in self._switch.traffic.values())
        if spoofed > self._spoofed:
            log.warning("packets were dropped whose source is not in their peer's prefixes", packets=spoofed)
            self._spoofed = spoofed

    def _told(self) -> TunnelState:
        """For the warden."""
        return TunnelState(
            os.getpid(),
            self._device.name,
            self._addresses,
            self._tunnel.mtu,
            [self._rows.of(peer, time.monotonic()) for peer in self._tunnel.allowed],
            {
                "homeless": self._switch.homeless,
                "strangers": self._strangers,
                "not_taken_by_kernel": self._device.dropped,
                "strangers_at_port": self._port.strangers + self._lanes.strangers,
                "malformed_at_port": self._port.malformed,
                "not_taken_by_port": self._port.dropped + self._lanes.refused + self._ways.dropped,
            },
            self._port.number,
            has_rules=bool(self._tunnel.reach or self._tunnel.subnets),
        )
