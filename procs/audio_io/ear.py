"""The microphone's side, for whichever card: echo and noise out, then the wake word and whether somebody speaks."""

from __future__ import annotations

import numpy as np

from procs.audio_io.echo import Canceller, loudest
from procs.audio_io.sound import BLOCK, Echo, Heard, Pcm
from procs.audio_io.wake import Attention

_AUDIBLE = 30


class Ear:
    """One microphone. `prepare`, `spoken` and `hear` belong to one thread, the rest to anybody."""

    def __init__(self, canceller: Canceller, attention: Attention) -> None:
        self._canceller, self._attention = canceller, attention
        self._replying = False
        self.muted = False

    @property
    def echo(self) -> Echo:
        """What is done about it."""
        return self._canceller.kind

    @property
    def wake(self) -> str:
        """The wake word, or ""."""
        return self._attention.word

    @property
    def awake(self) -> bool:
        """Whether what is said is heard."""
        return self._attention.awake

    def mute(self, muted: bool) -> None:
        """See Sound.mute."""
        self.muted = muted

    def prepare(self) -> None:
        """Load what takes long."""
        self._canceller.prepare()
        self._attention.prepare()

    def delay(self, seconds: float) -> None:
        """See Canceller.delay."""
        self._canceller.delay(seconds)

    def spoken(self, pcm: Pcm) -> None:
        """A block goes to the speaker."""
        self._replying = loudest(pcm) > _AUDIBLE
        self._canceller.spoken(pcm)

    def hear(self, pcm: Pcm) -> Heard:
        """A block of the microphone, and what is to be heard of it."""
        cleaned = self._canceller.cleaned(pcm)
        if self.muted:
            cleaned = np.zeros_like(pcm)
        speech = self._attention.hear(cleaned, replying=self._replying)
        return Heard(cleaned, True, speech) if self.awake else self.nothing()

    def nothing(self) -> Heard:
        """What is heard without a microphone."""
        return Heard(np.zeros(BLOCK, np.int16), self.awake, False)
