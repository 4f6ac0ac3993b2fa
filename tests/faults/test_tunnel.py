"""The tunnel of one process: real interfaces in namespaces, real sessions between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from aioice import Connection, stun

from procs.agent import ice, netlink, tun, tunnel
from procs.agent.caps import Caps
from procs.agent.device import TunDevice
from procs.agent.network import Tunnel
from procs.agent.tunnel import LEASE_S, LOOK_S, TICK_S, PeerTunnel, claimed
from procs.errors import ConfigError, NotHere, Refused
from tests import nat
from tests.agents import meeting, until
from tests.nat import Place
from tests.unit.test_packets import v4

pytestmark = pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN")
NAMES = ("alice", "bob", "eve")


def tunnel_of(name: str) -> Tunnel:
    """Each has an address, and is told nothing of the others."""
    last = NAMES.index(name) + 1
    return Tunnel(address=(ip_interface(f"10.77.0.{last}/24"), ip_interface(f"fd77::{last}/64")))


@pytest.fixture
def places() -> Iterator[dict[str, Place]]:
    made = {name: Place(name) for name in NAMES}
    yield made
    for place in made.values():
        place.end()


async def echo(places: dict[str, Place], near: str, far: str, address: str, size: int) -> bool:
    """Whether a datagram comes back whole."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    with places[far].entered():
        there = socket.socket(family, socket.SOCK_DGRAM)
    with places[near].entered():
        here = socket.socket(family, socket.SOCK_DGRAM)
    with there, here:
        there.setblocking(False)
        here.setblocking(False)
        there.bind((address, 0))
        here.connect(there.getsockname()[:2])
        sent = os.urandom(size)
        for _ in range(20):  # the first may be lost, each way, for its sender to be told
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(0.5):
                    await loop.sock_sendall(here, sent)
                    got, sender = await loop.sock_recvfrom(there, 65536)
                    await loop.sock_sendto(there, got, sender)
                    return await loop.sock_recv(here, 65536) == sent
    return False


def test_one_interface_serves_many_peers(places: dict[str, Place], tmp_path: Path) -> None:
    async def work() -> None:
        ends: dict[str, PeerTunnel] = {}
        for name in NAMES:
            with places[name].entered():
                ends[name] = PeerTunnel(tunnel_of(name))
        can = Caps(planes=[2, 1])
        async with meeting(tmp_path, *NAMES, can=can) as (_, agents):
            cores = dict(zip(NAMES, agents, strict=True))
            for name, core in cores.items():
                core._can = ends[name].caps
                core.on_session = ends[name].join
                ends[name].start()
            for name in ("bob", "eve"):
                ends["alice"].join(await cores["alice"].connect_to(name))
            await until(
                lambda: all(its.is_up and end.allowed(its.peer) for end in ends.values() for its in end.peers())
            )
            for number, name in ((2, "bob"), (3, "eve")):
                for address in (f"10.77.0.{number}", f"fd77::{number}"):
                    assert await echo(places, "alice", name, address, 100)
                    assert await echo(places, "alice", name, address, 4000), "larger than the MTU"
            figures = {peer.peer: peer for peer in ends["alice"].peers()}
            assert (figures["bob"].plane, figures["bob"].path, figures["bob"].mtu) == (2, "direct", 1380)
            assert [str(each) for each in ends["alice"].allowed("bob")] == ["10.77.0.2/32", "fd77::2/128"]
            assert figures["eve"].received_bytes > 8000 and not figures["eve"].dropped["spoofed"]
            # One that claims another's address gets nothing by it.
            with places["eve"].entered():
                made = netlink.link("mvp-tun0")
                assert made
                netlink.set_addresses(made.number, [ip_interface("10.77.0.2/24")])
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with sock:
                sock.sendto(b"I am bob", ("10.77.0.1", 9))
            await until(lambda: {p.peer: p for p in ends["alice"].peers()}["eve"].dropped["spoofed"] == 1)
        for name in NAMES:
            ends[name].close()
            with places[name].entered():
                assert netlink.link("mvp-tun0") is None, "who ends in peace leaves nothing"

    asyncio.run(work())


def remove(place: Place, name: str = "mvp-tun0") -> None:
    """As somebody does who tidies up."""
    with place.entered():
        made = netlink.link(name)
        assert made
        netlink.delete_link(made.number)


