"""What goes from a command to a reader: MPEG-TS packets that belong together. And how long to wait for their end."""

from __future__ import annotations

from typing import NamedTuple

QUIET_S = 0.004  # a picture is written in one go, but a busy machine may interrupt that
QUIET_MAX_S = 1.0


class Unit(NamedTuple):
    """One picture, a piece of sound, or a table."""

    data: bytes  # whole packets
    picture: bool = False
    keyframe: bool = False  # a reader may begin here: PAT and PMT come first


class Patience:
    """How long a pause has to be to mean that a picture is over, where nothing in the stream says so.

    Waiting for the next picture would make every one late by a whole period. A pause that came in the middle of a
    picture doubles the time, so that a writer which pauses is soon given as long as it takes.
    """

    __slots__ = ("quiet_s", "wrong")

    def __init__(self) -> None:
        self.quiet_s = QUIET_S
        self.wrong = 0

    def was_wrong(self) -> None:
        """The picture went on after all."""
        self.wrong += 1
        self.quiet_s = min(2 * self.quiet_s, QUIET_MAX_S)
