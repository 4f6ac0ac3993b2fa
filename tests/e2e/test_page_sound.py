"""Sound both ways in real Chromium: what a camera hears is heard on the page, whichever way it is encoded, and what a
viewer says into a microphone is heard at the camera."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from procs.settings import ROOT
from tests import hub_rig
from tests.e2e.chromium import chromium
from tests.e2e.lone_network import lone_network
from tests.e2e.page_rig import Person
from tests.hub_rig import ADMIN_PASSWORD, Process
from tests.linked import linked
from tests.peered import peered
from tests.rig import Go2rtc, go2rtc, until

pytestmark = [pytest.mark.timeout(240), pytest.mark.needs("chromium", "ip")]
DEVICE = "cam-1"
OWN, FOREIGN, FAR = "with-opus", "with-aac", "by-rtsp"
PRODUCER = f"exec:{ROOT}/scripts/go2rtc_exec_headless_agent.sh"
SHAPE = "--width 320 --height 180 --fps 15 --audio tone --audio-codec"
ULAW_LOUD = 0x60  # of the seven bits without the sign, which are turned over: smaller is louder
# What plays in the page, as it is heard: the loudest sample of a moment, from -1 to 1. Energy is what the browser
# counts of all that it has decoded of sound.
REMEMBER = """
globalThis.connections = [];
const Real = RTCPeerConnection;
globalThis.RTCPeerConnection = class extends Real {
  constructor(...given) { super(...given); connections.push(this); }
};
"""
LISTEN = """async () => {
  const video = document.querySelector("video");
  video.muted = false;
  const context = globalThis.listening ??= new AudioContext();
  await context.resume();
  const heard = context.createAnalyser();
  context.createMediaStreamSource(video.srcObject).connect(heard);
  await new Promise((done) => setTimeout(done, 300));
  const wave = new Float32Array(heard.fftSize);
  heard.getFloatTimeDomainData(wave);
  return Math.max(...wave.map(Math.abs));
}"""
ENERGY = """async () => {
  for (const connection of connections.toReversed())
    for (const each of (await connection.getStats()).values())
      if (each.type === "inbound-rtp" && each.kind === "audio" && each.totalAudioEnergy) return each.totalAudioEnergy;
  return 0;
}"""


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """What is started from here on has a network of its own."""
    with lone_network():
        yield


@pytest.fixture(scope="module")
def ear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the camera's loudspeaker gets: mu-law, 8000 a second."""
    folder = tmp_path_factory.mktemp("ear")
    (folder / "ear.py").write_text(
        "import os, sys\nwhile data := os.read(0, 4096):\n    open(sys.argv[1], 'ab').write(data)\n"
    )
    return folder / "heard"


@pytest.fixture(scope="module")
def running_go2rtc() -> list[Go2rtc]:
    """The device's, once there is a hub."""
    return []


