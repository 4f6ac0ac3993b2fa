#!/usr/bin/env python3
"""Load-test a voice backend as so many people in browsers would, by the published protocol alone.

scripts/loadtest_voice.py --help        every option, every figure, examples

It is `python -m scripts.loadtest`, and installs what that needs.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import own_python

if __name__ == "__main__":
    own_python.go_on_with_voice("scripts.loadtest")
