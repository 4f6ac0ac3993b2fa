"""NV12 of what OpenGL has drawn, by CV-CUDA: BT.709 of limited range, each chroma sample the mean of its four pixels.

CV-CUDA has one operator with the matrix of BT.709, advcvtcolor, and it knows the full range only (the other one,
cvtcolor, is BT.601 and takes one pixel of four for chroma). So a shader first moves the colours: luma Y and chroma C of
the full range are 16 + 219 Y and 224 C of the limited one, and the matrix is linear, so that it makes exactly these of
16 + 219 Y + 224 (rgb - Y). That stays within 11 to 240: nothing is clipped.

That chroma is a mean is what CV-CUDA's published source does; its matrix, range and order of channels are measured by
`check` on the GPU itself, through the very calls that pictures take.
CuPy has no place here: it can map no texture, and memory, copies and the stream are cuda.bindings' and CV-CUDA's own.
"""

from __future__ import annotations

import importlib
from array import array
from collections.abc import Sequence
from itertools import product
from typing import Any

from procs.errors import EncoderFailed, NotHere
from procs.headless_agent import gl
from procs.headless_agent.convert import Pass
from procs.headless_agent.cuda import Gpu, Memory, Part, Texture
from procs.headless_agent.pattern import yuv709

PATCH = 16  # pixels a side
TOLERANCE = 2  # steps of 255: colours are rounded in the texture, and again by CV-CUDA
_ERRORS = (RuntimeError, ValueError, TypeError, MemoryError)  # what its calls raise

SPREAD = """
uniform sampler2D picture;
out vec4 pixel;
void main() {
    vec3 c = texelFetch(picture, ivec2(gl_FragCoord.xy), 0).rgb;
    float luma = dot(c, vec3(0.2126, 0.7152, 0.0722));
    pixel = vec4((16.0 + 219.0 * luma + 224.0 * (c - luma)) / 255.0, 1.0);
}
"""
_PATCH_VERTEX = """
layout(location = 0) in vec2 at;
layout(location = 1) in vec3 colour;
flat out vec3 shade;
void main() { gl_Position = vec4(at, 0.0, 1.0); shade = colour; }
"""
_PATCH_FRAGMENT = """
flat in vec3 shade;
out vec4 pixel;
void main() { pixel = vec4(shade, 1.0); }
"""


class Nv12:
    """Converts what a target shows, within the GPU. Raises NotHere where CV-CUDA does not load or refuses."""

    def __init__(self, gpu: Gpu, source: gl.Target) -> None:
        try:
            library: Any = importlib.import_module("cvcuda")
        except (ImportError, RuntimeError) as error:
            raise NotHere(f"cvcuda does not load: {_first_line(error)}") from None
        self._gpu = gpu
        width, height = source.width, source.height
        self._spread = Pass(source, gl.Target(width, height, internal=gl.RGBA8, pixels=gl.RGBA), SPREAD)
        self._texture = Texture(gpu, self._spread.target)
        try:
            self._convert = library.advcvtcolor_into
            self._how = library.ColorConversion.RGB2YUV_NV12, library.ColorSpec.BT709_ER
            self._stream = library.as_stream(gpu.stream)
            self._rgba = library.Tensor((height, width, 4), library.Type.U8, "HWC")
            self._nv12 = library.Tensor((height * 3 // 2, width, 1), library.Type.U8, "HWC")
        except (*_ERRORS, AttributeError) as error:
            raise NotHere(f"cvcuda: {_first_line(error)}") from None
        rgba, self._memory = _memory(self._rgba), _memory(self._nv12)
        self._all = Part(0, height, rgba.address, rgba.pitch)

    def convert(self) -> Memory:
        """What the target shows now, luma rows and below them half as many of U and V in turn; valid, in the stream,
        until the next. Raises EncoderFailed, and GpuLost."""
        self._spread.draw()
        self._texture.copy(self._all)
        try:
            self._convert(self._nv12, self._rgba, *self._how, stream=self._stream)
        except _ERRORS as error:
            if self._gpu.is_serving:
                self._gpu.wait()  # which tells whether the GPU is lost
            raise EncoderFailed(f"cvcuda: {_first_line(error)}") from None
        return self._memory


def _memory(tensor: Any) -> Memory:
    """Where CV-CUDA has put a tensor."""
    interface = tensor.cuda().__cuda_array_interface__
    rows, columns, channels = interface["shape"]
    strides = interface.get("strides")
    return Memory(interface["data"][0], strides[0] if strides else columns * channels, columns * channels, rows)


def check(gpu: Gpu) -> None:
    """Raise NotHere unless known colours come out as they should: a wrong matrix would be in every picture."""
    colours = [*product((0.0, 1.0), repeat=3), (0.2, 0.6, 0.4), (0.9, 0.4, 0.6)]
    target = patches(colours)
    picture = gpu.read(Nv12(gpu, target).convert())
    rows = [picture[start : start + target.width] for start in range(0, len(picture), target.width)]
    for index, colour in enumerate(colours):
        wanted = yuv709(*colour)
        columns = range(index * PATCH, (index + 1) * PATCH, 2)
        every = (
            (y[x + at], uv[x], uv[x + 1]) for y in rows[:PATCH] for uv in rows[PATCH:] for x in columns for at in (0, 1)
        )
        found = max(set(every), key=lambda yuv: _distance(yuv, wanted))
        if _distance(found, wanted) > TOLERANCE:
            rgb = tuple(round(255 * part) for part in colour)
            raise NotHere(f"cvcuda gives other colours than we expect: {found} for RGB {rgb}, not {wanted}")


def patches(colours: Sequence[Sequence[float]]) -> gl.Target:
    """Squares of RGB colours beside each other."""
    target = gl.Target(PATCH * len(colours), PATCH, internal=gl.RGBA8, pixels=gl.RGBA)
    corners = array("f")
    for index, colour in enumerate(colours):
        left, right = (2 * edge / len(colours) - 1 for edge in (index, index + 1))
        for place in ((left, -1), (right, -1), (left, 1), (left, 1), (right, -1), (right, 1)):
            corners.extend((*place, *colour))
    target.begin((0.0, 0.0, 0.0))
    gl.hide_back_faces(False)
    gl.Program(_PATCH_VERTEX, _PATCH_FRAGMENT).use()
    gl.Triangles(corners, (2, 3)).draw()
    return target


def _distance(one: Sequence[int], other: Sequence[int]) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
