"""Sessions over one UDP port that all of an agent's share: they find it, keep out of each other's way, and what
strangers send there disturbs none."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aioice import Connection, stun

from procs.agent import ice, nomination
from procs.agent.core import AgentCore
from procs.agent.lane.port import Port
from procs.agent.session import PeerSession
from procs.agent.signaling import SignalingClient
from tests.agents import Server, identity_of, settings, until
from tests.unit.test_demux import stun_of

RANGE = (20000, 40000)


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network but this machine's own, on which there are two addresses."""
    monkeypatch.setattr(ice, "host_addresses", lambda: ["127.0.0.1", "127.0.0.2"])


@contextlib.contextmanager
def started() -> Iterator[Port]:
    """A port, in the running event loop."""
    made = Port(0, RANGE)
    made.start()
    try:
        yield made
    finally:
        made.close()


class Met:
    """An agent with a port, or without."""

    def __init__(self, name: str, home: Path, server: Server, port: Port | None) -> None:
        own = settings(name, server, mode="tun")
        self.core = AgentCore(own, SignalingClient(own), identity_of(name, home), way=port)
        self.name, self.port = name, port

    async def call(self, other: Met) -> tuple[PeerSession, PeerSession]:
        """A session with that one, both its ends."""
        near = await self.core.connect_to(other.name)
        await until(near.is_connected)
        far = other.core.get_session(self.name)
        assert far
        await until(lambda: far.is_connected() and far.datagrams.plane == 2 == near.datagrams.plane)
        return near, far


@contextlib.asynccontextmanager
async def meeting(home: Path, *names: str, without: str = "") -> AsyncIterator[list[Met]]:
    """Agents of these names at a server; `without` a port is that one."""
    server = Server()
    await server.start()
    with contextlib.ExitStack() as stack:
        made = [Met(name, home, server, None if name == without else stack.enter_context(started())) for name in names]
        try:
            for each in made:
                await each.core.start(5)
            yield made
        finally:
            for each in made:
                await each.core.stop()
            await server.stop()


def packet(number: int) -> bytes:
    """As far as one looks into it."""
    return b"E" + number.to_bytes(4, "big") * 250


async def passes(near: PeerSession, far: PeerSession) -> None:
    """Packets do, both ways."""
    for one, other in ((near, far), (far, near)):
        got, sent = list[bytes](), [packet(number) for number in range(100)]
        other.datagrams.on_packets = got.extend
        assert one.datagrams.send(sent) == 100
        await until(lambda got=got: len(got) == 100)  # type: ignore[misc]
        assert got == sent


def test_two_agents_with_a_port_each_meet_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with meeting(tmp_path, "alice", "bob") as (alice, bob):
            near, far = await alice.call(bob)
            assert alice.port and bob.port and near.path and far.path
            assert near.path.is_by_way and far.path.is_by_way
            assert near.path.remote_address in [(host, bob.port.number) for host in ("127.0.0.1", "127.0.0.2")]
            assert (far.path.remote_address or ("", 0))[1] == alice.port.number
            await passes(near, far)
            assert (near.connections, alice.port.strangers, alice.port.malformed, near.datagrams.unreadable) == (
                1,
                0,
                0,
                0,
            )

    asyncio.run(scenario())


@pytest.mark.parametrize("without", ["alice", "bob"])
def test_who_has_no_port_is_met_all_the_same(tmp_path: Path, without: str) -> None:
    async def scenario() -> None:
        async with meeting(tmp_path, "alice", "bob", without=without) as (alice, bob):
            near, far = await alice.call(bob)
            assert near.path and far.path and not near.path.is_by_way
            await passes(near, far)

    asyncio.run(scenario())


