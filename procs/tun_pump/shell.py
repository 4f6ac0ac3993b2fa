"""The process: one interface, one socket of the bus, and what was decided between them."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, NoReturn

import uvloop
import zmq
import zmq.asyncio

from procs import bus, line, log
from procs.agent import joining
from procs.agent.conduit import packets_of
from procs.agent.device import TunDevice
from procs.agent.lane import vnet
from procs.agent.network import Tunnel
from procs.agent.switch import Switch
from procs.errors import Refused
from procs.messages.tunnel import PeerAway, PeerUp, decode_to_pump
from procs.messages.warden import TunnelPeer, TunnelState
from procs.tun_pump import ends
from procs.tun_pump.interface import Alive
from procs.tun_pump.rates import Rates

TELL_S = 1.0


def serve(tunnel: Tunnel, device: TunDevice | None, alive: Alive) -> None:
    """Be the pump, for ever."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Pump(tunnel, device, alive).run())


class Pump:
    """Without a device it only says that it is idle."""

    def __init__(self, tunnel: Tunnel, device: TunDevice | None, alive: Alive) -> None:
        self._tunnel, self._device, self._alive = tunnel, device, alive
        self._switch = Switch(tunnel)
        self._ends = ends.Ends(tunnel.allowed, time.monotonic())
        self._addresses = [str(address) for address in tunnel.address]
        self._rates = Rates()
        self._strangers = self._spoofed = 0

    async def run(self) -> None:
        """All of it. Raises what ends us."""
        self._line = line.binder(self._alive.run_dir, bus.TUN_PUMP_PACKETS, self._heard)
        context = zmq.asyncio.Context.instance()
        self._warden = bus.connector(context, zmq.PUSH, self._alive.run_dir, bus.WARDEN_HEARTBEAT)
        doing: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._tick())]
        if self._device:
            self._device.start(self._from_interface)
            log.info("the tunnel is there", interface=self._device.name, addresses=",".join(self._addresses))
        else:
            log.info("idle: not configured")
        self._alive.serving()
        doing += [self._line.broken, *([self._device.broken] if self._device and self._device.broken else [])]
        done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def _from_interface(self, frames: list[bytes]) -> None:
        sorted_, answers = self._switch.sort(frames)
        now = time.monotonic()
        for peer, its in sorted_.items():
            packets = vnet.packets(its)
            taken = self._send(peer, packets) if self._ends.is_there(peer, now) else 0
            self._switch.sent_packets(peer, packets, taken)
        if answers and self._device:
            self._device.write(answers)

    def _send(self, peer: str, packets: list[bytes]) -> int:
        """How many of them went."""
        conduit, before = self._ends[peer].conduit, self._ends[peer].conduit.dropped
        for message, body in conduit.batches(packets):
            if not self._line.say(message, body, to=peer):
                conduit.lost(len(packets_of(body)))
        return len(packets) - (conduit.dropped - before)

    def _heard(self, peer: str, data: bytes, body: bytes) -> None:
        """Of the end of a session."""
        try:
            message = decode_to_pump(data)
            if isinstance(message, PeerAway):
                self._away(peer, message.why)
                return
            if isinstance(message, PeerUp) and message.peer != peer:
                raise Refused(f"{peer!r} speaks for {message.peer!r}")
            end = self._ends.heard(peer, message.at, message.seen, time.monotonic())
            if not end:
                self._strangers += 1
            elif isinstance(message, PeerUp):
                self._is_up(end, message)
            else:
                self._from_peer(peer, end, packets_of(body))
        except Refused as reason:
            log.warning("malformed bus message", reason=str(reason))

    def _from_peer(self, peer: str, end: ends.End, packets: list[bytes]) -> None:
        if self._device:
            self._device.write(self._switch.admit(peer, joining.iovs(packets)))
        if end.conduit.is_news_due():
            self._line.say(end.conduit.news(), to=peer)

    def _away(self, peer: str, why: str) -> None:
        if peer in self._tunnel.allowed and self._ends[peer].up:
            log.info("a peer's session is gone", peer=peer, why=why)
        self._ends.away(peer, why, time.monotonic())

    def _is_up(self, end: ends.End, message: PeerUp) -> None:
        before, end.up = end.up, message
        self._switch.traffic[message.peer].unreadable += end.more_unreadable(message)
        self._switch.takes(message.peer, message.mtu)
        if ends.has_changed(before, message):
            told = {"peer": message.peer, "plane": message.plane, "path": message.path, "mtu": message.mtu}
            log.info("a peer's session", **told, remote=message.remote)
        if before is None or before.pid != message.pid:
            self._line.say(ends.pump_up(end, self._tunnel.mtu, self._addresses), to=message.peer)

    async def _tick(self) -> NoReturn:
        while True:
            self._alive.beat()
            now = time.monotonic()
            for peer in self._ends.gone(now):
                log.info("a peer's session is gone", peer=peer)
            for peer in self._ends.there(now) if self._device else []:
                self._line.say(ends.pump_up(self._ends[peer], self._tunnel.mtu, self._addresses), to=peer)
            bus.send_one(self._warden, self._told())
            self._warn()
            await asyncio.sleep(TELL_S)

    def _warn(self) -> None:
        spoofed = sum(each.spoofed for each in self._switch.traffic.values())
        if spoofed > self._spoofed:
            log.warning("packets were dropped whose source is not in their peer's prefixes", packets=spoofed)
            self._spoofed = spoofed

    def _told(self) -> TunnelState:
        """For the warden."""
        if not self._device:
            return TunnelState(os.getpid(), "")
        dropped = {
            "homeless": self._switch.homeless,
            "strangers": self._strangers,
            "not_taken_by_kernel": self._device.dropped,
        }
        peers = [self._peer(peer) for peer in self._tunnel.allowed]
        return TunnelState(os.getpid(), self._device.name, self._addresses, self._tunnel.mtu, peers, dropped)

    def _peer(self, peer: str) -> TunnelPeer:
        up, traffic = self._ends[peer].up, self._switch.traffic[peer]
        return TunnelPeer(
            peer,
            is_up=up is not None,
            plane=up.plane if up else 0,
            path=up.path if up else "",
            remote=up.remote if up else "",
            mtu=up.mtu if up else 0,
            round_trip_ms=up.stats.get("round_trip_ms") if up else None,
            **traffic.passed(),
            dropped=traffic.dropped(),
            lane={},
            why="" if up else self._ends[peer].why,
            **self._rates.of(peer, traffic, time.monotonic())._asdict(),
        )
