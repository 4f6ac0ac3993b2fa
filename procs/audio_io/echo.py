"""What the speaker says, out of the microphone again.

WebRTC's audio processing (by LiveKit, which needs no server) takes echo and noise out, and both sides may speak at
once. Without it the microphone is silent while the speaker speaks and shortly after: taken down by 40 dB only, whole
sentences of the echo were recognised still.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from typing import TYPE_CHECKING, Protocol

import numpy as np

from procs import log
from procs.audio_io.sound import BLOCK, BLOCK_S, RATE, Echo, Pcm
from procs.errors import ConfigError

if TYPE_CHECKING:
    from livekit.rtc import AudioFrame

CHOICES = ("auto", "half-duplex", "none")
_FRAME = RATE // 100  # what WebRTC takes
_AUDIBLE = 30  # the loudest sample of a block that nobody hears
_TAIL_S = 0.3  # a room still sounds
_SILENCE = np.zeros(BLOCK, np.int16)
_KEPT, _MOST_KEPT = 2, 16  # blocks
KEPT_S = _KEPT * BLOCK_S


class Canceller(Protocol):
    """Told what the speaker says, it gives the microphone without that. In one thread, but for `kind`."""

    kind: Echo

    def prepare(self) -> None:
        """Load what takes long."""

    def delay(self, seconds: float) -> None:
        """How long from `spoken` to the microphone, but for the room."""

    def spoken(self, pcm: Pcm) -> None:
        """A block that goes to the speaker."""

    def cleaned(self, pcm: Pcm) -> Pcm:
        """A block of the microphone."""


class Nothing:
    """Leaves all as it is. `kind` says why: there is no echo, or nothing is done about it."""

    def __init__(self, kind: Echo) -> None:
        self.kind: Echo = kind

    def prepare(self) -> None: ...
    def delay(self, seconds: float) -> None: ...
    def spoken(self, pcm: Pcm) -> None: ...

    def cleaned(self, pcm: Pcm) -> Pcm:
        """See Canceller."""
        return pcm


class HalfDuplex:
    """Silence while the speaker speaks."""

    kind: Echo = "half-duplex"

    def __init__(self) -> None:
        self._hold_s, self._left_s = _TAIL_S, 0.0

    def prepare(self) -> None: ...

    def delay(self, seconds: float) -> None:
        """See Canceller."""
        self._hold_s = _TAIL_S + seconds

    def spoken(self, pcm: Pcm) -> None:
        """See Canceller."""
        if loudest(pcm) > _AUDIBLE:
            self._left_s = self._hold_s

    def cleaned(self, pcm: Pcm) -> Pcm:
        """See Canceller."""
        self._left_s -= BLOCK_S
        return np.zeros_like(pcm) if self._left_s > 0 else pcm


class WebRtc:
    """Both at once. Where it cannot be loaded, half-duplex."""

    def __init__(self, gain: bool) -> None:
        self.kind: Echo = "cancelled"
        self._gain = gain
        self._instead: HalfDuplex | None = None

    def prepare(self) -> None:
        """See Canceller."""
        try:
            from livekit.rtc import AudioFrame, AudioProcessingModule

            self._frame = AudioFrame
            self._module = AudioProcessingModule(
                echo_cancellation=True, noise_suppression=True, high_pass_filter=True, auto_gain_control=self._gain
            )
            self.delay(0)
        except Exception as error:  # of a library that is loaded at run time: nothing in it may cost us our ears
            log.warning("echo-canceller-missing", error=str(error), instead=HalfDuplex.kind)
            self._instead, self.kind = HalfDuplex(), HalfDuplex.kind

    def delay(self, seconds: float) -> None:
        """See Canceller."""
        if self._instead is not None:
            self._instead.delay(seconds)
        else:
            self._module.set_stream_delay_ms(round(min(seconds, 0.5) * 1000))

    def spoken(self, pcm: Pcm) -> None:
        """See Canceller."""
        if self._instead is not None:
            return self._instead.spoken(pcm)
        for start in range(0, len(pcm), _FRAME):
            self._module.process_reverse_stream(self._framed(pcm[start : start + _FRAME]))

    def cleaned(self, pcm: Pcm) -> Pcm:
        """See Canceller."""
        if self._instead is not None:
            return self._instead.cleaned(pcm)
        frames = [self._framed(pcm[start : start + _FRAME]) for start in range(0, len(pcm), _FRAME)]
        for frame in frames:
            self._module.process_stream(frame)
        return np.concatenate([np.frombuffer(bytes(frame.data), np.int16) for frame in frames])

    def _framed(self, pcm: Pcm) -> AudioFrame:
        return self._frame(bytearray(pcm.tobytes()), RATE, 1, len(pcm))


class Beside:
    """What is spoken, block for block beside what is heard. Cards take and give in fits, which a canceller would take
    for an echo whose delay changes all the time: so some blocks are kept back, for less than the echo takes to come.
    One that is later still is left out, so that those after it are beside the same as before."""

    def __init__(self) -> None:
        self._blocks: deque[Pcm] = deque(maxlen=_MOST_KEPT)
        self._debt = self._missed = 0
        self._filling = True

    def put(self, pcm: Pcm) -> None:
        """A block goes to the speaker; in any thread."""
        self._blocks.append(pcm)

    def take(self) -> Pcm:
        """The one for the next block of the microphone; silence where there is none."""
        while self._debt and self._blocks:
            self._blocks.popleft()
            self._debt -= 1
        if len(self._blocks) == _MOST_KEPT or self._missed > _MOST_KEPT:  # one clock has gone ahead of the other
            self._blocks.clear()
            self._debt, self._missed, self._filling = 0, 0, True
        self._filling = self._filling and len(self._blocks) <= _KEPT
        if self._filling:
            return _SILENCE
        if not self._blocks:
            self._debt, self._missed = self._debt + 1, self._missed + 1
            return _SILENCE
        self._missed = 0
        return self._blocks.popleft()


def choose(wanted: str, *, gain: bool) -> Canceller:
    """The one that was asked for; `auto`: the best that this machine has."""
    if wanted not in CHOICES:
        raise ConfigError(f"echo={wanted!r}: is one of {', '.join(CHOICES)}")
    if wanted == "none":
        return Nothing("none")
    if wanted == "auto" and importlib.util.find_spec("livekit") is not None:
        return WebRtc(gain)
    return HalfDuplex()


def loudest(pcm: Pcm) -> int:
    """The height of the highest sample."""
    return max(int(pcm.max(initial=0)), -int(pcm.min(initial=0)))
