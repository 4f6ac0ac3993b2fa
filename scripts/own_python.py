"""Lets a script be run by any Python: it goes on in the checkout's own .venv, where its libraries are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def become() -> None:
    """Run the script again with .venv's Python, unless it is that already. Exits 2 if there is none yet."""
    python = ROOT / ".venv/bin/python"
    if sys.prefix != sys.base_prefix:  # some virtual environment was chosen on purpose
        return
    if not python.exists():
        print("planaria: nothing is installed here yet; make up does it", file=sys.stderr)
        sys.exit(2)
    os.execv(python, [str(python), *sys.argv])