@pytest.mark.parametrize("finds", ["reading", "switching offloads"])
def test_who_waits_is_told_that_the_interface_has_gone(places: dict[str, Place], finds: str) -> None:
    async def work() -> None:
        with places["alice"].entered():
            end = PeerTunnel(tunnel_of("alice"))
        end.start()
        waiting = [asyncio.create_task(end.wait()) for _ in range(2)]
        await asyncio.sleep(3 * TICK_S)
        assert not any(each.done() for each in waiting)
        if finds != "reading":  # it is not read where a port is full
            end.device.pause()
            end._forwarder._is_offloaded = True
        remove(places["alice"])
        for each in waiting:
            with pytest.raises(NotHere, match=r"^mvp-tun0: .*: somebody has removed it$"):
                await asyncio.wait_for(each, 5)
        end.close()

    asyncio.run(work())


def test_waiting_ends_where_the_tunnel_is_closed(places: dict[str, Place]) -> None:
    async def work() -> None:
        with places["alice"].entered():
            end = PeerTunnel(tunnel_of("alice"))
        end.start()
        waiting = asyncio.create_task(end.wait())
        await asyncio.sleep(0)
        end.close()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(work())


def test_who_calls_for_something_else_takes_no_addresses(places: dict[str, Place], tmp_path: Path) -> None:
    async def work() -> None:
        with places["alice"].entered():
            end = PeerTunnel(tunnel_of("alice"))
        async with meeting(tmp_path, *NAMES) as (_, (alice, bob, eve)):
            alice._can, bob._can = end.caps, Caps(planes=[2, 1], addresses=["10.77.0.2/24"])
            alice.on_session = end.join
            end.start()
            for caller in (eve, bob):  # eve only pings
                await (await caller.connect_to("alice")).opened(20)
            await until(lambda: bool(end.allowed("bob")))
            assert not end.allowed("eve") and [str(each) for each in end.allowed("bob")] == ["10.77.0.2/32"]
        end.close()

    asyncio.run(work())


def test_the_address_of_a_peer_that_has_left_is_free_after_a_while_and_not_before(
    places: dict[str, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        with places["alice"].entered():
            end = PeerTunnel(tunnel_of("alice"))
        async with meeting(tmp_path, *NAMES, can=Caps(planes=[2, 1], addresses=["10.77.0.2/24"])) as (_, agents):
            alice, bob, eve = agents
            alice._can, alice.on_session = end.caps, end.join
            end.start()
            for caller in (bob, eve):  # both claim the same
                await (await caller.connect_to("alice")).opened(20)
                await until(lambda caller=caller: caller.settings.agent_id in end._learned)  # type: ignore[misc]
            end._give_back(time.monotonic() + 2 * LEASE_S)
            assert end.allowed("bob") and not end.allowed("eve"), "while it is there it keeps it"
            await bob.stop()
            await until(lambda: "bob" in end._left_at)
            await asyncio.sleep(3 * LOOK_S)
            assert end.allowed("bob") and not end.allowed("eve"), "it may come back"
            monkeypatch.setattr(tunnel, "LEASE_S", 0.1)
            await until(lambda: bool(end.allowed("eve")))
            assert not end.allowed("bob") and "bob" not in {each.peer for each in end.peers()}
        end.close()

    asyncio.run(work())


def test_no_session_goes_through_the_tunnel_that_it_carries(places: dict[str, Place]) -> None:
    with places["alice"].entered():
        told = tunnel_of("alice").but(interface="home", allowed={"bob": (ip_network("192.168.50.0/24"),)})
        end = PeerTunnel(told)
        places["alice"].ip("link add out type veth peer name far", "addr add 192.0.2.2/24 dev out", "link set out up")
        assert ice.host_addresses() == ["192.0.2.2"]
        for host, is_taken in (("192.168.50.7", False), ("10.77.0.2", False), ("fd77::2", False), ("192.0.2.7", True)):
            assert ice._is_through_tunnel(host) is not is_taken, host
        with pytest.raises(ValueError, match="behind our own tunnel"):
            ice.add_remote(Connection(ice_controlling=True), "candidate:1 1 udp 1 192.168.50.7 9 typ host")
        end.close()
        assert not ice._is_through_tunnel("192.168.50.7") and not ice._is_through_tunnel("name.local")


def test_who_asks_from_behind_the_tunnel_is_not_answered_through_it(places: dict[str, Place]) -> None:
    async def work() -> None:
        connection = Connection(ice_controlling=True)
        ice.prepare(connection, (40000, 41000))
        await connection.gather_candidates()
        end = PeerTunnel(told)  # it is younger than the session
        (protocol,) = connection._protocols
        asked: list[str] = []
        protocol.transport.sendto = lambda _, to: asked.append(to[0])  # type: ignore[method-assign, assignment, misc]
        check = bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST))
        for host in ("192.168.50.7", "192.0.2.7", "10.77.0.2"):
            protocol.datagram_received(check, (host, 9))
        assert asked == ["192.0.2.7"]
        end.close()
        await connection.close()

    with places["alice"].entered():
        told = tunnel_of("alice").but(allowed={"bob": (ip_network("192.168.50.0/24"),)})
        places["alice"].ip("link add out type veth peer name far", "addr add 192.0.2.2/24 dev out", "link set out up")
        asyncio.run(work())


