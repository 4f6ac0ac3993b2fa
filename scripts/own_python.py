"""Lets a script be run by any Python: it goes on in the checkout's own .venv, where its libraries are."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv/bin/python"


def become() -> None:
    """Go on in .venv's Python, unless it is that already. Exits 3 if what it needs is not installed there."""
    try:
        if PYTHON.exists() and sys.executable != str(PYTHON):
            os.execv(PYTHON, [str(PYTHON), *sys.argv])
    except OSError as error:  # a Python in the home of another user, such as root's
        how = "make a checkout of your own, or .venv anew with a Python that everybody may run"
        print(f"planaria: {PYTHON}: {error.strerror}: it is another user's; {how}", file=sys.stderr)
        sys.exit(3)
    if not importlib.util.find_spec("zmq"):
        how = "make up does it, and starts the suite; sh scripts/bootstrap.sh does no more than that"
        print(f"planaria: nothing is installed here yet; {how}", file=sys.stderr)
        sys.exit(3)


def go_on_with_voice(module: str) -> None:
    """Go on as this module, once what speech needs is installed. Any Python shows its --help, without any of that."""
    python = str(PYTHON)
    if {"-h", "--help"} & {*sys.argv}:
        python = python if PYTHON.exists() else sys.executable
    elif code := subprocess.run(["sh", str(ROOT / "scripts/bootstrap.sh"), "voice"], check=False).returncode:
        sys.exit(code)  # it has said why
    os.execve(python, [python, "-m", module, *sys.argv[1:]], {**os.environ, "PYTHONPATH": str(ROOT)})
