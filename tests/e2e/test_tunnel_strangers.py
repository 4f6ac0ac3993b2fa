"""What others do to a tunnel: garbage on its UDP port, also under the address of its peer, sources that are not theirs,
names and addresses that somebody else has. It is told, or dropped and counted, and who has done nothing notices
nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from procs.agent import network
from tests import agents, flows, hub_rig, nat
from tests.faults.test_tun_pump import NO_DEVICE, NO_RIGHT
from tests.faults.test_tunnel_peers import Pump
from tests.homes import BOB, Home, exchange, homes
from tests.nat import Place, Turn, World
from tests.peer_rig import ALONE, Machine, ended
from tests.peered import peered
from tests.rig import until
from tests.tunnelled import section

pytestmark = [
    pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN"),
    pytest.mark.needs("turnserver", "nft", "ip", "nsenter", "ss", "ssh", "sshd"),
]
MET = '"connected to a peer"'
MANY = 3000  # datagrams
# What the router sends under another's address is no connection of its own.
UNTRACKED = """
table ip untracked {
  chain out { type filter hook output priority raw; ip daddr 10.1.0.2 notrack; }
}
"""


def garbage(seed: int) -> Iterator[bytes]:
    """What begins as something that is understood there, and is not: STUN, DTLS, RTP, TURN channels, nothing at all."""
    chosen = random.Random(seed)
    while True:
        junk = chosen.randbytes(chosen.choice((0, 1, 12, 13, 20, 60, 1200, 1450)))
        length = struct.pack("!H", max(0, len(junk) - 16))
        yield chosen.choice(
            (
                junk,
                struct.pack("!HHI", 0x0001, max(0, len(junk) - 12) & ~3, 0x2112A442) + junk,  # a request of STUN
                struct.pack("!HHI", chosen.choice((0x0101, 0x0111)), 0, 0x2112A442) + bytes(12),  # its answers
                b"\x17\xfe\xfd" + struct.pack("!HHI", 1, 0, chosen.getrandbits(32)) + length + junk,  # data of DTLS
                b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x01\x00",  # its goodbye, which nobody has signed
                b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28",  # it has failed, says nobody
                b"\x16\xfe\xfd" + bytes(8) + length + junk,
                b"\x80" + junk,
                b"\x40\x00" + length + junk,
            )
        )


def from_anybody(router: Place, source: tuple[str, int], to: tuple[str, int]) -> None:
    """Garbage under this address, from the router at home, who can send under any."""
    addresses = ip_address(source[0]).packed + ip_address(to[0]).packed
    with router.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for _, data in zip(range(MANY), garbage(1), strict=False):
            head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(data), 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
            raw.sendto(head + struct.pack("!HHHH", source[1], to[1], 8 + len(data), 0) + data, to)


def ports_of(home: Home) -> set[int]:
    """Where the session of this home listens."""
    lines = home.place.run("ss", "-Huanp").splitlines()
    return {int(line.split()[3].rpartition(":")[2]) for line in lines if f"pid={home.child}," in line}


def test_garbage_and_false_sources_change_nothing(tmp_path: Path) -> None:
    with homes(tmp_path) as (world, _, alice, bob), flows.ssh(alice.place, bob.place, BOB[6], tmp_path) as typed:
        children, (ports, remote) = (alice.child, bob.child), (ports_of(alice), alice.session().remote)
        assert ports
        met = (alice.logged() + bob.logged()).count(MET)
        world.device_nat.rules(UNTRACKED)
        address, _, port = remote.rpartition(":")

        def shower() -> None:
            for each in ports:
                for source in ((address, int(port)), ("10.1.0.1", 9)):
                    from_anybody(world.device_nat, source, ("10.1.0.2", each))

        stall_s = flows.stalls([typed], shower)["ssh"]
        print(f"{2 * len(ports) * MANY} datagrams of garbage: ssh stood still for {stall_s} s")
        assert children == (alice.child, bob.child)
        assert (alice.logged() + bob.logged()).count(MET) == met, "the connection is the same"
        counted = until(lambda: alice.session().dropped["unreadable"])
        assert counted > MANY / 2 and not bob.session().dropped["unreadable"], "at the port that it came to"
        bob.place.ip("addr add 10.77.0.9/32 dev mvp-tun0")
        with bob.place.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("10.77.0.9", 0))
            for _ in range(5):
                sock.sendto(b"I am somebody else", ("10.77.0.1", 9))
        until(lambda: alice.session().dropped["spoofed"] == 5)
        assert "dropped whose source is not in their peer's prefixes" in alice.logged()
        exchange(world, BOB[4], 100)
        assert '"level": "error"' not in alice.logged() + bob.logged()


@pytest.mark.parametrize(
    ("inside", "before", "words", "code", "said"),
    [
        (NO_DEVICE, "", (), 3, "/dev/net/tun: No such file or directory: there are no tunnels without it"),
        (NO_RIGHT, "", (), 3, "needs root or CAP_NET_ADMIN; or have root make it: ip tuntap add mvp-tun0"),
        ((), "link add mvp-tun0 type veth peer name other", (), 2, "is taken; choose another name"),
        ((), "", ("--interface", "a-name-of-16-characters"), 2, "1 to 15"),
        ((), "", ("--allowed", "bob=10.1.0.0/16", "--allowed", "eve=10.1.2.0/24"), 2, "overlap"),
    ],
)
def test_what_the_command_line_can_not_have_is_one_line(
    tmp_path: Path, inside: tuple[str, ...], before: str, words: tuple[str, ...], code: int, said: str
) -> None:
    place = Place("refused")
    try:
        if before:
            place.ip(before)
        command = place.command(*inside, sys.executable, "scripts/cli.py", "listen", "--mode", "tun")
        environ = os.environ | {
            "AGENT_ID": "alice",
            "SIGNALING_URL": "ws://127.0.0.1:9",
            "PLANARIA_RUN_DIR": str(tmp_path),
        }
        done = subprocess.run(
            [*command, "--address", "10.77.0.1/24", *words],
            env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        place.end()
    (line,) = done.stderr.splitlines()
    assert done.returncode == code and said in line


def test_an_address_that_a_peer_has_is_nobody_elses(world: World, turn: Turn, tmp_path: Path) -> None:
    username, credential = turn.credentials()
    environ = {"ICE_URLS": f"{turn.stun_url},{turn.url}", "ICE_USERNAME": username, "ICE_CREDENTIAL": credential}
    with ExitStack() as stack:
        stack.enter_context(world.hub.entered())
        hub = stack.enter_context(hub_rig.process(tmp_path / "hub", command=ALONE))
        world.publish(hub.port)
        bob = Machine(hub, tmp_path, "bob", tuple(world.viewer.command()), environ)
        stack.enter_context(bob.listening("listen", "--mode", "tun", "--address", "10.77.0.2/24", "--verbose"))
        for name, address, said in (
            ("alice", "10.77.0.5/24", "a peer of the tunnel  peer=alice"),
            ("eve", "10.77.0.5/24", "a peer's addresses are refused  peer=eve"),
            ("mallory", "10.77.0.2/24", "a peer's addresses are refused  peer=mallory"),
        ):
            machine = Machine(hub, tmp_path, name, tuple(world.device.command()), environ)
            words = ("connect", "bob", "--mode", "tun", "--interface", name, "--address", address)
            stack.enter_context(ended(machine.start(*words)))
            until(lambda said=said: said in bob.said, 40)  # type: ignore[misc]
        assert "Traceback" not in bob.said


def test_a_wrong_token_is_said(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "hub", SIGNALING_TOKENS="the-token-of-this-room", PLANARIA_HUB_INSECURE="1") as hub:
        alice = Machine(hub, tmp_path, "alice", environ={"SIGNALING_TOKEN": "another-token"})
        code, _ = alice.run("ping", "bob", "--count", "1", "--within", "5")
        assert code == 11 and "invalid token" in alice.said and "Traceback" not in alice.said
        run_dir = tmp_path / "suite"
        run_dir.mkdir()
        (run_dir / network.NAME).write_text(json.dumps(network.document_of(section("bob"), "tunnel")))
        url = hub.ws("/ws/signal")
        with peered(run_dir, AGENT_ID="bob", SIGNALING_URL=url, SIGNALING_TOKEN="another-token"):

            async def work() -> None:
                pump = Pump("bob", run_dir)
                await agents.until(lambda: "invalid token" in pump.why)
                pump.end()

            asyncio.run(work())
