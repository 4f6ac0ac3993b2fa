"""Programs and targets of OpenGL 3.3, by PyOpenGL's raw wrappers: the full ones cost another 70 ms at start.

A context must be current (egl.py). Row 0 of every target is the top of the picture, so what is read back needs no
turning over.
"""

from __future__ import annotations

import contextlib
import ctypes
from array import array
from collections.abc import Iterable

from OpenGL.error import GLError
from OpenGL.raw.GL.VERSION import GL_1_1, GL_1_5, GL_2_0, GL_3_0

from procs.errors import GpuLost, NotHere

RGBA, RED, RGBA8, R8 = 0x1908, 0x1903, 0x8058, 0x8229
_BYTE, _FLOAT = 0x1401, 0x1406
_TEXTURE, _MIN_FILTER, _MAG_FILTER, _NEAREST = 0x0DE1, 0x2801, 0x2800, 0x2600
_FRAMEBUFFER, _COLOR, _COMPLETE = 0x8D40, 0x8CE0, 0x8CD5
_PACK_ALIGNMENT, _PACK_ROW_LENGTH = 0x0D05, 0x0D02
_VERTEX_SHADER, _FRAGMENT_SHADER = 0x8B31, 0x8B30
_COMPILED, _LINKED, _LOG_BYTES = 0x8B81, 0x8B82, 2048
_ARRAY_BUFFER, _STATIC_DRAW = 0x8892, 0x88E4
_TRIANGLES = 0x0004
_RENDERER = 0x1F01
_OUT_OF_MEMORY = 0x0505
_LOST = {_OUT_OF_MEMORY: "out of memory", 0x0507: "the context is lost"}
_COLOR_BUFFER, _CULL_FACE = 0x4000, 0x0B44
_FRONT_CLOCKWISE = 0x0900


