"""The link emulator does to packets what it is told: reckoned on a clock of our own, and seen between namespaces."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import emulator, nat
from tests.emulator import Lane, Link, Shape
from tests.nat import Place
from tests.rig import until

PACKET = bytes(1250)  # 10 ms at 1 Mbit/s
NEAR, FAR = "10.9.0.1", "10.9.0.2"


class Clocked:
    """A lane, and what arrived when."""

    def __init__(self, shape: Shape) -> None:
        self.now = 0.0
        self.arrived: list[tuple[float, bytes]] = []
        self.lane = Lane(lambda packet: self.arrived.append((self.now, packet)), seed=7)
        self.lane.shape = shape

    def send(self, *packets: bytes) -> None:
        self.lane.turn(self.now)
        for packet in packets:
            self.lane.take(packet, self.now)

    def until(self, end: float) -> None:
        while (due := self.lane.turn(self.now)) <= end:
            self.now = max(self.now, due)
        self.now = end

    @property
    def times_ms(self) -> list[float]:
        return [round(at * 1000, 3) for at, _ in self.arrived]


def test_packets_take_their_turn_at_the_rate_and_then_the_way() -> None:
    line = Clocked(Shape(rate=1e6, delay_s=0.1))
    line.send(*[PACKET] * 3)
    line.until(1)
    assert line.times_ms == [110, 120, 130]
    line.send(PACKET)
    line.until(2)
    assert line.times_ms[3:] == [1110]


def test_a_new_rate_holds_for_what_waits_and_a_full_buffer_drops_its_end() -> None:
    line = Clocked(Shape(rate=1e6, buffer_s=0.05))
    line.send(*[bytes([number]) + PACKET[1:] for number in range(9)])
    line.until(0.0205)
    assert [packet[0] for _, packet in line.arrived] == [0, 1]
    assert (line.lane.counts.overflowed, line.lane.counts.waiting) == (4, 2)
    line.lane.shape = Shape(rate=10e6)
    line.until(1)
    assert line.times_ms == [10, 20, 30, 31, 32]


def test_who_calls_late_gets_the_same() -> None:
    prompt, slow = (Clocked(Shape(rate=1e6, delay_s=0.01, loss=0.3, jitter_s=0.02)) for _ in range(2))
    for step in range(100):
        for line in (prompt, slow):
            line.now = max(line.now, step * 0.01)
            line.send(bytes([step]) + PACKET[1:])
        prompt.until(step * 0.01 + 0.009)
    for line in (prompt, slow):
        line.until(9)
    kept = [packet for _, packet in prompt.arrived]
    assert kept == sorted(kept) == [packet for _, packet in slow.arrived]
    assert 50 < len(slow.arrived) < 90


@pytest.mark.parametrize(("burst", "runs"), [(0.0, (1200, 2000)), (5.0, (250, 600))])
def test_so_many_are_lost_alone_or_in_bursts(burst: float, runs: tuple[int, int]) -> None:
    line = Clocked(Shape(loss=0.1, burst=burst))
    line.send(*[number.to_bytes(2, "big") for number in range(20000)])
    line.until(1)
    assert 1600 < line.lane.counts.lost < 2400
    kept = [int.from_bytes(packet, "big") for _, packet in line.arrived]
    gaps = sum(after - before > 1 for before, after in itertools.pairwise(kept))
    assert runs[0] < gaps < runs[1]


def test_late_ones_are_overtaken_and_duplicates_come_twice() -> None:
    line = Clocked(Shape(delay_s=0.01, jitter_s=0.01, late=0.2, late_s=0.05, duplicate=0.1))
    for number in range(200):
        line.send(bytes([number]))
        line.until(line.now + 0.005)
    line.until(9)
    counts = line.lane.counts
    assert 20 < counts.late < 60
    assert 10 < counts.duplicated < 30
    assert counts.passed == 200 + counts.duplicated
    order = list(dict.fromkeys(packet[0] for _, packet in line.arrived))
    assert order != sorted(order) == list(range(200))


@pytest.fixture
def ends() -> Iterator[tuple[Place, Place]]:
    """Two namespaces."""
    places = Place("near"), Place("far")
    yield places
    for place in places:
        place.end()


@pytest.mark.needs("ip", "nsenter")
@pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not())
def test_a_real_link_is_changed_and_cut_and_gone(ends: tuple[Place, Place]) -> None:
    near, far = ends
    with emulator.link(near, far, "lan", NEAR, FAR) as link:
        with near.entered():
            here = socket.socket(type=socket.SOCK_DGRAM)
        with far.entered():
            there = _bound(FAR)
        with here, there:
            _goes_through(link, here, there)
        assert _interfaces(near) == {"lo", "wan"}
    until(lambda: _interfaces(near) == {"lo"} == _interfaces(far))


def _goes_through(link: Link, here: socket.socket, there: socket.socket) -> None:
    to = there.getsockname()
    here.sendto(b"a", to)
    assert there.recv(9) == b"a"
    link.to_far(cut=True)
    for _ in range(5):
        here.sendto(b"lost", to)
    until(lambda: link.to_far().lost == 5)
    link.to_far(cut=False, duplicate=1)
    here.sendto(b"b", to)
    assert [there.recv(9), there.recv(9)] == [b"b", b"b"]
    # Ten packets of 10 ms each, into a buffer of 55 ms: of one in hand and five that wait the rest is too much.
    link.to_far(duplicate=0, rate=1e6, buffer_s=0.055)
    for number in range(10):
        here.sendto(bytes([number]) + bytes(1221), to)
    until(lambda: link.to_far().overflowed and not link.to_far().waiting)
    assert there.recv(2000)[0] == 0


def _bound(host: str) -> socket.socket:
    made = socket.socket(type=socket.SOCK_DGRAM)
    made.bind((host, 0))
    made.settimeout(nat.LIMIT_S)
    return made


def _interfaces(place: Place) -> set[str]:
    with place.entered():
        return {line.split(":")[0].strip() for line in Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]}