@pytest.fixture(scope="module")
def hub(
    network: None, ear: Path, running_go2rtc: list[Go2rtc], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """A hub with a device that has these streams: two of its own, and that of a camera that takes sound by RTSP."""
    run_dir = tmp_path_factory.mktemp("run")
    run_dir.chmod(0o700)
    mouth = f"exec:{sys.executable} {ear.parent / 'ear.py'} {ear}#backchannel=1#audio=pcmu/8000"
    sources: dict[str, str | list[str]] = {
        OWN: [f"{PRODUCER} {OWN} {SHAPE} opus", mouth],
        FOREIGN: f"{PRODUCER} {FOREIGN} {SHAPE} aac",
    }
    with (
        go2rtc({"workers": 1}, sources={FAR: [f"{PRODUCER} {FAR} {SHAPE} opus", mouth]}) as camera,
        hub_rig.process(tmp_path_factory.mktemp("hub"), PLANARIA_COMPAT="1") as running,
        go2rtc(
            {"workers": 1},
            sources=sources | {FAR: f"{camera.stream(FAR)}?video&audio&backchannel=pcmu/8000"},
            run_dir=run_dir,
        ) as served,
        linked(run_dir, running.ws("/ws/device"), "--device-id", DEVICE, GO2RTC_HTTP=f"http://{served.api}"),
        peered(run_dir, served),
    ):
        running_go2rtc.append(served)
        until(lambda: running.metric("devices_online") == 1)
        hub_rig.paired(running, running.admin, DEVICE)
        yield running


@pytest.fixture(scope="module")
def browser(network: None) -> Iterator[Browser]:
    """Chromium in that network, with a microphone that beeps."""
    with chromium("", "--use-fake-device-for-media-stream") as found:
        yield found


def person(hub: Process, browser: Browser, *permissions: str) -> Person:
    """Somebody who looks at the device."""
    found = Person(browser, f"http://127.0.0.1:{hub.port}", permissions=list(permissions))
    found.page.add_init_script(REMEMBER)
    found.enter(ADMIN_PASSWORD, f"#/devices/{DEVICE}")
    return found


@pytest.fixture(scope="module")
def listener(hub: Process, browser: Browser) -> Person:
    """Who lets the page use her microphone."""
    found = person(hub, browser, "microphone")
    found.leave()
    return found


@pytest.fixture
def ann(listener: Person) -> Iterator[Person]:
    """The same, before the device."""
    listener.go(f"#/devices/{DEVICE}")
    yield listener
    listener.leave()


def tile(ann: Person, stream: str) -> Locator:
    """The stream's, once it plays."""
    ann.press(f"Play {stream}")
    found = ann.page.get_by_role("listitem").filter(has=ann.page.locator("video"))
    expect(found.get_by_text("live", exact=True)).to_be_visible()
    expect(found).to_contain_text("direct")
    return found


@pytest.mark.parametrize("stream", [OWN, FOREIGN])
def test_a_camera_is_heard(ann: Person, stream: str) -> None:
    tile(ann, stream)
    loudest = until(lambda: now if (now := ann.page.evaluate(LISTEN)) > 0.05 else None, 30, 0.1)
    assert loudest < 0.3, "the tone is of a tenth of full scale"
    before = until(lambda: ann.page.evaluate(ENERGY), 20, 0.1)
    until(lambda: ann.page.evaluate(ENERGY) > before, 20, 0.1)


def is_left(served: Go2rtc, stream: str) -> bool:
    """Whether nobody watches it, so that go2rtc has let its camera go."""
    with urllib.request.urlopen(served.url(f"/api/streams?src={stream}"), timeout=20) as answer:
        return not json.load(answer)["consumers"]


@pytest.mark.parametrize("stream", [pytest.param(OWN, marks=pytest.mark.long), FAR])  # of what is said to OWN: below
def test_who_presses_the_button_is_heard_at_the_camera_until_it_is_pressed_again(
    ann: Person, ear: Path, running_go2rtc: list[Go2rtc], stream: str
) -> None:
    its = tile(ann, stream)
    button = its.get_by_role("button", name=f"Talk: {stream}")
    # go2rtc connects to a camera anew for who talks. The one here is a go2rtc, too; on a busy machine it may still be
    # at the end of the connection before, and then passes on nothing of this one for as long as it lasts.
    for _ in range(4):
        ear.write_bytes(b"")
        ann.press(f"Talk: {stream}")
        expect(button).to_have_attribute("aria-pressed", "true")
        with contextlib.suppress(AssertionError):
            until(lambda: _loud(ear.read_bytes()) > 1000, 12)
            break
        ann.press(f"Stop {stream}")
        until(lambda: is_left(running_go2rtc[0], stream), 60)
        tile(ann, stream)
    assert _loud(ear.read_bytes()) > 1000
    ann.press(f"Talk: {stream}")
    expect(button).to_have_attribute("aria-pressed", "false")
    ann.page.wait_for_timeout(500)  # what was under way
    said = ear.stat().st_size
    ann.page.wait_for_timeout(700)
    assert ear.stat().st_size == said
    box = button.bounding_box()
    assert box
    ann.page.mouse.move(box["x"] + 5, box["y"] + 5)
    ann.page.mouse.down()
    until(lambda: ear.stat().st_size > said + 4000, 30)
    ann.page.mouse.up()
    expect(button).to_have_attribute("aria-pressed", "false")


def test_a_picture_that_stands_still_for_a_while_ends_no_talk(ann: Person, running_go2rtc: list[Go2rtc]) -> None:
    """Each new session that talks may have go2rtc connect to the camera anew, and the picture stand still again."""
    its = tile(ann, OWN)
    ann.press(f"Talk: {OWN}")
    expect(its.get_by_text("Talking", exact=True)).to_be_visible()
    expect(its.get_by_text("live", exact=True)).to_be_visible()
    sessions = ann.page.evaluate("connections.length")
    (producer,) = running_go2rtc[0].producers(OWN)
    os.kill(producer, signal.SIGSTOP)
    try:
        expect(its.get_by_text("reconnecting", exact=True)).to_be_visible()
        ann.page.wait_for_timeout(2500)
        assert ann.page.evaluate("connections.length") == sessions
    finally:
        os.kill(producer, signal.SIGCONT)
    expect(its.get_by_text("live", exact=True)).to_be_visible()
    assert ann.page.evaluate("connections.length") == sessions


def _loud(heard: bytes) -> int:
    return sum(each & 0x7F < ULAW_LOUD for each in heard)


def test_what_prevents_it_is_said(ann: Person, hub: Process, browser: Browser) -> None:
    its = tile(ann, FOREIGN)
    ann.press(f"Talk: {FOREIGN}")
    expect(its).to_contain_text("takes no sound")
    expect(its.get_by_role("button", name=f"Talk: {FOREIGN}")).to_have_count(0)
    bob = person(hub, browser)
    bob.context.clear_permissions()
    its = tile(bob, OWN)
    bob.press(f"Talk: {OWN}")
    expect(its).to_contain_text("does not let the page use a microphone")
    expect(its.get_by_role("button", name=f"Talk: {OWN}")).to_have_attribute("aria-pressed", "false")
    bob.close()
    assert bob.alarms == []