class _Guard(contextlib.ContextDecorator):
    """While pictures are drawn, raises GpuLost for what only a new context mends. PyOpenGL asks after each call."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, GLError) and error.err in _LOST:
            raise GpuLost(f"OpenGL: {_LOST[error.err]}") from None


guarded = _Guard()


class Program:
    """A vertex and a fragment shader. Raises NotHere when the driver takes them not."""

    def __init__(self, vertex: str, fragment: str) -> None:
        self._number = GL_2_0.glCreateProgram()
        for kind, source in ((_VERTEX_SHADER, vertex), (_FRAGMENT_SHADER, fragment)):
            GL_2_0.glAttachShader(self._number, _shader(kind, source))
        GL_2_0.glLinkProgram(self._number)
        if not _asked(GL_2_0.glGetProgramiv, self._number, _LINKED):
            raise NotHere("renderer egl: the driver does not link our shaders")

    def use(self) -> None:
        """What is drawn next is drawn by this."""
        GL_2_0.glUseProgram(self._number)

    def place(self, name: str) -> int:
        """Where a uniform is to be written."""
        return int(GL_2_0.glGetUniformLocation(self._number, name.encode()))


def _shader(kind: int, source: str) -> int:
    number = GL_2_0.glCreateShader(kind)
    text = ctypes.c_char_p(f"#version 330 core\n{source}".encode())
    GL_2_0.glShaderSource(
        number, 1, ctypes.cast(ctypes.pointer(text), ctypes.POINTER(ctypes.POINTER(ctypes.c_char))), None
    )
    GL_2_0.glCompileShader(number)
    if not _asked(GL_2_0.glGetShaderiv, number, _COMPILED):
        words = ctypes.create_string_buffer(_LOG_BYTES)
        GL_2_0.glGetShaderInfoLog(number, _LOG_BYTES, None, words)
        raise NotHere(f"renderer egl: the driver does not compile our shader: {words.value.decode(errors='replace')!r}")
    return int(number)


def _asked(question: object, number: int, name: int) -> int:
    answer = ctypes.c_int()
    question(number, name, ctypes.byref(answer))  # type: ignore[operator]
    return answer.value


class Target:
    """A texture of `width` x `height` that is drawn into, read back, and looked up by other programs."""

    def __init__(self, width: int, height: int, *, internal: int, pixels: int) -> None:
        self.width, self.height, self._pixels = width, height, pixels
        self._bytes_a_pixel = 4 if pixels == RGBA else 1
        self.texture, self._framebuffer = _new(GL_1_1.glGenTextures), _new(GL_3_0.glGenFramebuffers)
        try:
            self._make(internal)
        except GLError as error:
            if error.err != _OUT_OF_MEMORY:
                raise
            raise NotHere(f"renderer egl: the GPU has no memory for a target of {width}x{height}") from None

    def _make(self, internal: int) -> None:
        width, height = self.width, self.height
        GL_1_1.glBindTexture(_TEXTURE, self.texture)
        GL_1_1.glTexImage2D(_TEXTURE, 0, internal, width, height, 0, self._pixels, _BYTE, None)
        for which in (_MIN_FILTER, _MAG_FILTER):
            GL_1_1.glTexParameteri(_TEXTURE, which, _NEAREST)
        self.bind()
        GL_3_0.glFramebufferTexture2D(_FRAMEBUFFER, _COLOR, _TEXTURE, self.texture, 0)
        if GL_3_0.glCheckFramebufferStatus(_FRAMEBUFFER) != _COMPLETE:
            raise NotHere(f"renderer egl: the driver gives no target of {width}x{height}")

    @property
    def row_bytes(self) -> int:
        """Of one row of pixels."""
        return self.width * self._bytes_a_pixel

    def bind(self) -> None:
        """What is drawn or read next is in this."""
        GL_3_0.glBindFramebuffer(_FRAMEBUFFER, self._framebuffer)

    def begin(self, colour: tuple[float, float, float]) -> None:
        """Start a picture on a ground of one colour. All of it: llvmpipe clears a part four times more slowly."""
        self.bind()
        GL_1_1.glViewport(0, 0, self.width, self.height)
        GL_1_1.glClearColor(*colour, 1.0)
        GL_1_1.glClear(_COLOR_BUFFER)

    def look_up(self) -> None:
        """The next program's sampler reads this."""
        GL_1_1.glBindTexture(_TEXTURE, self.texture)

    @guarded
    def read(self, top: int, height: int, address: int, stride: int) -> None:
        """Copy rows [top, top + height) to memory with `stride` bytes from row to row. Raises GpuLost.

        Straight to where they belong: having PyOpenGL make a new object costs 5 ms at 720p.
        """
        self.bind()
        GL_1_1.glPixelStorei(_PACK_ALIGNMENT, 1)
        GL_1_1.glPixelStorei(_PACK_ROW_LENGTH, stride // self._bytes_a_pixel)
        GL_1_1.glReadPixels(0, top, self.width, height, self._pixels, _BYTE, ctypes.c_void_p(address))


class Triangles:
    """Triangles in the driver's memory: `attributes` floats of each part of a corner, such as (3, 3)."""

    def __init__(self, corners: array[float], attributes: tuple[int, ...]) -> None:
        self._count = len(corners) // sum(attributes)
        self._array = _new(GL_3_0.glGenVertexArrays)
        GL_3_0.glBindVertexArray(self._array)
        GL_1_5.glBindBuffer(_ARRAY_BUFFER, _new(GL_1_5.glGenBuffers))
        address, _ = corners.buffer_info()
        size = corners.itemsize
        GL_1_5.glBufferData(_ARRAY_BUFFER, len(corners) * size, ctypes.c_void_p(address), _STATIC_DRAW)
        offset = 0
        for index, floats in enumerate(attributes):
            GL_2_0.glEnableVertexAttribArray(index)
            stride = sum(attributes) * size
            GL_2_0.glVertexAttribPointer(index, floats, _FLOAT, 0, stride, ctypes.c_void_p(offset * size))
            offset += floats

    def draw(self) -> None:
        """Draw them all with the program in use."""
        GL_3_0.glBindVertexArray(self._array)
        GL_1_1.glDrawArrays(_TRIANGLES, 0, self._count)


def renderer() -> str:
    """What draws, in the driver's words."""
    return ctypes.string_at(GL_1_1.glGetString(_RENDERER)).decode(errors="replace")


def hide_back_faces(hide: bool) -> None:
    """Whether triangles whose corners run anticlockwise on the screen are left out."""
    GL_1_1.glFrontFace(_FRONT_CLOCKWISE)
    (GL_1_1.glEnable if hide else GL_1_1.glDisable)(_CULL_FACE)


def set_rotation(place: int, rows: Iterable[Iterable[float]]) -> None:
    """Write a 3x3 matrix, given row by row, into a uniform of the program in use."""
    GL_2_0.glUniformMatrix3fv(place, 1, 1, (ctypes.c_float * 9)(*(value for row in rows for value in row)))


def set_float(place: int, value: float) -> None:
    """Write a number into a uniform of the program in use."""
    GL_2_0.glUniform1f(place, value)


def _new(generate: object) -> int:
    number = ctypes.c_uint()
    generate(1, ctypes.byref(number))  # type: ignore[operator]
    return number.value
