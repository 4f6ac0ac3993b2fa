"""The speaker's side, for whichever card: packets in from the event loop, blocks out to the card's own thread.

It keeps what is between the two: the jitter buffer, concealment, pause and volume, and the log of what leaves the
speaker when, which the cursor is read from.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from procs.audio_io.jitter import Jitter, Taken, stretched
from procs.audio_io.sound import BLOCK, RATE, Cursor, Figures, Pcm, Playing
from procs.media.conceal import FADE, Concealer

_LOG = 500  # blocks: no card is 10 s late


class Player:
    """One speaker. All may be called from any thread; nothing waits longer than a block takes to make."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._jitter = Jitter()
        self._voice = Concealer()
        self._paused = self._flushed = False
        self._gain = 1.0
        self._concealed = 0
        self._gap = FADE  # samples since the last that were no concealment
        self._leaving: deque[tuple[float, int]] = deque(maxlen=_LOG)  # when which place of the timeline leaves
        self._left = 0

    # From the event loop

    def play(self, pcm: Pcm, *, response: int, timestamp: int, first: bool) -> None:
        """See Sound.play."""
        with self._lock:
            self._flushed = False
            self._jitter.put(pcm, response=response, timestamp=timestamp, first=first, now=self._clock())

    def finish(self) -> None:
        """See Sound.finish."""
        with self._lock:
            self._jitter.finish()

    def pause(self) -> None:
        """See Sound.pause."""
        with self._lock:
            self._paused = True

    def resume(self) -> None:
        """See Sound.resume."""
        with self._lock:
            self._paused = False

    def flush(self) -> None:
        """See Sound.flush."""
        with self._lock:
            self._jitter.flush()
            self._paused, self._flushed = False, True

    def volume(self, percent: int) -> None:
        """See Sound.volume."""
        self._gain = min(max(percent, 0), 100) / 100

    @property
    def cursor(self) -> Cursor:
        """See Sound.cursor."""
        with self._lock:
            now = self._clock()
            while self._leaving and self._leaving[0][0] <= now:
                self._left = self._leaving.popleft()[1]
            response, samples = self._jitter.response_at(self._left)
            buffered = self._jitter.end - self._left
            state: Playing = "playing"
            if self._flushed:
                state = "flushed"
            elif self._paused:
                state = "paused"
            elif self._jitter.finished and not buffered:
                state = "done"
            return Cursor(response, state, samples * 1000 // RATE, buffered * 1000 // RATE)

    @property
    def figures(self) -> Figures:
        """How well it goes."""
        with self._lock:
            jitter = self._jitter
            return Figures(
                underruns=jitter.underruns,
                concealed_ms=self._concealed * 1000 // RATE,
                lost_ms=jitter.lost * 1000 // RATE,
                late_ms=jitter.late * 1000 // RATE,
                dropped_ms=jitter.dropped * 1000 // RATE,
                depth_ms=jitter.depth * 1000 // RATE,
                target_ms=round(jitter.target_s * 1000),
                jitter_ms=round(jitter.jitter_s * 1000),
                drift_ppm=round(jitter.faster * 1e6),
            )

    # From the card's thread

    def pull(self, latency_s: float = 0.0) -> Pcm:
        """The block whose end leaves the speaker in `latency_s`."""
        with self._lock:
            if self._paused or self._flushed:
                block = self._voice.end(BLOCK)
            else:
                now = self._clock()
                was = self._jitter.at
                block = self._spoken(self._jitter.take(BLOCK, now))
                if self._jitter.at != was:
                    self._leaving.append((now + latency_s, self._jitter.at))
        return block if self._gain == 1.0 else (block * np.float32(self._gain)).astype(np.int16)

    def _spoken(self, taken: Taken) -> Pcm:
        """Concealed where nothing came, and as long as a block."""
        pieces = [self._made_up(piece) if isinstance(piece, int) else self._heard(piece) for piece in taken.pieces]
        if not taken.short:
            return stretched(np.concatenate(pieces), BLOCK)
        missing = BLOCK - sum(map(len, pieces))
        if missing > 0:
            pieces.append(self._voice.end(missing) if self._jitter.finished else self._made_up(missing))
        return np.concatenate(pieces)[:BLOCK]

    def _heard(self, pcm: Pcm) -> Pcm:
        self._gap = 0
        return self._voice.join(pcm)

    def _made_up(self, samples: int) -> Pcm:
        self._concealed += min(samples, FADE - self._gap)
        self._gap = min(self._gap + samples, FADE)
        return self._voice.make(samples)
