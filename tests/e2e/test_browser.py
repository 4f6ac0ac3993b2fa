"""Headless Chromium plays a stream through go2rtc's own page: the pixels it shows are read back."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Locator, Page

from procs.errors import Refused
from procs.media import barcode
from tests import rig
from tests.e2e.chromium import chromium
from tests.rig import until

# Draws the lowest ninth of what the player, or another picture, shows into a canvas, where its barcode is, and returns
# its luma: base64 of width * height / 9 bytes.
STRIP = """picture => {
  const shown = picture ?? document.querySelector('video');
  const width = shown?.videoWidth ?? shown?.naturalWidth, height = shown?.videoHeight ?? shown?.naturalHeight;
  if (!width || shown.readyState < 2) return null;
  const lines = Math.floor(height * 4 / 36), canvas = new OffscreenCanvas(width, lines);
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(shown, 0, lines - height);
  const rgba = context.getImageData(0, 0, width, lines).data;
  const luma = new Uint8Array(width * lines);
  for (let i = 0; i < luma.length; i++)
    luma[i] = 0.2126 * rgba[4 * i] + 0.7152 * rgba[4 * i + 1] + 0.0722 * rgba[4 * i + 2];
  let text = '';
  for (let i = 0; i < luma.length; i += 8192) text += String.fromCharCode(...luma.subarray(i, i + 8192));
  return {width, height, luma: btoa(text)};
}"""

# Mean red, green and blue of what the player shows between a third and two thirds of its height.
COLOUR = """() => {
  const video = document.querySelector('video'), canvas = document.createElement('canvas');
  canvas.width = video.videoWidth; canvas.height = Math.floor(video.videoHeight / 3);
  const context = canvas.getContext('2d');
  context.drawImage(video, 0, -canvas.height);
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data, sums = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) sums[c] += data[i + c];
  return sums.map(sum => sum / (data.length / 4));
}"""


class Shown(NamedTuple):
    """What a player, or a picture, shows at one moment."""

    width: int
    height: int
    code: barcode.Code


def shown(where: Page | Locator) -> Shown | None:
    """Read the picture off the page's player, or off an image; None while there is none that can be read."""
    answer = where.evaluate(STRIP)
    if not answer:
        return None
    width, height = answer["width"], answer["height"]
    try:
        above, _ = barcode.strip(width, height)
        luma = bytes(above * width) + base64.b64decode(answer["luma"])
        return Shown(width, height, barcode.read(luma, width, height, width))
    except Refused:
        return None


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of the system's Chromium, which may not leave this machine."""
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1280, "height": 720})


@pytest.mark.needs("chromium")
def test_chromium_plays_through_go2rtcs_own_page_and_goes_on_after_a_kill(page: Page, streams: rig.Go2rtc) -> None:
    page.goto(streams.url("stream.html?src=omega-5&mode=mse"))
    first = until(lambda: shown(page), 30, 0.1)
    assert (first.width, first.height) == (640, 360)
    later = until(lambda: _after(page, first.code.time_us), 10, 0.1)
    assert later.code.frame > first.code.frame, "pixels move"
    (producer,) = streams.producers("omega-5")
    os.kill(producer, signal.SIGKILL)
    again = until(lambda: _after(page, later.code.time_us, frame_below=later.code.frame), 20, 0.1)
    assert again.code.time_us > later.code.time_us, "pictures of the new producer, without a reload"


def _after(page: Page, time_us: int, frame_below: int = 2**32) -> Shown | None:
    now = shown(page)
    return now if now and now.code.time_us > time_us and now.code.frame < frame_below else None


@pytest.mark.needs("chromium")
def test_go2rtcs_index_page_lists_the_streams(page: Page, streams: rig.Go2rtc) -> None:
    page.goto(streams.url("/"))
    page.wait_for_selector("text=omega-9")
    assert page.locator("#streams tr").count() == 10


@pytest.mark.needs("chromium", "libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
@pytest.mark.skipif("README_PICTURE" not in os.environ, reason="is for making it")
def test_the_readmes_picture_can_be_made(page: Page, tmp_path: Path) -> None:
    """With README_PICTURE set to a path, the picture is kept there."""
    producer = {"width": 640, "height": 360, "fps": 30}
    streams = {f"omega-{i}": {"renderer": "egl"} for i in (1, 3)}
    with rig.go2rtc({"workers": 4, "producer": producer, "streams": streams}) as running:
        page.goto(running.url("stream.html?" + "&".join(f"src=omega-{i}&mode=mse" for i in range(4))))
        until(lambda: shown(page), 30, 0.1)
        page.wait_for_timeout(5000)  # until the controls have faded
        path = os.environ.get("README_PICTURE", str(tmp_path / "streams.png"))
        page.screenshot(path=path, clip={"x": 0, "y": 0, "width": 1280, "height": 180})


@pytest.mark.needs("chromium", "libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
def test_chromium_shows_what_opengl_draws_at_720p30(page: Page) -> None:
    """The scene's colours too, not only its barcode: the middle of the picture is neither black nor grey."""
    producer = {"renderer": "egl", "width": 1280, "height": 720, "fps": 30, "bitrate": "4M"}
    with rig.go2rtc({"workers": 1, "producer": producer}) as running:
        page.goto(running.url("stream.html?src=omega-0&mode=mse"))
        first = until(lambda: shown(page), 30, 0.1)
        assert (first.width, first.height) == (1280, 720)
        later = until(lambda: _after(page, first.code.time_us + 1_000_000), 20, 0.1)
        made, seconds = later.code.frame - first.code.frame, (later.code.time_us - first.code.time_us) / 1e6
        assert abs(made - 30 * seconds) < 6, "it is drawn at its rate; a busy machine is late with one or another"
        # Its cubes turn: at some moments their colours weigh each other out.
        until(lambda: max(means := page.evaluate(COLOUR)) - min(means) > 15, every_s=0.1)
