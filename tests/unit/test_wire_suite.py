"""How a suite is, on the wire: what becomes a frame, what does not, and what is told of ends."""

from __future__ import annotations

from math import inf
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from procs import journal
from procs.errors import Refused
from procs.hub.devices.suite import seen_by
from procs.messages.requests import ProcessState, Recoveries, Restart, SuiteState
from procs.messages.warden import TunnelPeer, TunnelState, WatchSession
from procs.warden.history import BUCKETS_S, Histogram
from procs.warden.restarts import Restarts
from procs.wire import envelope
from procs.wire.frames import suite as frames
from procs.wire.frames.suite import Recovery, Suite, SuiteEvent, WatchedStream
from procs.wire.suite import Teller, told
from procs.ws_link.ends import A_MINUTE, MAX_WAITING, Ends

HUB = ProcessState("hub", 7, "SERVING", 5.0, 0.1, 0, "", 50_000_000, 0, 0.0)


BOB = TunnelPeer("bob", True, 2, "relayed", "192.0.2.1:9", round_trip_ms=12.5, dropped={"spoofed": 3})
WATCHES = WatchSession("a", "door", "connected", "direct", 9.0, 2e6, 0.0, 0.05, 31.0, 100.0, 5.0, 4.0, 2.0)
LOST = "the peer ('192.0.2.1', and [2001:db8::1]:9 has left: 3.2 s ago. Bye"


def state(process: ProcessState = HUB, *troubles: str) -> SuiteState:
    return SuiteState([process], list(troubles), list(BUCKETS_S))


def test_what_the_warden_says_passes_the_wire() -> None:
    recoveries = Recoveries([1] * (len(BUCKETS_S) + 1), 300.5, 61_000.0)
    process = msgspec.structs.replace(HUB, recoveries=recoveries, last_end="SIGKILL", last_end_at="2026-01-01T00:00Z")
    suite = told(state(process, "omega-0 is watched, and no byte has come for 7 s"), "now")
    back = envelope.parse(envelope.decode(envelope.encode("suite", suite)), Suite)
    assert back == suite
    assert back.processes[0].recovery == Recovery(list(BUCKETS_S), recoveries.counts, 300.5, 61_000.0)
    assert back.processes[0].last_end_at == "2026-01-01T00:00"


def test_what_it_carries_passes_the_wire() -> None:
    """By stream, and without what sessions are called; a tunnel that loses nothing tells of no drops."""
    others = [replace(WATCHES, stream="yard", path=""), replace(WATCHES, session_id="b", path="relayed", loss=0.2)]
    tunnel = TunnelState(7, "tun0", peers=[BOB, TunnelPeer("eve", is_up=False, dropped={"lost": 0}, why="it is away")])
    suite = told(replace(state(), watching=[WATCHES, *others], tunnel=tunnel), "now")
    assert suite.watching == [
        WatchedStream("door", 2, 1, 1, 4e6, 0.2),
        WatchedStream("yard", 1, 0, 0, 2e6, 0.05),
    ]
    bob, eve = suite.tunnel
    assert (bob.path, bob.remote, bob.round_trip_ms) == ("relayed", "192.0.2.1:9", 12.5)
    assert eve == frames.TunnelPeer("eve", why="it is away")
    assert envelope.parse(envelope.decode(envelope.encode("suite", suite)), Suite) == suite
    old = envelope.of_payload("suite", b'{"at": "", "processes": []}')
    assert envelope.parse(old, Suite) == Suite("", []), "of a device that says nothing of it"


