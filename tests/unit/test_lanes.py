"""Two ends of a lane over a simulated path: when it is up, what becomes of packets, keys, moves and forgeries."""

from __future__ import annotations

import hashlib
import random
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from procs.agent.lane import lane as one_lane
from procs.agent.lane.keying import SECRET_BYTES, Keying, Keys
from procs.agent.lane.lanes import DOUBTED, Lanes
from procs.agent.lane.slices import CONTROL
from procs.agent.lane.vnet import PLAIN
from procs.agent.lane.way import Address
from procs.agent.udp import Sent
from procs.messages.tunnel import LaneKeys
from tests.segmenting import TCP, frame

STEP_S = 0.05
MTU = 1380


class Net:
    """Where both are. `room`: larger ones are lost; `lost(datagram)`: so are those."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.room = 1472
        self.lost: Callable[[bytes], bool] = lambda datagram: False
        self.way: list[tuple[Address, bytes, int, Address]] = []
        self.ends: list[End] = []

    def run(self, seconds: float, until: Callable[[], Any] = lambda: False) -> float:
        """Go on for so long, or until that is so; how long it took."""
        began = self.now
        while self.now - began < seconds and not until():
            self.now += STEP_S
            for end in self.ends:
                end.turn()
            self.carry()
        return self.now - began

    def carry(self) -> None:
        """What is on its way arrives, and what is sent for it."""
        while self.way:
            way, self.way = self.way, []
            for sender, joined, step, to in way:
                self.arrive(sender, joined, step, to)

    def arrive(self, sender: Address, joined: bytes, step: int, to: Address) -> None:
        datagrams = [joined[at : at + step] for at in range(0, len(joined), step)]
        kept = [each for each in datagrams if len(each) <= self.room and not self.lost(each)]
        for end in self.ends:
            if end.at == to and kept:
                if len(kept) == len(datagrams):
                    end.port.on_records(memoryview(joined), step, sender)
                else:
                    for each in kept:
                        end.port.on_records(memoryview(each), len(each), sender)
                end.port.on_all()


class FakePort:
    """What lanes see of a UDP port."""

    def __init__(self, net: Net, end: End) -> None:
        self.on_records: Callable[[memoryview, int, Address], None] = lambda joined, step, sender: None
        self.on_all: Callable[[], None] = lambda: None
        self.on_writable: Callable[[], None] = lambda: None
        self._net, self._end = net, end
        self.is_full = False
        self.sent: list[bytes] = []
        self.marks: list[bool] = []  # of calls that sent something
        self.glances: list[int] = []  # after how many of those

    def glance(self) -> None:
        self.glances.append(len(self.marks))

    def shuns(self, host: str) -> bool:
        return host.startswith("10.77.")

    def send_records(self, joined: bytes, step: int, to: Address, *, is_sparse: bool = False) -> Sent:
        if self.is_full:
            return Sent.FULL
        if step > self._end.interface:
            return Sent.TOO_BIG
        self.marks.append(is_sparse)
        self.sent += [joined[at : at + step] for at in range(0, len(joined), step)]
        self._net.way.append((self._end.at, joined, step, to))
        return Sent.YES


class End:
    """One side: its lanes, and a session with the other, whose HELLOs take their time but arrive."""

    def __init__(self, net: Net, name: str, other: str, at: Address) -> None:
        self.net, self.other, self.at = net, other, at
        self.interface = 1472
        self.role = "client" if name < other else "server"
        self.has_session = True
        self.got: list[bytes] = []
        self.told: list[LaneKeys] = []
        net.ends.append(self)
        self.begin()
        self.connect()

    def begin(self) -> None:
        """Its owner of the port, in a first life or another."""
        self.port = FakePort(self.net, self)
        self.lanes = Lanes(self.port, most=MTU, clock=lambda: self.net.now)
        self.lanes.on_frames = lambda peer, iovs: self.got.extend(b"".join(iov)[10:] for iov in iovs)

    def connect(self, session: bytes = b"one") -> None:
        """Another DTLS session."""
        self.said: list[bytes] = []
        self.keying = Keying(
            lambda context: hashlib.sha256(session + context).digest()[:SECRET_BYTES], self.said.append, self.role
        )
        self.keying.on_keys = self._tell

    def _tell(self, keys: Keys) -> None:
        host, port = self.peer.at
        self.told.append(LaneKeys(self.other, 1, *keys, host=host, port=port))
        self.lanes.keys(self.told[-1])

    @property
    def peer(self) -> End:
        return next(end for end in self.net.ends if end is not self)

    def turn(self) -> None:
        nonce = self.lanes.nonce(self.other)
        if self.has_session:
            self.keying.ours(nonce)
            self.keying.tick(self.net.now)
            said, self.said[:] = self.said[:], []
            for hello in said:
                if self.peer.has_session:
                    self.peer.keying.heard(hello)
        self.lanes.tick(self.net.now)

    @property
    def is_up(self) -> bool:
        return self.lanes.is_up(self.other)

    def send(self, *packets: bytes) -> int:
        return self.lanes.send(self.other, [bytes(10) + packet for packet in packets])

    def stat(self, name: str) -> int:
        return self.lanes.stats(self.other)[name]


def packet(number: int, size: int = 200) -> bytes:
    """An IPv4 packet, as far as anybody looks."""
    return struct.pack("!BBHII4s4s", 0x45, 0, size, number, 0, b"\x0a\0\0\1", b"\x0a\0\0\2").ljust(size, b"x")


@pytest.fixture
def net() -> Net:
    """Two ends, up."""
    made = Net()
    one, two = End(made, "alice", "bob", ("192.0.2.1", 1000)), End(made, "bob", "alice", ("192.0.2.2", 1000))
    made.run(3, lambda: one.is_up and two.is_up)
    assert one.is_up and two.is_up
    return made


def through(net: Net, numbers: Sequence[int]) -> None:
    """Packets both ways, all of which arrive."""
    net.carry()
    for here, there in (net.ends, net.ends[::-1]):
        there.got.clear()
        packets = [packet(number) for number in numbers]
        assert here.send(*packets) == len(packets)
        net.carry()
        assert sorted(there.got) == sorted(packets)


@pytest.mark.parametrize("is_alone", [True, False])
def test_slices_that_come_one_by_one_are_one_frame_again(net: Net, is_alone: bool) -> None:
    one, two = net.ends
    sent, written = frame(4, TCP, bytes(30_500), 1000), list[int]()
    two.lanes.on_frames = lambda peer, iovs: written.extend(sum(map(len, iov)) for iov in iovs)
    assert one.lanes.send("bob", [sent, PLAIN + packet(1), sent]) == 3
    runs, net.way = net.way, []
    for sender, joined, step, _ in runs:
        for at in range(0, len(joined), step):
            alone = joined[at : at + step]
            two.port.on_records(memoryview(alone), len(alone), sender)
            stranger = b"\xf1" + bytes(100)
            if not is_alone:
                two.port.on_records(memoryview(stranger), len(stranger), ("203.0.113.66", 666))
    two.port.on_all()
    assert sorted(written) == sorted([len(sent), 210, len(sent)])


def test_what_is_sparse_is_marked_though_it_waits_for_room_and_so_is_what_the_ends_say(net: Net) -> None:
    one, _ = net.ends
    assert one.port.marks and all(one.port.marks), "pings and their answers"
    one.port.marks.clear()
    one.port.is_full = True
    assert one.lanes.send("bob", [PLAIN + packet(1)]) == one.lanes.send("bob", [PLAIN + packet(2)], is_sparse=True) == 1
    one.port.is_full = False
    one.port.on_writable()
    assert one.lanes.send("bob", [PLAIN + packet(3)], is_sparse=True) == 1
    assert one.port.marks == [False, True, True]


def test_what_is_urgent_is_looked_for_between_two_runs(net: Net) -> None:
    one, _ = net.ends
    one.port.marks.clear()
    assert one.lanes.send("bob", [PLAIN + packet(1)]) == 1 and not one.port.glances
    one.lanes.send("bob", [frame(4, TCP, bytes(60_000), 1000)] * 3)
    assert one.port.glances == [*range(2, len(one.port.marks))]


def test_it_is_up_at_once_carries_packets_and_knows_its_width(net: Net) -> None:
    assert net.now - 1000.0 <= 0.5
    through(net, range(30))
    assert [end.lanes.mtu(end.other) for end in net.ends] == [MTU, MTU]
    assert net.ends[0].lanes.remote("bob") == "192.0.2.2:1000"
    whole = packet(1, MTU)
    assert net.ends[0].send(whole) and not net.carry()  # type: ignore[func-returns-value]
    assert net.ends[1].got[-1] == whole


def test_it_falls_within_two_seconds_of_silence_and_comes_back_slowly(net: Net) -> None:
    one, two = net.ends
    net.lost = lambda datagram: True
    assert net.run(10, lambda: not one.is_up and not two.is_up) < 3.2
    assert one.send(packet(1)) == 0 and not one.lanes.unused("bob"), "it may be for a moment"
    net.run(20)
    assert "pings are not answered: is UDP port 1000 open there" in one.lanes.unused("bob")
    net.lost = lambda datagram: False
    came_back = net.run(10, lambda: one.is_up and two.is_up)
    assert 0.4 < came_back < 4 and not one.lanes.unused("bob")
    through(net, range(5))
    assert (one.stat("falls"), two.stat("falls")) == (1, 1)


def test_where_no_way_joins_the_ports_that_is_said() -> None:
    made = Net()
    one, two = End(made, "alice", "bob", ("", 0)), End(made, "bob", "alice", ("", 0))
    made.run(1, lambda: bool(one.told and two.told))
    assert not one.lanes.unused("bob"), "there may be one soon"
    made.run(10)
    assert not one.is_up and "no way leads from UDP port to UDP port" in one.lanes.unused("bob")
    assert not one.lanes.unused("carol")


def test_the_lane_outlives_its_session_until_the_lease_of_the_keys_is_over(net: Net) -> None:
    one, two = net.ends
    one.has_session = False
    for _ in range(25):
        net.run(10)
        assert one.is_up and two.is_up
        through(net, range(3))
    net.run(one_lane.REKEY_S + one_lane.LATE_S - 250 + 5)
    assert not one.is_up and not two.is_up
    one.has_session = True
    net.run(5, lambda: one.is_up and two.is_up)
    through(net, range(3))


def test_keys_of_a_silent_peer_are_gone_after_thirty_seconds_and_never_installed_again(net: Net) -> None:
    one, two = net.ends
    two.has_session = False
    one.has_session = False
    had = one.told[-1]
    net.lost = lambda datagram: True
    net.run(one_lane.LEASE_S + 1)
    strangers = two.lanes.strangers
    net.arrive(one.at, one.port.sent[-1], len(one.port.sent[-1]), two.at)
    net.lost = lambda datagram: False
    net.arrive(one.at, one.port.sent[-1], len(one.port.sent[-1]), two.at)
    assert two.lanes.strangers == strangers + 1
    count = len(one.port.sent)
    one.lanes.keys(had)
    net.run(3)
    assert len(one.port.sent) == count
    one.has_session = two.has_session = True
    net.run(5, lambda: one.is_up and two.is_up)
    through(net, range(3))


def test_keys_are_changed_in_time_without_losing_a_packet(net: Net) -> None:
    one, two = net.ends
    indexes = {one.port.sent[-1][1:5]}
    for at in range(round(400 / STEP_S)):
        net.run(STEP_S)
        two.got.clear()
        assert one.send(packet(at)) == 1
        net.carry()
        assert two.got == [packet(at)]
        indexes.add(one.port.sent[-1][1:5])
    assert 3 <= len(indexes) <= 8
    assert one.stat("rekeys") >= 3
    assert one.stat("forged") == two.stat("forged") == 0 == two.lanes.strangers


def test_keys_are_changed_after_so_many_records(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = net.ends
    monkeypatch.setattr(one_lane, "REKEY_RECORDS", 500)
    for number in range(0, 3000, 10):
        through(net, range(number, number + 10))
        net.run(STEP_S)
    assert one.stat("rekeys") >= 1


@pytest.mark.parametrize("seed", range(8))
def test_no_key_is_ever_used_twice_with_the_same_counter_whatever_dies(seed: int) -> None:
    net, chance = Net(), random.Random(seed)
    one, two = End(net, "alice", "bob", ("192.0.2.1", 1000)), End(net, "bob", "alice", ("192.0.2.2", 1000))
    nonces: set[bytes] = set()

    def note(joined: bytes) -> None:
        key_and_counter = joined[1:13]
        assert key_and_counter not in nonces
        nonces.add(key_and_counter)

    sessions = iter(range(1000))
    for _ in range(60):
        net.run(chance.choice([0.1, 0.5, 3.0]))
        end = chance.choice(net.ends)
        for each in net.ends:
            each.send(packet(1))
            for record in each.port.sent:
                note(record)
            each.port.sent.clear()
        match chance.randrange(5):
            case 0:
                end.begin()  # kill -9 of who owns the port: a new one, and the session goes on
            case 1:
                session = b"%d" % next(sessions)
                one.connect(session)
                two.connect(session)
            case 2:
                net.lost = lambda datagram: True
            case 3:
                end.lanes.keys(chance.choice(end.told))
                end.peer.lanes.keys(chance.choice(end.told))
            case _:
                net.lost = lambda datagram: False
    net.lost = lambda datagram: False
    net.run(10, lambda: one.is_up and two.is_up)
    through(net, range(5))
    assert len(nonces) > 500


def test_whoever_moves_is_followed_at_its_first_record_and_nobody_else_is(net: Net) -> None:
    one, two = net.ends
    told = len(one.told)
    one.at = ("198.51.100.7", 4242)
    assert one.send(packet(1)) == 1
    net.carry()
    assert two.lanes.remote("alice") == "198.51.100.7:4242"
    through(net, range(5))
    # A record again from elsewhere, and a forged one: neither moves anybody.
    again = one.port.sent[-1]
    forged = again[:5] + (10**6).to_bytes(8, "big") + again[13:]
    for each in (again, forged):
        two.port.on_records(memoryview(each), len(each), ("203.0.113.66", 666))
        two.port.on_all()
    assert two.lanes.remote("alice") == "198.51.100.7:4242"
    assert (two.stat("replayed"), two.stat("forged"), two.stat("moves")) == (1, 1, 1)
    net.run(1)
    assert one.is_up and two.is_up and {keys.sends for keys in one.told[told:]} <= {one.told[told - 1].sends}


def test_nobody_moves_into_the_tunnel(net: Net) -> None:
    one, two = net.ends
    at, one.at = two.lanes.remote("alice"), ("10.77.0.1", 1000)
    assert one.send(packet(1)) == 1
    net.carry()
    assert two.got == [packet(1)] and two.lanes.remote("alice") == at and not two.stat("moves")


def test_strangers_are_counted_and_never_answered(net: Net) -> None:
    one, _ = net.ends
    chance = random.Random(5)
    net.carry()
    sent = len(one.port.sent)
    for size in (1, 4, 13, 28, 29, 100, 1400):
        garbage = b"\xf1" + chance.randbytes(size - 1)
        one.port.on_records(memoryview(garbage), size, ("203.0.113.66", 666))
    joined = b"\xf1" * (64 * 900)
    one.port.on_records(memoryview(joined), 900, ("203.0.113.66", 666))
    many = b"".join(b"\xf1" + chance.randbytes(899) for _ in range(64))
    one.port.on_records(memoryview(many), 900, ("203.0.113.66", 666))
    one.port.on_all()
    assert one.lanes.strangers == 7 + 64 + 64
    assert len(one.port.sent) == sent and not net.way
    through(net, range(3))


def test_a_path_that_becomes_narrower_is_noticed_while_the_lane_stays_up(net: Net) -> None:
    one, two = net.ends
    net.run(5)
    net.room = 1400
    taken = net.run(10, lambda: one.lanes.mtu("bob") == two.lanes.mtu("alice") == 1392 - 40)
    assert taken < 3 and one.is_up and two.is_up
    net.room = 1472
    net.run(70)
    assert one.lanes.mtu("bob") == MTU
    one.interface = 1300  # what our own machine refuses
    one.send(packet(1, MTU))
    net.run(1)
    assert one.is_up and one.lanes.mtu("bob") == 1292 - 40


def test_a_full_port_takes_the_rest_later_and_says_when(net: Net) -> None:
    one, two = net.ends
    rooms = list[bool]()
    one.lanes.on_room = lambda: rooms.append(one.lanes.is_full)
    one.port.is_full = True
    packets = [packet(number, 1000) for number in range(10)]
    assert one.send(*packets) == 10
    assert one.lanes.is_full
    net.carry()
    assert not two.got
    one.port.is_full = False
    one.port.on_writable()
    net.carry()
    assert two.got == packets and rooms == [False] and not one.lanes.is_full


def test_of_one_that_was_dropped_nothing_is_left(net: Net) -> None:
    one, two = net.ends
    one.lanes.drop("bob")
    assert not one.is_up and one.send(packet(1)) == 0
    two.send(packet(1))
    net.carry()
    assert not one.got and one.lanes.strangers == 1


def test_who_sends_bogus_records_from_elsewhere_is_soon_not_looked_at_and_the_peer_still_may_move(net: Net) -> None:
    one, two = net.ends
    through(net, range(3))
    again = one.port.sent[-1]
    forged = again[:5] + (10**6).to_bytes(8, "big") + again[13:]
    for each in (again, forged):
        for _ in range(500):
            two.port.on_records(memoryview(each), len(each), ("203.0.113.66", 666))
            two.port.on_all()
    counted = [two.stat(name) for name in ("replayed", "forged", "unread")]
    assert counted == [DOUBTED, 0, 1000 - DOUBTED]
    through(net, range(3))  # from where the peer is, all is opened
    one.at = ("198.51.100.7", 4242)
    net.run(1.5)
    assert two.lanes.remote("alice") == "198.51.100.7:4242"


def test_what_is_sent_to_where_nobody_answers_ends_whatever_the_peer_says(net: Net) -> None:
    one, two = net.ends
    ours, theirs, held = one.lanes._lanes["bob"], two.lanes._lanes["alice"], list[bytes]()
    theirs.answers = lambda pair, texts, now: held.extend(each[1:9] for each in texts) or []  # type: ignore[func-returns-value, method-assign, assignment]
    net.run(1)
    one.has_session = False
    net.ends.remove(two)
    guessed = [number.to_bytes(8, "big") for number in range(100)]
    for number in [b""] * 30 + [*held, *guessed]:
        assert theirs._out
        record = theirs._out.sealer.seal([b"\2" + number + bytes([CONTROL])])
        one.port.on_records(memoryview(record), len(record), ("203.0.113.66", 666))  # a victim's
        one.port.on_all()
        net.run(0.1)
    assert ours.remote == ("203.0.113.66", 666) and len(held) and not one.is_up


def test_little_goes_to_where_a_peer_has_moved_before_it_has_answered_there(net: Net) -> None:
    one, two = net.ends
    theirs, victim = two.lanes._lanes["alice"], ("203.0.113.66", 666)
    net.run(2)
    for _ in range(3):  # it moves there again and again, and answers where it is
        assert theirs._out
        record = theirs._out.sealer.seal([b"\2" + bytes([CONTROL])])
        one.port.on_records(memoryview(record), len(record), victim)
        one.port.on_all()
        assert one.lanes.remote("bob") == "203.0.113.66:666"
        taken = sum(one.send(packet(1, 1300)) for _ in range(300))
        to_victim = [joined for _, joined, _, to in net.way if to == victim]
        assert 40 < taken < 60 and sum(map(len, to_victim)) < one_lane.UNANSWERED * 1.2
        two.send(packet(1))
        net.run(0.1)
        assert one.lanes.remote("bob") == "203.0.113.66:666", "it may not go to and fro"
        net.run(one_lane.MOVE_S)
        two.send(packet(1))
        net.run(0.5)
        assert one.lanes.remote("bob") == "192.0.2.2:1000" and one.send(packet(1)) == 1
        net.run(one_lane.MOVE_S)


def test_pings_without_end_are_answered_within_bounds_and_do_not_gather(net: Net) -> None:
    one, two = net.ends
    theirs, ours = two.lanes._lanes["alice"], one.lanes._lanes["bob"]
    assert theirs._out and ours._out
    pings = [theirs._out.sealer.seal([b"\1" + bytes(9)]) for _ in range(300)]
    sent = len(one.port.sent)
    for ping in reversed(pings):  # the newest first
        one.port.on_records(memoryview(ping), len(ping), two.at)
        one.port.on_all()
        assert not ours._out.incoming.controls
    assert 0 < len(one.port.sent) - sent <= one_lane.MOST_PONGS
    net.run(1)
    assert one.is_up and two.is_up


def test_a_peer_that_tells_nonce_after_nonce_costs_little_and_gets_its_lane_in_the_end(net: Net) -> None:
    one, two = net.ends
    for _ in range(30):
        for _ in range(100):
            two.keying.ours(random.randbytes(16))
            one.keying.heard(two.said.pop())
        assert len(one.lanes._pairs) <= 2 * one_lane.MOST_PAIRS
        net.run(0.1)
    net.run(5)
    through(net, range(5))


def entries(of: object, seen: set[int]) -> int:
    """How many there are in all containers that can be had from this."""
    if id(of) in seen or isinstance(of, (str, bytes, int, float, type, FakePort)):
        return 0
    seen.add(id(of))
    if isinstance(of, dict):
        parts: list[object] = [*of, *of.values()]
    else:
        parts = [*of] if isinstance(of, (list, tuple, set, frozenset, deque)) else []
    slots = [getattr(of, name, None) for kind in type(of).__mro__ for name in getattr(kind, "__slots__", ())]
    return len(parts) + sum(entries(each, seen) for each in (*parts, *slots, *getattr(of, "__dict__", {}).values()))


def test_a_peer_that_moves_a_thousand_times_leaves_nothing_behind(net: Net) -> None:
    one, two = net.ends
    had = 0
    for number in range(1000):
        one.at = (f"198.51.100.{number % 250}", 1024 + number)
        assert one.send(packet(number)) == 1
        net.carry()
        net.run(1.05)
        if number == 100:
            had = entries((one.lanes, two.lanes), set())
    assert two.stat("moves") == 1000 and two.lanes.remote("alice") == "198.51.100.249:2023"
    assert 0 < entries((one.lanes, two.lanes), set()) <= had + 50
    through(net, range(5))
    assert one.is_up and two.is_up
