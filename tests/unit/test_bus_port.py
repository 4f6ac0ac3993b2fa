"""Datagrams of sessions by a port that is another process's: both ends of the bus, without the bus."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from procs.agent.conduit import WINDOW
from procs.agent.lane.way import Address, Take
from procs.errors import Refused
from procs.messages import encode
from procs.messages.tunnel import Arrive, Depart, Listening, PumpUp, Reached, decode_from_pump, decode_to_pump
from procs.tun_pump.ways import Ways
from procs.webrtc_peer.bus_port import BusPort

THERE = ("192.0.2.7", 4000)


class Port:
    """The socket's stand-in."""

    number = 51820

    def __init__(self) -> None:
        self.takes: dict[str, Take] = {}
        self.sent: list[tuple[str, str, Address, bytes, int]] = []
        self.known: list[tuple[str, list[Address]]] = []

    def expect(self, ufrag: str, take: Take) -> None:
        """As way.py has it, and so the others."""
        self.takes[ufrag] = take

    def heard(self, ufrag: str, senders: Sequence[Address]) -> None:
        """Keep it."""
        self.known.append((ufrag, [*senders]))

    def send(self, ufrag: str, local: str, to: Address, joined: bytes, step: int) -> int:
        """Keep it."""
        self.sent.append((ufrag, local, to, joined, step))
        return -(-len(joined) // step)

    def forget(self, ufrag: str) -> None:
        """No more."""
        del self.takes[ufrag]


class Bus:
    """Two sessions and the pump; `is_broken`: nothing gets through."""

    def __init__(self) -> None:
        self.is_broken, self.bodies = False, 0
        self.port = Port()
        self.ways = Ways(self.port, ["bob", "eve"], self.to_child)
        self.children = {peer: BusPort(peer, self.said_by(peer)) for peer in ("bob", "eve")}
        self.came: list[tuple[str, Address, list[bytes]]] = []

    def said_by(self, peer: str):  # type: ignore[no-untyped-def]
        """How one of them speaks."""
        return lambda message, body: self.to_pump(peer, message, body)

    def to_pump(self, peer: str, message: msgspec.Struct, body: bytes) -> bool:
        """As tun_pump takes it."""
        if self.is_broken:
            return False
        said = decode_to_pump(encode(message))
        if isinstance(said, Listening):
            self.ways.listening(peer, said)
        elif isinstance(said, Depart):
            self.ways.depart(peer, said, body)
        elif isinstance(said, Reached):
            self.ways.reached(peer, said)
        return True

    def to_child(self, peer: str, message: msgspec.Struct, body: bytes) -> bool:
        """As a child takes it."""
        said = decode_from_pump(encode(message))
        self.bodies += len(body)
        if not self.is_broken and isinstance(said, Arrive | Reached):
            self.children[peer].heard(said, body)
        return not self.is_broken

    def take(self, local: str, sender: Address, datagrams: list[bytes]) -> None:
        """A session's."""
        self.came.append((local, sender, datagrams))


@pytest.fixture
def bus() -> Bus:
    """With a connection of bob's."""
    made = Bus()
    made.children["bob"].expect("ufrg", made.take)
    return made


def test_datagrams_pass_both_ways_and_not_after_the_end(bus: Bus) -> None:
    bob = bus.children["bob"]
    bob.is_up(PumpUp(1380, port=51820))
    assert bob.number == 51820
    assert bob.send("ufrg", "10.0.0.1", THERE, b"aabbc", 2) == 3
    assert bus.port.sent == [("ufrg", "10.0.0.1", THERE, b"aabbc", 2)]
    bus.port.takes["ufrg"]("10.0.0.1", THERE, [b"one", b"another"])
    assert bus.came == [("10.0.0.1", THERE, [b"one", b"another"])]
    bob.forget("ufrg")
    assert not bus.port.takes
    bob.send("ufrg", "10.0.0.1", THERE, b"a", 1)
    assert len(bus.port.sent) == bus.ways.dropped == 1, "it is not its connection any more"
    bob.expect("again", bus.take)
    bus.ways.gone("bob")
    assert not bus.port.takes
    bob.tell()
    assert [*bus.port.takes] == ["again"]


def test_one_that_is_new_is_told_where_datagrams_came_from(bus: Bus) -> None:
    for number in [*range(10), 4]:
        bus.port.takes["ufrg"]("10.0.0.1", ("192.0.2.7", number), [b"x"])
    bus.port = Port()
    bus.ways = Ways(bus.port, ["bob"], bus.to_child)
    bus.children["bob"].tell()
    bus.children["bob"].tell()
    assert bus.port.known == [("ufrg", [("192.0.2.7", number) for number in (2, 3, 5, 6, 7, 8, 9, 4)])]


def test_what_is_one_session_s_is_no_other_s(bus: Bus) -> None:
    eve = bus.children["eve"]
    with pytest.raises(Refused, match="another's"):
        eve.expect("ufrg", lambda *_: None)
    eve.send("ufrg", "10.0.0.1", THERE, b"a", 1)
    assert bus.ways.dropped == 1
    bus.port.takes["ufrg"]("10.0.0.1", THERE, [b"x"])
    assert bus.came and not bus.port.sent
    eve.forget("ufrg")
    bus.port.takes["ufrg"]("10.0.0.1", THERE, [b"y"])
    assert len(bus.came) == 2


def test_much_passes_where_it_is_taken(bus: Bus) -> None:
    bob, run = bus.children["bob"], bytes(1200 * 50)
    for _ in range(100):
        assert bob.send("ufrg", "10.0.0.1", THERE, run, 1200) == 50
        bus.port.takes["ufrg"]("10.0.0.1", THERE, [bytes(1200)] * 50)
    assert (len(bus.port.sent), len(bus.came), bob.dropped, bus.ways.dropped) == (100, 100, 0, 0)


def test_who_stands_still_costs_datagrams_and_no_memory(bus: Bus) -> None:
    bob, run = bus.children["bob"], bytes(1200 * 50)
    bus.is_broken = True
    for _ in range(100):
        bob.send("ufrg", "10.0.0.1", THERE, run, 1200)
        bus.port.takes["ufrg"]("10.0.0.1", THERE, [bytes(1200)] * 50)
    assert bob.dropped == bus.ways.dropped == 5000 and bus.bodies <= WINDOW
    bus.is_broken = False
    bob.tell()  # as each second
    assert bob.send("ufrg", "10.0.0.1", THERE, run, 1200) == 50
    bus.port.takes["ufrg"]("10.0.0.1", THERE, [b"z"])
    assert bus.came[-1][2] == [b"z"]


def test_a_part_of_what_is_too_much_goes() -> None:
    said: list[bytes] = []
    port = BusPort("bob", lambda message, body: not said.append(body))  # type: ignore[func-returns-value]
    assert port.send("u", "", THERE, bytes(WINDOW + 5000), 1000) == WINDOW // 1000
    assert len(said[0]) == WINDOW // 1000 * 1000 and port.dropped == -(-(WINDOW + 5000) // 1000) - WINDOW // 1000
