"""What is said of the tunnel: to Prometheus, and in a row of `make status`."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from procs.agent import nft
from procs.agent.settings import AgentSettings
from procs.agent.switch import Traffic
from procs.errors import ConfigError, Refused
from procs.messages import MAX_BYTES, decode, encode
from procs.messages.tunnel import (
    NO_SERVER_YET,
    NO_SESSION_YET,
    NOT_TRIED_YET,
    OF_SERVER,
    SESSION_GONE,
    UNDECIDED,
    AgentFrame,
    PeerUp,
    TunnelSpec,
)
from procs.messages.warden import TunnelPeer, TunnelState, decode_to_warden
from procs.tun_pump.ends import End, Ends
from procs.tun_pump.rates import Rate, Rates
from procs.tun_pump.rows import Rows
from procs.warden.tunnel import Tunnelled
from procs.warden.watching import FRESH_S
from procs.webrtc_peer.tunnel_child import TunnelSession
from procs.wire import signal
from scripts import health, suite, tunnel_state

BOB = TunnelPeer(
    "bob",
    True,
    2,
    "relayed",
    "192.0.2.1:9",
    1380,
    12.5,
    10,
    1_000_000,
    20,
    2_500_000,
    {"spoofed": 3, "lost": 1},
    lane={"rekeys": 2, "forged": 5},
)
SAID = TunnelState(7, "mvp-tun0", ["10.77.0.1/24"], 1380, [BOB, TunnelPeer("eve", is_up=False)], {"homeless": 4})


def test_prometheus_reads_each_peer() -> None:
    tunnel = Tunnelled()
    assert tunnel.text(1.0) == "" and tunnel.state(1.0) is None
    tunnel.take(SAID, 1.0)
    lines = tunnel.text(1.5).splitlines()
    for line in (
        'planaria_tunnel_up{peer="bob",path="relayed",plane="2"} 1',
        'planaria_tunnel_round_trip_seconds{peer="bob"} 0.0125',
        'planaria_tunnel_sent_bytes_total{peer="bob"} 1000000',
        'planaria_tunnel_received_packets_total{peer="eve"} 0',
        'planaria_tunnel_rekeys_total{peer="bob"} 2',
        'planaria_tunnel_dropped_packets_total{peer="bob",reason="spoofed"} 3',
        'planaria_tunnel_dropped_packets_total{peer="bob",reason="forged_record"} 5',
        'planaria_tunnel_dropped_packets_total{peer="",reason="homeless"} 4',
    ):
        assert line in lines
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    order = [line.split("{")[0] for line in lines if not line.startswith("#")]
    assert len(set(families)) == len(families) and [name for name, _ in itertools.groupby(order)] == families
    assert tunnel.state(1.5) is SAID and tunnel.state(1.1 + FRESH_S) is None


def test_what_rules_drop_is_of_their_peers_and_whoever_may_not_ask_tells_the_rest() -> None:
    def forbidden(_interface: str) -> dict[str, int]:
        raise PermissionError

    tunnel = Tunnelled()
    tunnel.take(msgspec.structs.replace(SAID, has_rules=True), 1.0)
    tunnel.look(1.0, forbidden)
    assert tunnel.state(1.0) == msgspec.structs.replace(SAID, has_rules=True)
    tunnel.look(1.0, lambda _: {"eve": 0, "": 2, "mallory": 9})
    found = tunnel.state(1.0)
    assert found and found.dropped == {"homeless": 4, "by_subnets": 2}
    assert [its.dropped.get("by_reach") for its in found.peers] == [None, 0]
    tunnel.take(SAID, 1.5)
    assert tunnel.state(1.5) is SAID


def test_nobody_is_asked_where_there_are_no_rules() -> None:
    """The kernel would load what it has no use for."""
    tunnel, asked = Tunnelled(), list[str]()

    def dropped(interface: str) -> dict[str, int]:
        asked.append(interface)
        return {}

    tunnel.take(SAID, 1.0)
    tunnel.look(1.0, dropped)
    assert asked == []


def test_rules_that_may_not_be_read_are_told_from_none() -> None:
    def answer(kind: int, number: int) -> bytes:
        return struct.pack("=IHHIIi", 20, kind, 0, 1, 0, number)

    assert nft._is_last(answer(3, 0)) and not nft._is_last(answer(0xA06, 0))
    with pytest.raises(PermissionError):
        nft._is_last(answer(2, -errno.EPERM))


def test_rates_are_of_what_has_passed_since_the_last_look() -> None:
    rates, traffic = Rates(), Traffic()
    assert rates.of("bob", traffic, 1.0) == Rate(None, None)
    traffic.sent_bytes, traffic.received_bytes = 1000, 50
    assert rates.of("bob", traffic, 3.0) == Rate(4000, 200) and rates.of("eve", traffic, 3.0) == Rate()
    assert rates.of("bob", traffic, 4.0) == Rate(0, 0)


def test_the_largest_of_it_goes_through_the_bus() -> None:
    peer = msgspec.structs.replace(BOB, peer="x" * 64, remote="y" * 60, sent_bytes=2**60, received_bytes=2**60)
    whole = msgspec.structs.replace(SAID, peers=[peer] * 64)
    assert len(encode(whole)) < MAX_BYTES // 2 and decode_to_warden(encode(whole)) == whole


def test_many_peers_with_long_reasons_fit_in_one_message() -> None:
    now, names = 1.0, [f"{'x' * 60}{number:02}" for number in range(64)]
    ends, switch = Ends(names, now), SimpleNamespace(traffic={name: Traffic() for name in names})
    rows = Rows(ends, cast(Any, switch), cast(Any, NoLanes()))
    for name in names:
        ends[name].why = "\N{BUG}" * 500  # four bytes each
    assert len(encode(msgspec.structs.replace(SAID, peers=[rows.of(name, now) for name in names]))) < MAX_BYTES


class NoLanes:
    """Nobody is on a fast lane."""

    def is_up(self, _peer: str) -> bool:
        return False

    def stats(self, _peer: str) -> dict[str, int]:
        return {"fell": 2**40, "moves": 2**40, "rekeys": 2**40, "forged": 2**40, "replayed": 2**40, "unknown": 2**40}


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_figure_that_is_none_is_refused_and_ends_nobody(value: float) -> None:
    with pytest.raises(Refused, match="stats"):
        decode(encode(PeerUp("bob", 7, 1380, stats={"unreadable": value})), PeerUp)


def test_a_person_reads_a_row_for_each() -> None:
    rows = [tunnel_state.row(msgspec.to_builtins(its)) for its in SAID.peers]
    assert rows == [
        (
            "bob",
            "up",
            "2",
            "relayed",
            "192.0.2.1:9",
            "1380",
            "12.5 ms",
            "1.0 MB",
            "2.5 MB",
            "2",
            "3 spoofed, 1 lost, 5 forged_record",
        ),
        ("eve", "down", "-", "-", "-", "-", "-", "0.0 MB", "0.0 MB", "0", "0"),
    ]


def test_why_a_peer_is_on_another_plane_stands_below_and_is_no_trouble() -> None:
    bob = msgspec.structs.replace(BOB, slow="its pings are not answered")
    eve = TunnelPeer("eve", is_up=False, why="it sleeps")
    found = msgspec.to_builtins(msgspec.structs.replace(SAID, peers=[bob, eve], port=9))
    assert tunnel_state.notes(found) == [
        "tunnel: mvp-tun0 10.77.0.1/24, port 9/udp; dropped: 4 homeless",
        "tunnel to bob: by plane 2, as its pings are not answered",
    ]
    assert tunnel_state.away(found) == ["tunnel to eve: it sleeps"]


def test_a_machine_without_a_tunnel_is_told_all_that_it_needs_for_one() -> None:
    nobody = AgentSettings()
    found = msgspec.to_builtins(TunnelState(7, "")) | {"needs": tunnel_state.needs(nobody)}
    assert tunnel_state.notes(found) == [
        "tunnel: not configured: it needs its address and its peers under `tunnel:` in planaria.yaml, and AGENT_ID and"
        " SIGNALING_URL in .env (README: A tunnel to peers)"
    ]
    somebody = nobody.but(agent_id="alice", signaling_url="ws://h/1")
    assert tunnel_state.needs(somebody) == [tunnel_state.PLACE]


def test_a_token_that_is_refused_is_told_from_a_server_that_is_not_there() -> None:
    def said(*whys: str) -> TunnelState:
        return msgspec.structs.replace(SAID, peers=[TunnelPeer(f"p{i}", False, why=why) for i, why in enumerate(whys)])

    for why in UNDECIDED:
        assert not tunnel_state.is_told(said(why, why))
    away = said(f"{OF_SERVER}nobody there: Connection refused", NO_SERVER_YET)
    assert tunnel_state.is_told(away) and not tunnel_state.why_refused(away)
    for words in ("invalid token", "the server answers 401: a wrong token?"):
        refused = said(NOT_TRIED_YET, OF_SERVER + words)
        why = tunnel_state.why_refused(refused)
        assert f"({words}): set SIGNALING_TOKEN " in why
        assert tunnel_state.away(msgspec.to_builtins(refused))[1:] == [f"tunnel to p1: {why}"]
    assert tunnel_state.is_told(said()) and tunnel_state.is_told(SAID)


@pytest.mark.parametrize(("limit_s", "code"), [(60.0, "token of ours"), (6.0, "")])
def test_up_judges_once_the_signalling_server_has_said_something_or_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, limit_s: float, code: str
) -> None:
    """By a clock of its own: the answer is there after ten seconds."""
    now, plan = [0.0], SimpleNamespace(suite=SimpleNamespace(roles={"tun"}), is_off=lambda _: False)

    def seen(_root: Path) -> Any:
        why = OF_SERVER + "invalid token" if now[0] > 10 else NO_SERVER_YET if now[0] > 5 else NOT_TRIED_YET
        peers = [TunnelPeer("bob", is_up=False, why=why)]
        serving = SimpleNamespace(name="tun_pump", state="SERVING")
        return SimpleNamespace(processes=[serving], tunnel=msgspec.structs.replace(SAID, peers=peers))

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(suite, "ask_warden", seen)
    monkeypatch.setattr(health, "why_not_serving", lambda *_: "")
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    with pytest.raises(ConfigError, match=code) if code else contextlib.nullcontext():
        health.wait(Path(), cast(Any, plan), limit_s, lambda _: None)
    assert now[0] < 12 and (code or now[0] > 5)


def test_who_is_down_has_a_reason_from_the_first_moment_and_when_its_session_is_gone() -> None:
    ends, switch = Ends(["bob"], 1.0), SimpleNamespace(traffic={"bob": Traffic()})
    rows = Rows(ends, cast(Any, switch), cast(Any, NoLanes()))
    assert rows.of("bob", 1.0).why == NOT_TRIED_YET
    ends.away("bob", "it sleeps", 2.0)
    assert rows.of("bob", 2.0).why == "it sleeps"
    ends.listens("bob", 7, 3.0)
    assert ends.gone(30.0) == ["bob"] and rows.of("bob", 30.0).why == SESSION_GONE


@pytest.mark.parametrize("before", [NO_SERVER_YET, f"{OF_SERVER}nobody there: Connection refused"])
def test_what_comes_of_a_peer_shows_that_the_server_has_taken_us(tmp_path: Path, before: str) -> None:
    child = TunnelSession(TunnelSpec("alice", "bob", str(tmp_path), (50000, 50100), [], 1380, [], "first-use", False))
    child._why, taken = before, list[Any]()
    child._session = cast(Any, SimpleNamespace(take=taken.append))
    answer = signal.Answer("bob", "alice", "x", "an-id")
    child._told("", encode(AgentFrame("bob")), signal.encode(answer).encode())
    assert (taken, child._why) == ([answer], NO_SESSION_YET)


def test_garbage_is_counted_on_whoever_has_the_session() -> None:
    end = End(0.0)
    told = [(1, 5), (1, 5), (1, 8), (2, 3), (2, 4)]  # the second process begins anew
    ups = [PeerUp("bob", pid, 1380, stats={"unreadable": float(count)}) for pid, count in told]
    assert [end.more("unreadable", up) for up in ups] == [5, 0, 3, 3, 1]
