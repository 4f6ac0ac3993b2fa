"""Watch sessions through processes of a device: ws_link, webrtc_peer and its children, and what becomes of a session
when one of them dies. The hub shares no code with us, and the viewer is aiortc; where what is sent does not matter, the
children are stand-ins."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from procs import proc
from tests.json_hub import JsonHub
from tests.linked import Linked, linked
from tests.peered import Peered, heard, of, peered, pictures, watch
from tests.rig import go2rtc, until

ID = ("--device-id", "pi-cam-001")
STREAM = {"workers": 1, "producer": {"width": "320", "height": "180", "fps": "30"}}
CHILDREN = "tests.faults.peer_children"


@contextmanager
def device(run_dir: Path) -> Iterator[tuple[JsonHub, Linked, Peered]]:
    """A hub, and a device whose children are stand-ins."""
    with (
        JsonHub() as hub,
        linked(run_dir, hub.backend, *ID) as link,
        peered(run_dir, children=CHILDREN, PLANARIA_WATCH_STREAM="omega-0") as peer,
    ):
        hub.connected()
        yield hub, link, peer


def offer(hub: JsonHub, session_id: str) -> None:
    """What a viewer does next."""
    hub.send("signal_offer", {"session_id": session_id, "sdp": {"type": "offer", "sdp": "an offer"}})


def begun(hub: JsonHub, session_id: str, stream: str = "") -> None:
    """A session that has its answer."""
    watch(hub, session_id, stream)
    offer(hub, session_id)
    assert heard(hub, "signal_answer", session_id)["sdp"] == {"type": "answer", "sdp": "to an offer"}


def test_a_real_stream_is_seen_by_a_viewer(run_dir: Path) -> None:
    with (
        go2rtc(STREAM, run_dir=run_dir) as served,
        JsonHub() as hub,
        linked(run_dir, hub.backend, *ID),
        peered(run_dir, served),
    ):
        hub.connected()
        watch(hub, "s1")
        assert asyncio.run(pictures(hub, "s1", 30)) == 30
        watch(hub, "s2", "nowhere")
        ended = heard(hub, "watch_ended", "s2")
        assert ended["reason"] == "error" and "nowhere" in ended["why"]
        for number, odd in enumerate(("omega-0?video=all", "../omega-0", "exec:true#", "omega 0")):
            watch(hub, f"odd{number}", odd)
            assert "stream's name" in heard(hub, "watch_ended", f"odd{number}")["why"]


def test_a_session_ends_with_the_viewer_and_nothing_of_it_stays(run_dir: Path) -> None:
    with device(run_dir) as (hub, _, peer):
        begun(hub, "warm")
        leader, zygote = peer.process.pid, peer.zygote()
        hub.send("watch_ended", {"session_id": "warm", "reason": "user_ended"})
        until(lambda: not peer.children())
        before = open_in(leader), open_in(zygote)
        for number in range(15):
            begun(hub, f"s{number}")
            hub.send("watch_ended", {"session_id": f"s{number}", "reason": "user_ended"})
        until(lambda: not peer.children())
        # Less than one for each: what says that we live, and asks go2rtc, comes and goes.
        until(lambda: open_in(leader) < before[0] + 15 and open_in(zygote) <= before[1])
        assert not hub.frames.get("watch_ended"), "the hub knows that they are over"


def open_in(pid: int) -> int:
    """How many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_child_that_is_killed_is_told_at_once(run_dir: Path) -> None:
    with device(run_dir) as (hub, _, peer):
        begun(hub, "s1")
        begun(hub, "s2")
        first = peer.children()[0]
        os.kill(first, signal.SIGKILL)
        ended = heard(hub, "watch_ended", "s1", 2)
        assert ended["reason"] == "error" and "signal 9" in ended["why"]
        assert not of(hub, "watch_ended", "s2") and len(peer.children()) == 1


def test_a_child_that_dies_of_its_offer_is_told(run_dir: Path) -> None:
    with device(run_dir) as (hub, _, _peer):
        watch(hub, "s1", "dies")
        offer(hub, "s1")
        assert "exit 7" in heard(hub, "watch_ended", "s1")["why"]


def test_a_child_that_stands_still_is_ended(run_dir: Path) -> None:
    with device(run_dir) as (hub, _, peer):
        begun(hub, "s1")
        (child,) = peer.children()
        os.kill(child, signal.SIGSTOP)
        assert "stands still" in heard(hub, "watch_ended", "s1")["why"]
        until(lambda: not proc.is_alive(child))


@pytest.mark.parametrize("whom", ["leader", "zygote"])
def test_sessions_of_a_killed_leader_are_told_and_the_next_has_new_ones(run_dir: Path, whom: str) -> None:
    with device(run_dir) as (hub, _, peer):
        begun(hub, "s1")
        (child,) = peer.children()
        os.kill(peer.process.pid if whom == "leader" else peer.zygote(), signal.SIGKILL)
        peer.process.wait()
        until(lambda: not proc.is_alive(child))
        peer.start()
        assert heard(hub, "watch_ended", "s1")["reason"] == "error"
        begun(hub, "s2")


def test_a_request_and_an_offer_for_a_leader_that_is_just_dead_reach_the_next(run_dir: Path) -> None:
    with device(run_dir) as (hub, _, peer):
        begun(hub, "s1")
        peer.kill()
        watch(hub, "s2")
        offer(hub, "s2")
        peer.start()
        heard(hub, "signal_answer", "s2")
        assert not of(hub, "watch_ended", "s2")


def test_a_killed_ws_link_takes_no_session_along_and_no_frame_is_lost(run_dir: Path) -> None:
    with device(run_dir) as (hub, link, peer):
        begun(hub, "s1")
        watch(hub, "s2", "dies")
        until(lambda: len(peer.children()) == 2)
        link.kill()
        os.kill(peer.children()[1], signal.SIGKILL)
        hub.device = None
        link.start()
        hub.connected()
        assert "signal 9" in heard(hub, "watch_ended", "s2")["why"]
        assert not of(hub, "watch_ended", "s1") and len(peer.children()) == 1
        hub.send("watch_ended", {"session_id": "s1", "reason": "user_ended"})
        until(lambda: not peer.children())


def test_what_happens_while_the_hub_is_away_is_told_when_it_is_back(run_dir: Path) -> None:
    with device(run_dir) as (hub, _, peer):
        begun(hub, "s1")
        hub.cut()
        os.kill(peer.children()[0], signal.SIGKILL)
        assert heard(hub, "watch_ended", "s1")["reason"] == "error"


def test_without_webrtc_peer_a_viewer_is_told_so(run_dir: Path) -> None:
    with JsonHub() as hub, linked(run_dir, hub.backend, *ID) as link:
        hub.connected()
        time.sleep(3.2)  # it may just be starting
        watch(hub, "s1")
        assert heard(hub, "watch_ended", "s1")["reason"] == "error"
        link.until(lambda state: state.refused.get("watch session") == 1)


def test_offers_of_sessions_that_are_none_are_refused(run_dir: Path) -> None:
    with device(run_dir) as (hub, link, peer):
        offer(hub, "unknown")
        assert heard(hub, "watch_ended", "unknown") == {
            "session_id": "unknown", "reason": "error", "why": "no such session",
        }  # fmt: skip
        watch(hub, "s p")
        link.until(lambda state: state.refused.get("malformed watch_request") == 1)
        for number in range(65):
            watch(hub, f"s{number}")
        assert "64 sessions already" in heard(hub, "watch_ended", "s64")["why"]
        until(lambda: len(peer.children()) == 64)
