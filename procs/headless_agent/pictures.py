"""Where pictures come from: our pattern, ffmpeg's testsrc2 through PyAV's filter graph, or a scene drawn by OpenGL.

Each is drawn first and then taken to where an encoder wants it: into our memory by `frame()`, or on the GPU by those
encoders that know what EglPictures has there.
"""

from __future__ import annotations

import av
import av.filter

from procs import log
from procs.headless_agent.options import Producer
from procs.headless_agent.pattern import Canvas, Overlay, Pattern


def canvas_of(frame: av.VideoFrame) -> Canvas:
    """An NV12 frame's own memory, to be drawn into."""
    luma, chroma = frame.planes
    return Canvas(memoryview(luma), luma.line_size, memoryview(chroma), chroma.line_size, frame.width, frame.height)


class PatternPictures:
    """Our pattern. One frame serves for all: x264 copies a picture when it takes it."""

    pixel_format = "nv12"
    renderer = "cpu"

    def __init__(self, chosen: Producer) -> None:
        self._frame = av.VideoFrame(chosen.width, chosen.height, self.pixel_format)
        self._pattern = Pattern(canvas_of(self._frame), chosen.instance_id, chosen.fps)

    def draw(self, number: int, time_ns: int) -> None:
        """Frame `number`, captured at `time_ns` since the Unix epoch."""
        self._pattern.draw(number, time_ns)

    def frame(self) -> av.VideoFrame:
        """What was drawn last. Valid until the next is."""
        return self._frame


class TestSource2Pictures:
    """ffmpeg's testsrc2, the same pixels that `ffmpeg -f lavfi -i testsrc2` encodes, so that costs can be compared."""

    pixel_format = "yuv420p"
    renderer = "cpu"

    def __init__(self, chosen: Producer) -> None:
        self._graph = av.filter.Graph()
        source = self._graph.add("testsrc2", f"size={chosen.width}x{chosen.height}:rate={chosen.fps}")
        convert = self._graph.add("format", f"pix_fmts={self.pixel_format}")
        sink = self._graph.add("buffersink")
        source.link_to(convert)
        convert.link_to(sink)
        self._graph.configure()

    def draw(self, number: int, time_ns: int) -> None:
        """The source's next picture; it keeps its own count."""
        self._frame = self._graph.vpull()

    def frame(self) -> av.VideoFrame:
        """What was drawn last. Valid until the next is."""
        return self._frame


class EglPictures:
    """A scene drawn by OpenGL. Name, number, time and barcode are written into it after the conversion, by the same
    code as in the pattern."""

    pixel_format = "nv12"

    def __init__(self, chosen: Producer) -> None:
        from procs.headless_agent import egl  # here: OpenGL costs 50 ms, which other renderers need not pay

        self.context = egl.open_context(chosen.device_idx)
        from procs.headless_agent import convert, gl, scene

        self.renderer = f"egl: {self.context.renderer}"
        if self.context.is_slow:
            log.warning(f"{self.context.renderer} draws, which is slow: {egl.PACKAGES}")
        self._fps = chosen.fps
        self._frame = av.VideoFrame(chosen.width, chosen.height, self.pixel_format)
        self._canvas = canvas_of(self._frame)
        self.overlay = Overlay(chosen.instance_id, chosen.width, chosen.height)
        self.prepare(self._canvas)
        height = self.overlay.bottom - self.overlay.top
        self.target = gl.Target(chosen.width, height, internal=gl.RGBA8, pixels=gl.RGBA)
        """The scene: rows [overlay.top, overlay.bottom) of the picture, as RGBA on the GPU."""
        self._scene = scene.Scene(chosen.instance_id, self.target)
        self._conversion = convert.open_conversion(chosen.convert, self.target, self.context)

    def draw(self, number: int, time_ns: int) -> None:
        """Frame `number`, captured at `time_ns` since the Unix epoch. Raises GpuLost."""
        self._number, self._time_ns = number, time_ns
        self.context.check()
        self._scene.draw(number / self._fps)

    def frame(self) -> av.VideoFrame:
        """What was drawn last, in our memory. Valid until the next is."""
        self._conversion.put(self._frame, self.overlay.top)
        self.write(self._canvas)
        return self._frame

    def prepare(self, canvas: Canvas) -> None:
        """Draw what stands around the scene and never changes."""
        canvas.blacken()
        self.overlay.draw_title(canvas)

    def write(self, canvas: Canvas) -> None:
        """Write number, time and barcode of what was drawn last around the scene."""
        self.overlay.draw(canvas, self._number, self._time_ns)


Pictures = PatternPictures | TestSource2Pictures | EglPictures


def open_pictures(chosen: Producer) -> Pictures:
    """The source of pictures that the settings name. Raises NotHere where it can't be had."""
    if chosen.renderer == "egl":
        return EglPictures(chosen)
    return TestSource2Pictures(chosen) if chosen.pattern == "testsrc2" else PatternPictures(chosen)
