"""What all makers of sound share: the player, the ear, and the way of what was heard from a thread to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from procs.audio_io.ear import Ear
from procs.audio_io.player import Player
from procs.audio_io.sound import BLOCK, BLOCK_S, RATE, Cursor, Heard, SoundState

_KEPT = 10  # blocks that wait for `hear`
_LONGEST_S = 1.0  # that `hear` waits for a thread that stands still
_CATCH_UP_S = 1.0
_LISTENED_S = 1.0


class Board:
    """A Sound but for the card: makers derive from it, and run `_run` in a thread. What `_run` raises, `hear` does."""

    rate = RATE
    microphone = speaker = "ok"
    output_s = 0.0  # how long a block takes to the ear

    def __init__(self, ear: Ear) -> None:
        self.player, self.ear = Player(), ear
        self._waiting: deque[Heard] = deque()
        self._came = asyncio.Event()
        self._error: Exception | None = None
        self._unheard = 0
        self._heard_at = 0.0
        self.play, self.finish = self.player.play, self.player.finish
        self.pause, self.resume, self.flush = self.player.pause, self.player.resume, self.player.flush
        self.volume, self.mute = self.player.volume, ear.mute

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """See Sound.start."""
        self._loop = loop
        threading.Thread(target=self._guarded, name="sound", daemon=True).start()

    async def hear(self) -> Heard:
        """See Sound.hear."""
        self._heard_at = time.monotonic()
        if not self._waiting and self._error is None:
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), _LONGEST_S)
            except TimeoutError:
                return self.ear.nothing()
        if self._error is not None:
            raise self._error
        return self._waiting.popleft()

    @property
    def cursor(self) -> Cursor:
        """See Sound.cursor."""
        return self.player.cursor

    @property
    def state(self) -> SoundState:
        """See Sound.state."""
        return SoundState(
            microphone=self.microphone,
            speaker=self.speaker,
            echo=self.ear.echo,
            muted=self.ear.muted,
            awake=self.ear.awake,
            wake=self.ear.wake,
            output_ms=round(self.output_s * 1000),
            figures=msgspec.structs.replace(
                self.player.figures, unheard_ms=self._unheard * 1000 // RATE, glitches=self.glitches
            ),
        )

    @property
    def glitches(self) -> int:
        """How often a card got or gave nothing in time."""
        return 0

    # In the maker's thread

    def _run(self) -> None:
        raise NotImplementedError

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:  # a thread's would be lost: it ends the process by whoever hears next
            self._error = error
            self._soon(self._came.set)

    @property
    def _listening(self) -> bool:
        """Whether anybody takes what is heard."""
        return time.monotonic() - self._heard_at < _LISTENED_S

    def _deliver(self, heard: Heard) -> None:
        self._soon(lambda: self._take(heard))

    def _soon(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and so do we
            self._loop.call_soon_threadsafe(what)

    def _take(self, heard: Heard) -> None:
        if len(self._waiting) >= _KEPT:
            self._waiting.popleft()
            self._unheard += BLOCK * self._listening
        self._waiting.append(heard)
        self._came.set()


class Pace:
    """Real time, block by block. What is late by more than a second is left out."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """The next block is due in 20 ms."""
        self._due = time.monotonic()

    def wait(self) -> None:
        """Until the next block is due."""
        self._due += BLOCK_S
        now = time.monotonic()
        if self._due > now:
            time.sleep(self._due - now)
        elif now - self._due > _CATCH_UP_S:
            self._due = now
