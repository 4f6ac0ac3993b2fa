"""Lets a script be run by any Python: it goes on in the checkout's own .venv, where its libraries are."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def become() -> None:
    """Go on in .venv's Python, unless it is that already. Exits 3 if what it needs is not installed there."""
    python = ROOT / ".venv/bin/python"
    if python.exists() and sys.executable != str(python):
        os.execv(python, [str(python), *sys.argv])
    if not importlib.util.find_spec("zmq"):
        print("planaria: nothing is installed here yet; make up does it", file=sys.stderr)
        sys.exit(3)
