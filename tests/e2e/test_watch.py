"""Watch sessions as they must be seen to work: from NAT to NAT, many viewers of one pull, processes killed meanwhile,
and viewers who go wrong in every way. More sessions for the search for leaks: PLANARIA_LONG=1."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from aiortc import RTCPeerConnection
from playwright.sync_api import Browser, Page

from tests import hub_rig, nat
from tests.e2e import player, watch_rig
from tests.e2e.page_rig import Person
from tests.e2e.watch_rig import DEVICE, LIMIT_S, STREAM, Camera
from tests.hub_rig import ADMIN_PASSWORD, Http, Process, Talker
from tests.nat import Turn, World
from tests.rig import until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.needs("chromium", "turnserver", "nft", "ip", "nsenter"),
    pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not()),
]
PUBLISHED = "pi-cam-001"
KILLED = ("webrtc_peer", "ws_link", "hub", "go2rtc", "go2rtc/headless_agent")
VIEWERS, MORE = (20, 300) if os.environ.get("PLANARIA_LONG") else (8, 10)
AT_ONCE = 20
PROXIES = 2  # of the suite
RELEASED_S = 40.0  # the longest lease, and a busy machine


@pytest.fixture(scope="module")
def hub(world: World, turn: Turn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The hub between the homes; the tests run beside it."""
    with watch_rig.hub_in(world, turn, tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def token(hub: Process) -> str:
    """Of the hub's admin, whose devices all of these are."""
    return hub.admin.token


@pytest.fixture(scope="module")
def camera(world: World, hub: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Camera]:
    """Our suite in one home."""
    with watch_rig.camera_in(world.device, hub, tmp_path_factory.mktemp("camera")) as running:
        yield running


@contextmanager
def bare_page(browser: Browser, hub: Process) -> Iterator[Page]:
    """A page of the hub's origin in the other home, with nothing of ours in it."""
    page = browser.new_page()
    player.remember(page)
    page.goto(f"http://127.0.0.1:{hub.port}/health")
    yield page
    page.close()


def plays(report: dict[str, Any]) -> bool:
    """Whether pixels moved."""
    frames = [frame for _, frame, _ in report["pictures"]]
    return len(frames) > 10 and all(later > earlier for earlier, later in pairwise(frames))


def moves(page: Page, since_ms: float = 0.0, pictures: int = 10) -> list[player.Picture]:
    """Once it has shown so many different pictures that were made after that moment: all it has shown."""

    def look() -> list[player.Picture]:
        seen = player.pictures(page)
        fresh = {picture.code for picture in seen if picture.code.time_us > 1000 * since_ms}
        return seen if len(fresh) >= pictures else []

    return until(look, LIMIT_S, 0.05)


@pytest.mark.parametrize(
    "symmetric", [False, pytest.param(True, marks=pytest.mark.long)], ids=["direct", "relayed"]
)  # relayed, a viewer of the protocol alone sees it, and Chromium a published device: both are below
def test_our_device_is_seen_in_chromium_from_nat_to_nat(
    world: World, turn: Turn, hub: Process, camera: Camera, token: str, far_browser: Browser, *, symmetric: bool
) -> None:
    """Straight from home to home where holes can be punched; by the TURN server where they can't. By the published
    protocol alone."""
    world.nat(symmetric=symmetric)
    before = turn.allocations
    with bare_page(far_browser, hub) as page:
        player.watch(page, token, DEVICE)
        moves(page)
        wanted = "relayed" if symmetric else "direct"
        said = until(lambda: now if (now := player.stats(page)) and player.path_of(now) == wanted else None, LIMIT_S)
        figure = re.compile(rf'^planaria_watch_sessions{{stream="{STREAM}",path="{wanted}"}} 1$', re.M)
        until(lambda: figure.search(camera.metrics()), LIMIT_S, 0.2)
        # The first figures are of a second that was not whole.
        until(lambda: [each for each in camera.status()["watching"] if each["bits_per_s"] > 50_000], LIMIT_S, 0.2)
        (session,) = [each for each in camera.status()["watching"] if each["path"] == wanted]
    assert session["bits_per_s"] > 50_000 and session["loss"] < 0.1, session
    assert said["codec"] == "video/H264" and said["decoded"] > 5
    assert not symmetric or turn.allocations > before


def test_our_device_is_seen_by_a_viewer_of_the_protocol_alone(
    world: World, hub: Process, camera: Camera, token: str
) -> None:
    world.nat(symmetric=True)
    report = watch_rig.report(watch_rig.minimal(world.viewer, hub, token, DEVICE))
    assert plays(report) and report["path"] == "relayed", report


def test_a_published_device_without_trickle_is_seen_by_that_viewer_and_in_chromium(
    world: World, hub: Process, token: str, far_browser: Browser
) -> None:
    world.nat(symmetric=True)
    with watch_rig.published(world.device, hub, PUBLISHED), bare_page(far_browser, hub) as page:
        viewer = watch_rig.minimal(world.viewer, hub, token, PUBLISHED)
        player.watch(page, token, PUBLISHED)
        moves(page)
        said = until(lambda: player.stats(page), LIMIT_S)
        report = watch_rig.report(viewer)
    assert plays(report) and report["path"] == player.path_of(said) == "relayed", (report, said)


def test_many_viewers_of_one_pull(world: World, hub: Process, camera: Camera, token: str) -> None:
    """No encoder but the camera's own, whatever their number. They go without a goodbye."""
    with watch_rig.blind(world.device, hub, token, DEVICE, VIEWERS) as viewers:
        assert len(camera.sessions()) == VIEWERS
        (pull,) = camera.consumers()
        assert "rtsp" in str(pull).lower(), pull
        encoders = [name for name in camera.processes().values() if "headless_agent" in name or "ffmpeg" in name]
        assert len(encoders) == 1, encoders
        viewers.kill()
    until(lambda: not camera.sessions(), LIMIT_S)


def test_the_page_plays_again_after_any_kill(
    world: World, hub: Process, camera: Camera, token: str, far_browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody presses anything. How long each picture stood is printed, by the barcodes that were on screen."""
    world.nat(symmetric=False)
    person = Person(far_browser, f"http://127.0.0.1:{hub.port}")
    player.remember(person.page)
    person.go(f"#/devices/{DEVICE}")
    person.sign_in(ADMIN_PASSWORD)
    person.press(f"Play {STREAM}")
    moves(person.page)
    until(lambda: player.stats(person.page), LIMIT_S)
    freezes = {}
    for name in KILLED:
        killed_ms = time.time() * 1000
        if name == "hub":
            hub.restart()
        else:
            camera.kill(name)
        # Some kills are not to be seen at all, and some are only once what is on its way has been shown.
        seen = moves(person.page, killed_ms + 1000)
        freezes[name] = player.freeze_ms(seen, killed_ms) or 0.0
        until(lambda: player.stats(person.page), LIMIT_S)
    person.close()
    # The picture does not wait for the device to have found the hub again; whoever comes next does.
    until(lambda: Http(hub.port, token)("GET", f"/api/devices/{DEVICE}/status").json["is_online"], LIMIT_S, 0.1)
    with capsys.disabled():
        print("\nfreezes, ms: " + ", ".join(f"{name} {ms:.0f}" for name, ms in freezes.items()))


# --- viewers who go wrong -----------------------------------------------------------------------------


def offer_of(*kinds: str) -> str:
    """The SDP of a viewer who wants these; `data`: a data channel. It has no candidates, and none will follow."""
    with ThreadPoolExecutor(1) as thread:  # in this one there is Playwright's event loop
        return thread.submit(lambda: asyncio.run(_offer_of(kinds))).result(LIMIT_S)


async def _offer_of(kinds: Sequence[str]) -> str:
    pc = RTCPeerConnection()
    for kind in kinds:
        if kind == "data":
            pc.createDataChannel("x")
        else:
            pc.addTransceiver(kind, "recvonly")
    sdp = (await pc.createOffer()).sdp
    await pc.close()
    return "".join(line for line in sdp.splitlines(keepends=True) if not line.startswith("a=candidate"))


def asked(viewer: Talker) -> str:
    """A session with our device."""
    viewer.say("watch_request", {"device_id": DEVICE})
    answer = viewer.hear()
    assert answer["type"] == "watch_ready", answer
    return str(answer["payload"]["session_id"])


def offered(viewer: Talker, sdp: str) -> str:
    """The same, after an offer."""
    session = asked(viewer)
    viewer.say("signal_offer", {"session_id": session, "sdp": {"type": "offer", "sdp": sdp}})
    return session


@pytest.mark.parametrize(
    ("kinds", "sdp"),
    [(("data",), ""), (("audio",), ""), ((), "v=0\r\nno SDP at all\r\n")],
    ids=["data", "audio", "junk"],
)
def test_an_offer_that_can_not_be_met_is_ended_with_a_word(
    hub: Process, camera: Camera, token: str, kinds: tuple[str, ...], sdp: str
) -> None:
    with hub_rig.viewer(hub, token, caps=["resume"]) as viewer:
        session = offered(viewer, sdp or offer_of(*kinds))
        ended = viewer.hear("watch_ended")["payload"]
        assert (ended["session_id"], ended["reason"]) == (session, "error") and ended["why"], ended
    until(lambda: not camera.sessions(), LIMIT_S)


def test_two_hundred_candidates_neither_end_a_session_nor_more_than_it(
    hub: Process, camera: Camera, token: str
) -> None:
    line = "candidate:{0} 1 udp 2130706431 198.51.100.{0} 50000 typ host"
    with hub_rig.viewer(hub, token) as viewer:
        session = offered(viewer, offer_of("video"))
        for number in range(200):
            candidate = {"candidate": line.format(number), "sdpMid": "0", "sdpMLineIndex": 0}
            viewer.say("signal_ice", {"session_id": session, "candidate": candidate})
        assert viewer.hear("signal_answer")["payload"]["session_id"] == session
        assert viewer.is_alive() and len(camera.sessions()) == 1
        viewer.say("end_watch", {"session_id": session})
        until(lambda: not camera.sessions(), LIMIT_S)


def test_nobody_speaks_in_a_session_of_others(hub: Process, camera: Camera, token: str) -> None:
    stranger = hub.admin.new_user("stranger")
    offer = {"type": "offer", "sdp": "v=0"}
    with hub_rig.viewer(hub, token) as viewer, hub_rig.viewer(hub, stranger.token) as other:
        for session in (asked(viewer), "550e8400-e29b-41d4-a716-446655440000"):
            other.say("signal_offer", {"session_id": session, "sdp": offer})
            assert other.hear("error")["payload"]["message"] == "no such session"
    until(lambda: not camera.sessions(), LIMIT_S)


def test_nothing_is_left_of_those_who_come_and_go_are_frozen_or_never_reached(
    world: World, hub: Process, camera: Camera, token: str
) -> None:
    """A laptop that is closed says nothing, not even that its connection is over; and media may never flow. Neither
    holds anything beyond its lease, and nothing grows with the number of sessions."""
    pids = {"hub": hub.process.pid} | {name: camera.pids(name)[0] for name in ("webrtc_peer", "ws_link")}
    # A suite that has only just started still connects its proxies to the hub.
    until(lambda: hub.metric("data_links") == PROXIES, LIMIT_S)
    until(lambda: not camera.sessions(), RELEASED_S)
    before = {name: watch_rig.descriptors(pid) for name, pid in pids.items()}
    with watch_rig.blind(world.device, hub, token, DEVICE, 1) as frozen, hub_rig.viewer(hub, token) as unreached:
        frozen.send_signal(signal.SIGSTOP)
        offered(unreached, offer_of("video"))
        for _ in range(max(1, MORE // AT_ONCE)):
            with watch_rig.blind(world.device, hub, token, DEVICE, min(MORE, AT_ONCE)):
                pass
        until(lambda: len(camera.sessions()) <= 2, LIMIT_S)
        assert len(camera.consumers()) <= 1
        ended = unreached.hear("watch_ended", RELEASED_S)["payload"]
        assert ended["reason"] == "timeout", ended
        until(lambda: not camera.sessions(), RELEASED_S)
    for name, pid in pids.items():
        most = before[name]
        until(lambda pid=pid, most=most: watch_rig.descriptors(pid) <= most, LIMIT_S)  # type: ignore[misc]
