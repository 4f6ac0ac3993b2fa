"""Where pictures come from: the pattern of ours, or ffmpeg's testsrc2 through PyAV's filter graph."""

from __future__ import annotations

import av
import av.filter

from procs.headless_agent.options import Producer
from procs.headless_agent.pattern import Canvas, Pattern


class PatternPictures:
    """Our pattern. One frame serves for all: x264 copies a picture when it takes it."""

    pixel_format = "nv12"

    def __init__(self, chosen: Producer) -> None:
        self._frame = av.VideoFrame(chosen.width, chosen.height, self.pixel_format)
        luma, chroma = self._frame.planes
        canvas = Canvas(
            memoryview(luma), luma.line_size, memoryview(chroma), chroma.line_size, chosen.width, chosen.height
        )
        self._pattern = Pattern(canvas, chosen.instance_id, chosen.fps)

    def picture(self, frame: int, time_ns: int) -> av.VideoFrame:
        """Frame number `frame`, captured at `time_ns`. Valid until the next call."""
        self._pattern.draw(frame, time_ns)
        return self._frame


class TestSource2Pictures:
    """ffmpeg's testsrc2, the same pixels that `ffmpeg -f lavfi -i testsrc2` encodes, so that costs can be compared."""

    pixel_format = "yuv420p"

    def __init__(self, chosen: Producer) -> None:
        self._graph = av.filter.Graph()
        source = self._graph.add("testsrc2", f"size={chosen.width}x{chosen.height}:rate={chosen.fps}")
        convert = self._graph.add("format", f"pix_fmts={self.pixel_format}")
        sink = self._graph.add("buffersink")
        source.link_to(convert)
        convert.link_to(sink)
        self._graph.configure()

    def picture(self, frame: int, time_ns: int) -> av.VideoFrame:
        """The source's next picture; it keeps its own count."""
        return self._graph.vpull()


def open_pictures(chosen: Producer) -> PatternPictures | TestSource2Pictures:
    """The source of pictures that the settings name."""
    return TestSource2Pictures(chosen) if chosen.pattern == "testsrc2" else PatternPictures(chosen)
