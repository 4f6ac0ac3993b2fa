"""What the children of tests' broods do."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def live(spec: bytes) -> None:
    """By its first word: `exit N`, `raise`, or `stay FILE`, where it says who it is and what it has open."""
    word, _, rest = spec.decode().partition(" ")
    if word == "exit":
        sys.exit(int(rest))
    if word == "raise":
        raise ValueError("as asked")
    if word == "stay":
        opened = [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
        Path(rest + ".new").write_text(f"{os.getpid()} {os.getppid()} {','.join(sorted(opened))}")
        Path(rest + ".new").rename(rest)
        time.sleep(60)
