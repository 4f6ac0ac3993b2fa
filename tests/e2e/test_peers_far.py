"""Two agents at home behind a NAT each, with signalling and coturn between them: files, measuring, and a tunnel;
directly where the NATs allow it, by TURN where not."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hub_rig, nat
from tests.nat import Place, Turn, World
from tests.peer_rig import ALONE, LIMIT_S, Machine, ended
from tests.rig import until

pytestmark = [
    pytest.mark.needs("turnserver", "nft", "ip", "nsenter"),
    pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN"),
]
SIZE = 200_000_000 if os.environ.get("PLANARIA_LONG") else 5_000_000


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


@pytest.mark.parametrize("symmetric", [False, True], ids=["direct", "relayed"])
def test_files_and_a_tunnel_from_nat_to_nat(
    world: World, homes: tuple[Machine, Machine], tmp_path: Path, *, symmetric: bool
) -> None:
    alice, bob = homes
    world.nat(symmetric=symmetric)
    (tmp_path / "sent.bin").write_bytes(os.urandom(SIZE))
    into = tmp_path / "into"
    with bob.listening("receive", "--into", str(into)):
        code, out = alice.run("ping", "bob", "--count", "2", "--interval", "0.1", "--json")
        pong = json.loads(out.splitlines()[-1])
        assert code == 0 and pong["path"] == ("relayed" if symmetric else "direct")
        assert alice.run("send-file", str(tmp_path / "sent.bin"), "bob")[0] == 0
    assert (into / "sent.bin").read_bytes() == (tmp_path / "sent.bin").read_bytes()

    with (
        bob.listening("listen", "--mode", "tun", "--address", "10.77.0.2/24,fd77::2/64") as far,
        ended(alice.start("connect", "bob", "--mode", "tun", "--address", "10.77.0.1/24,fd77::1/64")) as near,
    ):
        for address in ("10.77.0.2", "fd77::2"):
            assert until(lambda address=address: tcp(world.device, world.viewer, address), LIMIT_S) == SENT  # type: ignore[misc]
        near.send_signal(signal.SIGINT)
        assert near.wait(LIMIT_S) == 130
        assert "mvp-tun0" not in world.device.run("ip", "link"), "who ends in peace leaves nothing"
        assert far.poll() is None


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
