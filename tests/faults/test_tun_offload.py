"""Frames of a real TUN whose offloads are on: what the kernel leaves to us, cut into packets or as it is, is what the
sender said to another kernel."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_interface
from pathlib import Path

import pytest

from procs.agent import joining, tun
from procs.agent.device import TunDevice
from procs.agent.lane import vnet
from procs.agent.lane.vnet import Iov
from procs.agent.network import Tunnel
from procs.agent.switch import Switch
from tests import nat
from tests.nat import Place
from tests.unit.test_vnet import frame

pytestmark = pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN")
NAMES = ("alice", "bob")
UDP_SEGMENT = 103
DATA = os.urandom(5_000_001)
Way = Callable[[list[bytes]], list[Iov]]


def one_by_one(frames: list[bytes]) -> list[Iov]:
    """As packets of planes that know no frames, none joined."""
    return [[vnet.PLAIN + packet] for packet in vnet.packets(frames)]


def joined(frames: list[bytes]) -> list[Iov]:
    """The same, as they are written."""
    return joining.iovs(vnet.packets(frames))


def whole(frames: list[bytes]) -> list[Iov]:
    """As they are."""
    return [[frame] for frame in frames]


def by_flows(frames: list[bytes]) -> list[Iov]:
    """The same, with datagrams joined."""
    return joining.datagrams(whole(frames))


def tunnel_of(name: str) -> Tunnel:
    """Of each side; the other one is its only peer."""
    mine, other = (1, 2) if name == "alice" else (2, 1)
    allowed = {"other": tuple(ip_interface(each).network for each in (f"10.77.0.{other}/32", f"fd77::{other}/128"))}
    return Tunnel(address=(ip_interface(f"10.77.0.{mine}/24"), ip_interface(f"fd77::{mine}/64")), allowed=allowed)


class Joined:
    """Two interfaces, and a thread that carries what each gives to the other."""

    def __init__(self, places: dict[str, Place], way: Way) -> None:
        self.places, self._way = places, way
        self.devices: dict[str, TunDevice] = {}
        self.switches = {name: Switch(tunnel_of(name)) for name in NAMES}
        self.kinds: set[int] = set()
        self.largest = 0
        for name in NAMES:
            with places[name].entered():
                self.devices[name], _ = tun.claim(tunnel_of(name), "planaria test")
            assert set(self.devices[name].offload(on=True)) >= {"csum", "tso"}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        others = {self.devices[name].fd: (name, NAMES[1 - number]) for number, name in enumerate(NAMES)}
        while not self._over.is_set():
            ready, _, _ = select.select(list(others), [], [], 0.1)
            for fd in ready:
                name, other = others[fd]
                frames = self.devices[name].read()
                self.kinds |= {frame[1] & ~vnet.ECN for frame in frames}
                self.largest = max(self.largest, *map(len, frames)) if frames else self.largest
                sorted_, answers = self.switches[name].sort(frames)
                self.devices[name].write(answers)
                if its := sorted_.get("other"):
                    self.switches[name].sent("other", its, len(its))
                    self.devices[other].write(self.switches[other].admit("other", self._way(its)))

    def end(self) -> None:
        """Carry no more."""
        self._over.set()
        self._thread.join()
        for device in self.devices.values():
            device.persist(on=False)
            device.close()

    def wrong_sums(self, name: str) -> int:
        """What the kernel has dropped for its checksum."""
        with self.places[name].entered():
            texts = [Path("/proc/thread-self/net", each).read_text() for each in ("snmp", "snmp6")]
        lines = [line.split() for text in texts for line in text.splitlines()]
        found = sum(int(words[1]) for words in lines if words[0].endswith("InCsumErrors"))
        for names, numbers in itertools.pairwise(lines):
            if names[0] == numbers[0] and "InCsumErrors" in names:
                found += int(numbers[names.index("InCsumErrors")])
        return found


@contextmanager
def carried(way: Way) -> Iterator[Joined]:
    """Both, and then neither."""
    places = {name: Place(name) for name in NAMES}
    made = Joined(places, way)
    try:
        yield made
    finally:
        made.end()
        for place in places.values():
            place.end()


def send_tcp(made: Joined, address: str, segment: int) -> bool:
    """Whether bob gets what alice sends, and she the sum of it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with made.places["bob"].entered():
        listener = socket.create_server((address, 0), family=family)
    with made.places["alice"].entered():
        out = socket.socket(family)
    with listener, out:
        for sock in (listener, out):
            sock.settimeout(30)
            if segment:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        out.connect(listener.getsockname()[:2])
        into, _ = listener.accept()

        def answer() -> None:
            found = hashlib.sha256()
            while piece := into.recv(1 << 16):
                found.update(piece)
            into.sendall(found.digest() * 10_000)
            into.close()

        thread = threading.Thread(target=answer)
        into.settimeout(30)
        thread.start()
        out.sendall(DATA)
        out.shutdown(socket.SHUT_WR)
        got = b""
        while piece := out.recv(1 << 16):
            got += piece
        thread.join(30)
    return got == hashlib.sha256(DATA).digest() * 10_000


