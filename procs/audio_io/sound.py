"""What audio_io hears with and speaks with: the interface, whoever makes it (`makers.make`).

Sound is numpy int16, mono, 24,000 samples a second. A block is 20 ms of it. Makers run a thread of their own; what is
here may be called from the event loop at any time and never waits, except for `hear`.
"""

from __future__ import annotations

import asyncio
from typing import Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

RATE = 24_000
BLOCK = 480  # samples
BLOCK_S = BLOCK / RATE

OPENING = "opening"  # of a card, at the start: it is no fault yet
Pcm = NDArray[np.int16]
Playing = Literal["playing", "paused", "flushed", "done"]
Echo = Literal["cancelled", "half-duplex", "none"]


class Heard(NamedTuple):
    """20 ms of the microphone, cleaned. Silence while it is muted, asleep or missing."""

    pcm: Pcm
    awake: bool  # always, where no wake word was asked for
    speech: bool  # somebody seems to speak


class Cursor(NamedTuple):
    """How far the speaker is. A response that gives way to the next one was heard to its end."""

    response: int  # as given to `play`; 0: none yet
    state: Playing
    heard_ms: int  # how far into this response what has really left the speaker is; what was lost of it counts
    buffered_ms: int  # of all responses; what has not, yet


class Figures(msgspec.Struct, frozen=True):
    """Counters since the start, and what is so now (`depth_ms`, `target_ms`, `drift_ppm`, `jitter_ms`)."""

    underruns: int = 0
    concealed_ms: int = 0
    lost_ms: int = 0  # never came
    late_ms: int = 0  # came when its time was over
    dropped_ms: int = 0  # the oldest, where more than 30 s came ahead of time
    unheard_ms: int = 0  # of the microphone, which nobody took in time
    glitches: int = 0  # of the cards: they got or gave nothing in time
    depth_ms: int = 0
    target_ms: int = 0
    jitter_ms: int = 0
    drift_ppm: int = 0  # how much faster than the card the backend's clock runs


class SoundState(msgspec.Struct, frozen=True):
    """`microphone` and `speaker`: "ok", OPENING, or "missing: " why and what to do."""

    microphone: str
    speaker: str
    echo: Echo  # `cancelled`: what the speaker says does not come back
    muted: bool
    awake: bool
    wake: str  # the wake word, or ""
    output_ms: int  # from `play` to the ear, without the jitter buffer
    figures: Figures


class Sound(Protocol):
    """A microphone and a speaker."""

    rate: int

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin, once. What is missing is looked for again and again; it never raises for that."""

    async def hear(self) -> Heard:
        """The next block, every 20 ms. Whoever comes late finds the newest 200 ms."""

    def play(self, pcm: Pcm, *, response: int, timestamp: int, first: bool) -> None:
        """Speak this at its time. `timestamp`: of its first sample, in samples, wraps at 2**32. `first`: of a response,
        or after a gap that is none of the network's."""

    def finish(self) -> None:
        """No more comes of this response: where the buffer runs empty, it is over."""

    def pause(self) -> None:
        """Fall silent and keep what is buffered."""

    def resume(self) -> None:
        """Go on where it paused."""

    def flush(self) -> None:
        """Fall silent and forget what is buffered. It is not paused any more, either."""

    def mute(self, muted: bool) -> None:
        """Have the microphone give silence."""

    def volume(self, percent: int) -> None:
        """Of the speaker, 0 to 100."""

    @property
    def cursor(self) -> Cursor:
        """Where the speaker is now."""

    @property
    def state(self) -> SoundState:
        """How it is now."""
