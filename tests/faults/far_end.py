"""The other end of a suite's tunnel: a webrtc_peer of its own, and somebody behind it who pings the suite's address."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack

from procs.agent import network
from procs.agent.packets import checksum
from tests import nat
from tests.faults.test_tunnel_peers import Pump
from tests.nat import Place
from tests.peered import peered
from tests.tunnelled import section

ME, PEER = "alice", "bob"  # the suite, and who is at this end
PING_EVERY_S = 0.1
FRESH_S = 0.5
HERE, THERE = bytes([10, 77, 0, 2]), bytes([10, 77, 0, 1])
_WORDS = ("nsenter", "unshare", "setpriv", "ip")


def why_not() -> str:
    """Why there can be no tunnel here; empty if there can."""
    if missing := [word for word in _WORDS if not shutil.which(word)]:
        return f"there is no {missing[0]}"
    return nat.why_not() or ("" if os.access("/dev/net/tun", os.W_OK) else "there is no /dev/net/tun")


@contextmanager
def apart() -> Iterator[None]:
    """This thread, and what it starts, in a network of its own, with an address that a session can be had at."""
    place = Place("chaos")
    try:
        place.ip("link add wan type veth peer name nobody", "link set nobody up", "addr add 192.0.2.1/24 dev wan")
        place.ip("link set wan up")
        with place.entered():
            yield
    finally:
        place.end()


class FarEnd:
    """In the place of the other machine's tun_pump."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir, self._heard_ns = run_dir, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ping()), daemon=True)
        self._thread.start()

    def is_fresh(self, since_ns: int = 0) -> bool:
        """Whether pings are answered right now, and one was since then."""
        return self._heard_ns > max(since_ns, time.monotonic_ns() - FRESH_S * 1e9)

    def end(self) -> None:
        """Ping no more."""
        self._over.set()
        self._thread.join()

    async def _ping(self) -> None:
        pump, number = Pump(PEER, self._run_dir), 0
        while not self._over.is_set():
            number = (number + 1) % 65536
            pump.send(echo(number))
            await asyncio.sleep(PING_EVERY_S)
            if any(packet[20:21] == b"\0" and packet[12:20] == THERE + HERE for packet in pump.came):
                self._heard_ns = time.monotonic_ns()
            pump.came.clear()
            pump.ups.clear()
        pump.end()


def echo(number: int) -> bytes:
    """A ping from here."""
    icmp = bytearray(pack("!BBHHH", 8, 0, 0, 7, number))
    icmp[2:4] = pack("!H", checksum(icmp))
    head = bytearray(pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 1, 0) + HERE + THERE)
    head[10:12] = pack("!H", checksum(head))
    return bytes(head + icmp)


@contextmanager
def far_end(folder: Path, signaling_url: str) -> Iterator[FarEnd]:
    """The other machine, whose agent is at this server."""
    folder.mkdir()
    (folder / network.NAME).write_text(json.dumps(network.document_of(section(PEER), "tunnel")))
    with peered(folder, AGENT_ID=PEER, SIGNALING_URL=signaling_url):
        end = FarEnd(folder)
        try:
            yield end
        finally:
            end.end()
