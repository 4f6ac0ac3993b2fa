"""python -m procs.capture: the pictures of any command as MPEG-TS, on stdout or into a FIFO, until killed."""

import gc

gc.disable()  # until the command runs: imports leave nothing to collect, and looking for it costs 5 ms

from procs import life  # noqa: E402
from procs.capture import options  # noqa: E402
from procs.capture.loop import capture  # noqa: E402
from procs.capture.options import Capture  # noqa: E402

if __name__ == "__main__":
    # A FIFO has one writer; on stdout a copy may run by hand beside the stream. Short pauses: a viewer may be waiting.
    life.run("capture", options.load, capture, Capture.instance, singleton=Capture.is_alone, pause_cap_s=2.0)
