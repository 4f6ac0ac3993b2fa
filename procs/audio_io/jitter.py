"""The jitter buffer: packets come when the network lets them, sound leaves at the card's pace. Pure: time is given.

It begins to speak when it holds `target` of sound or has waited that long; the target follows the jitter that was
seen. What never came is left to be concealed, what comes too late is dropped. Where all is used up it stands still and
begins again: nothing is skipped. More than 30 s ahead of time: the oldest goes.

Two clocks are never alike. How full the buffer is when a packet comes that nothing delayed tells the drift; it is held
at the target by speaking up to 0.1 % faster or slower, one sample more or less in a block now and then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import NamedTuple

import numpy as np

from procs.audio_io.sound import BLOCK_S, RATE, Pcm

MOST_S = 0.4  # of the target
_SPARE_S = 0.01  # for a clock that drifts while this notices
CAPACITY = 30 * RATE
MAX_GAP = RATE  # a timestamp further off is no loss; something was begun anew
_FIRST_JITTER_S = 0.04
_CALMER = 0.002  # seconds of jitter forgotten in a second
_LEAK = 0.001  # how fast the quickest packet is forgotten: faster than any clock drifts
_SLOW_S = 2.0  # over which the level is smoothed
_GAIN = 0.1  # part of a second faster for each second too much
_FASTEST = 0.001
_AHEAD_S = 0.1  # who is further ahead sends faster than real time, and that is no clock
_WRAP = 1 << 32


class Taken(NamedTuple):
    """Sound for a block: pieces, and between them how many samples never came. `short`: it has run out of sound, the
    rest is missing. Else it may be some samples longer or shorter than the block, for `stretched`."""

    pieces: list[Pcm | int]
    short: bool


class Jitter:
    """A timeline of samples: packets are put on it by their timestamps, and taken from it in blocks."""

    def __init__(self) -> None:
        self._starts: list[int] = []  # of the packets that wait, on the timeline
        self._packets: list[Pcm] = []
        self.at = 0  # taken up to here
        self._anchor: tuple[int, int] | None = None  # a timestamp, and where it is on the timeline
        self._marks: deque[tuple[int, int]] = deque([(0, 0)])  # from here on it is this response
        self._flowing = False
        self._waiting_since = 0.0
        self._finished = True
        self._quickest: float | None = None
        self._came_s = self._took_s = self._packet_s = 0.0
        self._jitter_s = _FIRST_JITTER_S
        self._level_s: float | None = None
        self._owed = 0.0  # samples to take more, or less
        self.underruns = self.lost = self.late = self.dropped = 0

    # What comes

    def put(self, pcm: Pcm, *, response: int, timestamp: int, first: bool, now: float) -> None:
        """A packet has come."""
        start = self._place(timestamp, response, first)
        self._measure(start, len(pcm), now)
        if start < self.at:
            self.late += min(self.at - start, len(pcm))
            pcm, start = pcm[self.at - start :], self.at
        index = bisect_left(self._starts, start)
        if index and (over := self._starts[index - 1] + len(self._packets[index - 1]) - start) > 0:
            pcm, start = pcm[over:], start + over
        if index < len(self._starts):
            pcm = pcm[: self._starts[index] - start]
        if not len(pcm):
            return
        self._finished = False
        if start > self.end:  # one that is lost is as good as one late by all it holds
            self._jitter_s = max(self._jitter_s, len(pcm) / RATE)
        if not self._starts and not self._flowing:
            self._waiting_since = now
        self._starts.insert(index, start)
        self._packets.insert(index, pcm)
        while self._starts and self.end - self._starts[0] > CAPACITY:
            self.dropped += len(self._packets[0])
            self._forget_first()
            self.at = self._starts[0] if self._starts else self.at
            while len(self._marks) > 1 and self._marks[1][0] <= self.at:
                self._marks.popleft()

    def finish(self) -> None:
        """Nothing more comes of what was put last."""
        self._finished = True

    def flush(self) -> None:
        """Forget all that waits."""
        self._starts.clear()
        self._packets.clear()
        self._anchor = None
        while len(self._marks) > 1 and self._marks[-1][0] > self.at:
            self._marks.pop()
        self._flowing, self._finished = False, True

    def _place(self, timestamp: int, response: int, first: bool) -> int:
        """Where on the timeline a timestamp is."""
        end = self.end
        new = response != self._marks[-1][1]
        if self._anchor is not None and not (first or new):
            was, place = self._anchor
            start = place + (timestamp - was + _WRAP // 2) % _WRAP - _WRAP // 2
            if self.at - MAX_GAP <= start <= end + MAX_GAP:
                self._anchor = (timestamp, start)
                return start
        if new:
            self._marks.append((end, response))
        self._anchor, self._quickest = (timestamp, end), None
        return end

    def _measure(self, start: int, samples: int, now: float) -> None:
        """How much later than the quickest it came, and how full the buffer would be had it not."""
        passed, self._came_s = min(now - self._came_s, 1.0), now
        self._packet_s = samples / RATE
        transit = now - start / RATE
        if self._quickest is None:
            self._quickest, self._level_s = transit, None
        self._quickest = min(self._quickest + passed * _LEAK, transit)
        late = transit - self._quickest
        self._jitter_s = max(min(late, MOST_S), self._jitter_s - passed * _CALMER)
        if not self._flowing:
            return
        speaking = max(0.0, BLOCK_S - (now - self._took_s))  # what is left of the block that was taken last
        level = (start + samples - self.at) / RATE + late + speaking
        if self._level_s is None:
            self._level_s = level
        self._level_s += (level - self._level_s) * min(1.0, passed / _SLOW_S)

    # What goes

    def take(self, samples: int, now: float) -> Taken:
        """The next block."""
        self._took_s = now
        if not self._flowing:
            if not self._may_begin(now):
                return Taken([], True)
            self._flowing = True
            self._skip(self._starts[0] - self.at)  # its time has passed while this stood still
        self._owed += samples * self.faster
        wanted = samples + int(self._owed)
        self._owed -= int(self._owed)
        pieces: list[Pcm | int] = []
        while wanted and self._starts:
            gap = min(self._starts[0] - self.at, wanted)
            if gap:
                self._skip(gap)
                pieces.append(gap)
                wanted -= gap
            else:
                pieces.append(piece := self._first(wanted))
                wanted -= len(piece)
        if wanted:
            self._flowing = False
            self.underruns += not self._finished
        return Taken(pieces, wanted > 0)

    def _skip(self, samples: int) -> None:
        self.at += samples
        self.lost += samples

    def _first(self, most: int) -> Pcm:
        packet = self._packets[0]
        if len(packet) <= most:
            self._forget_first()
        else:
            self._packets[0] = packet[most:]
            self._starts[0] += most
        self.at += min(len(packet), most)
        return packet[:most]

    def _may_begin(self, now: float) -> bool:
        return bool(self._starts) and (
            self._finished or self.depth >= self.target_s * RATE or now - self._waiting_since >= self.target_s
        )

    def _forget_first(self) -> None:
        del self._starts[0], self._packets[0]

    # What is known

    @property
    def end(self) -> int:
        """Of the timeline: where what comes next belongs."""
        return self._starts[-1] + len(self._packets[-1]) if self._starts else self.at

    @property
    def depth(self) -> int:
        """Samples from here to the end."""
        return self.end - self.at

    @property
    def target_s(self) -> float:
        """How much it wants to hold."""
        return min(self._jitter_s + self._packet_s + BLOCK_S + _SPARE_S, MOST_S)

    @property
    def jitter_s(self) -> float:
        """How late packets come, at worst, lately."""
        return self._jitter_s

    @property
    def faster(self) -> float:
        """How much faster than written it speaks, as a part of one."""
        if self._level_s is None or not self._flowing:
            return 0.0
        surplus = self._level_s - self.target_s
        return 0.0 if surplus > _AHEAD_S else min(max(surplus * _GAIN, -_FASTEST), _FASTEST)

    @property
    def finished(self) -> bool:
        """No more comes of what was put last."""
        return self._finished

    def response_at(self, place: int) -> tuple[int, int]:
        """Which response is at this place of the timeline, and how many samples of it are before it. Places must not
        go back: what is behind is forgotten."""
        while len(self._marks) > 1 and self._marks[1][0] <= place:
            self._marks.popleft()
        start, response = self._marks[0]
        return response, max(0, place - start)


def stretched(pcm: Pcm, samples: int) -> Pcm:
    """The same sound in a few samples more or less: each between four of its neighbours, the ends where they were."""
    if len(pcm) == samples:
        return pcm
    padded = np.pad(pcm.astype(np.float32), (1, 2), mode="edge")
    place = np.arange(samples, dtype=np.float32) * (len(pcm) / samples)
    index = place.astype(np.int64)
    part = place - index
    before, here, there, after = (padded[index + offset] for offset in range(4))
    bend = before - 2.5 * here + 2 * there - 0.5 * after
    curve = 1.5 * (here - there) + 0.5 * (after - before)
    value = here + part * (0.5 * (there - before) + part * (bend + part * curve))
    made: Pcm = np.clip(np.rint(value), -32768, 32767).astype(np.int16)
    return made