def test_the_end_of_one_session_is_nothing_to_another_on_the_same_port(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with meeting(tmp_path, "alice", "bob", "carol") as (alice, bob, carol):
            its, (near, far) = await alice.call(bob), await alice.call(carol)
            assert alice.port and all(each.path and each.path.is_by_way for each in (*its, near, far))
            await passes(near, far)
            await its[0].close()
            await passes(near, far)
            (ufrag,) = alice.port._demux._connections
            assert near.path and near.path._connection and near.path._connection.local_username == ufrag
            again = await alice.call(bob)
            await passes(*again)
            await passes(near, far)
            assert near.connections == 1

    asyncio.run(scenario())


def test_a_session_comes_back_at_the_same_two_ports_while_the_old_one_is_still_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with meeting(tmp_path, "alice", "bob") as (alice, bob):
            near, far = await alice.call(bob)
            goes_on = asyncio.Event()

            async def late(close: Callable[[], Awaitable[None]]) -> None:
                await goes_on.wait()
                await close()

            for path in (near.path, far.path):
                assert path
                path.close = functools.partial(late, path.close)  # type: ignore[method-assign]
            near._lost("the test says so")
            await until(lambda: near.is_connected() and near.connections == 2 == far.connections)
            await passes(near, far)
            goes_on.set()

    asyncio.run(scenario())


def test_what_strangers_send_is_counted_and_disturbs_nobody(tmp_path: Path) -> None:
    """10,000 datagrams a second of everything that is not quite right, from strangers, and one that had asked."""

    async def scenario() -> None:
        async with meeting(tmp_path, "alice", "bob") as (alice, bob):
            near, far = await alice.call(bob)
            port = alice.port
            assert port
            chance, records = random.Random(1), list[int]()
            port.on_records = lambda joined, step, sender: records.append(len(joined))
            garbage = [
                stun_of(stun.Class.REQUEST, "somebody:else"),
                stun_of(stun.Class.RESPONSE),
                b"\x17\xfe\xfd" + bytes(8) + b"\x00\x0a" + bytes(10),
                b"\x16" + chance.randbytes(300),
                b"\x00\x01" + chance.randbytes(40),
                b"\x80" + chance.randbytes(20),
                b"",
                b"\xf1" + chance.randbytes(40),
            ]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for _ in range(200):
                    for each in garbage:
                        for _ in range(6):
                            stranger.sendto(each, ("127.0.0.1", port.number))
                    await asyncio.sleep(0.0048)
            await until(lambda: port.strangers + port.malformed >= 200 * 42)
            assert (port.strangers, port.malformed) == (200 * 24, 200 * 18)
            assert sum(records) == 200 * 6 * 41
            await passes(near, far)
            assert (near.connections, near.datagrams.stats["falls"]) == (1, 0)

    asyncio.run(scenario())


async def gathered(*ways: Port) -> list[Connection]:
    """Two ends of an ICE connection that know of each other."""
    ends = [Connection(ice_controlling=way is ways[0]) for way in ways]
    for end, way in zip(ends, ways, strict=True):
        ice.prepare(end, RANGE, way)
        nomination.keep_the_best(end)
        await end.gather_candidates()
    for end, other in zip(ends, reversed(ends), strict=True):
        end.remote_username, end.remote_password = other.local_username, other.local_password
        for candidate in other.local_candidates:
            await end.add_remote_candidate(candidate)
    return ends


def test_of_many_pairs_that_pass_at_once_the_two_ports_are_kept() -> None:
    """Who answers has checked all of them when who calls hears of it, and does so, too, in one go."""

    async def scenario() -> None:
        with started() as here, started() as there:
            caller, answerer = await gathered(here, there)
            answering = asyncio.ensure_future(answerer.connect())
            await until(lambda: len({(id(on), to) for _, to, on in caller._early_checks}) == 16)
            await caller.connect()
            await answering
            assert len([pair for pair in caller._check_list if pair.nominated]) > 1
            assert ice.is_by_way(caller) and ice.is_by_way(answerer)
            await asyncio.gather(caller.close(), answerer.close())

    asyncio.run(scenario())


def test_fifty_connections_leave_nothing_behind() -> None:
    async def one(here: Port, there: Port) -> None:
        ends = await gathered(here, there)
        async with asyncio.timeout(20):
            await asyncio.gather(*(end.connect() for end in ends))
            assert all(map(ice.is_by_way, ends))
            await ends[0].send(b"\x14\xfe\xfd hello")
            assert await ends[1].recv() == b"\x14\xfe\xfd hello"
            await asyncio.gather(*(end.close() for end in ends))

    async def scenario() -> None:
        with started() as here, started() as there:
            fds = len(os.listdir("/proc/self/fd"))
            for _ in range(50):
                await one(here, there)
            assert len(here._demux) == len(there._demux) == 0
            await until(lambda: len(os.listdir("/proc/self/fd")) == fds)
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())