def test_the_published_helpers(places: dict[str, Place]) -> None:
    async def work() -> None:
        with places["alice"].entered():
            assert tun.check_tun_support()
            device = TunDevice(*tun.create_tun("mvp-tun1"))
            made = netlink.link("mvp-tun1")
            assert made and not made.is_tap
            netlink.set_link(made.number, mtu=1380, queue=500, alias="")
            netlink.set_addresses(made.number, [ip_interface("10.78.0.1/24")])
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        got: list[bytes] = []
        reading = asyncio.create_task(device.read_loop(got.append))
        await asyncio.sleep(0)
        with sock:
            sock.bind(("10.78.0.1", 0))
            sock.setblocking(False)
            sock.sendto(b"hello", ("10.78.0.2", 9))
            await until(lambda: len(got) == 1)
            assert got[0][12:20] == bytes([10, 78, 0, 1, 10, 78, 0, 2]) and got[0].endswith(b"hello")
            port = sock.getsockname()[1].to_bytes(2, "big")
            answer = b"\0\7" + port + b"\0\x0c\0\0back"  # UDP without a checksum
            await device.write_packet(v4(answer, source=bytes([10, 78, 0, 2]), to=bytes([10, 78, 0, 1])))
            assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"back"
        with pytest.raises(tun.TunError):
            await device.write_packet(b"\0 is no IP version")
        assert await device.read_packet() is None
        with places["alice"].entered():
            info = tun.get_interface_info("mvp-tun1")
            assert info and info["tx_packets"] == 1 and tun.get_interface_info("nothing") is None
            tap = TunDevice(*tun.create_tap("mvp-tap1"))
            made = netlink.link("mvp-tap1")
            assert made and made.is_tap
            with pytest.raises(tun.TunError, match="another program has it open"):
                tun.create_tap("mvp-tap1")
            tap.close()
            await device.close_async()
            await asyncio.wait_for(reading, 5)
            assert not [each for each in netlink.links() if each.kind == "tun"], "they are gone with who made them"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["10.77.0.2/24", "fd77::2/64", "192.0.2.1/32"], "10.77.0.2/32 fd77::2/128"),
        ([], "10.77.0.0/24 fd77::/64"),
        (["10.77.0.1/24"], "this machine's own"),
        (["192.0.2.1/24"], "not in this machine's networks"),
        (["bob"], "is no address"),
    ],
)
def test_a_peer_has_what_it_claims_in_our_networks(addresses: list[str], expected: str) -> None:
    def told() -> str:
        try:
            return " ".join(map(str, claimed(tunnel_of("alice"), Caps(addresses=addresses), is_signed=bool(addresses))))
        except ConfigError as error:
            return str(error)

    assert expected in told()


def test_a_peer_that_nothing_is_allowed_is_refused(places: dict[str, Place]) -> None:
    class Stranger:
        peer = "mallory"

    with places["alice"].entered():
        end = PeerTunnel(tunnel_of("alice").but(allowed={"bob": (ip_network("10.77.0.2/32"),)}))
    with pytest.raises(Refused, match="mallory"):
        end.join(Stranger())  # type: ignore[arg-type]
    end.close()
