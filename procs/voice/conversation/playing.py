"""One reply's sound: what waits, what was handed out, and how far it was heard. Pure.

A device of ours tells how far it is, and between two such words it is taken to play on. All others are taken to play
what they have as soon as they have it.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from procs.wire import moshi
from procs.wire import realtime as wire

AHEAD_S = 0.32  # of the speaker, handed out to those that can't forget it
AHEAD_OF_OURS_S = 1.0
PIECE = moshi.STEP  # samples that are handed out at once, at most
TOLD_WITHIN_S = 2.0  # by a device of ours: if it says nothing for so long, it is taken to play


class TimedWord(NamedTuple):
    """When it is spoken, in seconds of the reply."""

    text: str
    start_s: float
    stop_s: float


class Playing:
    """The sound of one reply, at one speaker."""

    def __init__(self, *, ours: bool) -> None:
        self.ours = ours
        self.words: list[TimedWord] = []
        self._pieces: deque[moshi.Samples] = deque()  # from `_from` on
        self._from = self._out = self._end = 0  # samples: forgotten, handed out, come
        self.heard_s = 0.0
        self._response_s = 0.0  # where in the reply the present response begins
        self.is_held = False  # nothing is handed out, and a device of ours stands still
        self._runs = not ours
        self._at: float | None = None  # when `heard_s` was so
        self._first_at: float | None = None

    # What comes

    def put(self, pcm: moshi.Samples) -> None:
        """More sound."""
        for start in range(0, len(pcm), PIECE):
            self._pieces.append(pcm[start : start + PIECE])
        self._end += len(pcm)

    @property
    def end_s(self) -> float:
        """How much has come."""
        return self._end / moshi.RATE

    @property
    def has_begun(self) -> bool:
        """Whether any was handed out."""
        return self._first_at is not None

    @property
    def is_out(self) -> bool:
        """Whether all of it was."""
        return self._out == self._end

    @property
    def is_heard(self) -> bool:
        """Whether all of it was heard."""
        return self.is_out and self.heard_s >= self._out / moshi.RATE - 1e-6

    # What goes

    def advance(self, now: float) -> list[moshi.Samples]:
        """The time is now. What is to be handed out."""
        self._listen(now)
        pieces = []
        while not self.is_held and (piece := self._next()) is not None and self._room_s(piece) >= -1e-9:
            pieces.append(piece)
            self._out += len(piece)
        if pieces and self._first_at is None:
            self._first_at = now
        return pieces

    @property
    def next_at(self) -> float | None:
        """When there is more to hand out, or a device of ours was silent for too long."""
        if self.is_held:
            return None
        if not self._runs and self._first_at is not None:
            return max(self._first_at, self._at or 0.0) + TOLD_WITHIN_S + 1e-6
        if (piece := self._next()) is None or self._at is None:
            return None
        return self._at + max(0.0, -self._room_s(piece)) + 1e-6

    def heard_at(self, place_s: float) -> float | None:
        """When this place will be heard, as things stand; None: not before something happens."""
        out_s = self._out / moshi.RATE
        if self._at is None or not self._runs or place_s > out_s + 1e-6 or self.heard_s >= out_s:
            return None
        return self._at + max(0.0, place_s - self.heard_s) + 1e-6

    def _next(self) -> moshi.Samples | None:
        at = self._from
        for piece in self._pieces:
            if at >= self._out:
                return piece
            at += len(piece)
        return None

    def _room_s(self, piece: moshi.Samples) -> float:
        ahead = AHEAD_OF_OURS_S if self.ours else AHEAD_S
        return self.heard_s + ahead - (self._out + len(piece)) / moshi.RATE

    def _listen(self, now: float) -> None:
        if self._at is not None and self._runs:
            self.heard_s = min(self.heard_s + max(0.0, now - self._at), self._out / moshi.RATE)
        if not self._runs and not self.is_held and self._first_at is not None:
            waited_since = max(self._first_at, self._at or 0.0)
            self._runs = now - waited_since >= TOLD_WITHIN_S
        if self._runs or self._at is None:
            self._at = now
        while self._pieces and (self._from + len(self._pieces[0])) / moshi.RATE <= self._word_s():
            self._from += len(self._pieces.popleft())

    def _word_s(self) -> float:
        """Where the word begins that was not heard to its end: from there it would be said again."""
        unheard = (word.start_s for word in self.words if word.stop_s > self.heard_s)
        return min(self.heard_s, next(unheard, self.heard_s))

    # What is told, and done

    def told(self, event: wire.Playback, now: float) -> None:
        """How far a device of ours is."""
        self.heard_s = min(self._response_s + event.heard_ms / 1000, self._out / moshi.RATE)
        if event.state == "done" and self.is_out:
            self.heard_s = self._out / moshi.RATE
        self._at, self._runs = now, event.state == "playing"

    def hold(self, now: float) -> None:
        """Hand out no more. One of ours stands still from now on; another plays what it has."""
        self._listen(now)
        self.is_held = True
        self._runs = not self.ours

    def go_on(self, now: float) -> None:
        """No more of that."""
        self._listen(now)
        self.is_held = False
        self._runs = self.has_begun or not self.ours
        self._at = now

    def again(self) -> None:
        """Another speaker, which has nothing: from the word on that was not heard to its end."""
        self._out = self._from
        self.heard_s = self._response_s = self._from / moshi.RATE
        self.is_held, self._at, self._first_at = False, None, None
        self._runs = not self.ours

    def close(self) -> None:
        """No more of it is wanted; how far it was heard stays known."""
        self._pieces.clear()

    def forget_from(self, at_s: float) -> float:
        """What comes after this place, or after what was handed out, comes anew. From where on."""
        keep = max(round(at_s * moshi.RATE), self._out)
        while self._pieces and self._end > keep:
            piece = self._pieces.pop()
            self._end -= len(piece)
            if self._end < keep:
                self._pieces.append(piece[: keep - self._end])
                self._end = keep
        self.words = [word for word in self.words if word.stop_s <= self._end / moshi.RATE + 0.01]
        return self._end / moshi.RATE
