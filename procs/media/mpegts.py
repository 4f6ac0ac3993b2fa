"""MPEG-TS that go2rtc passes on at once: every picture states its length, every time is the machine's clock.

A reader need not wait for the next picture to know where one ends (33 ms at 30 fps). Pictures over 65,535 bytes can't
state a length (ISO/IEC 13818-1, 2.4.3.7). Times are those of CLOCK_MONOTONIC, so a restarted writer goes on where the
old one's clock would be, and a recorder sees the gap as a gap.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

import av
from av.container import OutputContainer

from procs.media.tspackets import CLOCK_HZ as CLOCK_HZ
from procs.media.tspackets import ticks as ticks

TICK = Fraction(1, CLOCK_HZ)


class Sink(Protocol):
    """Takes bytes, all of them."""

    def write(self, data: bytes, /) -> int:
        """Take everything; returns how much that was."""


def open_muxer(sink: Sink) -> OutputContainer:
    """A muxer that hands every packet to `sink` at once, one write a picture."""
    options = {"omit_video_pes_length": "0", "flush_packets": "1"}
    return av.open(sink, "w", format="mpegts", options=options)