def send_udp(made: Joined, address: str, size: int, step: int, *, at_once: bool = True) -> list[bytes]:
    """What bob gets of datagrams that alice has her kernel cut, or does not."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with made.places["bob"].entered():
        there = socket.socket(family, socket.SOCK_DGRAM)
    with made.places["alice"].entered():
        here = socket.socket(family, socket.SOCK_DGRAM)
    got: list[bytes] = []
    with there, here:
        there.bind((address, 0))
        there.settimeout(5)
        here.connect(there.getsockname()[:2])
        if at_once:
            here.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, step)
        for at in range(0, size, size if at_once else step):
            here.send(DATA[at : size if at_once else min(at + step, size)])
        while sum(map(len, got)) < size:
            got.append(there.recv(65536))
    return got


@pytest.mark.parametrize("way", [one_by_one, joined, whole, by_flows])
def test_another_kernel_gets_what_was_said(way: Way) -> None:
    with carried(way) as made:
        for address in ("10.77.0.2", "fd77::2"):
            for segment in (0, 1201):
                assert send_tcp(made, address, segment), address
            for size, step in ((30_001, 1201), (40_000, 1000), (5000, 100), (77, 1000)):
                pieces = [DATA[at : min(at + step, size)] for at in range(0, size, step)]
                assert send_udp(made, address, size, step) == pieces, (address, size)
                assert send_udp(made, address, size, step, at_once=False) == pieces, (address, size)
        assert made.kinds >= {0, vnet.TCP4, vnet.TCP6} and 20_000 < made.largest <= vnet.HEAD + vnet.MOST_BYTES
        for name, other in (NAMES, NAMES[::-1]):
            assert made.wrong_sums(name) == 0 and made.devices[name].dropped == 0
            sent, got = made.switches[name].traffic["other"], made.switches[other].traffic["other"]
            assert (sent.sent_packets, sent.sent_bytes) == (got.received_packets, got.received_bytes)
            assert not sum(got.dropped().values())


def test_a_connection_goes_on_while_lanes_come_and_go() -> None:
    over = threading.Event()
    with carried(joined) as made:

        def switch() -> None:
            for number in itertools.count():
                for device in made.devices.values():
                    device.offload(on=number % 2 == 0)
                if over.wait(0.02):
                    break

        thread = threading.Thread(target=switch)
        thread.start()
        try:
            assert send_tcp(made, "10.77.0.2", 0) and send_tcp(made, "fd77::2", 0)
        finally:
            over.set()
            thread.join()
        assert all(made.wrong_sums(name) == 0 for name in NAMES)


def test_offloads_end_with_who_wanted_them() -> None:
    place = Place("alice")
    try:
        with place.entered():
            device, _ = tun.claim(tunnel_of("alice"), "planaria test")
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
            sock.connect(("10.77.0.2", 9))

            def sent() -> list[int]:
                sock.send(DATA[:20_000])
                return [len(frame) - vnet.HEAD for frame in device.read(100)]

            assert sent() == [1028] * 20
            assert "uso" in device.offload(on=True) and sent() == [20_028]
            sock.send(DATA[:20_000])
            assert device.offload(on=False) == ()
            assert sent() == [20_028] + [1028] * 20 and sent() == [1028] * 20, "what was on its way is whole"
            device.offload(on=True)
            device.close()  # as if it was killed: the interface stays
            with place.entered():
                device, _ = tun.claim(tunnel_of("alice"), "planaria test")
            assert sent() == [1028] * 20
            device.persist(on=False)
            device.close()
    finally:
        place.end()


def test_a_kernel_without_segments_of_udp_gets_them_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        device = TunDevice(os.dup(there.fileno()), "old", is_framed=True)
        many = frame(4, 17, bytes(3000), 1000)

        def refuses(fd: int, buffers: list[bytes]) -> int:
            raise OSError(errno.EINVAL, "as an older one does")

        monkeypatch.setattr("procs.agent.device.os.writev", refuses)
        device.write([[many[:40], many[40:]]])
        here.setblocking(False)
        assert [here.recv(2000) for _ in range(3)] == [vnet.PLAIN + each for each in vnet.packets([many])]
        assert device.dropped == 0
        many = frame(4, 6, bytes(3000), 1000)
        device.write([[many[:50], many[50:]], [vnet.PLAIN, b"one"]])
        assert device.dropped == 4, "counted as packets"
        device.close()
