"""What aioice lacks: candidates told as they are found, sockets in a range of ports, or one port for all sessions.

aioice gathers everything before it lets anybody answer, and a silent server costs 5 s of that. Here the sockets are
bound first, which takes no time, and what STUN and TURN add (ice_servers.py) goes into the same `Connection` while it
already checks. The other side's end of candidates is never told to aioice: it would give up while our relay is still
to come; the lease of the session (child.py) says when to give up. Private names of aioice 0.13 are used here, in
ice_servers.py, relay.py and nomination.py, and nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import ifaddr
from aioice import Candidate, Connection, candidate, ice, stun
from aioice.ice import CandidatePair
from aioice.utils import random_string

from procs import log
from procs.agent import netlink
from procs.agent.lane.transport import Riding, WayTransport
from procs.agent.lane.way import Address, Way
from procs.agent.udp import UdpTransport

MAX_SOCKETS = 16
MAX_QUEUED = 2048  # datagrams
BIND_TRIES = 50
BUFFER_BYTES = 4 << 20  # a keyframe goes out in one go
# A candidate's local preference (RFC 8445, 5.1.2), which its priority tells the other side: at a port that all sessions
# share, at a socket of the session's own beside that, and where there is no such port, as aioice has it.
AT_PORT, APART, ALONE = 65534, 32767, 65535
UFRAG_CHARS = 16  # it says whose a check is, at a port where there are many
WAYS_S, MOST_WAYS = 1.0, 256  # for how long it is known who is behind a tunnel of ours, and of how many hosts
OUR_TUNNELS = ("tun", "mvp-tun")  # whoever has made them


def prepare(connection: Connection, udp_range: tuple[int, int], way: Way | None = None) -> None:
    """Have this connection gather host candidates only, at once, on the way to a port for all sessions and, as a second
    choice, on ports of the range; and keep little of what anybody sends to them: nobody takes it before there is a
    path."""
    connection.gather_candidates = functools.partial(_bind, connection, udp_range, way)  # type: ignore[method-assign]
    if way:
        connection._local_username = random_string(UFRAG_CHARS)
        _tellpreference(connection)
    received = connection.data_received

    def bounded(data: bytes, component: int) -> None:
        if connection._queue.qsize() < MAX_QUEUED:
            received(data, component)

    connection.data_received = bounded  # type: ignore[method-assign]


def add_remote(connection: Connection, text: str) -> Awaitable[None]:
    """Take a candidate of the other side, as its SDP has it. Raises ValueError for one that is none, or that we would
    reach through a tunnel of ours."""
    parsed = Candidate.from_sdp(text.removeprefix("a=").removeprefix("candidate:"))
    if parsed.transport.lower() != "udp":
        raise ValueError(f"no {parsed.transport} candidates")
    if _is_through_tunnel(parsed.host):
        raise ValueError(f"{parsed.host}: is behind our own tunnel")
    return connection.add_remote_candidate(parsed)


def path_of(connection: Connection) -> str:
    """direct, relayed, or "" while there is none."""
    for pair in connection._nominated.values():
        relayed = "relay" in (pair.local_candidate.type, pair.remote_candidate.type)
        return "relayed" if relayed else "direct"
    return ""


def remote_of(connection: Connection) -> Address | None:
    """Where we send to, while there is a path."""
    for pair in connection._nominated.values():
        return pair.remote_addr
    return None


def is_by_way(connection: Connection) -> bool:
    """Whether the path leads from the port that all our sessions share to that of the other side."""
    return any(map(joins_ports, connection._nominated.values()))


def joins_ports(pair: CandidatePair) -> bool:
    """Whether it is such a path, or may become one."""
    return isinstance(pair.protocol.transport, WayTransport) and preference(pair.remote_candidate) == AT_PORT


def on_sign(connection: Connection, heard: Callable[[], None]) -> None:
    """Call this whenever something comes from the other side: consent checks, media feedback, anything."""
    request_received, data_received = connection.request_received, connection.data_received

    def request(*args: Any) -> None:
        heard()
        request_received(*args)

    def data(*args: Any) -> None:
        heard()
        data_received(*args)

    connection.request_received = request  # type: ignore[method-assign, assignment]
    connection.data_received = data  # type: ignore[method-assign, assignment]


def host_addresses() -> list[str]:
    """This machine's addresses that another can reach it at, but for those of our own tunnels."""
    found = []
    tunnels = {each.name for each in _tunnels()}
    for adapter in ifaddr.get_adapters():
        if str(adapter.name) in tunnels:
            continue
        for ip in adapter.ips:
            if isinstance(ip.ip, str):
                found += [ip.ip] if not ip.ip.startswith("127.") else []
            elif ip.ip[0] != "::1" and ip.ip[2] == 0:  # with a scope it is for one link only
                found.append(ip.ip[0])
    return found[:MAX_SOCKETS]


