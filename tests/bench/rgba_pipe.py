"""The older shape of a producer: Python makes RGBA pictures (testsrc2), a pipe carries them to an ffmpeg child.

python -m tests.bench.rgba_pipe WIDTH HEIGHT FPS FFMPEG ...     FFMPEG reads rawvideo from its stdin
"""

from __future__ import annotations

import subprocess
import sys
import time

import av
import av.filter

from procs import life


def main() -> None:
    """Feed pictures at their rate until killed."""
    life.bind_to_parent()
    width, height, fps = (int(word) for word in sys.argv[1:4])
    ffmpeg = subprocess.Popen(sys.argv[4:], stdin=subprocess.PIPE, preexec_fn=life.bind_to_parent)
    assert ffmpeg.stdin
    graph = av.filter.Graph()
    source, convert = graph.add("testsrc2", f"size={width}x{height}:rate={fps}"), graph.add("format", "pix_fmts=rgba")
    sink = graph.add("buffersink")
    source.link_to(convert)
    convert.link_to(sink)
    graph.configure()
    start, index = time.monotonic(), 0
    while True:
        plane = graph.vpull().planes[0]
        time.sleep(max(0.0, start + index / fps - time.monotonic()))
        ffmpeg.stdin.write(memoryview(plane)[: plane.line_size * height])
        index += 1


if __name__ == "__main__":
    main()
