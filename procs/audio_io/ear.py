"""The microphone's side, for whichever card: echo and noise out, the wake word, whether somebody speaks."""

from __future__ import annotations

import numpy as np

from procs.audio_io.sound import Echo, Heard, Pcm


class Ear:
    """One microphone. `hear` belongs to the card's thread, the rest to anybody."""

    echo: Echo = "cancelled"
    wake = ""
    awake = True

    def __init__(self) -> None:
        self.muted = False

    def mute(self, muted: bool) -> None:
        """See Sound.mute."""
        self.muted = muted

    def hear(self, pcm: Pcm) -> Heard:
        """A block of the microphone, and what is to be heard of it."""
        if self.muted:
            pcm = np.zeros_like(pcm)
        return Heard(pcm, self.awake, False)
