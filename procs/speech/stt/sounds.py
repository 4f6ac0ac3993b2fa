"""Sound that comes as an Ogg-Opus stream, in pieces that need not be whole. What is broken is left out."""

from __future__ import annotations

import contextlib

import numpy as np

from procs.errors import Refused
from procs.media.ogg import OggReader
from procs.media.opus import Decoder
from procs.wire.moshi import RATE, Samples

MAX_GAP = 2 * RATE  # samples that are made up as silence for pages that were lost, so that times stay right


class Sounds:
    """One stream."""

    def __init__(self) -> None:
        self._reader, self._decoder = OggReader(), Decoder()

    def decoded(self, data: bytes) -> Samples:
        """What can be heard now."""
        pieces = [np.empty(0, np.int16)]
        for packet in self._reader.feed(data):
            if packet.gap:
                pieces.append(np.zeros(min(packet.gap, MAX_GAP), np.int16))
            with contextlib.suppress(Refused):
                pieces.append(self._decoder.decode(packet.packet))
        return np.concatenate(pieces)
