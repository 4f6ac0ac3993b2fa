"""RGBA on the GPU to NV12 in our memory: BT.709, limited range, each chroma sample the mean of its four pixels.

Two ways that give the same picture within one step of 255: read RGBA back and let swscale convert it, or have a
shader pack NV12 and read back a third as much. On a GPU the shader costs nothing; on llvmpipe swscale is cheaper.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from statistics import median

import av
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from procs import log
from procs.errors import NotHere
from procs.headless_agent import gl
from procs.headless_agent.egl import Context

TRIALS = 5
TRIAL_AT = 30  # pictures: by then a viewer has his first ones, and caches are warm
HOPELESS = 2.0

_VERTEX = """
layout(location = 0) in vec2 at;
void main() { gl_Position = vec4(at, 0.0, 1.0); }
"""
_FRAGMENT = """
uniform sampler2D picture;
uniform float rows;
out float sample_;
void main() {
    ivec2 at = ivec2(gl_FragCoord.xy);
    int height = int(rows);
    if (at.y < height) {
        vec3 c = texelFetch(picture, at, 0).rgb;
        sample_ = (16.0 + 219.0 * dot(c, vec3(0.2126, 0.7152, 0.0722))) / 255.0;
        return;
    }
    ivec2 from = ivec2(at.x & ~1, (at.y - height) * 2);
    vec3 c = (texelFetch(picture, from, 0).rgb + texelFetch(picture, from + ivec2(1, 0), 0).rgb
        + texelFetch(picture, from + ivec2(0, 1), 0).rgb + texelFetch(picture, from + ivec2(1, 1), 0).rgb) / 4.0;
    float luma = dot(c, vec3(0.2126, 0.7152, 0.0722));
    float chroma = (at.x & 1) == 0 ? (c.b - luma) / 1.8556 : (c.r - luma) / 1.5748;
    sample_ = (128.0 + 224.0 * chroma) / 255.0;
}
"""


class Swscale:
    """Reads 4 bytes a pixel back; the CPU converts."""

    name = "swscale"

    def __init__(self, scene: gl.Target) -> None:
        self._scene = scene
        self._rgba = av.VideoFrame(scene.width, scene.height, "rgba")
        self._reformatter = VideoReformatter()

    def put(self, frame: av.VideoFrame, top: int) -> None:
        """Write what the scene's target shows now into an NV12 frame of its width, from row `top` (even) on."""
        plane = self._rgba.planes[0]
        self._scene.read(0, self._scene.height, plane.buffer_ptr, plane.line_size)
        converted = self._reformatter.reformat(
            self._rgba,
            format="nv12",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.AREA,
            threads=1,  # more gain nothing at this size, and cost CPU
        )
        for source, target, first in zip(converted.planes, frame.planes, (top, top // 2), strict=True):
            # The same width has the same stride, so that rows lie alike in both.
            start = first * target.line_size
            memoryview(target)[start : start + source.buffer_size] = memoryview(source)


class Pass:
    """Draws a target anew from what another shows, by a fragment shader that looks it up as `picture`."""

    def __init__(self, source: gl.Target, target: gl.Target, fragment: str) -> None:
        self._source, self.target = source, target
        self._program = gl.Program(_VERTEX, fragment)
        self._everything = gl.Triangles(array("f", (-1, -1, 3, -1, -1, 3)), (2,))

    def set(self, uniform: str, value: float) -> None:
        """Write a number into a uniform, for good."""
        self._program.use()
        gl.set_float(self._program.place(uniform), value)

    @gl.guarded
    def draw(self) -> None:
        """Take what the source shows now. Raises GpuLost."""
        self.target.begin((0.0, 0.0, 0.0))
        gl.hide_back_faces(False)
        self._source.look_up()
        self._program.use()
        self._everything.draw()


class Packer(Pass):
    """Packs NV12 of the scene into a texture of one byte a pixel: rows [0, scene.height) of it are luma; below them,
    half as many rows hold U and V in turn."""

    def __init__(self, scene: gl.Target) -> None:
        packed = gl.Target(scene.width, scene.height * 3 // 2, internal=gl.R8, pixels=gl.RED)
        super().__init__(scene, packed, _FRAGMENT)
        self.set("rows", scene.height)


class Shader:
    """Packs NV12 with a shader and reads 1.5 bytes a pixel back."""

    name = "shader"

    def __init__(self, scene: gl.Target) -> None:
        self._height = scene.height
        self._packer = Packer(scene)

    def put(self, frame: av.VideoFrame, top: int) -> None:
        """Write what the scene's target shows now into an NV12 frame of its width, from row `top` (even) on."""
        self._packer.draw()
        height, read = self._height, self._packer.target.read
        luma, chroma = frame.planes
        read(0, height, luma.buffer_ptr + top * luma.line_size, luma.line_size)
        read(height, height // 2, chroma.buffer_ptr + top // 2 * chroma.line_size, chroma.line_size)


class Fastest:
    """Begins with the way that is likely the quicker, tries the other on a few pictures, and stays with the winner.

    A way that is HOPELESS times slower is tried on one picture only: more would be seen as a stutter.
    """

    def __init__(self, likely: Swscale | Shader, other: Callable[[], Swscale | Shader]) -> None:
        self._likely, self._other = likely, other
        self._now = likely
        self._seen = 0
        self._spent_s: tuple[list[float], list[float]] = ([], [])  # of the likely one, of the other
        self._is_decided = False

    @property
    def name(self) -> str:
        """The way in use."""
        return self._now.name

    def put(self, frame: av.VideoFrame, top: int) -> None:
        """Write what the scene's target shows now into an NV12 frame of its width, from row `top` (even) on."""
        if self._is_decided or self._seen < TRIAL_AT:
            self._seen += 1
            self._now.put(frame, top)
            return
        likely_s, other_s = self._spent_s
        if len(likely_s) == TRIALS and not other_s:
            try:
                self._now = self._other()
                self._now.put(frame, top)  # not counted: the first one compiles shaders
            except NotHere:  # this driver can't; the likely way serves
                self._is_decided = True
        started = time.perf_counter()
        self._now.put(frame, top)
        spent_s = time.perf_counter() - started
        if len(likely_s) < TRIALS:
            likely_s.append(spent_s)
        elif not self._is_decided:
            other_s.append(spent_s)
            if len(other_s) == TRIALS or spent_s > HOPELESS * median(likely_s):
                self._decide(median(likely_s), median(other_s))

    def _decide(self, likely_s: float, other_s: float) -> None:
        tried = self._now.name
        if likely_s <= other_s:
            self._now = self._likely
        self._is_decided = True
        ms = {f"{self._likely.name}_ms": round(1000 * likely_s, 2), f"{tried}_ms": round(1000 * other_s, 2)}
        log.info(f"colour conversion by {self._now.name}, the faster here", **ms)


def open_conversion(which: str, scene: gl.Target, context: Context) -> Swscale | Shader | Fastest:
    """The way named by `which`: swscale, shader, or auto for the faster of the two."""
    if which == "swscale" or (which == "auto" and context.is_slow):  # there one try of the other takes seconds
        return Swscale(scene)
    if which == "shader":
        return Shader(scene)
    ways = Swscale, Shader
    likely, other = ways if context.is_software else reversed(ways)
    return Fastest(likely(scene), lambda: other(scene))
