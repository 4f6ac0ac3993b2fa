"""python -m procs.capture: the pictures of any command as MPEG-TS, on stdout or into a FIFO, until killed."""

from procs import life
from procs.capture import options
from procs.capture.loop import capture
from procs.capture.options import Capture

if __name__ == "__main__":
    # A FIFO has one writer; on stdout a copy may run by hand beside the stream. Short pauses: a viewer may be waiting.
    life.run("capture", options.load, capture, Capture.instance, singleton=Capture.is_alone, pause_cap_s=2.0)
