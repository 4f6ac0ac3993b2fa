"""The egl renderer on whatever draws here: its context, its colours, and the choice between two conversions."""

from __future__ import annotations

import colorsys
import math
import time
import zlib
from collections.abc import Iterable
from typing import Any

import av
import pytest

from procs.errors import GpuLost, NotHere
from procs.headless_agent import egl
from procs.headless_agent.egl import Device
from procs.headless_agent.options import Producer
from procs.headless_agent.pattern import yuv709
from procs.headless_agent.pictures import EglPictures, canvas_of
from procs.headless_agent.scene import TURN_S, Face, Vector, cross, dot, icosahedron, minus, rotation
from procs.media import barcode

needs_egl = pytest.mark.needs("libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")


def small(convert: str = "swscale", width: int = 322, height: int = 242) -> EglPictures:
    return EglPictures(Producer(renderer="egl", width=width, height=height, convert=convert))


def drawn(pictures: EglPictures, number: int, time_ns: int = 0) -> av.VideoFrame:
    pictures.draw(number, time_ns)
    return pictures.frame()


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
        picture = drawn(pictures, frame, time_ns := time.time_ns())
        if barcode.fits(width, height):
            plane = picture.planes[0]
            code = barcode.read(memoryview(plane), width, height, plane.line_size)
            assert (code.frame, code.time_us) == (frame, time_ns // 1000)
        seen.add(b"".join(planes(picture)[0][pictures.overlay.top : pictures.overlay.bottom]))
    assert len(seen) == 3


@needs_egl
def test_both_conversions_give_the_same_picture() -> None:
    one, other = planes(drawn(small("swscale"), 40)), planes(drawn(small("shader"), 40))
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

    context = egl.open_context(0)
    target = gl.Target(64, 32, internal=gl.RGBA8, pixels=gl.RGBA)
    conversion = open_conversion(convert, target, context)
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


def vector(values: Iterable[float]) -> Vector:
    x, y, z = values
    return x, y, z


def whole(face: Face) -> Vector:
    """The sum of a face's corners, by which it is known."""
    return vector(sum(corner[axis] for corner in face) for axis in range(3))


def pierced(seconds: float, x: float, y: float, aspect: float) -> Vector | None:
    """The corner sums (thrice the centre) of the face that is seen at a point of the picture, in -1..1 with y upwards;
    None beside the solid. Worked out here by ray and plane, from nothing but the scene's own description."""
    angle = 2 * math.pi * seconds / TURN_S
    rows = rotation(angle)
    shift = (0.8 * math.sin(angle / 2), 0.0, -3.2)
    ray = (x * aspect / 2.2, y / 2.2, -1.0)
    hit: Vector | None = None
    nearest = math.inf
    for face in icosahedron():
        a, b, c = (vector(dot(row, p) + s for row, s in zip(rows, shift, strict=True)) for p in face)
        normal = cross(minus(b, a), minus(c, a))
        if abs(dot(normal, ray)) < 1e-9:
            continue
        distance = dot(normal, a) / dot(normal, ray)
        at = vector(distance * r for r in ray)
        inside = all(dot(normal, cross(minus(q, p), minus(at, p))) > 1e-3 for p, q in ((a, b), (b, c), (c, a)))
        if inside and 0 < distance < nearest:
            hit, nearest = whole(face), distance
    return hit


@needs_egl
@pytest.mark.parametrize("frame", [0, 30, 75, 130, 200])
def test_every_point_shows_the_face_that_is_in_front_there(frame: int) -> None:
    """Kills a picture that is mirrored, upside down, stretched, inside out, in the wrong place or of other colours."""
    pictures = small(width=640, height=360)
    luma, _ = planes(drawn(pictures, frame))
    top, bottom = pictures.overlay.top, pictures.overlay.bottom
    seconds, height = frame / 60, bottom - top
    colours = {
        whole(face): colorsys.hsv_to_rgb((zlib.crc32(b"agent-0") / 2**32 + 0.5 + number / 40) % 1.0, 0.65, 1.0)
        for number, face in enumerate(icosahedron())
    }
    rows = rotation(2 * math.pi * seconds / TURN_S)
    compared = 0
    for px in range(20, 640, 37):
        for py in range(top + 9, bottom, 23):
            centre = pierced(seconds, (px + 0.5) / 320 - 1, 1 - (py - top + 0.5) * 2 / height, 640 / height)
            if centre is None:
                continue
            normal = vector(dot(row, centre) / math.hypot(*centre) for row in rows)
            light = 0.25 + 0.75 * max(0.0, dot(normal, (0.36, 0.48, 0.80)))
            assert abs(luma[py][px] - yuv709(*(light * c for c in colours[centre]))[0]) <= 3, (px, py)
            compared += 1
    assert compared > 10


@needs_egl
def test_the_title_and_the_colours_are_the_instances_own() -> None:
    one, other = (
        planes(drawn(EglPictures(Producer(instance_id=name, renderer="egl", width=640, height=360)), 0))
        for name in ("omega-0", "omega-1")
    )
    scale_rows = 24  # of the first line of text
    assert one[0][:scale_rows] != other[0][:scale_rows]
    assert any(max(row) > 200 for row in one[0][:scale_rows])
    assert one[1][90] != other[1][90], "the ground has another hue"


@needs_egl
def test_the_likely_way_comes_first_and_a_hopeless_one_is_not_tried() -> None:
    from procs.headless_agent import gl
    from procs.headless_agent.convert import Fastest, Swscale, open_conversion

    egl.open_context(0)
    target = gl.Target(64, 32, internal=gl.RGBA8, pixels=gl.RGBA)
    for renderer, first in (("llvmpipe (LLVM 15)", "swscale"), ("NVIDIA H200", "shader")):
        conversion = open_conversion("auto", target, egl.Context("device", renderer))
        assert isinstance(conversion, Fastest) and conversion.name == first
    assert isinstance(open_conversion("auto", target, egl.Context("device", "softpipe")), Swscale)


@needs_egl
def test_a_way_that_this_driver_cannot_go_changes_nothing() -> None:
    from procs.headless_agent import convert

    def refused() -> convert.Shader:
        raise NotHere("too large")

    one = Slow("likely", 0.0, [0.0])
    choice = convert.Fastest(one, refused)  # type: ignore[arg-type]
    for _ in range(pictures := convert.TRIAL_AT + convert.TRIALS + 5):
        choice.put(av.VideoFrame(16, 16, "nv12"), 0)
    assert (choice.name, one.puts) == ("likely", pictures)


@needs_egl
def test_the_device_that_was_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    real = egl._make_current

    def make_current(one: Any, other: Any, _platform: int, native: Any) -> None:
        taken.append(native)
        real(one, other, 0x31DD, None)

    devices = [Device(11, is_software=True), Device(22), Device(33, cuda=0)]
    monkeypatch.setattr(egl, "_devices", lambda _egl: devices)
    monkeypatch.setattr(egl, "_make_current", make_current)
    egl.open_context(0)
    egl.open_context(2)
    assert taken == [33, 22], "CUDA's come first"


def test_devices_are_counted_with_those_of_cuda_first() -> None:
    """As they lie in a machine with two vendors, whose libraries EGL may ask in any order."""
    mesa = [Device(1), Device(2, is_software=True)]
    nvidia = [Device(3, cuda=2), Device(4, cuda=0), Device(5, cuda=1)]
    for listed in (mesa + nvidia, nvidia + mesa, [*mesa[:1], *nvidia, *mesa[1:]]):
        assert [device.handle for device in egl.ordered(listed)] == [4, 5, 3, 1, 2]
    assert egl.described(egl.ordered([*mesa, nvidia[1]])) == "0 (cuda 0), 1 (no cuda), 2 (software)"
    assert egl.ordered([]) == []


@needs_egl
def test_a_device_of_a_broken_driver_leaves_another_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    """An EGLDeviceEXT that nobody knows is what a vendor's library that does not come up leaves behind."""
    software = egl_devices()[0]
    monkeypatch.setattr(egl, "_devices", lambda _egl: [Device(0xDEAD0, cuda=0), software])
    assert egl.open_context(0).platform == "surfaceless"
    assert egl.open_context(1).platform == "device"
    monkeypatch.setattr(egl, "_devices", lambda _egl: [software, Device(0xDEAD0)])
    with pytest.raises(NotHere, match=r"no driver serves \(device: .+\)"):  # it was named: no other in its place
        egl.open_context(1)


@needs_egl
def test_a_driver_that_makes_no_context_that_tells_of_resets_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = egl._ints, []

    def ints(*values: int) -> Any:
        asked.append(values)
        return real(*values) if 0x31BD not in values else real(0xBAD, 1, *values)

    monkeypatch.setattr(egl, "_ints", ints)
    egl.open_context(0).check()
    assert [0x31BD in values for values in asked[-2:]] == [True, False]


@needs_egl
@pytest.mark.parametrize(("status", "why"), [(0x8253, "by what we drew"), (0x8255, "for a reason it does not know")])
def test_a_gpu_that_was_reset_is_lost(status: int, why: str) -> None:
    pictures = small()
    drawn(pictures, 0)
    pictures.context = pictures.context._replace(reset_status=lambda: status)
    with pytest.raises(GpuLost, match=f"OpenGL: the GPU was reset {why}"):
        pictures.draw(1, 0)


@needs_egl
def test_errors_of_opengl_that_only_a_new_context_mends(monkeypatch: pytest.MonkeyPatch) -> None:
    from OpenGL.error import GLError
    from OpenGL.raw.GL.VERSION import GL_1_1

    from procs.headless_agent import gl

    def fails(code: int) -> Any:
        def call(*_: object) -> None:
            raise GLError(code)

        return call

    pictures = small("shader")
    drawn(pictures, 0)
    for code, words in ((0x0505, "out of memory"), (0x0507, "the context is lost")):
        for name in ("glDrawArrays", "glReadPixels"):
            monkeypatch.setattr(GL_1_1, name, fails(code))
            with pytest.raises(GpuLost, match=f"OpenGL: {words}"):
                drawn(pictures, 1)
            monkeypatch.undo()
    monkeypatch.setattr(GL_1_1, "glDrawArrays", fails(0x0502))
    with pytest.raises(GLError):  # a mistake of ours
        drawn(pictures, 1)
    monkeypatch.setattr(GL_1_1, "glTexImage2D", fails(0x0505))
    with pytest.raises(NotHere, match="renderer egl: the GPU has no memory for a target of 64x32"):
        gl.Target(64, 32, internal=gl.RGBA8, pixels=gl.RGBA)


def egl_devices() -> list[Device]:
    from OpenGL.raw.EGL.VERSION import EGL_1_0

    return egl._devices(EGL_1_0)


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
    with pytest.raises(NotHere, match=r"device_idx=63: this machine has EGL devices 0 \((cuda 0|no cuda|software)\)"):
        egl.open_context(63)


@pytest.mark.parametrize("missing", [0, 1])
def test_without_a_library_the_packages_are_named(monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    rows = [("libc.so.6",), ("libc.so.6",)]
    rows[missing] = ("libnot-there.so.1",)
    monkeypatch.setattr(egl, "LIBRARIES", tuple(rows))
    with pytest.raises(NotHere, match=r"libnot-there\.so\.1 is missing: apt-get install libegl1 .*libopengl0"):
        egl.open_context(0)
