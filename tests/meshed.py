"""Three machines that have tunnels to each other, one of them behind a NAT, two with a network of their own.

alice 10.1.0.2 -- NAT 203.0.113.31 --+
bob 203.0.113.51 --------------------+-- the internet -- 203.0.113.11 hub
carol 203.0.113.61 ------------------+
shop 192.168.7.2 -- 192.168.7.1 bob, who is its way out
barn 192.168.9.2 -- 192.168.9.1 carol, of whose tunnel it knows nothing
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests import hub_rig, nat
from tests.homes import SIGNAL_ALONE, Home
from tests.nat import MIDDLE, Place, World
from tests.rig import until

PEERS = ("alice", "bob", "carol")
ADDRESSES = {name: (f"10.77.0.{number}", f"fd77::{number}") for number, name in enumerate(PEERS, 1)}
SHOP, BARN = "192.168.7.2", "192.168.9.2"
BEHIND = {"bob": "192.168.7.0/24", "carol": "192.168.9.0/24"}
WAIT_S = 1.0  # for an answer, where there may be none


class Ask(NamedTuple):
    """Somebody who would like to talk to an address by a protocol and a port."""

    who: str
    to: str
    protocol: str
    port: int


class Mesh:
    """All of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.places = {"alice": world.device, **{name: Place(name) for name in ("bob", "carol", "shop", "barn")}}
        nat.join(self.places["bob"], world.internet, "bob", "203.0.113.51", MIDDLE)
        nat.join(self.places["carol"], world.internet, "carol", "203.0.113.61", MIDDLE)
        nat.join(self.places["shop"], self.places["bob"], "lan", SHOP, "192.168.7.1")
        nat.join(self.places["barn"], self.places["carol"], "lan", BARN, "192.168.9.1")
        self.places["barn"].ip("route del default")  # whoever speaks to it has to be of its own network
        self.homes: dict[str, Home] = {}

    def planes(self) -> dict[str, int]:
        """On which each sends to each."""
        return {f"{me} {row.peer}": row.plane for me, home in self.homes.items() for row in home.pump.state().peers}

    def answered(self, asks: Sequence[Ask]) -> set[Ask]:
        """Those who get an answer."""
        with ThreadPoolExecutor(8) as pool:
            return {ask for ask, found in zip(asks, pool.map(self._is_answered, asks), strict=True) if found}

    def _is_answered(self, ask: Ask) -> bool:
        with self.places[ask.who].entered():
            sock = socket.socket(_family(ask.to), socket.SOCK_STREAM if ask.protocol == "tcp" else socket.SOCK_DGRAM)
        with sock:
            sock.settimeout(WAIT_S)
            try:
                sock.connect((ask.to, ask.port))
                if ask.protocol == "udp":
                    sock.send(b"is anybody there?")
                    return sock.recv(100) == b"is anybody there?"
                return True
            except OSError:
                return False


def serve(stack: ExitStack, place: Place, tcp: Sequence[int], udp: Sequence[int]) -> None:
    """Answer there, at every address."""
    for port in tcp:
        with place.entered():
            stack.enter_context(socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True))
    for port in udp:
        with place.entered():
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind(("", port))
        threading.Thread(target=_echo, args=(sock,), daemon=True).start()


def _echo(sock: socket.socket) -> None:
    while True:
        try:
            data, sender = sock.recvfrom(2048)
            sock.sendto(data, sender)
        except OSError:  # it is over
            return


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def settings(me: str, reach: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What planaria.yaml says of the tunnel on this machine."""
    peers = {}
    for other in PEERS:
        if other != me:
            v4, v6 = ADDRESSES[other]
            peers[other] = {"allowed": [f"{v4}/32", f"{v6}/128", *([BEHIND[other]] if other in BEHIND else [])]}
            if other in reach:
                peers[other]["reach"] = list(reach[other])
    v4, v6 = ADDRESSES[me]
    own: dict[str, Any] = {"address": [f"{v4}/24", f"{v6}/64"], "peers": peers}
    if me in BEHIND:
        own["subnets"] = [BEHIND[me]]
    return own | ({"masquerade": "1"} if me == "carol" else {})


@contextmanager
def mesh(folder: Path, reach: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[Mesh]:
    """Tunnels between all of them, once packets take the fast lane everywhere. `reach`: of each machine, what its peers
    may begin there."""
    with ExitStack() as stack:
        world = stack.enter_context(nat.world())
        made = Mesh(world)
        for place in made.places.values():
            stack.callback(place.end)
        (folder / "hub").mkdir()
        with world.hub.entered():
            hub = stack.enter_context(hub_rig.process(folder / "hub", command=SIGNAL_ALONE))
        world.publish(hub.port, made.places["bob"], made.places["carol"])
        for name in PEERS:
            url = hub.ws("/ws/signal")
            home = Home(name, made.places[name], folder, url, **settings(name, reach.get(name, {})))
            stack.callback(home.end)
            made.homes[name] = home
        try:
            until(lambda: set(made.planes().values()) == {3}, 60)
            yield made
        except BaseException:
            print(*(home.logged() for home in made.homes.values()), hub.said())
            raise
