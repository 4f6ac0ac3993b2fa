"""Two homes, each behind its NAT, with a tunnel between them: what runs in a suite for it on both sides, a hub for
signalling in the middle, and coturn."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from procs import proc
from procs.messages.warden import TunnelPeer
from tests import emulator, hub_rig, nat
from tests.emulator import Link
from tests.nat import Place, Turn, World
from tests.rig import clean_environ, until
from tests.tunnelled import Side

# What keeps the homes' NATs apart, but not from coturn.
APART = """
table ip apart {
  chain through { type filter hook forward priority filter; ip saddr 203.0.113.31 ip daddr 203.0.113.41 drop; }
}
"""
BOB = {4: "10.77.0.2", 6: "fd77::2"}
TOKEN = "both-homes-have-this-token"
SIGNAL_ALONE = (*hub_rig.HUB, "--only", "signal")


class Home:
    """One side: tun_pump and webrtc_peer, without the rest of a suite."""

    def __init__(self, me: str, place: Place, folder: Path, url: str, turn: Turn | None = None, **change: Any) -> None:
        """`change`: what is different in its settings of the tunnel. The token is for a server that asks for one."""
        self.pump = Side(me, place, folder, **change)
        self.place, self._log = place, folder / f"{me}.peer.log"
        self._environ = clean_environ(
            AGENT_ID=me, SIGNALING_URL=url, SIGNALING_TOKEN=TOKEN, PLANARIA_RUN_DIR=str(self.pump.run_dir),
            PLANARIA_LOG="json",
        )  # fmt: skip
        if turn:
            user, password = turn.credentials()
            servers = f"{turn.stun_url},{turn.url}"
            self._environ |= {"ICE_URLS": servers, "ICE_USERNAME": user, "ICE_CREDENTIAL": password}
        self.start()

    def start(self, **change: str) -> None:
        """Start webrtc_peer, as supervisord would; with other settings from now on."""
        self._environ |= change
        with self._log.open("ab") as out:
            self.peer = subprocess.Popen(
                self.place.command(sys.executable, "-m", "procs.webrtc_peer"),
                env=self._environ,
                stdout=out,
                stderr=out,
            )

    def kill_peer(self) -> None:
        """webrtc_peer dies with its children, and is started again."""
        self.peer.kill()
        self.peer.wait()
        self.start()

    def kill_pump(self) -> None:
        """tun_pump dies, and is started again."""
        self.pump.kill()
        self.pump.start()

    @property
    def child(self) -> int:
        """What has the session."""
        (zygote,) = until(lambda: proc.children(self.peer.pid), 20)
        return until(lambda: proc.children(zygote), 20)[0]

    def session(self) -> TunnelPeer:
        """How tun_pump sees it."""
        return self.pump.peer()

    def end(self) -> None:
        """At once."""
        self.peer.kill()
        self.peer.wait()
        self.pump.kill()

    @property
    def pids(self) -> list[int]:
        """Of what packets pass: tun_pump, and what has the session."""
        return [self.pump.process.pid, self.child]

    def logged(self) -> str:
        """What both have written."""
        return self._log.read_text() + self.pump.log.read_text()


@contextmanager
def middle(folder: Path, command: tuple[str, ...] = SIGNAL_ALONE) -> Iterator[tuple[World, Turn, hub_rig.Process]]:
    """What is between the homes: NATs, coturn and a hub, which both have on their loopback."""
    with ExitStack() as stack:
        world = stack.enter_context(nat.world())
        turn = stack.enter_context(nat.turn(world.turn, folder))
        (folder / "hub").mkdir()
        with world.hub.entered():
            hub = stack.enter_context(hub_rig.process(folder / "hub", command=command))
        world.publish(hub.port)
        yield world, turn, hub


@contextmanager
def between(folder: Path, world: World, turn: Turn, hub: hub_rig.Process) -> Iterator[tuple[Home, Home]]:
    """A tunnel between the homes, once there is a session."""
    with ExitStack() as stack:
        alice = Home("alice", world.device, folder, hub.ws("/ws/signal"), turn)
        stack.callback(alice.end)
        bob = Home("bob", world.viewer, folder, hub.ws("/ws/signal"), turn)
        stack.callback(bob.end)
        try:
            for each in (alice, bob):
                until(lambda each=each: each.session().is_up, 40)  # type: ignore[misc]
            yield alice, bob
        except BaseException:
            print(alice.logged(), bob.logged(), hub.said())
            raise


@contextmanager
def homes(
    folder: Path, *, rules: str = "", command: tuple[str, ...] = SIGNAL_ALONE
) -> Iterator[tuple[World, hub_rig.Process, Home, Home]]:
    """Both, with a tunnel between them. `rules`: of the internet; `command`: what the hub is started by."""
    with middle(folder, command) as (world, turn, hub):
        world.internet.rules(rules)
        with between(folder, world, turn, hub) as (alice, bob):
            yield world, hub, alice, bob


@contextmanager
def line(world: World) -> Iterator[Link]:
    """What joins the first home to the internet: a link that can be made as bad as one likes."""
    world.device_nat.ip("link del wan")
    with emulator.link(world.device_nat, world.internet, "device", "203.0.113.31", nat.MIDDLE) as link:
        yield link


def exchange(world: World, address: str, size: int) -> None:
    """A datagram of that size from one home to the other, and back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with world.viewer.entered():
        there = socket.socket(family, socket.SOCK_DGRAM)
    with world.device.entered():
        here = socket.socket(family, socket.SOCK_DGRAM)
    with there, here:
        there.bind((address, 0))
        data = os.urandom(size)
        for sock in (there, here):
            sock.settimeout(10)
        here.sendto(data, there.getsockname()[:2])
        came, sender = there.recvfrom(65536)
        there.sendto(came, sender)
        assert here.recv(65536) == data, size
