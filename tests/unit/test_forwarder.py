"""Which way packets go between an interface and a peer, and when the interface is not read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from ipaddress import ip_interface, ip_network
from typing import Any

import pytest

from procs.agent.forwarder import Forwarder
from procs.agent.lane.vnet import PLAIN, Iov
from procs.agent.network import Tunnel
from procs.agent.packets import checksum
from procs.agent.switch import Switch
from tests.segmenting import TCP, frame
from tests.unit.test_joining import datagram
from tests.unit.test_packets import v4

HERE, THERE = bytes([10, 77, 0, 1]), bytes([10, 77, 0, 2])
OUT, IN = v4(b"\0" * 40, source=HERE, to=THERE), v4(b"\0" * 40, source=THERE, to=HERE)


class FakeDevice:
    """An interface, as far as a forwarder sees it."""

    fd = 3

    def __init__(self) -> None:
        self.take: Callable[[list[bytes]], bool | None] | None = None
        self.written: list[bytes] = []
        self.offloads: list[bool] = []

    def start(self, take: Callable[[list[bytes]], bool | None]) -> None:
        self.take = take

    def pause(self) -> None:
        self.take = None

    def offload(self, *, on: bool) -> tuple[str, ...]:
        self.offloads.append(on)
        return ("csum", "tso", "uso") if on else ()

    def write(self, iovs: Sequence[Iov]) -> None:
        self.written += [b"".join(iov) for iov in iovs]


class FakeLanes:
    """The same of lanes."""

    on_frames: Callable[[str, Sequence[Iov]], None]
    on_room: Callable[[], None]

    def __init__(self) -> None:
        self.are_up = self.is_full = False
        self.sent: list[bytes] = []
        self.sparse: list[bytes] = []  # those of it that go first at the other end, too

    def is_up(self, peer: str) -> bool:
        return self.are_up

    def send(self, peer: str, frames: Sequence[bytes], *, is_sparse: bool = False) -> int:
        self.sent += frames
        self.sparse += frames if is_sparse else []
        return len(frames)

    def tick(self, now: float) -> None:
        pass


def forwarding() -> tuple[Any, Any, Switch, Forwarder, list[bytes]]:
    tunnel = Tunnel(address=(ip_interface("10.77.0.1/24"),), allowed={"bob": (ip_network("10.77.0.2/32"),)})
    device, lanes, switch, elsewhere = FakeDevice(), FakeLanes(), Switch(tunnel), list[bytes]()

    def other(peer: str, packets: list[bytes]) -> int:
        elsewhere.extend(packets)
        return len(packets) - 1

    forwarder = Forwarder(device, switch, lanes, other)  # type: ignore[arg-type]
    forwarder.start()
    return device, lanes, switch, forwarder, elsewhere


def test_packets_take_the_lane_while_it_is_up_and_the_session_before_and_after() -> None:
    device, lanes, switch, forwarder, elsewhere = forwarding()
    device.take([PLAIN + OUT, PLAIN + OUT])
    assert (elsewhere, lanes.sent) == ([OUT, OUT], [])
    lanes.are_up = True
    forwarder.tick(0.0)
    device.take([PLAIN + OUT])
    assert lanes.sent == [PLAIN + OUT] and len(elsewhere) == 2
    lanes.are_up = False
    forwarder.tick(0.1)
    forwarder.tick(0.2)
    device.take([PLAIN + OUT])
    assert len(elsewhere) == 3
    assert device.offloads == [True, False]
    traffic = switch.traffic["bob"]
    assert (traffic.sent_packets, traffic.lost, traffic.sent_bytes) == (2, 2, 2 * len(OUT))


def test_what_comes_is_judged_whichever_way_it_came() -> None:
    device, lanes, switch, forwarder, _ = forwarding()
    lanes.on_frames("bob", [[PLAIN + IN], [PLAIN + OUT]])
    forwarder.from_session("bob", [IN, OUT])
    lanes.on_frames("eve", [[PLAIN + IN]])
    assert device.written == [PLAIN + IN, PLAIN + IN]
    assert (switch.traffic["bob"].received_packets, switch.traffic["bob"].spoofed) == (2, 2)


def test_datagrams_of_one_flow_that_came_by_the_lane_are_written_as_one_while_the_kernel_takes_that() -> None:
    device, lanes, switch, forwarder, _ = forwarding()
    made = bytearray(datagram(4, 9, 100, 1))
    made[22:30] = THERE + HERE
    made[20:22] = bytes(2)
    made[20:22] = checksum(made[10:30]).to_bytes(2, "big")
    lanes.on_frames("bob", [[bytes(made)], [bytes(made)]])
    lanes.are_up = True
    forwarder.tick(0.0)
    lanes.on_frames("bob", [[bytes(made)], [bytes(made)]])
    assert [len(each) for each in device.written] == [len(made), len(made), len(made) + 100]
    assert switch.traffic["bob"].received_packets == 4


def test_the_interface_is_not_read_while_the_port_is_full() -> None:
    device, lanes, _, _, _ = forwarding()
    lanes.are_up = lanes.is_full = True
    device.take([PLAIN + OUT])
    assert not device.take
    lanes.is_full = False
    lanes.on_room()
    device.take([PLAIN + OUT])
    assert len(lanes.sent) == 2 and device.take


def test_a_sparse_flow_goes_before_bulk_that_came_before_it() -> None:
    device, lanes, switch, _, _ = forwarding()
    lanes.are_up = True
    bulk = [frame(4, TCP, bytes(60_000), 1000, sequence=each) for each in range(20)]
    device.take([*bulk[:2], PLAIN + OUT, *bulk[2:]])
    assert lanes.sent[0] == PLAIN + OUT and lanes.sent[1:3] == bulk[:2] and lanes.sparse == [PLAIN + OUT]
    device.take([PLAIN + OUT])
    assert lanes.sparse == [PLAIN + OUT] * 2 and switch.traffic["bob"].sent_packets == 2 + 60 * (len(lanes.sent) - 2)


def test_what_has_waited_for_the_port_is_passed_by_nothing_of_its_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    device, lanes, _, _, _ = forwarding()
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lanes.are_up = lanes.is_full = True
    few, other = frame(4, TCP, bytes(100), 1000), frame(4, TCP, bytes(5000), 1000, ports=(7, 7))
    for _ in range(9):
        device.take([frame(4, TCP, bytes(60_000), 1000), other])
        now[0] += 1
        lanes.on_room()
    assert lanes.sparse == [other] * 9, "it has its rate though the port is always full"
    lanes.sparse.clear()
    lanes.is_full = False
    device.take([few])
    assert not lanes.sparse
    now[0] += 0.5
    lanes.on_room()  # it has been full for others only
    device.take([few])
    assert lanes.sparse == [few]


def test_what_a_turn_has_no_room_for_waits_and_others_pass_it() -> None:
    device, lanes, switch, _, _ = forwarding()
    lanes.are_up = True
    bulk = [frame(4, TCP, bytes(60_000), 1000, sequence=each) for each in range(20)]
    assert device.take(bulk) is True
    sent = len(lanes.sent)
    assert 0 < sent < len(bulk)
    assert device.take([PLAIN + OUT]) is True
    assert lanes.sent[sent] == PLAIN + OUT
    while device.take([]):
        pass
    assert [each for each in lanes.sent if each != PLAIN + OUT] == bulk
    assert switch.traffic["bob"].lost == 0


def test_what_waits_is_bounded_and_what_is_lost_is_counted() -> None:
    device, lanes, switch, _, _ = forwarding()
    lanes.are_up = lanes.is_full = True
    each = frame(4, TCP, bytes(60_000), 1000)
    for _ in range(40):
        lanes.on_room()
        device.take([each] * 16)
    assert switch.traffic["bob"].lost > 0
    lanes.is_full = False
    lanes.on_room()
    while device.take([]):
        pass
    assert switch.traffic["bob"].lost == 60 * (40 * 16 - len(lanes.sent))


@pytest.mark.parametrize("is_up", [True, False])
def test_a_peer_may_be_forgotten_while_something_for_it_waits(is_up: bool) -> None:
    device, lanes, switch, _, _ = forwarding()
    lanes.are_up = is_up
    bulk = [frame(4, TCP, bytes(60_000), 1000)] * 20
    assert device.take(bulk) is True
    sent = switch.traffic["bob"]
    before = sent.sent_packets + sent.lost
    switch.forget("bob")
    while device.take([]):
        pass
    assert before and switch.homeless == 60 * len(bulk) - before
