"""The zygote does without PyAV, and whoever wants it still gets it."""

from __future__ import annotations

import subprocess
import sys

from procs.settings import ROOT

LOOKS = """
import sys
from procs.webrtc_peer import birth, child, peer
assert not [name for name in sys.modules if name.partition(".")[0] == "av"], "libav is there after all"
import av, av.frame
assert av.VideoFrame(16, 16, "yuv420p").width == 16 and isinstance(av.VideoFrame(16, 16), av.frame.Frame)
"""


def test_the_zygote_imports_no_libav_and_a_process_that_wants_it_has_it_whole() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOKS], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
