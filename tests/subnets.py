"""Three tun_pumps, each of which has a session with the other two, and hosts behind them that know nothing of it.

    lan_a 192.168.7.9 -- alice 10.77.0.1 --+
    dmz   192.168.9.9 -- alice             +-- the tunnel --+-- 10.77.0.3 carol
    lan_b 192.168.8.9 --   bob 10.77.0.2 --+

IPv6 is the same: fd77::1, fd07::9, fd09::9, ...
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from tests.nat import LIMIT_S, Place
from tests.rig import until
from tests.tunnelled import Joint, Side

PEERS = {"alice": 1, "bob": 2, "carol": 3}
BEHIND = {"lan_a": ("alice", 7), "dmz": ("alice", 9), "lan_b": ("bob", 8)}
PLACES = [*PEERS, *BEHIND]
SERVICES = ("tcp/22", "tcp/80", "udp/53", "ping")
WITHIN_S = 5.0


def addresses(place: str) -> tuple[str, str]:
    """By which the others know it."""
    if place in PEERS:
        return f"10.77.0.{PEERS[place]}", f"fd77::{PEERS[place]}"
    return f"192.168.{BEHIND[place][1]}.9", f"fd0{BEHIND[place][1]}::9"


def behind(peer: str) -> list[str]:
    """The prefixes that are a peer's."""
    four, six = addresses(peer)
    subnets = [(f"192.168.{number}.0/24", f"fd0{number}::/64") for owner, number in BEHIND.values() if owner == peer]
    return [f"{four}/32", f"{six}/128", *(each for both in subnets for each in both)]


def section(me: str, reach: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What planaria.yaml says of the tunnel there."""
    four, six = addresses(me)
    peers = {
        peer: {"allowed": behind(peer), **({"reach": reach[peer]} if peer in reach else {})}
        for peer in PEERS
        if peer != me
    }
    return {"address": [f"{four}/24", f"{six}/64"], "peers": peers, **more}


class Mesh(NamedTuple):
    """All of it."""

    places: dict[str, Place]
    sides: dict[str, Side]


@contextmanager
def mesh(folder: Path, told: dict[str, dict[str, Any]], without_route: Iterable[str] = ()) -> Iterator[Mesh]:
    """Packets pass between all that are told to let them."""
    places = {name: Place(name) for name in PLACES}
    sides: dict[str, Side] = {}
    joints: list[Joint] = []
    try:
        for name, (owner, number) in BEHIND.items():
            _wire(places[name], places[owner], number, has_route=name not in without_route)
        for place in places.values():
            with place.entered():
                Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")
        for me in PEERS:
            sides[me] = Side(me, places[me], folder, **told[me])
        joints += [Joint(folder, between=pair) for pair in combinations(PEERS, 2)]
        for side in sides.values():
            until(lambda side=side: all(peer.is_up for peer in side.state().peers))  # type: ignore[misc]
        yield Mesh(places, sides)
    finally:
        for joint in joints:
            joint.end()
        for side in sides.values():
            side.kill()
        for place in places.values():
            place.end()


def _wire(host: Place, router: Place, number: int, *, has_route: bool) -> None:
    words = f"ip link add wan netns {host.holder.pid} type veth peer name lan{number} netns {router.holder.pid}"
    subprocess.run(words.split(), check=True, timeout=LIMIT_S)
    for place, name, last in ((router, f"lan{number}", 1), (host, "wan", 9)):
        four, six = f"192.168.{number}.{last}/24", f"fd0{number}::{last}/64"
        place.ip(f"addr add {four} dev {name}", f"addr add {six} dev {name} nodad", f"link set {name} up")
    if has_route:
        host.ip(f"route add default via 192.168.{number}.1", f"route add default via fd0{number}::1")


class Servers:
    """tcp/22, tcp/80 and udp/53 of each place: who asks is told by which address it came."""

    def __init__(self, places: dict[str, Place]) -> None:
        self._selector = selectors.DefaultSelector()
        self._is_over = False
        for name, place in places.items():
            with place.entered():
                made = [
                    socket.create_server((address, port), family=_family(address))
                    for port in (22, 80)
                    for address in addresses(name)
                ]
                for address in addresses(name):
                    made.append(socket.socket(_family(address), socket.SOCK_DGRAM))
                    made[-1].bind((address, 53))
            for sock in made:
                self._selector.register(sock, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(0.1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                with contextlib.suppress(OSError):
                    if sock.type == socket.SOCK_DGRAM:
                        _, sender = sock.recvfrom(100)
                        sock.sendto(sender[0].encode(), sender)
                    else:
                        its, sender = sock.accept()
                        with its:
                            its.sendall(sender[0].encode())

    def end(self) -> None:
        """Nobody listens any more."""
        self._is_over = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


class Probe(NamedTuple):
    """Whether one reaches the other so."""

    source: str
    target: str
    what: str
    version: int


def probed(places: dict[str, Place]) -> dict[Probe, str]:
    """From everywhere to everywhere else, by everything, all at once: what was said, "" where nothing was."""
    probes = [
        Probe(source, target, what, version)
        for source in PLACES
        for target in PLACES
        if source != target
        for what in SERVICES
        for version in (4, 6)
    ]
    servers = Servers(places)
    try:
        with ThreadPoolExecutor(len(probes)) as pool:
            return dict(zip(probes, pool.map(lambda each: _probe(places, each), probes), strict=True))
    finally:
        servers.end()


def _probe(places: dict[str, Place], probe: Probe) -> str:
    to = addresses(probe.target)[probe.version == 6]
    kind = socket.SOCK_STREAM if probe.what.startswith("tcp") else socket.SOCK_DGRAM
    ping = socket.IPPROTO_ICMP if probe.version == 4 else socket.IPPROTO_ICMPV6
    with places[probe.source].entered():
        sock = socket.socket(_family(to), kind, ping if probe.what == "ping" else 0)
    with sock, contextlib.suppress(OSError):
        sock.settimeout(WITHIN_S)
        sock.connect((to, int(probe.what.partition("/")[2] or 0)))
        if probe.what == "ping":
            sock.send(struct.pack("!BBHHH", 8 if probe.version == 4 else 128, 0, 0, 0, 1))
            return "pong" if sock.recv(100)[0] in (0, 129) else ""
        if kind == socket.SOCK_DGRAM:
            sock.send(b"?")
        return sock.recv(100).decode()
    return ""


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
