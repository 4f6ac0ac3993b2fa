"""A tunnel between two homes, each behind its NAT: what runs in a suite for it, on both sides. Everything of it is
killed under iperf3 and a session of ssh, which go on."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import flows, hub_rig, nat
from tests.homes import APART, BOB, exchange, homes
from tests.linked import Linked
from tests.rig import until

pytestmark = [
    pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN"),
    pytest.mark.needs("turnserver", "nft", "ip", "nsenter", "iperf3", "ss", "ssh", "sshd"),
]
NATS = "203.0.113.31", "203.0.113.41"


def test_connections_through_the_tunnel_outlive_whatever_is_killed(tmp_path: Path) -> None:
    with homes(tmp_path, command=hub_rig.CHEAP_HUB) as (world, hub, alice, bob), ExitStack() as stack:
        seen = until(lambda: row if (row := alice.session()).plane == 3 else None)
        assert seen.path == "direct" and bob.session().remote == f"{NATS[0]}:{alice.pump.state().port}"
        for address in BOB.values():
            for size in (1, 1332, 1353, 9000):  # 1380 is the MTU: the last two are sent in pieces
                exchange(world, address, size)
        with world.device.entered():
            link = Linked(alice.pump.run_dir, hub.ws("/ws/device"), DEVICE_ID="yard-001")
        stack.callback(link.kill)
        until(lambda: (its := link.state()) and its.state == "connected")
        running = [
            stack.enter_context(flows.iperf(alice.place, bob.place, BOB[4])),
            stack.enter_context(flows.ssh(alice.place, bob.place, BOB[6], tmp_path)),
        ]
        faults = {
            "a session's child": lambda: os.kill(alice.child, signal.SIGKILL),
            "webrtc_peer": bob.kill_peer,
            "tun_pump": alice.kill_pump,
            "ws_link": lambda: restart(link),
            "the hub": hub.restart,
        }
        stalls = {name: flows.stalls(running, fault) for name, fault in faults.items()}
        print("stalls in seconds:", stalls)
        assert max(took for each in stalls.values() for took in each.values()) < 15


def restart(link: Linked) -> None:
    """Killed, and started again."""
    link.kill()
    link.start()


def test_packets_go_by_turn_where_no_path_is_straight_and_straight_once_there_is_one(tmp_path: Path) -> None:
    with homes(tmp_path, rules=APART) as (world, _, alice, bob):
        seen, theirs = alice.session(), bob.session()
        assert {seen.path, theirs.path} == {"relayed"} and seen.plane == 2
        exchange(world, BOB[4], 1352)
        with flows.iperf(alice.place, bob.place, BOB[6]) as flow:
            world.internet.rules("flush ruleset")
            for each in (alice, bob):
                until(lambda each=each: each.session().plane == 3, 40)  # type: ignore[misc]
            print("stall in seconds:", flows.stalls([flow], lambda: None))
