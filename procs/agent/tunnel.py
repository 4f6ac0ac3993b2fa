"""A tunnel in one process: one interface, and the sessions of many peers.

transport = TunTransport(tunnel)          # what needs root; prctl.drop_privileges() may follow
core = AgentCore(settings, client, can=transport.caps)
core.on_session = transport.join
transport.start()
transport.join(await core.connect_to("bob"))

The supervised suite does the same in two processes (tun_pump, and a child of webrtc_peer for each session).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import ip_interface
from typing import Protocol

from procs import log
from procs.agent import tun
from procs.agent.caps import Caps
from procs.agent.network import Tunnel
from procs.agent.packets import Network
from procs.agent.switch import Switch
from procs.errors import ConfigError, Refused
from procs.messages import TunnelPeer

PLANES = [2, 1]
LOOK_S = 0.25


class Carrier(Protocol):
    """The part of `session.datagrams` that carries packets."""

    on_packets: Callable[[Sequence[bytes]], object]

    @property
    def plane(self) -> int:
        """Which one."""

    @property
    def mtu(self) -> int:
        """Of a packet that it takes whole now."""

    @property
    def stats(self) -> dict[str, float]:
        """Counters."""

    def send(self, packets: Sequence[bytes]) -> int:
        """How many it took."""


class Session(Protocol):
    """The part of a PeerSession that is needed here."""

    peer: str

    @property
    def datagrams(self) -> Carrier:
        """What carries packets to the peer."""

    @property
    def caps(self) -> Caps:
        """What the peer has said of itself, once it is connected."""

    def is_connected(self) -> bool:
        """Whether it is now."""


class TunTransport:
    """Peers of `allowed` have their prefixes. Where that is empty each peer has the addresses that it claims in its
    signed capabilities, as far as they lie in our own networks and nobody has them yet."""

    def __init__(self, tunnel: Tunnel, mark: str = "planaria cli") -> None:
        self.tunnel, self._learns = tunnel, not tunnel.allowed
        self.device, elsewhere = tun.claim(tunnel, mark)
        for network in elsewhere:
            log.warning("this machine has another route there, which stays", prefix=str(network))
        self._switch = Switch(tunnel)
        self._sessions: dict[str, Session] = {}
        self._learned: set[str] = set()

    @property
    def caps(self) -> Caps:
        """What peers are told of us."""
        return Caps(planes=PLANES, mtu=self.tunnel.mtu, addresses=[str(each) for each in self.tunnel.address])

    def start(self) -> None:
        """Carry packets from now on, in the running event loop."""
        self.device.start(self._from_interface)
        self._loop = asyncio.get_running_loop()
        self._look()

    def join(self, session: Session) -> None:
        """Carry this peer's packets, whatever connections its session has. Raises Refused for one whom nothing is
        allowed."""
        peer = session.peer
        if not self._learns and not self._switch.allowed(peer):
            raise Refused(f"{peer!r} has no addresses in the tunnel; add it to allowed")
        self._sessions[peer] = session
        self._learned.discard(peer)
        session.datagrams.on_packets = lambda packets: self._from_peer(peer, packets)

    def peers(self) -> list[TunnelPeer]:
        """How all are doing."""
        found = []
        for peer, session in self._sessions.items():
            below, allowed = session.datagrams, [str(each) for each in self._switch.allowed(peer)]
            figures = self._switch.traffic[peer].figures() if allowed else {}
            is_up = session.is_connected()
            found.append(TunnelPeer(peer, is_up, below.plane, "", "", below.mtu, allowed, figures, below.stats))
        return found

    def close(self) -> None:
        """Have no interface any more. One that is killed leaves it, for the next one to go on with."""
        self.device.persist(on=False)
        self.device.close()

    def _look(self) -> None:
        """What sessions have become: they fall to another plane, and their peers come back as others."""
        for peer, session in self._sessions.items():
            if self._learns and peer not in self._learned and session.is_connected():
                self._learned.add(peer)
                self._learn(peer, session.caps)
            if self._switch.allowed(peer):
                self._switch.takes(peer, session.datagrams.mtu)
        if self.device.fd >= 0:
            self._loop.call_later(LOOK_S, self._look)

    def _learn(self, peer: str, caps: Caps) -> None:
        try:
            networks = claimed(self.tunnel, caps)
            self._switch.allow(peer, networks)
        except ConfigError as error:
            log.warning("a peer's addresses are refused", peer=peer, why=str(error))
        else:
            log.info("a peer of the tunnel", peer=peer, addresses=", ".join(map(str, networks)))

    def _from_interface(self, packets: list[bytes]) -> None:
        sorted_, answers = self._switch.sort(packets)
        for peer, its in sorted_.items():
            session = self._sessions.get(peer)
            self._switch.sent(peer, its, session.datagrams.send(its) if session else 0)
        if answers:
            self.device.write(answers)

    def _from_peer(self, peer: str, packets: Sequence[bytes]) -> None:
        if self._switch.allowed(peer) and self.device.fd >= 0:
            self.device.write(self._switch.admit(peer, packets))


def claimed(tunnel: Tunnel, caps: Caps) -> list[Network]:
    """What is behind a peer by its own word: its addresses in our networks; of one who says nothing, all of those.
    Raises ConfigError when there are none."""
    own = [address.network for address in tunnel.address]
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
