#!/usr/bin/env python3
"""A device's ears and mouth in the foreground, by the name and the options under which this was published.

scripts/remote_device_server.py                            a backend on this machine may call
scripts/remote_device_server.py --host 0.0.0.0             any, with the token that is shown once
scripts/remote_device_server.py --no-audio                 without a sound card: it hears silence
scripts/remote_device_server.py --no-audio --input say:Hello|Goodbye --output heard.wav

It is `python -m procs.audio_io`, which --help is of, and installs what that needs. With the role `audio` (make up) it
is started again whenever it dies.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv/bin/python"


def main() -> None:
    """Go on as audio_io."""
    python = str(PYTHON)
    if {"-h", "--help"} & {*sys.argv}:
        python = python if PYTHON.exists() else sys.executable  # any can tell
    elif code := subprocess.run(["sh", str(ROOT / "scripts/bootstrap.sh"), "voice"], check=False).returncode:
        sys.exit(code)  # it has said why
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    os.execve(python, [python, "-m", "procs.audio_io", *sys.argv[1:]], environ)


if __name__ == "__main__":
    main()
