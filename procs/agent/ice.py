"""What aioice lacks: candidates told as they are found, sockets in a range of ports, several STUN and TURN servers.

aioice gathers everything before it lets anybody answer, and a silent server costs 5 s of that. Here the sockets are
bound first, which takes no time, and what STUN and TURN add goes into the same `Connection` while it already checks.
The other side's end of candidates is never told to aioice: it would give up while our relay is still to come; the
lease of the session (child.py) says when to give up. Private names of aioice 0.13 are used here and only here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import Any, TypeVar

import ifaddr
from aioice import Candidate, Connection, candidate, ice
from aioice.ice import CandidatePair
from aioice.turn import TurnTransport
from aioice.utils import random_string
from aiortc.rtcicetransport import parse_stun_turn_uri

from procs import log
from procs.agent import netlink
from procs.agent.lane.transport import Riding, WayTransport
from procs.agent.lane.way import Address, Way
from procs.agent.udp import UdpTransport

T = TypeVar("T")
SERVER_S = 5.0  # a server that has not answered by then is not used
CLOSE_S = 2.0  # for it to hear that we are done
MAX_SERVERS = 8  # of one kind, asked beside each other
MAX_SOCKETS = 16
MAX_QUEUED = 2048  # datagrams
BIND_TRIES = 50
BUFFER_BYTES = 4 << 20  # a keyframe goes out in one go
# A candidate's local preference (RFC 8445, 5.1.2), which its priority tells the other side: at a port that all sessions
# share, and at a socket of the session's own where there is such a port.
AT_PORT, APART = 65535, 32767
UFRAG_CHARS = 16  # it says whose a check is, at a port where there are many
OUR_TUNNELS = ("tun", "mvp-tun")  # whoever has made them
Found = Callable[[Candidate], None]
_asking: set[asyncio.Task[None]] = set()  # the event loop itself keeps none of its tasks


def prepare(connection: Connection, udp_range: tuple[int, int], way: Way | None = None) -> None:
    """Have this connection gather host candidates only, at once, on the way to a port for all sessions and, as a second
    choice, on ports of the range; and keep little of what anybody sends to them: nobody takes it before there is a
    path."""
    connection.gather_candidates = functools.partial(_bind, connection, udp_range, way)  # type: ignore[method-assign]
    if way:
        connection._local_username = random_string(UFRAG_CHARS)
        _tell_preference(connection)
    received = connection.data_received

    def bounded(data: bytes, component: int) -> None:
        if connection._queue.qsize() < MAX_QUEUED:
            received(data, component)

    connection.data_received = bounded  # type: ignore[method-assign]


async def gather_more(connection: Connection, servers: Sequence[dict[str, Any]], found: Found) -> None:
    """Ask the STUN and TURN servers, and pair and tell what they give. Returns when all has come or is too late."""
    stuns, turns = _servers(servers)
    protocols = [each for each in connection._protocols if ":" not in each.local_candidate.host]
    async with asyncio.TaskGroup() as group:
        for protocol in protocols if stuns else []:
            group.create_task(_reflexive(protocol, stuns, found))
        if turns:
            group.create_task(_relayed(connection, turns, found))


def add_remote(connection: Connection, text: str) -> Awaitable[None]:
    """Take a candidate of the other side, as its SDP has it. Raises ValueError for one that is none, or that we would
    reach through a tunnel of ours."""
    parsed = Candidate.from_sdp(text.removeprefix("a=").removeprefix("candidate:"))
    if parsed.transport.lower() != "udp":
        raise ValueError(f"no {parsed.transport} candidates")
    if _is_through_tunnel(parsed.host):
        raise ValueError(f"{parsed.host}: is behind our own tunnel")
    return connection.add_remote_candidate(parsed)


def let_go(protocol: ice.StunProtocol) -> None:
    """Of a relay that is being closed, without a word of its TURN server: aioice waits for one for a minute, in which
    it holds a socket, and the rest of the connection is not closed."""
    if isinstance(transport := protocol.transport, TurnTransport):
        sending: set[asyncio.Task[None]] = transport._TurnTransport__send_tasks  # type: ignore[attr-defined]
        leaving: asyncio.Task[None] | None = transport._TurnTransport__close_task  # type: ignore[attr-defined]
        for task in (*sending, *([leaving] if leaving else [])):
            task.cancel()


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
    return isinstance(pair.protocol.transport, WayTransport) and _preference(pair.remote_candidate) == AT_PORT


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


async def _bind(connection: Connection, udp_range: tuple[int, int], way: Way | None) -> None:
    """In the place of Connection.gather_candidates."""
    if connection._local_candidates_start:
        return
    connection._local_candidates_start = True
    addresses = host_addresses()
    if way and way.number and addresses:
        riding = Riding(way, connection.local_username)
        for address in addresses:
            protocol = ice.StunProtocol(connection)
            riding.add(address, protocol)
            _add_host(connection, protocol, (address, way.number), AT_PORT)
    for address in addresses:
        if sock := _socket(address, udp_range):
            protocol = ice.StunProtocol(connection)
            UdpTransport(sock, protocol)
            _add_host(connection, protocol, (address, sock.getsockname()[1]), APART if way else AT_PORT)
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


def _preference(of: Candidate) -> int:
    return of.priority >> 8 & 0xFFFF


def _tell_preference(connection: Connection) -> None:
    """Have checks say how we like the candidate that they come from, also where a NAT has made another of it."""
    build_request = connection.build_request

    def build(pair: CandidatePair, nominate: bool) -> Any:
        request = build_request(pair, nominate)
        preference = _preference(pair.local_candidate)
        request.attributes["PRIORITY"] = candidate.candidate_priority(pair.component, "prflx", preference)
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


def _servers(servers: Sequence[dict[str, Any]]) -> tuple[list[tuple[str, int]], list[dict[str, Any]]]:
    """STUN addresses, and what aioice needs of each TURN server. What can't be used is left out."""
    stuns: list[tuple[str, int]] = []
    turns: list[dict[str, Any]] = []
    for server in servers:
        urls = server.get("urls") or []
        for url in [urls] if isinstance(urls, str) else urls:
            try:
                parsed = parse_stun_turn_uri(str(url))
            except ValueError:
                log.warning("an ICE server that can't be used", url=url)
                continue
            where = (parsed["host"], parsed["port"])
            if parsed["scheme"] == "stun":
                stuns.append(where)
            elif parsed["scheme"] in ("turn", "turns") and server.get("credentialType", "password") == "password":
                turns.append(
                    {
                        "turn_server": where,
                        "turn_ssl": parsed["scheme"] == "turns",
                        "turn_transport": parsed["transport"],
                        "turn_username": server.get("username"),
                        "turn_password": server.get("credential"),
                    }
                )
    return stuns[:MAX_SERVERS], turns[:MAX_SERVERS]


