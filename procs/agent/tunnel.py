"""A tunnel in one process: one interface, and the sessions of many peers.

transport = PeerTunnel(tunnel)          # what needs root; prctl.drop_privileges() may follow
core = AgentCore(settings, client, can=transport.caps, way=transport.port)
core.on_session = transport.join
transport.start()
transport.join(await core.connect_to("bob"))
await transport.wait()

The supervised suite does the same in two processes (tun_pump, and a child of webrtc_peer for each session).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_interface

from procs import log
from procs.agent import netlink, tun
from procs.agent.caps import Caps
from procs.agent.forwarder import Forwarder, least_of
from procs.agent.lane.keying import Keys
from procs.agent.lane.lanes import Lanes
from procs.agent.lane.port import Port
from procs.agent.lane.way import Address
from procs.agent.network import Tunnel
from procs.agent.packets import Network
from procs.agent.planes import LANE, PACKED, RECORDS
from procs.agent.session import PeerSession
from procs.agent.settings import AgentSettings
from procs.agent.switch import Switch
from procs.errors import ConfigError, Refused
from procs.messages.tunnel import LaneKeys
from procs.messages.warden import TunnelPeer

LOOK_S = 0.25
TICK_S = 0.1
LEASE_S = 300.0  # of the addresses that a peer has claimed, once it has left


class PeerTunnel:
    """Peers of `allowed` have their prefixes. Where that is empty each peer has the addresses that it claims in its
    signed capabilities, as far as they lie in our own networks and nobody has them yet; they are its own while it is
    there, and for a while after that. `port` is the UDP port of all their sessions and of plane 3; any that is free, if
    it is left out."""

    def __init__(self, tunnel: Tunnel, mark: str = f"{netlink.OURS} cli", port: Port | None = None) -> None:
        self.tunnel, self._learns = tunnel, not tunnel.allowed
        self.device, elsewhere = tun.claim(tunnel, mark)
        for network in elsewhere:
            log.warning("this machine has another route there, which stays", prefix=str(network))
        self.port = port or Port(0, AgentSettings().udp_range)
        self.port.shun(socket.if_nametoindex(self.device.name))
        self._switch = Switch(tunnel)
        self._lanes = Lanes(self.port, most=tunnel.mtu, least=least_of(tunnel))
        self._lanes.on_nonce = self._renewed
        self._forwarder = Forwarder(self.device, self._switch, self._lanes, self._elsewhere)
        self._sessions: dict[str, PeerSession] = {}
        self._learned: dict[str, int] = {}  # of which of its connections
        self._left_at: dict[str, float] = {}
        self._keyed: dict[str, str] = {}  # by which key of its own each peer was known as its lane was agreed
        self._doing: list[asyncio.Future[None]] = []

    @property
    def caps(self) -> Caps:
        """What peers are told of us."""
        return Caps(
            planes=[LANE, RECORDS, PACKED],
            mtu=self.tunnel.mtu,
            addresses=[str(each) for each in self.tunnel.address],
        )

    def start(self) -> None:
        """Carry packets from now on, in the running event loop."""
        self.port.start()
        self._forwarder.start()
        doing = (self._every(LOOK_S, self._look), self._every(TICK_S, self._tick))
        self._doing = [self.port.broken, *map(asyncio.ensure_future, doing)]
        self._doing += [self.device.broken] if self.device.broken else []

    async def wait(self) -> None:
        """Until it is closed. Raises whatever ends it before: NotHere where somebody has removed the interface, after
        which nothing is carried any more. Any number may wait, once it has started."""
        done, _ = await asyncio.wait(self._doing, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()

    def join(self, session: PeerSession) -> None:
        """Carry this peer's packets, whatever connections its session has. Raises Refused for one whom nothing is
        allowed."""
        peer = session.peer
        if not self._learns and not self._switch.allowed(peer):
            raise Refused(f"{peer!r} has no addresses in the tunnel; add it to allowed")
        self._sessions[peer] = session
        self._learned.pop(peer, None)
        session.datagrams.on_packets = lambda packets: self._forwarder.from_session(peer, packets)
        session.datagrams.on_keys = lambda keys, remote: self._keys(peer, keys, remote)
        session.datagrams.lane(self._lanes.nonce(peer))

    def peers(self) -> list[TunnelPeer]:
        """How all are doing."""
        return [self._peer(peer, session) for peer, session in self._sessions.items()]

    def allowed(self, peer: str) -> Sequence[Network]:
        """The addresses of a peer."""
        return self._switch.allowed(peer)

    def close(self) -> None:
        """Have no interface any more. One that is killed leaves it, for the next one to go on with."""
        with contextlib.suppress(OSError):  # somebody has removed it
            self.device.persist(on=False)
        self.device.close()
        self.port.close()

    async def _every(self, pause_s: float, do: Callable[[], None]) -> None:
        """Until the interface is closed."""
        while self.device.fd >= 0:
            do()
            await asyncio.sleep(pause_s)

    def _look(self) -> None:
        """What sessions have become: they fall to another plane, and their peers come back as others, or never."""
        if self._learns:
            self._give_back(time.monotonic())
        for peer, session in self._sessions.items():
            if self._learns and session.is_connected() and self._learned.get(peer) != session.connections:
                self._learned[peer] = session.connections
                self._learn(peer, session)
            if session.state == "closed":
                self._lanes.drop(peer)
            elif session.trusted != self._keyed.get(peer, session.trusted):
                del self._keyed[peer]  # what was agreed with the owner of another key is void
                self._lanes.drop(peer)
                session.datagrams.lane(self._lanes.nonce(peer))

    def _give_back(self, now: float) -> None:
        """The addresses of those who have left, for whoever wants them."""
        for peer, session in self._sessions.items():
            if session.is_connected():
                self._left_at.pop(peer, None)
            else:
                self._left_at.setdefault(peer, now)
        late = [peer for peer, left_at in self._left_at.items() if now - left_at > LEASE_S]
        for peer in late:
            if self._switch.allowed(peer):
                log.info("a peer has left, and its addresses are free", peer=peer)
            self._switch.forget(peer)
            if self._sessions[peer].state == "closed":
                del self._sessions[peer], self._left_at[peer]
        if late:  # who was refused may ask again
            self._learned = {peer: count for peer, count in self._learned.items() if self._switch.allowed(peer)}

    def _learn(self, peer: str, session: PeerSession) -> None:
        try:
            networks = claimed(self.tunnel, session.caps, is_signed=session.signed)
            self._switch.allow(peer, networks)
        except ConfigError as error:
            log.warning("a peer's addresses are refused", peer=peer, why=str(error))
        else:
            log.info("a peer of the tunnel", peer=peer, addresses=", ".join(map(str, networks)))

    def _tick(self) -> None:
        self._forwarder.tick(time.monotonic())
        for peer, session in self._sessions.items():
            if self._switch.allowed(peer):
                self._switch.takes(peer, self._mtu(peer, session))

    def _mtu(self, peer: str, session: PeerSession) -> int:
        return min(self._lanes.mtu(peer), session.caps.mtu) if self._lanes.is_up(peer) else session.datagrams.mtu

    def _elsewhere(self, peer: str, packets: list[bytes]) -> int:
        session = self._sessions.get(peer)
        return session.datagrams.send(packets) if session else 0

    def _keys(self, peer: str, keys: Keys, remote: Address | None) -> None:
        host, port = remote or ("", 0)
        self._keyed[peer] = self._sessions[peer].key
        self._lanes.keys(LaneKeys(peer, os.getpid(), *keys, host=host, port=port))

    def _renewed(self, peer: str, nonce: bytes) -> None:
        if session := self._sessions.get(peer):
            session.datagrams.lane(nonce)

    def _peer(self, peer: str, session: PeerSession) -> TunnelPeer:
        below, path, traffic = session.datagrams, session.path, self._switch.traffic.get(peer)
        if traffic:
            traffic.unreadable = below.unreadable
        is_fast = self._lanes.is_up(peer)
        return TunnelPeer(
            peer,
            is_up=is_fast or (below.is_up and not session.peer_away),
            plane=LANE if is_fast else below.plane,
            path="direct" if is_fast else "" if not path else "relayed" if path.kind == "relayed" else "direct",
            remote=self._lanes.remote(peer) if is_fast else path.remote if path else "",
            mtu=self._mtu(peer, session),
            round_trip_ms=self._lanes.round_trip_ms(peer) if is_fast else session.stats.get("round_trip_ms"),
            **(traffic.passed() if traffic else {}),
            dropped=traffic.dropped() if traffic else {},
            lane=self._lanes.stats(peer),
            why=session.why[:500] or session.peer_away * (not is_fast),
            slow=self._lanes.unused(peer) if below.is_up else "",
        )


def claimed(tunnel: Tunnel, caps: Caps, *, is_signed: bool) -> list[Network]:
    """What is behind a peer by its own word: its addresses in our networks; all of those, of a published agent, which
    can't say. Raises ConfigError when there are none."""
    own = [address.network for address in tunnel.address]
    if is_signed and not caps.addresses:  # it calls for something else, such as a ping
        raise ConfigError("it names none")
    if not caps.addresses:
        return list(own)
    ours = {address.ip for address in tunnel.address}
    found: list[Network] = []
    for text in caps.addresses:
        try:
            address = ip_interface(text).ip
        except ValueError:
            raise ConfigError(f"{text!r}: is no address") from None
        if address in ours:
            raise ConfigError(f"{address}: is this machine's own")
        if any(address in network for network in own):
            found.append(ip_interface(address).network)
    if not found:
        raise ConfigError(f"{', '.join(caps.addresses)}: not in this machine's networks; set allowed")
    return found
