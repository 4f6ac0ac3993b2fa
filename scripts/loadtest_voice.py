#!/usr/bin/env python3
"""Load-test a voice backend as so many people in browsers would, by the published protocol alone.

scripts/loadtest_voice.py --help        every option, every figure, examples

It is `python -m scripts.loadtest`, and installs what that needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv/bin/python"


def main() -> None:
    """Go on as scripts/loadtest."""
    python = str(PYTHON)
    if {"-h", "--help"} & {*sys.argv}:
        python = python if PYTHON.exists() else sys.executable  # any can tell
    elif code := subprocess.run(["sh", str(ROOT / "scripts/bootstrap.sh"), "voice"], check=False).returncode:
        sys.exit(code)  # it has said why
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    os.execve(python, [python, "-m", "scripts.loadtest", *sys.argv[1:]], environ)


if __name__ == "__main__":
    main()