def test_however_much_it_carries_it_fits() -> None:
    peer = TunnelPeer("x" * 128, True, remote="y" * 100, round_trip_ms=inf, why="é" * 500,
                      dropped={f"{n:02}{70 * 'r'}": 2**52 for n in range(20)}, sent_bits_per_s=1e300)  # fmt: skip
    sessions = [replace(WATCHES, stream=f"{n:0200}", bits_per_s=inf) for n in range(80)]
    suite = told(SuiteState([], [], watching=sessions, tunnel=TunnelState(7, "t", peers=[peer] * 80)), "now")
    assert envelope.parse(envelope.decode(envelope.encode("suite", suite)), Suite) == suite
    assert len(suite.tunnel) == len(suite.watching) == 64 and len(suite.tunnel[0].dropped) == 16


def test_where_peers_are_is_for_owners() -> None:
    suite = told(SuiteState([], [], tunnel=TunnelState(7, "t", peers=[BOB, replace(BOB, why=LOST)])), "now")
    assert seen_by("owner", suite) is suite
    plain, lost = seen_by("viewer", suite).tunnel
    assert plain == replace(suite.tunnel[0], remote="")
    assert lost.why == "the peer … and … has left: 3.2 s ago. Bye"


def test_traffic_is_told_as_seldom_as_memory() -> None:
    teller = Teller()

    def is_due(now: float, its: TunnelPeer = BOB, loss: float = 0.05) -> bool:
        carried = replace(state(), tunnel=TunnelState(7, "t", peers=[its]), watching=[replace(WATCHES, loss=loss)])
        return teller.is_due(told(carried, str(now)), now)

    assert is_due(0.0) and not is_due(60.0)
    assert is_due(61.0, replace(BOB, path="direct")) and is_due(62.0, replace(BOB, is_up=False, why="gone"))
    assert is_due(70.0) and not is_due(74.0, replace(BOB, sent_bits_per_s=9.0))
    assert is_due(75.0, replace(BOB, sent_bits_per_s=9.0)) and is_due(80.0), "and when it stands still"
    assert not is_due(90.0, replace(BOB, round_trip_ms=13.0)) and is_due(91.0, replace(BOB, round_trip_ms=15.0))
    assert is_due(99.0) and is_due(105.0, loss=0.5) and not is_due(111.0, loss=0.5)


def test_a_machine_of_any_size_fits() -> None:
    many = [msgspec.structs.replace(HUB, name=f"x{n}", last_end="e" * 999) for n in range(600)]
    suite = told(SuiteState(many, ["t" * 999] * 200), "now")
    assert len(suite.processes) == 500 and len(suite.troubles) == 100
    with pytest.raises(Refused, match="over the limit"):
        envelope.encode("suite", suite)  # which is what whoever sends it has to bear


def test_only_what_has_changed_is_told_and_never_more_than_once_a_second() -> None:
    teller = Teller()

    def is_due(now: float, *troubles: str, **changes: object) -> bool:
        return teller.is_due(told(state(msgspec.structs.replace(HUB, **changes), *troubles), str(now)), now)

    assert is_due(0.0)
    assert not any(is_due(at, age_s=at, sign_age_s=at) for at in (0.5, 1.0, 6.0, 60.0))
    assert is_due(61.0, pid=8)
    assert not is_due(61.5, pid=9) and is_due(62.0, pid=9), "not lost, but later"
    assert not is_due(64.0, pid=9, memory=60_000_000) and is_due(67.0, pid=9, memory=60_000_000)
    assert not is_due(80.0, pid=9, memory=60_500_000), "too little"
    assert is_due(90.0, "no byte for 5 s", pid=9, memory=60_500_000)
    assert not is_due(92.0, "no byte for 7 s", pid=9, memory=60_500_000)
    assert is_due(95.0, "no byte for 10 s", pid=9, memory=60_500_000)


def down(process: str, reason: str = "SIGKILL") -> dict[str, object]:
    return {"event": "down", "process": process, "pid": 1, "kind": "killed", "reason": reason}


def up(process: str, pid: int, ms: float = 300.0) -> dict[str, object]:
    return {"event": "up", "process": process, "pid": pid, "ms": ms}


