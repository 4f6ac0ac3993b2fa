"""Between a producer and go2rtc: passes everything on and notes when each stamped picture was written.

python -m tests.bench.timing_pipe NOTES.txt COMMAND ...     one line a picture: frame number, CLOCK_MONOTONIC ns
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from procs import life
from procs.media import annexb, sei


def main() -> None:
    """Copy until the producer ends."""
    life.bind_to_parent()
    notes, command = sys.argv[1], sys.argv[2:]
    producer = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert producer.stdout
    with open(notes, "w", buffering=1) as out:
        while data := os.read(producer.stdout.fileno(), 1 << 20):
            frame = _frame_in(data)
            written_ns = time.monotonic_ns()
            os.write(1, data)
            if frame is not None:
                out.write(f"{frame} {written_ns}\n")


def _frame_in(data: bytes) -> int | None:
    """The frame number in one picture's MPEG-TS packets, unless its SEI is split over two of them."""
    at = data.find(sei.UUID)
    if at < 0 or at % 188 > 188 - 2 * sei.PAYLOAD_BYTES:
        return None
    found = sei.read_payload(annexb.unescape(data[at : at + 2 * sei.PAYLOAD_BYTES])[: sei.PAYLOAD_BYTES])
    return found.frame if found else None


if __name__ == "__main__":
    main()
