"""One side of a sound card, open: PortAudio calls with what it heard or for what it shall say, at the card's rate."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from procs.audio_io.devices import Device
from procs.audio_io.resample import Resampler
from procs.audio_io.sound import BLOCK, RATE, Pcm
from procs.errors import NotHere

LATENCY_S = 0.06  # asked of PortAudio: less, and a busy machine clicks
DEAD_S = 2.0  # without a call


class Line:
    """What both sides share. A card that does not do our rate is asked for its own, and resampled."""

    stream_class = ""

    def __init__(self, card: Any, device: Device) -> None:
        self.name = device.name
        self.glitches = 0  # of which PortAudio told us
        self.tick = time.monotonic()
        self._rest = np.zeros(0, np.int16)  # resampled, but not a block yet
        for rate in dict.fromkeys((RATE, device.rate)):
            self._resample = self._resampler(rate)
            try:
                self._stream = getattr(card, self.stream_class)(
                    samplerate=rate,
                    blocksize=rate * BLOCK // RATE,
                    device=device.index,
                    channels=1,
                    dtype="int16",
                    latency=LATENCY_S,
                    callback=self._called,
                )
                self._stream.start()
            except card.PortAudioError as error:
                failure = NotHere(f"{device.name} cannot be opened: {error}")
            else:
                return
        raise failure

    @property
    def latency_s(self) -> float:
        """Between here and the air."""
        return float(self._stream.latency)

    @property
    def alive(self) -> bool:
        """Whether PortAudio calls."""
        return bool(self._stream.active) and time.monotonic() - self.tick < DEAD_S

    def close(self) -> None:
        """Let the card go, whatever it says: it may be gone itself."""
        for end in (self._stream.abort, self._stream.close):
            with contextlib.suppress(Exception):
                end()

    def _called(self, data: Any, frames: int, when: Any, status: Any) -> None:
        self.tick = time.monotonic()
        self.glitches += bool(status)
        self._carry(data, frames, when)

    def _resampler(self, rate: int) -> Resampler:
        raise NotImplementedError

    def _carry(self, data: Any, frames: int, when: Any) -> None:
        raise NotImplementedError


class Microphone(Line):
    """Gives blocks to `heard`, in PortAudio's thread."""

    stream_class = "InputStream"

    def __init__(self, card: Any, device: Device, heard: Callable[[Pcm], None]) -> None:
        self._heard = heard
        super().__init__(card, device)

    def _resampler(self, rate: int) -> Resampler:
        return Resampler(rate, RATE)

    def _carry(self, data: Any, frames: int, when: Any) -> None:
        self._rest = np.concatenate((self._rest, self._resample(data[:, 0].copy())))
        while len(self._rest) >= BLOCK:
            block, self._rest = self._rest[:BLOCK], self._rest[BLOCK:]
            self._heard(block)


class Speaker(Line):
    """Asks `pull` for blocks, in PortAudio's thread, and tells it in how many seconds their end will be heard."""

    stream_class = "OutputStream"

    def __init__(self, card: Any, device: Device, pull: Callable[[float], Pcm]) -> None:
        self._pull = pull
        super().__init__(card, device)

    def _resampler(self, rate: int) -> Resampler:
        return Resampler(RATE, rate)

    def _carry(self, data: Any, frames: int, when: Any) -> None:
        soon = when.outputBufferDacTime - when.currentTime
        latency = (soon if 0 < soon < DEAD_S else self.latency_s) + frames / float(self._stream.samplerate)
        while len(self._rest) < frames:
            self._rest = np.concatenate((self._rest, self._resample(self._pull(latency))))
        data[:, 0], self._rest = self._rest[:frames], self._rest[frames:]
