"""A viewer behind a path that gets worse and better, in Chromium: what it is sent follows what the path takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq
from playwright.sync_api import Page

from procs import bus
from procs.messages.warden import Watching, WatchSession, decode_to_warden
from tests import emulator, nat
from tests.e2e import player
from tests.e2e.chromium import chromium
from tests.emulator import Link
from tests.json_hub import JsonHub
from tests.linked import linked
from tests.nat import Place
from tests.peered import heard, peered, watch
from tests.rig import go2rtc, until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.needs("chromium", "ip", "nsenter"),
    pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not()),
]
DEVICE, VIEWER = "10.9.0.1", "10.9.0.2"
NARROW = 300e3  # bit/s
LIMIT_S = 60.0
PRODUCER = {"width": 640, "height": 360, "fps": 30, "gop": 60, "bitrate": "600k"}


class Warden:
    """In the place of one: hears how sessions do."""

    def __init__(self, run_dir: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sock = bus.binder(self.context, zmq.PULL, run_dir, bus.WARDEN_HEARTBEAT)
        self._last: WatchSession | None = None

    def session(self) -> WatchSession | None:
        """The only one, as it was last."""
        while self._sock.poll(0):
            told = decode_to_warden(self._sock.recv())
            if isinstance(told, Watching):
                self._last = told.sessions[0] if told.sessions else None
        return self._last


@contextmanager
def watched(run_dir: Path) -> Iterator[tuple[Link, Warden, Page]]:
    """A device and its viewer, whose picture plays."""
    near, far = Place("device"), Place("viewer")
    try:
        with ExitStack() as stack:
            link = stack.enter_context(emulator.link(near, far, "lan", DEVICE, VIEWER))
            far.ip("route add default dev lan")  # or Chromium finds no address for WebRTC
            warden = Warden(run_dir)
            stack.callback(warden.context.destroy)
            browser = stack.enter_context(chromium(str(far.wrapper(run_dir, str(shutil.which("chromium"))))))
            page = browser.new_page()
            player.remember(page)
            page.goto("about:blank")
            stack.enter_context(near.entered())
            served = stack.enter_context(go2rtc({"workers": 1, "producer": PRODUCER}, run_dir=run_dir))
            hub = stack.enter_context(JsonHub())
            stack.enter_context(linked(run_dir, hub.backend, "--device-id", "pi-cam-001"))
            stack.enter_context(peered(run_dir, served))
            hub.connected()
            watch(hub, "s")
            hub.send("signal_offer", {"session_id": "s", "sdp": {"type": "offer", "sdp": player.offer(page, [])}})
            player.answer(page, heard(hub, "signal_answer", "s")["sdp"]["sdp"])
            yield link, warden, page
    finally:
        for place in (near, far):
            place.end()


def test_what_is_sent_follows_a_path_that_narrows_and_widens(run_dir: Path) -> None:
    """The producer gives less, so that the viewer goes on seeing, and all of it again later. What is sent again fills
    the path no further, and a little loss alone changes nothing."""
    with watched(run_dir) as (link, warden, page):
        until(lambda: (its := warden.session()) and its.for_s > 6 and its.bits_per_s > 1.2 * NARROW, LIMIT_S)
        link.to_far(loss=0.03)
        until(lambda: (its := warden.session()) and its.packets_again > 6, LIMIT_S)
        its = until(warden.session)
        assert not its.asked_bits_per_s, "a little loss is no lack of room"
        link.to_far(loss=0, rate=NARROW, delay_s=0.02)
        began = until(lambda: _fitting(warden.session()), LIMIT_S).for_s
        until(lambda: (its := _fitting(warden.session())) and its.for_s > began + 3, LIMIT_S)
        shown = len(player.pictures(page))
        until(lambda: len(player.pictures(page)) > shown + 60, LIMIT_S)
        its = until(warden.session)
        overflowed = link.to_far(rate=0).overflowed
        assert 0 < overflowed < its.packets / 4
        assert its.packets_again < its.packets / 4, its
        until(lambda: (its := warden.session()) and its.bits_per_s > 1.2 * NARROW, LIMIT_S)


def _fitting(its: WatchSession | None) -> WatchSession | None:
    """The same, if the path takes what is sent."""
    return its if its and its.asked_bits_per_s and its.bits_per_s < NARROW and its.loss < 0.02 else None