def test_an_end_is_told_when_it_is_over() -> None:
    ends = Ends([down("old", "exit 3"), down("gone"), up("gone", 5)])
    for line in (down("hub"), down("hub", "exit 1"), down("proxy_0")):
        ends.take(line)
    assert ends.due(0.0) == [] and ends.all_told()
    for line in (up("hub", 8), up("old", 9), up("odd", 0) | {"pid": "x", "ms": None}):
        ends.take(line)
    assert ends.due(1.0) == [
        SuiteEvent("hub", 8, "SIGKILL", 300.0),
        SuiteEvent("old", 9, "exit 3", 300.0),
        SuiteEvent("odd", 0, "", None),
    ]


def test_too_many_ends_are_summed_up() -> None:
    ends = Ends()
    for number in range(1, 2 * MAX_WAITING):
        ends.take(down(f"p{number % 2}"))
        ends.take(up(f"p{number % 2}", number))
    first = ends.due(0.0)
    assert len(first) == A_MINUTE and ends.due(30.0) == [] and not ends.all_told()
    rest = ends.due(60.0)
    assert {event.process for event in rest} == {"p0", "p1"} and ends.all_told()
    times = sum(int(event.reason.split(" times more")[0]) for event in rest)
    assert times + len(first) == 2 * MAX_WAITING - 1
    assert ends.due(61.0) == []


def test_restarts_are_taken_once_and_not_too_often() -> None:
    restarts = Restarts([("warden", 5)], 0.0)
    asked = Restart("hub", 7, "x")
    assert not restarts.is_due(Restart("warden", 5, "x"), [6], 1.0), "a former warden has done it"
    assert restarts.is_due(asked, [7], 1.0)
    restarts.note(asked, 1.0)
    assert not restarts.is_due(asked, [8], 1.5)
    for pids, why in (([8], "has pid 8 by now"), ([], "does not run")):
        with pytest.raises(Refused, match=why):
            restarts.is_due(Restart("hub", 9, "x"), pids, 1.5)
    with pytest.raises(Refused, match="less than 1 s ago"):
        restarts.is_due(Restart("hub", 8, "x"), [8], 1.5)
    assert restarts.is_due(Restart("hub", 8, "x"), [8], 2.0)
    with pytest.raises(Refused, match="has pid 6"):
        restarts.is_due(Restart("warden", 5, "x"), [6], 60.0)


def test_a_histogram_tells_exact_times() -> None:
    times = Histogram()
    for ms in (*range(1, 2000), 61_000):
        times.add(ms / 1000)
    told_of = times.told()
    assert sum(told_of.counts) == 2000 and told_of.counts[-1] == 1 and told_of.worst_ms == 61_000
    assert told_of.p50_ms == 1500, "of the last thousand"


def test_a_follower_reads_each_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(pid: int) -> None:
        journal.append(tmp_path, process="a", event="up", pid=pid, ms=1)

    fresh = journal.Follower(tmp_path)
    add(1)
    late = journal.Follower(tmp_path)
    assert [line["pid"] for line in fresh.more()] == [1] and late.more() == []
    with (tmp_path / journal.NAME).open("a") as file:
        file.write('{"torn')
    assert fresh.more() == []
    add(2)
    assert [line["pid"] for line in fresh.more()] == [2]
    assert [line["pid"] for line in journal.Follower(tmp_path, fresh.position).past()] == [1, 2]
    assert [line["pid"] for line in late.past()] == [1]
    monkeypatch.setattr(journal, "MAX_BYTES", 500)
    seen = []
    for number in range(3, 40):
        add(number)
        if number % 3 == 0:
            fresh = journal.Follower(tmp_path, fresh.position)  # killed, and started again
            seen += [line["pid"] for line in fresh.more()]
    assert seen == list(range(3, 40)), "also over the file's end"
    assert journal.Follower(tmp_path, "no position").more() == []
    (tmp_path / journal.NAME).write_text("")
    assert fresh.more() == []
