"""The pattern: what is drawn can be read back, nothing is drawn outside, each instance looks different."""

from __future__ import annotations

import pytest

from procs.headless_agent.font import GLYPH_HEIGHT, GLYPH_WIDTH, rows_of
from procs.headless_agent.pattern import Canvas, Pattern, palette, yuv709
from procs.media import barcode

TIME_NS = 1_790_000_000_123_456_789


class Picture:
    """NV12 in plain memory, with strides wider than the picture and a guard behind each plane."""

    GUARD = b"\xa5" * 64

    def __init__(self, width: int, height: int, padding: int = 32) -> None:
        self.width, self.height, self.stride = width, height, width + padding
        self.luma = bytearray(self.stride * height) + self.GUARD
        self.chroma = bytearray(self.stride * height // 2) + self.GUARD

    def canvas(self) -> Canvas:
        luma, chroma = memoryview(self.luma)[: -len(self.GUARD)], memoryview(self.chroma)[: -len(self.GUARD)]
        return Canvas(luma, self.stride, chroma, self.stride, self.width, self.height)

    def intact(self) -> bool:
        return self.luma.endswith(self.GUARD) and self.chroma.endswith(self.GUARD)


@pytest.mark.parametrize(
    ("width", "height"), [(1280, 720), (640, 360), (1920, 1080), (322, 242), (128, 72), (720, 1280)]
)
def test_the_barcode_says_frame_and_time(width: int, height: int) -> None:
    picture = Picture(width, height)
    pattern = Pattern(picture.canvas(), "omega-0", 30)
    for frame in (0, 1, 119, 4_000_000_000):
        pattern.draw(frame, TIME_NS)
        code = barcode.read(memoryview(picture.luma), width, height, picture.stride)
        assert (code.frame, code.time_us) == (frame, TIME_NS // 1000)
    assert picture.intact()


@pytest.mark.parametrize(("width", "height"), [(16, 16), (16, 720), (1280, 16), (130, 72), (126, 100), (4096, 16)])
def test_any_size_can_be_drawn(width: int, height: int) -> None:
    picture = Picture(width, height, padding=0)
    pattern = Pattern(picture.canvas(), "a-very-long-name-that-does-not-fit-anywhere-at-all-in-the-picture", 60)
    before = bytes(picture.luma)
    for frame in range(0, 240, 7):
        pattern.draw(frame, TIME_NS)
    assert picture.intact() and bytes(picture.luma) != before


def test_drawing_again_leaves_no_trace_of_the_frame_before() -> None:
    fresh, used = Picture(640, 360), Picture(640, 360)
    one, other = Pattern(fresh.canvas(), "x", 30), Pattern(used.canvas(), "x", 30)
    for frame in range(100):
        other.draw(frame, TIME_NS + frame)
    one.draw(500, TIME_NS)
    other.draw(500, TIME_NS)
    assert fresh.luma == used.luma and fresh.chroma == used.chroma


def test_instances_look_different() -> None:
    seen = {tuple(palette(f"omega-{i}")) for i in range(50)}
    assert len(seen) == 50


def test_colours_are_bt709_limited() -> None:
    assert yuv709(0, 0, 0) == (16, 128, 128)
    assert yuv709(1, 1, 1) == (235, 128, 128)
    assert yuv709(1, 0, 0) == (63, 102, 240)
    assert yuv709(0, 0, 1) == (32, 240, 118)


def test_text_is_as_wide_as_it_says() -> None:
    rows = rows_of("OMEGA-0 ?", 3)
    assert len(rows) == GLYPH_HEIGHT
    assert {len(row) for row in rows} == {9 * GLYPH_WIDTH * 3}
    assert rows_of("?", 1) == rows_of(" ", 1), "an unknown character is a blank"
    assert rows_of("8", 1) != rows_of("B", 1)
