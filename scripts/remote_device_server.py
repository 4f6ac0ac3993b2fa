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

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import own_python

if __name__ == "__main__":
    own_python.go_on_with_voice("procs.audio_io")
