"""The older shape of the egl producer: read RGBA back into a new object, pipe it into an ffmpeg child, copy its output.

python -m tests.bench.older_egl WIDTH HEIGHT FPS FFMPEG ...     FFMPEG reads rawvideo from its stdin

As the published one does: ffmpeg is asked for its encoders, started, and looked at 150 ms later; pictures are paced by
naps of 2 ms; all of PyOpenGL is imported. It draws our scene, so that both encode the same.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import IO, Any

from procs import life
from procs.headless_agent import egl

NAP_S = 0.002
LOOK_S = 0.150
CHUNK = 65536


def copy(source: IO[bytes]) -> None:
    """ffmpeg's output to ours."""
    while piece := source.read1(CHUNK):  # type: ignore[attr-defined]
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def main() -> None:
    """Feed pictures at their rate until killed."""
    life.bind_to_parent()
    width, height, fps = (int(word) for word in sys.argv[1:4])
    egl.open_context(0)
    import OpenGL.GL as full

    from procs.headless_agent import gl
    from procs.headless_agent.scene import Scene

    everything: Any = full
    scene = Scene("agent-0", gl.Target(width, height, internal=gl.RGBA8, pixels=gl.RGBA))
    subprocess.run([sys.argv[4], "-hide_banner", "-encoders"], capture_output=True, check=True)
    child = subprocess.Popen(
        sys.argv[4:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=life.bind_to_parent
    )
    time.sleep(LOOK_S)
    assert child.poll() is None and child.stdin and child.stdout
    threading.Thread(target=copy, args=(child.stdout,), daemon=True).start()
    due, index = time.monotonic(), 0
    while True:
        while time.monotonic() < due:
            time.sleep(NAP_S)
        scene.draw(index / fps)
        pixels = everything.glReadPixels(0, 0, width, height, everything.GL_RGBA, everything.GL_UNSIGNED_BYTE)
        child.stdin.write(pixels)
        child.stdin.flush()
        due += 1 / fps
        index += 1


if __name__ == "__main__":
    main()
