"""Frames of the TUN that wait for their turn, so that nobody waits behind another's bulk: flow queueing as in RFC 8290,
without its delay control. Pure.

Flows of which nothing was waiting come first, with up to half of each turn of the event loop; then all have their turns
one after the other, of as many bytes each, and who has had its own is not first again before the others had theirs. So
a ping, a voice or the first packet of a connection waits for what is being sealed, and not for the megabytes that TCP
keeps before the interface. Within a flow the order stays.

Those whose rate is always small (`part`) are not queued at all: they go first, and pass what waits elsewhere, too.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heapreplace

TURN_BYTES, TURN_FRAMES = 1 << 18, 64  # of the event loop's turn
QUANTUM = 66_000  # bytes of a flow's turn: no frame is larger
LEAST = QUANTUM // TURN_FRAMES  # what a smaller frame counts as: it takes room and time, too, of the others' turns
MOST_BYTES = 16 << 20  # half of what the interface's own queue could hold; beyond it the fullest flow loses its oldest
MOST_FLOWS = 1024  # more share the turns of these; which ones, no sender can know
SPARSE_BYTES_S, BURST_S = 1 << 15, 0.25  # what makes a flow sparse: at most this rate, but for a burst as of so long
CALM_S = 0.125  # before one that was not sparse is: at least what waits at the other end takes
_HELD_S = BURST_S + CALM_S
_TCP, _UDP = 6, 17
Frames = dict[str, list[bytes]]  # by peer


class Flow:
    """What waits of one, and how many bytes it still has in its turn."""

    __slots__ = ("bytes", "frames", "left")

    def __init__(self, left: int) -> None:
        self.frames: deque[tuple[str, bytes]] = deque()
        self.bytes, self.left = 0, left


class FairQueue:
    """True while something waits: so many `bytes`, as they count."""

    def __init__(self, most_flows: int = MOST_FLOWS) -> None:
        self.bytes, self._most_flows = 0, most_flows
        self._flows: dict[int, Flow] = {}
        self._new: deque[int] = deque()
        self._old: deque[int] = deque()  # that have had a turn
        # What those had left of it of which nothing waits any more, until all old ones, of so many, have had theirs:
        # else one that is emptied in each turn would be new in each, and have half of all.
        self._left: dict[int, int] = {}
        self._round = 0
        self._due: dict[int, float] = {}  # when what a flow has sent would have gone at the rate of sparse ones

    def __bool__(self) -> bool:
        return self.bytes > 0

    def part(self, found: Frames, now: float) -> tuple[Frames, Frames]:
        """Those of sparse flows, which go at once, and the rest. `now`: seconds of a clock that never goes back."""
        first: Frames = {}
        rest: Frames = {}
        left = TURN_FRAMES
        for peer, frames in found.items():
            for frame in frames:
                is_sparse = self._is_sparse(frame, now, left)
                left -= is_sparse
                (first if is_sparse else rest).setdefault(peer, []).append(frame)
        return first, rest

    def _is_sparse(self, frame: bytes, now: float, left: int) -> bool:
        """By the virtual scheduling of ITU-T I.371. No frame of a flow passes another: after one that was not sparse,
        none is until that has left and had time to arrive."""
        key = self._key(frame)
        due = max(now, self._due.get(key, 0.0)) + len(frame) / SPARSE_BYTES_S
        is_sparse = left > 0 and due - now <= BURST_S and key not in self._flows
        self._due[key] = due if is_sparse else now + _HELD_S
        return is_sparse

    def has_left(self, found: Frames, now: float) -> None:
        """These, which were not sparse, only now."""
        for frames in found.values():
            for frame in frames:
                self._due[self._key(frame)] = now + _HELD_S

    def add(self, found: Frames) -> Frames:
        """More that waits; what is lost for it."""
        for peer, frames in found.items():
            for frame in frames:
                key = self._key(frame)
                if not (flow := self._flows.get(key)):
                    flow = self._flows[key] = self._begun(key)
                flow.frames.append((peer, frame))
                size = _counted(frame)
                flow.bytes += size
                self.bytes += size
        return self._lost() if self.bytes > MOST_BYTES else {}

    def _key(self, frame: bytes) -> int:
        return hash(flow_of(frame)) % self._most_flows

    def _begun(self, key: int) -> Flow:
        left = self._left.pop(key, QUANTUM)
        (self._new if left > 0 else self._old).append(key)
        return Flow(left if left > 0 else left + QUANTUM)

    def _lost(self) -> Frames:
        """Frame by frame of whoever is the fullest then: nobody loses one who has less waiting than another."""
        lost: Frames = {}
        fullest = [(-flow.bytes, key) for key, flow in self._flows.items()]
        heapify(fullest)
        while self.bytes > MOST_BYTES:
            key = fullest[0][1]
            self._move(flow := self._flows[key], lost)
            heapreplace(fullest, (-flow.bytes, key))
        return lost

    def take(self, now: float) -> Frames:
        """What goes now: a turn of the event loop, or all there is."""
        taken: Frames = {}
        left, count = TURN_BYTES, TURN_FRAMES
        while self.bytes and left > 0 and count:
            is_new = self._new and (not self._old or (left > TURN_BYTES // 2 and count > TURN_FRAMES // 2))
            turns = self._new if is_new else self._old
            flow = self._flows[turns[0]]
            if flow.frames:
                size = self._move(flow, taken)
                flow.left -= size
                left, count = left - size, count - 1
            if not flow.frames or flow.left <= 0:
                self._end(turns, flow, now)
        return taken

    def _end(self, turns: deque[int], flow: Flow, now: float) -> None:
        """That of the first of these."""
        key = turns.popleft()
        if flow.frames:
            flow.left += QUANTUM
            self._old.append(key)
        else:
            del self._flows[key]
            self._left[key] = flow.left
            self._due[key] = now + _HELD_S  # it may have waited for longer than that
        if turns is self._old:
            self._round -= 1
            if self._round <= 0:
                self._left.clear()
                self._round = len(self._old)

    def _move(self, flow: Flow, where: Frames) -> int:
        """Its oldest; as how many bytes that counts."""
        peer, frame = flow.frames.popleft()
        where.setdefault(peer, []).append(frame)
        size = _counted(frame)
        flow.bytes -= size
        self.bytes -= size
        return size


def _counted(frame: bytes) -> int:
    size = len(frame)
    return size if size > LEAST else LEAST


def flow_of(frame: bytes) -> bytes:
    """Protocol and addresses of a frame, with the ports of TCP and UDP where they begin right behind IP."""
    if frame[10] == 0x45:
        has_ports = frame[19] in (_TCP, _UDP) and not frame[16] & 0x3F | frame[17]  # and is no fragment
        return frame[19:20] + frame[22 : 34 if has_ports else 30]
    if frame[10] & 0xF0 == 0x60:
        return frame[16:17] + frame[18 : 54 if frame[16] in (_TCP, _UDP) else 50]
    return frame[22:30]  # IPv4 with options
