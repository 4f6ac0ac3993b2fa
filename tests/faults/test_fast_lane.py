"""The fast lane as a suite has it: a tun_pump and a webrtc_peer on each of two machines, which are killed in turn."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from procs.agent.keyring import Peers, folder_in
from tests import hub_rig, nat
from tests.bench.peers_ground import FAR, Wire, straight
from tests.homes import SIGNAL_ALONE, TOKEN, Home
from tests.rig import free_port, until

pytestmark = pytest.mark.skipif(bool(nat.why_not()), reason=nat.why_not())
THERE = "10.77.0.2"
EVERY_S = 0.02  # slowly: the kernel keeps more of these than a busy machine makes wait


class Stream:
    """Numbered datagrams through the tunnel, from alice to bob."""

    def __init__(self, wire: Wire) -> None:
        with wire.far.entered():
            self._there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with wire.near.entered():
            self._here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._there.bind((THERE, 0))
        self._here.connect(self._there.getsockname())
        self._there.settimeout(0.2)
        self.sent = 0
        self.came: set[int] = set()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._take)]
        for each in self._threads:
            each.start()

    def _send(self) -> None:
        while not self._is_over.wait(EVERY_S):
            self.sent += 1
            self._here.send(self.sent.to_bytes(4, "big"))

    def _take(self) -> None:
        while not self._is_over.is_set():
            try:
                self.came.add(int.from_bytes(self._there.recv(64), "big"))
            except TimeoutError:
                continue

    def lost(self, since: int) -> int:
        """How many that were sent after this number have not come."""
        last = self.sent
        until(lambda: max(self.came, default=0) >= last)
        return last - since - sum(since < number <= last for number in self.came)

    def end(self) -> None:
        """It is over."""
        self._is_over.set()
        for each in self._threads:
            each.join(10)
        self._here.close()
        self._there.close()


@contextmanager
def suites(folder: Path) -> Iterator[tuple[Wire, hub_rig.Process, Home, Home]]:
    """alice and bob, once their lane is up."""
    with ExitStack() as stack:
        wire = stack.enter_context(straight())
        (folder / "hub").mkdir()
        with wire.far.entered():
            told: dict[str, Any] = {
                "PLANARIA_HUB": f"0.0.0.0:{free_port()}",
                "SIGNALING_TOKENS": TOKEN,
                "PLANARIA_HUB_INSECURE": "1",
            }
            hub = stack.enter_context(hub_rig.process(folder / "hub", command=SIGNAL_ALONE, **told))
        homes = []
        for me, place in zip(("alice", "bob"), wire, strict=True):
            homes.append(Home(me, place, folder, f"ws://{FAR}:{hub.port}/ws/signal"))
            stack.callback(homes[-1].end)
        try:
            for home in homes:
                until(lambda home=home: home.session().plane == 3, 40)  # type: ignore[misc]
            yield wire, hub, homes[0], homes[1]
        except BaseException:
            print(*(home.logged() for home in homes), hub.said())
            raise


def connections(home: Home) -> int:
    """How many its sessions have had."""
    return home.logged().count('"connected to a peer"')


def test_whoever_is_killed_the_lane_goes_on_or_is_back(tmp_path: Path) -> None:
    with suites(tmp_path) as (wire, hub, alice, bob):
        stream = Stream(wire)
        until(lambda: stream.came)
        since, had = min(stream.came), alice.session().lane["rekeys"]
        os.kill(alice.child, signal.SIGKILL)
        bob.kill_peer()
        until(lambda: alice.session().lane["rekeys"] > had, 20)
        assert stream.lost(since) == 0 and alice.session().lane["falls"] == 0, "nobody beside the pumps is missed"
        until(lambda: connections(alice) == connections(bob) > 1, 20)

        before, had = alice.pump.state(), connections(alice)
        alice.kill_pump()
        number = stream.sent
        until(lambda: max(stream.came) > number, 20)
        until(lambda: (row := bob.session()).plane == 3 and row.lane["rekeys"] > 1, 20)
        after = alice.pump.state()
        assert (after.port, after.peers[0].plane, connections(alice)) == (before.port, 3, had), "no session is new"

        hub.kill()
        alice.kill_peer()  # which can't call anybody any more
        since = stream.sent
        time.sleep(1)
        assert stream.lost(since) == 0 and alice.session().plane == 3
        Peers(folder_in(alice.pump.run_dir)).revoke("bob")
        until(lambda: not alice.session().is_up, 20)
        since = stream.sent
        time.sleep(0.5)
        assert stream.sent > since + 5 > max(stream.came)
        stream.end()
