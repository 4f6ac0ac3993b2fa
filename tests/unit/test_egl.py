"""The egl renderer on whatever draws here: its context, its colours, and the choice between two conversions."""

from __future__ import annotations

import time

import av
import pytest

from procs.errors import NotHere
from procs.headless_agent import egl
from procs.headless_agent.options import Producer
from procs.headless_agent.pattern import yuv709
from procs.headless_agent.pictures import EglPictures, canvas_of
from procs.media import barcode

needs_egl = pytest.mark.needs("libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")


def small(convert: str = "swscale", width: int = 322, height: int = 242) -> EglPictures:
    return EglPictures(Producer(renderer="egl", width=width, height=height, convert=convert))


def planes(frame: av.VideoFrame) -> tuple[list[bytes], list[bytes]]:
    """Luma and chroma rows without padding."""
    luma, chroma = frame.planes
    return (
        [bytes(luma)[y * luma.line_size :][: frame.width] for y in range(frame.height)],
        [bytes(chroma)[y * chroma.line_size :][: frame.width] for y in range(frame.height // 2)],
    )


@needs_egl
@pytest.mark.parametrize("convert", ["swscale", "shader", "auto"])
@pytest.mark.parametrize(("width", "height"), [(322, 242), (16, 16), (640, 360)])
def test_every_picture_carries_the_barcode_and_moves(convert: str, width: int, height: int) -> None:
    pictures = small(convert, width, height)
    seen = set()
    for frame in range(0, 90, 30):
        picture = pictures.picture(frame, time_ns := time.time_ns())
        if barcode.fits(width, height):
            plane = picture.planes[0]
            code = barcode.read(memoryview(plane), width, height, plane.line_size)
            assert (code.frame, code.time_us) == (frame, time_ns // 1000)
        seen.add(b"".join(planes(picture)[0][pictures._overlay.top : pictures._overlay.bottom]))
    assert len(seen) == 3


@needs_egl
def test_both_conversions_give_the_same_picture() -> None:
    one, other = planes(small("swscale").picture(40, 0)), planes(small("shader").picture(40, 0))
    for mine, theirs in zip(one, other, strict=True):
        differences = [abs(a - b) for x, y in zip(mine, theirs, strict=True) for a, b in zip(x, y, strict=True)]
        assert max(differences) <= 2
        assert sum(differences) / len(differences) < 0.5


@needs_egl
@pytest.mark.parametrize("convert", ["swscale", "shader"])
def test_colours_are_bt709_of_limited_range(convert: str) -> None:
    """Against the formula of the recommendation, on one flat colour after the other."""
    from procs.headless_agent import gl
    from procs.headless_agent.convert import open_conversion

    egl.open_context(0)
    target = gl.Target(64, 32, internal=gl.RGBA8, pixels=gl.RGBA)
    conversion = open_conversion(convert, target, True)
    frame = av.VideoFrame(64, 48, "nv12")
    canvas_of(frame).blacken()
    for colour in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.2, 0.6, 0.4)]:
        target.begin(colour)
        conversion.put(frame, 8)
        luma, chroma = planes(frame)
        y, u, v = yuv709(*colour)
        got = (luma[20][30], chroma[10][30], chroma[10][31])
        assert all(abs(a - b) <= 1 for a, b in zip(got, (y, u, v), strict=True)), (colour, got, (y, u, v))
        assert set(luma[7]) == set(luma[40]) == {16}, "rows outside are left alone"


@needs_egl
def test_row_0_is_the_top() -> None:
    pictures = small(width=640, height=360)
    luma, _ = planes(pictures.picture(0, 0))
    top, bottom = pictures._overlay.top, pictures._overlay.bottom
    lit = [sum(row) for row in luma[top:bottom]]
    half = len(lit) // 2
    assert sum(lit[:half]) > sum(lit[half:]), "the light comes from above"


class Slow:
    """A conversion that takes a time of its own on a clock of the test's."""

    def __init__(self, name: str, seconds: float, clock: list[float]) -> None:
        self.name, self._seconds, self._clock, self.puts = name, seconds, clock, 0

    def put(self, frame: av.VideoFrame, top: int) -> None:
        self.puts += 1
        self._clock[0] += self._seconds * (50 if self.puts == 1 else 1)  # the first one compiles shaders


@needs_egl
@pytest.mark.parametrize(
    ("likely", "other", "winner", "tried"),
    [(1.0, 1.5, "likely", 5), (2.0, 1.0, "other", 5), (1.0, 1.0, "likely", 5), (1.0, 2.5, "likely", 1)],
)
def test_the_faster_conversion_stays(
    monkeypatch: pytest.MonkeyPatch, likely: float, other: float, winner: str, tried: int
) -> None:
    from procs.headless_agent import convert

    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    one, two = Slow("likely", likely, clock), Slow("other", other, clock)
    choice = convert.Fastest(one, lambda: two)  # type: ignore[arg-type,return-value]
    frame = av.VideoFrame(16, 16, "nv12")
    for _ in range(pictures := convert.TRIAL_AT + 2 * convert.TRIALS + 3):
        choice.put(frame, 0)
    assert choice.name == winner
    on_other = 3 if winner == "other" else 0
    assert two.puts == tried + 1 + on_other, "one more, which compiles its shaders"
    assert one.puts == pictures - tried - on_other, "and every picture was made"


@needs_egl
def test_surfaceless_serves_where_no_device_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert egl.open_context(0).platform == "device"
    monkeypatch.setattr(egl, "_devices", lambda _egl: [])
    context = egl.open_context(0)
    assert (context.platform, context.is_software) == ("surfaceless", True)
    with pytest.raises(NotHere, match="device_idx=1: this machine's EGL lists no devices"):
        egl.open_context(1)


@needs_egl
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(NotHere, match=r"device_idx=63: this machine has EGL devices 0 to \d+"):
        egl.open_context(63)


@pytest.mark.parametrize("missing", [0, 1])
def test_without_a_library_the_packages_are_named(monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    rows = [("libc.so.6",), ("libc.so.6",)]
    rows[missing] = ("libnot-there.so.1",)
    monkeypatch.setattr(egl, "LIBRARIES", tuple(rows))
    with pytest.raises(NotHere, match=r"libnot-there\.so\.1 is missing: apt-get install libegl1 .*libopengl0"):
        egl.open_context(0)
