"""Between packets and samples: the microphone's decoder, which fills what was lost, and the speaker's encoder. Pure."""

from __future__ import annotations

import numpy as np

from procs.media.conceal import Concealer
from procs.media.opus import Decoder, Encoder, Samples

BITRATE = 24_000


class Microphone:
    """Packets to samples, without gaps."""

    def __init__(self) -> None:
        self._decoder, self._concealer = Decoder(), Concealer()

    def decode(self, packet: bytes, lost: int) -> Samples:
        """One packet, and before it what was `lost`. Raises Refused for one that is none."""
        pcm = self._decoder.decode(packet)
        if not lost:
            return self._concealer.join(pcm)
        made = self._concealer.make(lost)
        return np.concatenate((made, self._concealer.join(pcm)))


class Speaker:
    """Samples to packets of 20 ms. The encoder is made when there is something to say: most wait most of the time."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None

    def encode(self, pcm: Samples) -> list[bytes]:
        """The packets that are full by now."""
        self._encoder = self._encoder or Encoder(bitrate=BITRATE, frame_ms=20)
        return self._encoder.encode(pcm)

    def end(self) -> list[bytes]:
        """The rest of what is being said."""
        if self._encoder is None:
            return []
        try:
            return self._encoder.flush()
        finally:
            self._encoder = None

    def drop(self) -> None:
        """Nobody is to hear the rest."""
        self._encoder = None
