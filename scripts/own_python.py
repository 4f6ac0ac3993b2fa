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
    try:
        if python.exists() and sys.executable != str(python):
            os.execv(python, [str(python), *sys.argv])
    except OSError as error:  # a Python in the home of another user, such as root's
        how = "make a checkout of your own, or .venv anew with a Python that everybody may run"
        print(f"planaria: {python}: {error.strerror}: it is another user's; {how}", file=sys.stderr)
        sys.exit(3)
    if not importlib.util.find_spec("zmq"):
        how = "make up does it, and starts the suite; sh scripts/bootstrap.sh does no more than that"
        print(f"planaria: nothing is installed here yet; {how}", file=sys.stderr)
        sys.exit(3)
