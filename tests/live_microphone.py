"""audio_io with a microphone that a test speaks into: python -m tests.live_microphone FOLDER [OPTION OF AUDIO_IO ...]

It is the real process; what it is told to hear comes from FOLDER instead of `--input`. Each *.pcm that is put there
(int16, 24 kHz) is said at once, in the order of their names, and taken away when it was said. FOLDER/speaker tells what
the speaker was told to do, a line each: CLOCK_MONOTONIC, pause or resume or flush, milliseconds heard of the response.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from procs import life
from procs.audio_io import door, makers, options
from procs.audio_io.files import Script
from procs.audio_io.player import Player
from procs.audio_io.sound import BLOCK, Cursor, Pcm


class Live(Script):
    """What is said is what lies in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__([], patience_s=0.0)
        self._folder = folder
        self._file: Path | None = None
        self._left: Pcm = np.zeros(0, np.int16)

    def block(self, cursor: Cursor, listening: bool) -> Pcm:
        """What the microphone hears next."""
        if not len(self._left):
            self._take()
        block, self._left = self._left[:BLOCK], self._left[BLOCK:]
        return np.pad(block, (0, BLOCK - len(block)))

    def _take(self) -> None:
        if self._file:
            self._file.unlink()
        self._file = min(self._folder.glob("*.pcm"), default=None)
        if self._file:
            self._left = np.fromfile(self._file, "<i2")


def note(player: Player, what: str, into: Path) -> None:
    """A line."""
    with into.open("a") as file:
        file.write(f"{time.monotonic():.4f} {what} {player.cursor.heard_ms}\n")


def noted(what: str, into: Path) -> Callable[[Player], None]:
    """That method of the player's, which tells."""
    done: Callable[[Player], None] = getattr(Player, what)

    def method(player: Player) -> None:
        done(player)
        note(player, what, into)

    return method


def main(folder: Path) -> None:
    """Be audio_io."""
    setattr(makers, "script_of", lambda *_, **__: Live(folder))  # noqa: B010
    for what in ("pause", "resume", "flush"):
        setattr(Player, what, noted(what, folder / "speaker"))
    life.run("audio_io", options.load, door.serve)


if __name__ == "__main__":
    where = Path(sys.argv.pop(1))
    os.makedirs(where, exist_ok=True)
    main(where)
