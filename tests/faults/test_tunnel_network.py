"""A network of three peers and hosts behind them: everything reaches everything that it may, and nothing else."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from procs.tun_pump import firewall, interface
from procs.warden.tunnel import Tunnelled
from tests import nat
from tests.nat import Place
from tests.subnets import BEHIND, PEERS, Mesh, Probe, addresses, mesh, probed, section
from tests.tunnelled import Side

pytestmark = pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN")
LAN_A, LAN_B = ["192.168.7.0/24", "fd07::/64"], ["192.168.8.0/24", "fd08::/64"]
TOLD = {
    "alice": section(
        "alice", {"bob": ["tcp/22", "udp/99", "icmp", *(f"{each}:tcp/80" for each in LAN_A)]}, subnets=LAN_A
    ),
    "bob": section("bob", {"carol": ["192.168.8.9:udp/53", "fd08::9:udp/53"]}, subnets=LAN_B, masquerade="1"),
    "carol": section("carol", {"alice": []}),
}


def may(probe: Probe) -> bool:
    """What is to be so."""
    owners, what = {name: owner for name, (owner, _) in BEHIND.items()}, probe.what
    source, target = (owners.get(each, each) for each in (probe.source, probe.target))
    if probe.source == "lan_b":
        return False  # it has no route to anybody
    if source == target:
        return True  # neighbours, or behind the same router, which the tunnel leaves alone
    if probe.target == "dmz":
        return False  # it is in nobody's subnets
    return {
        ("alice", "bob"): True,
        ("alice", "carol"): False,
        ("bob", "carol"): True,
        ("bob", "alice"): what in (("tcp/22", "ping") if probe.target == "alice" else ("tcp/80",)),
        ("carol", "alice"): True,
        ("carol", "bob"): probe.target == "lan_b" and what == "udp/53",
    }[source, target]


def test_everything_reaches_everything_that_it_may_and_nothing_else(tmp_path: Path) -> None:
    with mesh(tmp_path, TOLD, without_route=["lan_b"]) as made:
        found = probed(made.places)
        wrong = {probe: said for probe, said in found.items() if bool(said) != may(probe)}
        assert not wrong
        for version, seen in ((4, "192.168.8.1"), (6, "fd08::1")):
            assert found[Probe("alice", "lan_b", "tcp/22", version)] == seen, "under bob's address"
            said = found[Probe("carol", "lan_a", "tcp/22", version)]
            assert said == addresses("carol")[version == 6], "under its own"
        dropped = re.findall(r'counter packets ([1-9]\d*) .*comment "(\w+)"', ruleset(made.sides["alice"]))
        assert {name for _, name in dropped} == {"bob", "subnets"}
        by_rules(made.sides["alice"], sum(int(count) for count, _ in dropped))
        is_told(made)
        is_clamped(made)
        narrowed(made)


def by_rules(alice: Side, dropped: int) -> None:
    """Prometheus, and status, are told who was beyond what."""
    with alice.place.entered():
        tunnel = Tunnelled()
        tunnel.take(alice.state(), 1.0)
        tunnel.look(1.0)
    found = dict(re.findall(r'dropped_packets_total{(.*reason="by_.*)} (.*)', tunnel.text(1.0)))
    bob, subnets = (int(found.pop(key)) for key in ('peer="bob",reason="by_reach"', 'peer="",reason="by_subnets"'))
    assert bob and bob + subnets == dropped and not found


def is_told(made: Mesh) -> None:
    """Errors pass, whoever has begun: of what carol sends, with whom nobody may begin, and of what we answer to bob."""
    alice, bob, carol = (made.places[name] for name in PEERS)
    with carol.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect(("10.77.0.1", 9999))
        sock.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)
    with alice.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.bind(("10.77.0.1", 99))
        sock.settimeout(10)
        with bob.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.sendto(b"?", ("10.77.0.1", 99))
            sock.connect(sock.recvfrom(1)[1])
        sock.send(b"!")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)


def is_clamped(made: Mesh) -> None:
    """Hosts that know of larger packets than the tunnel takes send none, as is said to them with the first."""
    piece, got = os.urandom(1 << 20), b""
    with made.places["lan_b"].entered():
        server = socket.create_server(("192.168.8.9", 8080))
    with made.places["lan_a"].entered():
        there = socket.create_connection(("192.168.8.9", 8080), 10)
    here, _ = server.accept()
    assert [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) for each in (here, there)] == [1328, 1328]
    with server, there, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(here.sendall, piece)
        there.settimeout(20)
        while len(got) < len(piece):
            got += there.recv(1 << 16)
        sent.result()
    here.close()
    assert got == piece


def narrowed(made: Mesh) -> None:
    """A connection does not outlive the rule that let it begin; one that we have begun does."""
    alice, bob = made.sides["alice"], made.places["bob"]
    ends = []
    for listener, caller, address in ((alice.place, bob, "10.77.0.1"), (bob, alice.place, "10.77.0.2")):
        with listener.entered():
            server = socket.create_server((address, 22))
        with caller.entered():
            ends.append((socket.create_connection((address, 22), 10), server.accept()[0]))
        server.close()
    alice.kill()
    alice.tell(**section("alice", {"bob": []}, subnets=LAN_A))
    alice.start()
    (theirs, at_us), (ours, at_them) = ends
    ours.sendall(b"!")
    at_them.settimeout(20)
    assert at_them.recv(1) == b"!"
    theirs.sendall(b"?")
    at_us.settimeout(2)
    with pytest.raises(TimeoutError):
        at_us.recv(1)
    for sock in (theirs, at_us, ours, at_them):
        sock.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Side]:
    """One pump, which lets bob reach a port of its own."""
    place = Place("alice")
    side = Side(
        "alice", place, tmp_path, peers={"bob": {"allowed": ["10.77.0.2/32", "fd77::2/128"], "reach": ["tcp/22"]}}
    )
    try:
        side.state()
        yield side
    finally:
        side.kill()
        place.end()


def ruleset(side: Side) -> str:
    """What nft shows there."""
    return side.place.run("nft", "list", "ruleset")


def test_rules_stay_as_long_as_they_are_wanted(alone: Side) -> None:
    assert "tcp dport 22 accept" in ruleset(alone)
    alone.kill()
    before = ruleset(alone)
    assert "tcp dport 22 accept" in before, "whoever is killed"
    alone.tell(interface="mvp-tun1", peers={"bob": {"allowed": ["10.77.0.2/32"], "reach": ["udp/53"]}})
    alone.start()
    assert alone.state().interface == "mvp-tun1"
    assert re.findall(r"table inet (\S+)", ruleset(alone)) == ["planaria_mvp-tun1"] and "udp dport 53" in ruleset(alone)
    alone.kill()
    with alone.place.entered():
        interface.release(alone.run_dir)
    assert not ruleset(alone) and not (alone.run_dir / firewall.MADE).exists()


@pytest.mark.parametrize(
    "how", ["flush ruleset", "delete table inet planaria_mvp-tun0", "flush table inet planaria_mvp-tun0"]
)
def test_nothing_is_carried_without_the_rules(alone: Side, how: str) -> None:
    alone.place.rules("add table inet others\nadd chain inet others one\ndelete table inet others")
    assert alone.process.poll() is None, "others do as they like with their own"
    alone.place.rules(how)
    assert alone.process.wait(10) == 3 and "taken our rules of nft away" in alone.log.read_text()
    alone.start()
    assert alone.state().interface and "tcp dport 22 accept" in ruleset(alone)


FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/lo/forwarding")


def forwarding(place: Place, *values: int) -> list[int]:
    """What FORWARDING is there, after the first of them were set to these."""
    with place.entered():
        paths = [Path("/proc/sys/net", name) for name in FORWARDING]
        for path, value in zip(paths, values, strict=False):
            path.write_text(str(value))
        return [int(path.read_text()) for path in paths]


def test_without_nft_it_says_what_to_do(tmp_path: Path) -> None:
    place = Place("alice")
    forwarding(place, 0, 0)
    peers = {"bob": {"allowed": ["10.77.0.2/32"], "reach": []}}
    side = Side("alice", place, tmp_path, ("env", "PATH=/nowhere"), peers=peers, masquerade="1")
    try:
        assert side.process.wait(20) == 3
        assert forwarding(place)[:2] == [0, 0], "nothing is forwarded without rules"
        assert "reach, masquerade: nft: " in side.log.read_text() and "install nftables, or" in side.log.read_text()
    finally:
        side.kill()
        place.end()


def test_peers_have_names(tmp_path: Path) -> None:
    """As in a container, where another file is mounted over /etc/hosts, which nothing can be renamed to."""
    place, file = Place("alice"), tmp_path / "hosts"
    file.write_bytes(b"127.0.0.1 localhost\n# " + b"x" * 5000)
    before = file.read_bytes()
    there = (
        "unshare",
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        f'mount --bind {file} /etc/hosts && exec "$@"',
        "sh",
    )
    side = Side("alice", place, tmp_path, ("env", "AGENT_ID=alice", *there), hosts="/etc/hosts")
    try:
        assert side.state().interface
        for name, address in (("bob", "10.77.0.2"), ("alice", "10.77.0.1")):
            assert place.run(*there, "getent", "ahostsv4", f"{name}.planaria").startswith(f"{address} ")
        assert place.run(*there, "getent", "hosts", "bob.planaria").startswith("fd77::2 ")
        side.kill()
        side.start()
        assert side.state().interface and file.read_bytes().count(b"10.77.0.2 bob.planaria") == 1
        side.kill()
        release = (
            "import pathlib, sys; from procs.tun_pump import interface; interface.release(pathlib.Path(sys.argv[1]))"
        )
        place.run(*there, sys.executable, "-c", release, str(side.run_dir))
        assert file.read_bytes() == before and not Path("/etc/.hosts.planaria").exists()
    finally:
        side.kill()
        place.end()


def test_forwarding_is_as_it_was_in_the_end(tmp_path: Path) -> None:
    place, other = Place("alice"), Place("another")
    assert forwarding(place, 0, 0, 1) == [0, 0, 1]
    forwarding(other, 1, 0, 0)
    side = Side("alice", place, tmp_path, masquerade="1")

    def released(where: Place) -> list[int]:
        side.kill()
        with where.entered():
            interface.release(side.run_dir)
        return forwarding(where)

    try:
        assert side.state().interface and forwarding(place) == [1, 1, 1]
        assert released(other) == [1, 0, 0], "it is not we who have switched it on there"
        side.start()
        assert side.state().interface, "and finds it switched on"
        side.kill()
        side.tell(subnets="192.168.7.0/24")
        side.start()
        assert side.state().interface and forwarding(place) == [1, 0, 1], "IPv6 is not wanted any more"
        assert released(place) == [0, 0, 1] and not list(side.run_dir.glob("*.forwarding"))
        forwarding(place, 1)
        side.start()
        assert side.state().interface and released(place) == [1, 0, 1], "it was on before"
    finally:
        side.kill()
        place.end()
        other.end()