def _tunnels() -> list[netlink.Link]:
    """A session that ran through one of these would carry itself."""
    with contextlib.suppress(OSError):
        return [each for each in netlink.links() if each.alias.startswith(netlink.OURS) or _is_by_name(each)]
    return []


def _is_by_name(link: netlink.Link) -> bool:
    return link.kind == "tun" and link.name.startswith(OUR_TUNNELS)


def _is_through_tunnel(host: str) -> bool:
    """Networks that are behind a peer are routed there, and the peer's own address may be in one."""
    tunnels = {each.number for each in _tunnels()}
    try:
        return bool(tunnels) and netlink.way_to(ip_address(host)) in tunnels
    except ValueError:  # a name, which is looked up later
        return False


class _Protocol(ice.StunProtocol):
    """Asks and answers nobody whom our own tunnel leads to. Who is behind it may ask us by another way (a peer that is
    a router, under its address at home), and the tunnel may be younger than the session."""

    def __init__(self, receiver: Connection) -> None:
        super().__init__(receiver)
        self._ways: dict[str, tuple[bool, float]] = {}  # and until when that is known

    def send_stun(self, message: stun.Message, addr: Address) -> None:
        """As aioice has it."""
        if not self._is_inside(addr[0]):
            super().send_stun(message, addr)

    def _is_inside(self, host: str) -> bool:
        now = time.monotonic()
        is_inside, until = self._ways.get(host, (False, 0.0))
        if now >= until:
            is_inside = _is_through_tunnel(host)
            if len(self._ways) >= MOST_WAYS:
                self._ways.clear()
            self._ways[host] = is_inside, now + WAYS_S
        return is_inside


async def _bind(connection: Connection, udp_range: tuple[int, int], way: Way | None) -> None:
    """In the place of Connection.gather_candidates."""
    if connection._local_candidates_start:
        return
    connection._local_candidates_start = True
    addresses = host_addresses()
    if way and way.number and addresses:
        riding = Riding(way, connection.local_username)
        for address in addresses:
            protocol = _Protocol(connection)
            riding.add(address, protocol)
            _add_host(connection, protocol, (address, way.number), AT_PORT)
    for address in addresses:
        if sock := _socket(address, udp_range):
            protocol = _Protocol(connection)
            UdpTransport(sock, protocol)
            _add_host(connection, protocol, (address, sock.getsockname()[1]), APART if way else ALONE)
    connection._local_candidates_end = True


def _add_host(connection: Connection, protocol: ice.StunProtocol, at: Address, preference: int) -> None:
    protocol.local_candidate = Candidate(
        foundation=candidate.candidate_foundation("host", "udp", at[0]),
        component=1,
        transport="udp",
        priority=candidate.candidate_priority(1, "host", preference),
        host=at[0],
        port=at[1],
        type="host",
    )
    connection._protocols.append(protocol)
    connection._local_candidates.append(protocol.local_candidate)


def preference(of: Candidate) -> int:
    """The local one: AT_PORT, or another."""
    return of.priority >> 8 & 0xFFFF


def _tellpreference(connection: Connection) -> None:
    """Have checks say how we like the candidate that they come from, also where a NAT has made another of it."""
    build_request = connection.build_request

    def build(pair: CandidatePair, nominate: bool) -> Any:
        request = build_request(pair, nominate)
        ours = preference(pair.local_candidate)
        request.attributes["PRIORITY"] = candidate.candidate_priority(pair.component, "prflx", ours)
        return request

    connection.build_request = build  # type: ignore[method-assign]


def _socket(address: str, udp_range: tuple[int, int]) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for kind in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, kind, BUFFER_BYTES)
    for _ in range(BIND_TRIES):
        with contextlib.suppress(OSError):
            sock.bind((address, random.randint(*udp_range)))
            return sock
    sock.close()
    log.warning("no UDP port for WebRTC", address=address, ports="-".join(map(str, udp_range)))
    return None
