"""The fast lane between two namespaces: sessions, ports, interfaces and packets are real."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests import nat
from tests.bench import icmp, peers_ground
from tests.bench.peers_ground import FAR, NEAR, Pair, Wire
from tests.nat import Place
from tests.rig import until

pytestmark = pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN")
HERE, THERE = "10.77.0.1", "10.77.0.2"
HERE6, THERE6 = "fd77::1", "fd77::2"
MTU = 1380
PAUSE_S = 0.01  # after each half a megabyte or so: more says no more, and takes two processors
# Datagrams of the lane begin with this byte; what is no such one is the session's.
DROP = (
    "table inet test {{ chain in {{ type filter hook input priority 0; iifname wan udp dport > 1024 {what} drop; }}; }}"
)
LANE, OTHERS = "@th,64,8 0xf1", "@th,64,8 != 0xf1"
Row = dict[str, Any]


@pytest.fixture
def wire() -> Iterator[Wire]:
    with peers_ground.straight() as made:
        yield made


@contextmanager
def tunnel(wire: Wire, planes: str = "3,2,1") -> Iterator[Pair]:
    """Both ends, with their sessions connected and on the best plane."""
    ends = [("lane-a", f"{HERE}/24,{HERE6}", MTU), ("lane-b", f"{THERE}/24,{THERE6}", MTU)]
    with peers_ground.pair(wire, ("our_end", planes), ends) as pair:
        yield pair


def rows(pair: Pair) -> tuple[Row, Row]:
    """What both tunnels say of their peer."""
    return pair.asked("rows", at=0)[0], pair.asked("rows", at=1)[0]


def both(pair: Pair, true: Callable[[Row], Any], within_s: float = 15.0) -> None:
    """Wait until it is so at both ends."""
    until(lambda: all(map(true, rows(pair))), within_s, 0.05)


def ping(wire: Wire, count: int = 5) -> int:
    """How many of so many are answered."""
    with wire.near.entered():
        return len(icmp.pings_ms(THERE, count, 0.02))


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Stream:
    """A TCP connection through the tunnel, over which random bytes go for as long as it is open."""

    def __init__(self, wire: Wire, to: str) -> None:
        with wire.far.entered():
            server = socket.create_server((to, 0), family=family_of(to))
        with server, wire.near.entered():
            self._here = socket.create_connection(server.getsockname()[:2], 10)
            self._there, _ = server.accept()
        self._sent, self._got = hashlib.sha256(), hashlib.sha256()
        self.came = 0
        self._is_over = False
        self._works = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for work in self._works:
            work.start()

    def _send(self) -> None:
        data = os.urandom(1 << 20)
        while not self._is_over:
            piece = data[: 1 + os.urandom(1)[0] << 12]
            with contextlib.suppress(OSError):
                self._here.sendall(piece)
            self._sent.update(piece)
            time.sleep(PAUSE_S)
        with contextlib.suppress(OSError):
            self._here.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._there.recv(1 << 20):
                self._got.update(piece)
                self.came += len(piece)

    def goes_on(self, within_s: float = 15.0) -> None:
        """Wait for more of it."""
        before = self.came
        until(lambda: self.came > before + (1 << 20), within_s, 0.01)

    def is_whole(self) -> bool:
        """End it. Whether all has come as it was."""
        self._is_over = True
        for work in self._works:
            work.join(20)
        return self._got.digest() == self._sent.digest()

    def close(self) -> None:
        """Whatever becomes of it."""
        self._is_over = True
        for sock in (self._here, self._there):
            sock.close()


@contextmanager
def stream(wire: Wire, to: str = THERE) -> Iterator[Stream]:
    """One, which is whole in the end."""
    made = Stream(wire, to)
    try:
        yield made
        assert made.is_whole()
    finally:
        made.close()


def rules(place: Place, what: str) -> None:
    place.rules(DROP.format(what=what))


def no_rules(place: Place) -> None:
    place.rules("flush ruleset")


def datagrams(wire: Wire, sizes: list[int], to: str = THERE) -> list[int]:
    """The sizes of those that come back."""
    with wire.far.entered():
        there = socket.socket(family_of(to), socket.SOCK_DGRAM)
    with wire.near.entered():
        here = socket.socket(family_of(to), socket.SOCK_DGRAM)
    found = []
    with there, here:
        there.bind((to, 0))
        here.connect(there.getsockname())
        there.settimeout(2)
        here.settimeout(2)
        for size in sizes:
            sent = os.urandom(size)
            with contextlib.suppress(TimeoutError):
                here.send(sent)
                got, sender = there.recvfrom(65536)
                there.sendto(got, sender)
                found += [size] if here.recv(65536) == sent else []
    return found


def test_all_goes_by_the_lane_and_comes_as_it_was(wire: Wire) -> None:
    with tunnel(wire) as pair:
        until(lambda: ping(wire) == 5, 10)  # which address is whose is looked at four times a second
        sizes = [0, 1, 100, 1352, 1353, 4000, 30000]
        assert datagrams(wire, sizes) == sizes
        with stream(wire) as tcp:
            for _ in range(20):
                tcp.goes_on()
        for row, remote in zip(rows(pair), (FAR, NEAR), strict=True):
            assert (row["plane"], row["path"], row["mtu"]) == (3, "direct", MTU)
            assert re.fullmatch(rf"{re.escape(remote)}:\d+", row["remote"]) and row["round_trip_ms"] < 1000
            assert not any(row["lane"].values()) and not any(row["dropped"].values())
        near, far = rows(pair)
        # A segment is a packet, however many of them the kernel has handed over as one.
        assert far["received_packets"] > 20_000_000 / MTU
        assert abs(near["sent_packets"] - far["received_packets"]) < near["sent_packets"] / 20


def test_ipv6_inside_and_outside(wire: Wire) -> None:
    for place, address, old in ((wire.near, "fd09::1", NEAR), (wire.far, "fd09::2", FAR)):
        place.ip(f"addr add {address}/64 dev wan nodad", f"addr del {old}/24 dev wan")
    with tunnel(wire) as pair:
        until(lambda: datagrams(wire, [100], THERE6) == [100], 10)
        sizes = [0, 1332, 1333, 9000]
        assert datagrams(wire, sizes, THERE6) == sizes
        with stream(wire, THERE6) as tcp:
            tcp.goes_on()
        for row, remote in zip(rows(pair), ("[fd09::2]:", "[fd09::1]:"), strict=True):
            assert row["plane"] == 3 and row["remote"].startswith(remote) and row["mtu"] == MTU
            assert not any(row["lane"].values()) and not row["dropped"]["malformed"]


@pytest.mark.parametrize("lost", [LANE, "ip dscp af42"])  # all of them; those of sparse flows, which pings are like
def test_where_its_datagrams_are_lost_packets_go_on_by_the_session_and_come_back(wire: Wire, lost: str) -> None:
    with tunnel(wire) as pair, stream(wire) as tcp:
        tcp.goes_on()
        rules(wire.far, lost)
        both(pair, lambda row: row["plane"] == 2)
        tcp.goes_on()
        until(lambda: ping(wire) == 5)  # one may be lost as the way changes
        no_rules(wire.far)
        both(pair, lambda row: row["plane"] == 3)
        tcp.goes_on()
        assert [row["lane"]["falls"] for row in rows(pair)] == [1, 1]


def test_it_outlives_the_session_and_takes_its_next_keys_from_the_next_one(wire: Wire) -> None:
    with tunnel(wire) as pair, stream(wire) as tcp:
        rules(wire.far, OTHERS)
        for _ in range(20):  # after three seconds of silence it is given up
            time.sleep(0.25)
            tcp.goes_on()
            assert {row["plane"] for row in rows(pair)} == {3}
        no_rules(wire.far)
        both(pair, lambda row: row["lane"]["rekeys"] >= 1, 30)  # of another session, with other secrets
        tcp.goes_on()
        assert [row["lane"]["falls"] for row in rows(pair)] == [0, 0]


def test_one_whose_address_changes_is_followed_without_new_keys(wire: Wire) -> None:
    with tunnel(wire) as pair, stream(wire) as tcp:
        tcp.goes_on()
        wire.near.ip(f"addr del {NEAR}/24 dev wan", "addr add 10.9.0.77/24 dev wan")
        tcp.goes_on()
        near, far = rows(pair)
        assert far["remote"].startswith("10.9.0.77:") and far["lane"]["moves"] == 1
        assert (near["lane"]["rekeys"], far["lane"]["rekeys"]) == (0, 0)
        both(pair, lambda row: row["plane"] == 3 and not row["why"], 30)


def test_a_path_that_becomes_too_narrow_is_noticed_and_nobody_has_to_say_so() -> None:
    # What stands between them sees each datagram alone, however many leave and arrive together.
    with peers_ground.lossy(0.0, 0.001) as (wire, _), tunnel(wire) as pair, stream(wire) as tcp:
        tcp.goes_on()
        rules(wire.far, f"{LANE} udp length > 1358")  # with its header of 8
        until(lambda: rows(pair)[0]["mtu"] == 1332 - 40, 5)
        tcp.goes_on()
        assert {row["plane"] for row in rows(pair)} == {3}


def test_two_of_which_one_has_no_lane_have_a_tunnel_all_the_same(wire: Wire) -> None:
    ends = [("lane-a", HERE, MTU), ("lane-b", THERE, MTU)]
    with peers_ground.pair(wire, ("our_end", "3,2,1"), ends, far=("our_end", "2,1")) as pair:
        until(lambda: ping(wire) == 5, 10)
        assert [(row["plane"], row["is_up"]) for row in rows(pair)] == [(2, True), (2, True)]