async def _reflexive(protocol: ice.StunProtocol, stuns: list[tuple[str, int]], found: Found) -> None:
    """The address under which one socket is seen outside. It sends nothing of its own, so there is no pair for it."""
    got = await _first([ice.server_reflexive_candidate(protocol, stun_server) for stun_server in stuns])
    if got and got[0].host != protocol.local_candidate.host:  # else there is no NAT
        got[0].priority = candidate.candidate_priority(1, "srflx", _preference(protocol.local_candidate))
        found(got[0])


async def _relayed(connection: Connection, turns: list[dict[str, Any]], found: Found) -> None:
    def allocation(server: dict[str, Any]) -> Coroutine[Any, Any, tuple[Candidate, ice.StunProtocol]]:
        return ice.relayed_candidate(
            component=1,
            hide_related_address=False,
            protocol_factory=lambda: ice.StunProtocol(connection),
            **server,
        )

    def unused(relay: tuple[Candidate, ice.StunProtocol]) -> None:
        relay[1].transport.close()
        asyncio.get_running_loop().call_later(CLOSE_S, let_go, relay[1])

    got = await _first([allocation(server) for server in turns], unused)
    if got is None:
        return
    relayed, protocol = got
    connection._protocols.append(protocol)
    connection._local_candidates.append(relayed)
    for remote in connection._remote_candidates:
        connection._pair_remote_candidate(remote)  # forms those pairs that are not there yet
    connection.sort_check_list()
    found(relayed)


async def _first(asked: Sequence[Coroutine[Any, Any, T]], unused: Callable[[T], None] = lambda got: None) -> T | None:
    """What the first that succeeds gives, and None when none has in time; `unused` gets what others give, also once
    nobody waits any more. None of them is cancelled before its time: in the middle of making a socket, uvloop would
    never close that."""
    first: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
    failed = 0

    async def ask(one: Coroutine[Any, Any, T]) -> None:
        nonlocal failed
        try:
            async with asyncio.timeout(SERVER_S):
                got = await one
        except Exception as error:  # whatever a server does, or does not do in time: it is not used
            failed += 1
            if not first.done():
                log.info("an ICE server is of no use", why=f"{type(error).__name__}: {error}")
                if failed == len(asked):
                    first.set_result(None)
        else:
            if first.done():
                unused(got)
            else:
                first.set_result(got)

    for each in asked:
        task = asyncio.ensure_future(ask(each))
        _asking.add(task)
        task.add_done_callback(_asking.discard)
    try:
        return await first
    except asyncio.CancelledError:
        if not first.cancelled() and (got := first.result()) is not None:  # it came in the same turn
            unused(got)
        raise
