"""Two tun_pumps, each in a network namespace of its own, and what stands between them in the place of a session."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from procs import bus, line
from procs.agent import network
from procs.agent.conduit import Conduit, packets_of
from procs.errors import DeadlineExceeded
from procs.line import Line
from procs.messages.tunnel import PeerUp, PumpUp, decode_from_pump
from procs.messages.warden import TunnelPeer, TunnelState, decode_to_warden
from tests.nat import Place
from tests.rig import clean_environ, until

ADDRESSES = {"alice": ["10.77.0.1/24", "fd77::1/64"], "bob": ["10.77.0.2/24", "fd77::2/64"]}


def section(me: str) -> dict[str, Any]:
    """What planaria.yaml says of the tunnel on one side."""
    other = "bob" if me == "alice" else "alice"
    allowed = [f"{each.partition('/')[0]}/{128 if ':' in each else 32}" for each in ADDRESSES[other]]
    return {"address": ADDRESSES[me], "peers": {other: {"allowed": allowed}}}


class Side:
    """One machine's pump, which can be killed and started again."""

    def __init__(self, me: str, place: Place, folder: Path, words: tuple[str, ...] = (), **change: Any) -> None:
        self.me, self.place, self.run_dir, self._words = me, place, folder / me, words
        self.run_dir.mkdir()
        self.log = folder / f"{me}.log"
        self.tell(**change)
        self.start()

    def tell(self, **change: Any) -> None:
        """Have its settings be these from its next start on."""
        document = network.document_of({**(section(self.me) if self.me in ADDRESSES else {}), **change}, "tunnel")
        (self.run_dir / network.NAME).write_text(json.dumps(document))

    def start(self) -> None:
        """As supervisord would."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.place.command(*self._words, sys.executable, "-m", "procs.tun_pump"),
                stdout=out,
                stderr=out,
                env=clean_environ(PLANARIA_RUN_DIR=str(self.run_dir), PLANARIA_LOG="json"),
            )

    def kill(self) -> None:
        """At once."""
        self.process.kill()
        self.process.wait()

    def state(self) -> TunnelState:
        """What it says of itself next, to who is there in the warden's place. Raises DeadlineExceeded."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with context, bus.binder(context, zmq.PULL, self.run_dir, bus.WARDEN_HEARTBEAT) as told:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                if told.poll(1000):
                    said = decode_to_warden(told.recv())
                    if isinstance(said, TunnelState) and said.pid == self.process.pid:
                        return said
        raise DeadlineExceeded(self.log.read_text(), retry=True)

    def peer(self) -> TunnelPeer:
        """What it says of the other one."""
        return self.state().peers[0]


class Joint:
    """The ends of a session between two, without the session: what one pump gives the other gets."""

    def __init__(self, folder: Path, mtu: int = 1380, between: tuple[str, str] = ("alice", "bob")) -> None:
        self._folder, self.mtu = folder, mtu
        self._others = dict([between, between[::-1]])
        self.told: dict[str, PumpUp] = {}
        self.dropped = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self._ready.wait(20)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        others = self._others
        self._conduits = {me: Conduit() for me in others}
        self._lines: dict[str, Line] = {
            me: line.connector(
                self._folder / me,
                bus.TUN_PUMP_PACKETS,
                others[me],
                lambda _, data, body, me=me: self._heard(me, others[me], data, body),  # type: ignore[misc]
            )
            for me in others
        }
        self._ready.set()
        while not self._stop.is_set():
            for me, other in others.items():
                conduit = self._conduits[me]
                seen = conduit.news().seen
                up = PeerUp(
                    other, os.getpid(), self.mtu, 2, "direct", "192.0.2.1:9", {"round_trip_ms": 1.0}, conduit.at, seen
                )
                self._lines[me].say(up)
            await asyncio.sleep(0.1)
        for each in self._lines.values():
            self._loop.remove_reader(int(each._sock.getsockopt(zmq.FD)))
            each._sock.context.destroy(linger=0)

    def _heard(self, me: str, other: str, data: bytes, body: bytes) -> None:
        message = decode_from_pump(data)
        conduit = self._conduits[me]
        conduit.heard(message.at, message.seen)
        if isinstance(message, PumpUp):
            self.told[me] = message
            return
        self._give(other, packets_of(body))
        if conduit.is_news_due():
            self._lines[me].say(conduit.news())

    def _give(self, to: str, packets: Sequence[bytes]) -> None:
        conduit = self._conduits[to]
        before = conduit.dropped
        for message, body in conduit.batches(packets):
            self._lines[to].say(message, body)
        self.dropped += conduit.dropped - before

    def give(self, to: str, packets: Sequence[bytes]) -> None:
        """Have the pump of `to` get these, as if its peer had sent them."""
        self._loop.call_soon_threadsafe(self._give, to, packets)

    def end(self) -> None:
        """Say nothing any more."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)


@contextmanager
def tunnel(folder: Path, **change: Any) -> Iterator[tuple[Side, Side, Joint]]:
    """alice, bob, and what joins them: packets pass."""
    places = [Place(me) for me in ADDRESSES]
    sides = [Side(me, place, folder, **change) for me, place in zip(ADDRESSES, places, strict=True)]
    joint = Joint(folder)
    try:
        for side in sides:
            until(lambda side=side: side.peer().is_up)  # type: ignore[misc]
        yield sides[0], sides[1], joint
    finally:
        joint.end()
        for side in sides:
            side.kill()
        for place in places:
            place.end()
