"""Two agents at home behind a NAT each, with one UDP port for all their sessions: they meet at those ports where the
NATs and firewalls allow it, by sockets of their own where only those are allowed, and by TURN at last."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from procs.agent.core import AgentCore
from procs.agent.lane.port import Port
from procs.agent.session import PeerSession
from procs.agent.settings import AgentSettings
from procs.agent.signaling import SignalingClient
from tests import nat
from tests.agents import Server, identity_of
from tests.nat import HUB, Place, Turn, World
from tests.rig import until

pytestmark = [
    pytest.mark.needs("turnserver", "nft", "ip", "nsenter"),
    pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not()),
]
NUMBERS = itertools.count(41641)  # of the ports, another in each test: a NAT remembers
BLOCK = """
table ip block {
  chain out { type filter hook output priority filter; udp sport 41641-41699 drop; }
  chain in { type filter hook input priority filter; udp dport 41641-41699 drop; }
}
"""


class Thread:
    """An event loop in a network namespace."""

    def __init__(self, place: Place) -> None:
        self._place, self._ready = place, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """There, to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def _run(self) -> None:
        with self._place.entered(), asyncio.Runner() as runner:
            self.loop = runner.get_loop()
            self._ready.set()
            self.loop.run_forever()


class Home:
    """An agent there."""

    def __init__(self, name: str, thread: Thread, folder: Path, number: int, **own: Any) -> None:
        self.name, self.thread, self._number = name, thread, number
        self.settings = AgentSettings(agent_id=name, mode="tun", **own)
        self._folder = folder
        self.got: list[bytes] = []
        thread.run(self._start())

    async def _start(self) -> None:
        self.port = Port(self._number, (20000, 40000))
        self.port.start()
        me = identity_of(self.name, self._folder)
        self.core = AgentCore(self.settings, SignalingClient(self.settings), me, way=self.port)
        await self.core.start(20)

    async def end(self) -> None:
        """Hold nothing any more."""
        await self.core.stop()
        self.port.close()

    async def call(self, peer: str) -> None:
        """That one."""
        await self.core.connect_to(peer)

    def session(self) -> PeerSession:
        """With the other one, once it is there."""

        def found() -> PeerSession | None:
            its = next(iter(self.core.get_all_sessions().values()), None)
            return its if its and its.is_connected() and its.datagrams.plane == 2 else None

        return until(found, 30)

    def path(self) -> tuple[str, bool, tuple[str, int]]:
        """What it is of now."""
        path = self.session().path
        return (path.kind, path.is_by_way, path.remote_address or ("", 0)) if path else ("", False, ("", 0))


async def serve(server: Server) -> None:
    """Have it be at the hub's address."""
    await server.serve(socket.create_server((HUB, server.port)))


@pytest.fixture
def homes(world: World, turn: Turn, tmp_path: Path) -> Iterator[Callable[[], tuple[Home, Home]]]:
    """Alice and Bob, whose sessions are to begin now."""
    world.nat()
    username, credential = turn.credentials()
    servers: dict[str, Any] = {
        "ice_urls": (turn.stun_url, turn.url),
        "ice_username": username,
        "ice_credential": credential,
    }
    server, made = Server(), list[Home]()
    with Thread(world.hub) as hub, Thread(world.device) as device, Thread(world.viewer) as viewer:
        hub.run(serve(server))
        servers["signaling_url"] = f"ws://{HUB}:{server.port}/ws/signal"

        def begin() -> tuple[Home, Home]:
            number = next(NUMBERS)
            for name, thread in (("alice", device), ("bob", viewer)):
                made.append(Home(name, thread, tmp_path, number, **servers))
            device.run(made[0].call("bob"))
            return made[0], made[1]

        yield begin
        for home in made:
            home.thread.run(home.end())
        hub.run(server.stop())


def passes(homes: tuple[Home, Home]) -> None:
    """Packets do, both ways."""
    for one, other in (homes, homes[::-1]):
        got, sent = list[bytes](), [b"E" + number.to_bytes(4, "big") * 250 for number in range(50)]
        other.session().datagrams.on_packets = got.extend
        one.thread.loop.call_soon_threadsafe(one.session().datagrams.send, sent)
        until(lambda got=got, sent=sent: sorted(got) == sorted(sent))  # type: ignore[misc]


def test_two_behind_nats_meet_at_their_ports(world: World, homes: Callable[[], tuple[Home, Home]]) -> None:
    alice, bob = both = homes()
    assert until(lambda: alice.path()[1] and bob.path()[1], 10)
    assert alice.path() == ("direct", True, ("203.0.113.41", bob.port.number))
    assert bob.path() == ("direct", True, ("203.0.113.31", alice.port.number))
    passes(both)


def test_where_a_firewall_closes_the_port_there_are_sockets_and_the_port_again_once_it_is_open(
    world: World, homes: Callable[[], tuple[Home, Home]]
) -> None:
    world.device.rules(BLOCK)
    alice, bob = both = homes()
    until(lambda: alice.path()[0] == bob.path()[0] == "direct", 10)
    assert not alice.path()[1] and not bob.path()[1]
    passes(both)
    world.device.rules("flush ruleset")
    until(lambda: alice.path()[1] and bob.path()[1], 10)
    passes(both)
    assert alice.session().connections == 1


def test_through_nats_that_nothing_passes_there_is_turn(world: World, homes: Callable[[], tuple[Home, Home]]) -> None:
    world.nat(symmetric=True)
    alice, bob = both = homes()
    assert alice.path()[:2] == ("relayed", False) == bob.path()[:2]
    passes(both)
