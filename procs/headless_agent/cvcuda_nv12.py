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
from itertools import chain, product
from typing import Any

from procs.errors import EncoderFailed, NotHere
from procs.headless_agent import gl
from procs.headless_agent.convert import Pass
from procs.headless_agent.cuda import Gpu, Memory, Part, Texture
from procs.headless_agent.pattern import yuv709

TOLERANCE = 2  # steps of 255: colours are rounded in the texture, and again by CV-CUDA
ERRORS = (RuntimeError, ValueError, TypeError, MemoryError)  # what its calls raise

_SPREAD = """
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
_PATCH = 16  # pixels a side
_COLOURS = (*product((0.0, 1.0), repeat=3), (0.2, 0.6, 0.4), (0.9, 0.4, 0.6))


class Nv12:
    """Converts what a target shows, within the GPU. Raises NotHere where CV-CUDA does not load or refuses."""

    def __init__(self, gpu: Gpu, source: gl.Target) -> None:
        try:
            self._library: Any = importlib.import_module("cvcuda")
        except (ImportError, RuntimeError) as error:
            raise NotHere(f"cvcuda does not load: {_first_line(error)}") from None
        self._gpu = gpu
        width, height = source.width, source.height
        self._spread = Pass(source, gl.Target(width, height, internal=gl.RGBA8, pixels=gl.RGBA), _SPREAD)
        self._texture = Texture(gpu, self._spread.target)
        try:
            self._stream = self._library.as_stream(gpu.stream)
            self._rgba = self._tensor(height, width, 4)
            self._nv12 = self._tensor(height * 3 // 2, width, 1)
        except ERRORS as error:
            raise NotHere(f"cvcuda: {_first_line(error)}") from None
        rgba, self._memory = _memory(self._rgba), _memory(self._nv12)
        self._all = Part(0, height, rgba.address, rgba.pitch)

    def _tensor(self, *shape: int) -> Any:
        return self._library.Tensor(shape, self._library.Type.U8, "HWC")

    def convert(self) -> Memory:
        """What the target shows now, luma rows and below them half as many of U and V in turn; valid, in the stream,
        until the next. Raises EncoderFailed, and GpuLost."""
        self._spread.draw()
        self._texture.copy(self._all)
        code, spec = self._library.ColorConversion.RGB2YUV_NV12, self._library.ColorSpec.BT709_ER
        try:
            self._library.advcvtcolor_into(self._nv12, self._rgba, code, spec, stream=self._stream)
        except ERRORS as error:
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
    width = _PATCH * len(_COLOURS)
    target = gl.Target(width, _PATCH, internal=gl.RGBA8, pixels=gl.RGBA)
    corners = array("f", chain.from_iterable(map(_patch, range(len(_COLOURS)))))
    target.begin((0.0, 0.0, 0.0))
    gl.hide_back_faces(False)
    gl.Program(_PATCH_VERTEX, _PATCH_FRAGMENT).use()
    gl.Triangles(corners, (2, 3)).draw()
    picture = gpu.read(Nv12(gpu, target).convert())
    rows = [picture[start : start + width] for start in range(0, len(picture), width)]
    luma, chroma = rows[:_PATCH], rows[_PATCH:]
    for index, colour in enumerate(_COLOURS):
        wanted = yuv709(*colour)
        part = slice(index * _PATCH, (index + 1) * _PATCH)
        found = {(row[at], uv[at], uv[at + 1]) for row in luma for uv in chroma for at in range(width)[part][::2]}
        worst = max(found, key=lambda got: _distance(got, wanted))
        if _distance(worst, wanted) > TOLERANCE:
            rgb = tuple(round(255 * part) for part in colour)
            raise NotHere(f"cvcuda gives other colours than we expect: {worst} for RGB {rgb}, not {wanted}")


def _patch(index: int) -> list[float]:
    """Two triangles of one colour, the index-th column of the picture."""
    left, right = (2 * edge / len(_COLOURS) - 1 for edge in (index, index + 1))
    places = ((left, -1.0), (right, -1.0), (left, 1.0), (left, 1.0), (right, -1.0), (right, 1.0))
    return [value for place in places for value in (*place, *_COLOURS[index])]


def _distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
