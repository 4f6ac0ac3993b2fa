"""Two agents at home behind a NAT each, with signalling and coturn between them: talking, files, measuring, and a
tunnel; directly where the NATs allow it, by TURN where not."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hub_rig, nat
from tests.bench import icmp, peers_ground
from tests.bench.measure import median
from tests.nat import Place, Turn, World
from tests.peer_rig import ALONE, LIMIT_S, Machine, ended
from tests.rig import until

pytestmark = [
    pytest.mark.needs("turnserver", "nft", "ip", "nsenter", "iperf3", "ss"),
    pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN"),
]
LONG = bool(os.environ.get("PLANARIA_LONG"))
SIZES = {"direct": 1_000_000_000, "relayed": 200_000_000} if LONG else {"direct": 5_000_000, "relayed": 5_000_000}
BOB = ("10.77.0.2", "fd77::2")
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2  # of linux/in.h, which Python lacks


@pytest.fixture
def homes(world: World, turn: Turn, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Alice and Bob."""
    username, credential = turn.credentials()
    environ = {"ICE_URLS": f"{turn.stun_url},{turn.url}", "ICE_USERNAME": username, "ICE_CREDENTIAL": credential}
    with world.hub.entered(), hub_rig.process(tmp_path / "hub", command=ALONE) as hub:
        world.publish(hub.port)
        yield (
            Machine(hub, tmp_path, "alice", tuple(world.device.command()), environ),
            Machine(hub, tmp_path, "bob", tuple(world.viewer.command()), environ),
        )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", [pytest.param("direct", marks=pytest.mark.long), "relayed"])  # see test_tunnel.py
def test_all_that_agents_do_from_nat_to_nat(
    world: World, homes: tuple[Machine, Machine], tmp_path: Path, path: str
) -> None:
    alice, bob = homes
    world.nat(symmetric=path == "relayed")
    with bob.listening("receive", "--into", str(tmp_path / "into")):
        code, out = alice.run("ping", "bob", "--count", "2", "--interval", "0.1", "--json")
        pong = json.loads(out.splitlines()[-1])
        assert code == 0 and pong["path"] == path
        a_file(alice, tmp_path, SIZES[path])
    talk(alice, bob, path)

    with (
        bob.listening("listen", "--mode", "tun", "--address", "10.77.0.2/24,fd77::2/64") as far,
        ended(alice.start("connect", "bob", "--mode", "tun", "--address", "10.77.0.1/24,fd77::1/64")) as near,
    ):
        for address in BOB:
            assert until(lambda address=address: tcp(world.device, world.viewer, address), LIMIT_S) == SENT  # type: ignore[misc]
        assert f"connected to bob ({path}, " in alice.said
        packets(world)
        near.send_signal(signal.SIGINT)
        assert near.wait(LIMIT_S) == 130
        assert "mvp-tun0" not in world.device.run("ip", "link"), "who ends in peace leaves nothing"
        assert far.poll() is None


def a_file(alice: Machine, folder: Path, size: int) -> None:
    """One of that size arrives, and is what it was."""
    sent, block = folder / "sent.bin", os.urandom(1_000_000)
    with sent.open("wb") as out:
        for number in range(size // len(block)):
            out.write(number.to_bytes(8, "big") + block[8:])
    began = time.monotonic()
    with ended(alice.start("send-file", str(sent), "bob", "--json")) as its:
        said, _ = its.communicate(timeout=250)
        took_s = time.monotonic() - began
        assert its.returncode == 0
    with sent.open("rb") as one, (folder / "into/sent.bin").open("rb") as other:
        sums = [hashlib.file_digest(file, "sha256").hexdigest() for file in (one, other)]
    assert sums[0] == sums[1] == json.loads(said)["sha256"]
    print(f"a file of {size / 1e6:.0f} MB: {size / took_s / 1e6:.1f} MB/s, its sender's start and end with it")


def talk(alice: Machine, bob: Machine, path: str) -> None:
    """A line each way."""
    with (
        bob.listening("listen", stdin=subprocess.PIPE) as there,
        ended(alice.start("connect", "bob", "--json", stdin=subprocess.PIPE)) as here,
    ):
        assert here.stdin and here.stdout and there.stdin and there.stdout
        here.stdin.write("grüß dich\n".encode())
        here.stdin.flush()
        assert there.stdout.readline().decode() == "alice: grüß dich\n"
        there.stdin.write(b"hallo\n")
        there.stdin.flush()
        assert json.loads(here.stdout.readline()) == {"from": "bob", "text": "hallo"}
        here.stdin.close()
        assert here.wait(LIMIT_S) == 0
    events = [json.loads(line) for line in alice.said.splitlines() if line.startswith("{")]
    assert [event["path"] for event in events if event["event"] == "connected"][-1] == path


def packets(world: World) -> None:
    """Those that just fit, those that are sent in pieces, one that may not be, and as much as goes through."""
    with world.device.entered():
        quiet = [took for size in (56, 1352, 4000) for took in icmp.pings_ms(BOB[0], 3, 0.02, size)]
        assert len(quiet) == 9
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as whole:
            whole.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            whole.sendto(bytes(1360), (BOB[0], 0))
            with pytest.raises(OSError, match="Message too long"):
                whole.sendto(bytes(1361), (BOB[0], 0))
    wire = peers_ground.Wire(world.device, world.viewer)
    rates = [round(peers_ground.iperf(wire, address, 1)["sum_received"]["bits_per_second"] / 1e6, 1) for address in BOB]
    print(f"ping {median(quiet):.2f} ms, iperf3 {rates} Mbit/s (IPv4, IPv6)")
    assert min(rates) > 0


SENT = os.urandom(300_000)


def tcp(near: Place, far: Place, address: str) -> bytes:
    """What arrives of SENT at an address of the tunnel; nothing while there is no way."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with far.entered():
            listener = socket.create_server((address, 0), family=family)
        with near.entered():
            sender = socket.socket(family)
        with listener, sender:
            for each in (listener, sender):
                each.settimeout(1)
            sender.connect(listener.getsockname()[:2])
            receiver, _ = listener.accept()
            with receiver:
                receiver.settimeout(LIMIT_S)
                sender.settimeout(LIMIT_S)
                said = threading.Thread(target=say_all, args=(sender,))
                said.start()
                heard = b"".join(iter(lambda: receiver.recv(65536), b""))
                said.join()
                return heard
    except OSError:
        return b""


def say_all(sender: socket.socket) -> None:
    """SENT, and that it was all."""
    sender.sendall(SENT)
    sender.shutdown(socket.SHUT_WR)
