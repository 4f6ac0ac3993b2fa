"""A tunnel between two homes, each behind its NAT: what runs in a suite for it, on both sides, and a hub for signalling
between. Everything of it is killed under a TCP connection, which goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from procs import proc
from procs.messages import TunnelPeer
from tests import hub_rig, nat
from tests.nat import Place, Turn, World
from tests.rig import clean_environ, free_port, until
from tests.tunnelled import Side

pytestmark = pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN")
# What keeps the homes' NATs apart, but not from coturn.
APART = """
table ip apart {
  chain through { type filter hook forward priority filter; ip saddr 203.0.113.31 ip daddr 203.0.113.41 drop; }
}
"""
HOLE = """
table ip hole {
  chain through { type filter hook forward priority filter; policy drop; }
}
"""
HOLE_S = 30
BOB = {4: "10.77.0.2", 6: "fd77::2"}


class Home:
    """One side: tun_pump and webrtc_peer, without the rest of a suite."""

    def __init__(self, me: str, place: Place, folder: Path, url: str, turn: Turn) -> None:
        self.pump = Side(me, place, folder)
        self._place, self._log = place, folder / f"{me}.peer.log"
        user, password = turn.credentials()
        self._environ = clean_environ(
            AGENT_ID=me, SIGNALING_URL=url, PLANARIA_RUN_DIR=str(self.pump.run_dir), PLANARIA_LOG="json",
            ICE_URLS=f"{turn.stun_url},{turn.url}", ICE_USERNAME=user, ICE_CREDENTIAL=password,
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start webrtc_peer, as supervisord would."""
        with self._log.open("ab") as out:
            self.peer = subprocess.Popen(
                self._place.command(sys.executable, "-m", "procs.webrtc_peer"),
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

    def logged(self) -> str:
        """What both have written."""
        return self._log.read_text() + self.pump.log.read_text()


@contextmanager
def homes(folder: Path, *, rules: str = "") -> Iterator[tuple[World, hub_rig.Process, Home, Home]]:
    """Both, with a session between them."""
    with ExitStack() as stack:
        world = stack.enter_context(nat.world())
        if rules:
            world.internet.rules(rules)
        turn = stack.enter_context(nat.turn(world.turn, folder))
        (folder / "hub").mkdir()
        with world.hub.entered():
            hub = stack.enter_context(hub_rig.process(folder / "hub", command=(*hub_rig.HUB, "--only", "signal")))
        world.publish(hub.port)
        url = f"ws://127.0.0.1:{hub.port}/ws/signal"
        alice = Home("alice", world.device, folder, url, turn)
        stack.callback(alice.end)
        bob = Home("bob", world.viewer, folder, url, turn)
        stack.callback(bob.end)
        try:
            for each in (alice, bob):
                until(lambda each=each: each.session().is_up, 40)  # type: ignore[misc]
            yield world, hub, alice, bob
        except BaseException:
            print(alice.logged(), bob.logged(), hub.said())
            raise


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


class Flow:
    """A TCP connection from one home to the other that never rests. `stall_s`: its longest pause since it was asked."""

    def __init__(self, world: World, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        port = free_port()
        with world.viewer.entered():
            listener = socket.create_server((address, port), family=family)
        with world.device.entered():
            self._out = socket.create_connection((address, port), timeout=40)
        self._in, _ = listener.accept()
        self._in.settimeout(60)
        listener.close()
        self.got, self._gap_s, self._is_over = 0, 0.0, False
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        piece = bytes(range(256)) * 64
        while not self._is_over:
            self._out.sendall(piece)
            time.sleep(0.005)  # about 3 MB/s: this is about pauses
        self._out.close()

    def _receive(self) -> None:
        last = time.monotonic()
        while data := self._in.recv(1 << 16):
            assert data[0] == self.got % 256  # nothing is missing
            self.got += len(data)
            now = time.monotonic()
            self._gap_s, last = max(self._gap_s, now - last), now
        self._in.close()

    def stall(self, fault: Callable[[], object]) -> float:
        """Do that, see that it goes on, and say for how long it had not."""
        self._gap_s = 0.0
        fault()
        time.sleep(0.5)
        for _ in range(2):  # the pause is counted when it is over
            before = self.got
            until(lambda before=before: self.got > before + 100_000, 40)  # type: ignore[misc]
        return self._gap_s

    def end(self) -> None:
        """It is over, in order."""
        self._is_over = True
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


def test_a_connection_through_the_tunnel_outlives_whatever_is_killed(tmp_path: Path) -> None:
    with homes(tmp_path) as (world, hub, alice, bob):
        seen = alice.session()
        assert seen.plane == 2 and seen.path == "direct"
        for address in BOB.values():
            for size in (1, 1332, 1353, 9000):  # 1380 is the MTU: the last two are sent in pieces
                exchange(world, address, size)
        flow = Flow(world, BOB[4])
        stalls = {
            "a session's child": flow.stall(lambda: os.kill(alice.child, signal.SIGKILL)),
            "webrtc_peer": flow.stall(bob.kill_peer),
            "tun_pump": flow.stall(alice.kill_pump),
            "the hub": flow.stall(hub.kill),
        }
        flow.end()
        print({name: round(stall_s, 2) for name, stall_s in stalls.items()})
        assert max(stalls.values()) < 15


def test_packets_go_by_turn_where_no_path_is_straight_and_straight_once_there_is_one(tmp_path: Path) -> None:
    with homes(tmp_path, rules=APART) as (world, _, alice, bob):
        seen, theirs = alice.session(), bob.session()
        assert {seen.path, theirs.path} == {"relayed"} and seen.plane == 2
        exchange(world, BOB[4], 1352)
        flow = Flow(world, BOB[6])
        world.internet.rules("flush ruleset")
        for each in (alice, bob):
            until(lambda each=each: each.session().path == "direct", 40)  # type: ignore[misc]
        flow.stall(lambda: None)
        flow.end()


@pytest.mark.long
def test_a_black_hole_costs_no_more_than_its_time(tmp_path: Path) -> None:
    with homes(tmp_path) as (world, _, alice, bob):
        flow = Flow(world, BOB[4])
        flow.stall(lambda: None)

        def hole() -> None:
            """Nothing gets through between anybody: neither straight, nor by TURN, nor to the hub."""
            world.internet.rules(HOLE)
            time.sleep(5)
            before = cpu_s(alice, bob)
            time.sleep(HOLE_S - 5)
            assert cpu_s(alice, bob) - before < 0.2 * (HOLE_S - 5)
            world.internet.rules("flush ruleset")

        descriptors = len(os.listdir(f"/proc/{alice.child}/fd"))
        stall_s = flow.stall(hole)
        flow.end()
        print(f"a black hole of {HOLE_S} s: {stall_s:.1f} s")
        assert stall_s < HOLE_S + 20  # by itself TCP would wait for as long again
        until(lambda: len(os.listdir(f"/proc/{alice.child}/fd")) <= descriptors + 2, 20)


def cpu_s(*homes: Home) -> float:
    """What their processes have used so far."""
    pids = [pid for home in homes for pid in (home.peer.pid, home.child, home.pump.process.pid)]
    return sum(found.cpu_s for pid in pids if (found := proc.stat(pid)))
