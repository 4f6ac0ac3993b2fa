"""Sound that comes as an Ogg-Opus stream, in pieces that need not be whole. What is broken is left out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from procs.errors import Refused
from procs.media.ogg import OggReader
from procs.media.opus import Decoder
from procs.wire.moshi import RATE, Samples

MAX_GAP = 2 * RATE  # samples a message that are made up as silence for lost pages, so that times stay right


class Sounds:
    """One stream."""

    def __init__(self) -> None:
        self._reader, self._decoder = OggReader(), Decoder()

    def decoded(self, data: bytes) -> Iterator[Samples]:
        """What can be heard now, piece by piece: a message of packets of a byte each is hours."""
        left = MAX_GAP
        for packet in self._reader.feed(data):
            if gap := min(packet.gap, left):
                left -= gap
                yield np.zeros(gap, np.int16)
            with contextlib.suppress(Refused):
                yield self._decoder.decode(packet.packet)
