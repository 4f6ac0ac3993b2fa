"""All lanes of one UDP port, for whoever owns that and the TUN.

lanes = Lanes(port, most=tunnel.mtu)
lanes.on_frames = lambda peer, iovs: ...     # from a peer, to be admitted and written before it returns
lanes.on_nonce = lambda peer, nonce: ...     # to be told to the session with this peer, which gives LaneKeys for it
lanes.on_room = lambda: ...                  # the port takes more again
lanes.keys(told)
if lanes.is_up(peer): lanes.send(peer, frames)
lanes.tick(time.monotonic())                 # some ten times a second

What comes under no key of ours costs one look into a table, and is never answered. What comes under a key of ours, but
not from where its peer is, may be the peer, who has moved, or anybody who has seen a record of its: it is opened, until
too much of it has proved to be nothing. Whoever makes up records in a peer's place has to send from the peer's address.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from procs.agent.lane import slices
from procs.agent.lane.lane import Lane, Pair, Run, mark_of, shown
from procs.agent.lane.vnet import Iov
from procs.agent.lane.way import Address
from procs.agent.udp import Sent
from procs.messages.tunnel import LaneKeys

DOUBTED = 100  # records from elsewhere that prove to be none of the peer's, from one tick to the next
MOST_ALONE = 64  # records that come one by one and are made one run
BATCH_BYTES = 1 << 15  # of records, beyond which their frames do not wait for more
LEAST = 1232  # bytes of a datagram: what IPv6 takes everywhere


class Below(Protocol):
    """As much of a Port (port.py) as lanes use."""

    on_records: Callable[[memoryview, int, Address], None]
    on_all: Callable[[], None]
    on_writable: Callable[[], None]

    def send_records(self, joined: bytes, step: int, to: Address, *, is_sparse: bool = False) -> Sent:
        """Send them, or not."""

    def glance(self) -> None:
        """Take what is urgent, in the middle of something that takes long."""

    def shuns(self, host: str) -> bool:
        """Whether the way there leads through the tunnel."""


class Lanes:
    """`most`: the largest packet that there will be; `least`: the largest that a lane has to carry to be of use.
    `strangers`: datagrams under no key of ours; `refused`: those on their way out that our own machine did not take."""

    def __init__(self, port: Below, *, most: int, least: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        around = -slices.mtu(0)
        self._most, self._least = most + around, min(max(LEAST, least + around), most + around)
        self._port, self._clock = port, clock
        self._lanes: dict[str, Lane] = {}
        self._pairs: dict[bytes, tuple[Lane, Pair]] = {}  # by the index that their records come with
        self._waiting: deque[tuple[Lane, Run, bool]] = deque()  # of no more than one turn of the interface
        self._batch: tuple[Lane, Pair] | None = None  # whose frames are coming
        self._bytes = 0  # of it
        self._sender: Address | None = None  # of the newest of it
        self._alone: list[bytes] = []  # records that came one by one, of one key, from one sender
        self._alike: tuple[bytes, Address] = (b"", ("", 0))  # what they have in common
        self._step = 0  # the size of all but the last
        self._doubts = DOUBTED  # that are left
        self.on_frames: Callable[[str, Sequence[Iov]], object] = lambda peer, frames: None
        self.on_nonce: Callable[[str, bytes], object] = lambda peer, nonce: None
        self.on_room: Callable[[], object] = lambda: None
        self.strangers = self.refused = 0
        port.on_records, port.on_all, port.on_writable = self._came, self._all, self._writable

    # What others know of a lane

    def nonce(self, peer: str) -> bytes:
        """What its session is to say. From now on there may be a lane to this peer."""
        if peer not in self._lanes:
            self._lanes[peer] = Lane(peer, self._least, self._most)
        return self._lanes[peer].nonce

    def is_up(self, peer: str) -> bool:
        """Whether packets go this way."""
        lane = self._lanes.get(peer)
        return lane is not None and lane.is_up

    @property
    def are_up(self) -> bool:
        """Whether any does."""
        return any(lane.is_up for lane in self._lanes.values())

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be sent until `on_room`."""
        return bool(self._waiting)

    def mtu(self, peer: str) -> int:
        """The largest packet that goes through whole; 0 while that is not known."""
        lane = self._lanes.get(peer)
        return lane.mtu if lane else 0

    def remote(self, peer: str) -> str:
        """Where it is, for people."""
        lane = self._lanes.get(peer)
        return shown(lane.remote) if lane else ""

    def round_trip_ms(self, peer: str) -> float | None:
        """As the last ping was answered."""
        lane = self._lanes.get(peer)
        return lane.round_trip_ms if lane else None

    def unused(self, peer: str) -> str:
        """Why packets do not go this way, though both sides could; "" where that is not so, or not known."""
        lane = self._lanes.get(peer)
        return lane.unused(self._clock()) if lane else ""

    def stats(self, peer: str) -> dict[str, int]:
        """Counts: rekeys, falls, moves, unread, forged, replayed, malformed."""
        lane = self._lanes.get(peer)
        return lane.stats if lane else {}

    # What its owner does

    def keys(self, told: LaneKeys) -> None:
        """A session has said these. Those of another nonce than that of now are of another life, and do nothing."""
        lane = self._lanes.get(told.peer)
        if lane is None or told.mine != lane.nonce or told.theirs == told.mine:
            return
        now, nonce = self._clock(), lane.nonce
        taken = self._pairs.get(told.receives[:4])
        if taken and taken[1].mark != mark_of(told):  # their index is that of others
            lane.renew()
        elif pair := lane.told(told, now):
            self._pairs[pair.opener.index] = lane, pair
            self._ping(lane, now)
        if lane.nonce != nonce:
            self.on_nonce(lane.peer, lane.nonce)

    def send(self, peer: str, frames: Sequence[bytes], *, is_sparse: bool = False) -> int:
        """Send these; how many were taken: all, or none where the lane is not up. What the port has no room for waits,
        and until `on_room` there should be no more. `is_sparse`: of flows that nothing should have wait."""
        lane = self._lanes.get(peer)
        if lane is None or not lane.is_up:
            return 0
        taken = 0
        for run in lane.seal(frames):
            if taken:
                self._port.glance()
            taken = len(frames)
            if self._waiting or not self._out(lane, run, is_sparse=is_sparse):
                self._waiting.append((lane, run, is_sparse))
        return taken

    def tick(self, now: float) -> None:
        """Ping, find out what is up, and let old keys go."""
        self._doubts = DOUBTED
        for lane in self._lanes.values():
            nonce = lane.nonce
            for pair in lane.expire(now):
                del self._pairs[pair.opener.index]
            if lane.nonce != nonce:
                self.on_nonce(lane.peer, lane.nonce)
            self._ping(lane, now)
            lane.look(now)

    def drop(self, peer: str) -> None:
        """Nothing goes to this peer or comes from it any more."""
        if lane := self._lanes.pop(peer, None):
            for pair in lane.pairs:
                del self._pairs[pair.opener.index]
            self._waiting = deque(each for each in self._waiting if each[0] is not lane)

    # Datagrams

    def _came(self, joined: memoryview, step: int, sender: Address) -> None:
        """A run, or a record alone: such as come one by one are made runs of, as the kernel does where it can."""
        size = len(joined)
        if step < size:
            self._release()
            self._run(joined, step, sender)
            return
        alike = bytes(joined[:5]), sender
        if self._alone and (alike != self._alike or size > self._step or len(self._alone) == MOST_ALONE):
            self._release()
        if not self._alone:
            self._alike, self._step = alike, size
        self._alone.append(bytes(joined))
        if size < self._step:  # only the last may be shorter
            self._release()

    def _release(self) -> None:
        alone, self._alone = self._alone, []
        if alone:
            self._run(memoryview(b"".join(alone)), self._step, self._alike[1])

    def _all(self) -> None:
        """No more for now."""
        self._release()
        self._flush()

    def _run(self, joined: memoryview, step: int, sender: Address) -> None:
        index, last = bytes(joined[1:5]), (len(joined) - 1) // step * step
        if last and bytes(joined[last + 1 : last + 5]) != index:
            self._apart(joined, step, sender)
            return
        found = self._pairs.get(index)
        if found is None:
            self.strangers += last // step + 1
            return
        lane, pair = found
        is_elsewhere = sender != lane.remote and lane.remote is not None
        if is_elsewhere and not self._doubts:
            lane.unread += last // step + 1
            return
        if found is not self._batch:
            self._flush()
            self._batch = found
        opener = pair.opener
        before, bogus = opener.newest, opener.forged + opener.replayed
        pair.incoming.take(joined, step)
        if opener.newest > before:
            self._sender = sender
        if is_elsewhere:
            self._doubts = max(0, self._doubts - (opener.forged + opener.replayed - bogus))
        self._bytes += len(joined)
        if self._bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Hand over what has come. Slices that came one by one are one frame, as if the kernel had joined them: what
        costs most of a packet is to have it written."""
        batch, self._batch, self._bytes = self._batch, None, 0
        sender, self._sender = self._sender, None
        if not batch:
            return
        lane, pair = batch
        if sender:
            # Senders can be forged: one to whom the way leads through the tunnel would have it carry itself.
            is_inside = sender != lane.remote and self._port.shuns(sender[0])
            now, moves = self._clock(), lane.moves
            lane.heard(pair, lane.remote if is_inside else sender, now)
            if lane.moves != moves:  # little goes there before there was an answer
                self._ping(lane, now)
        if pair.incoming.controls:  # also of what comes late: nothing may gather
            self._answer(lane, pair)
        if frames := pair.incoming.frames():
            self.on_frames(lane.peer, frames)

    def _apart(self, joined: memoryview, step: int, sender: Address) -> None:
        """A run under more than one key: they are just being changed, or somebody makes them up."""
        for at in range(0, len(joined), step):
            if bytes(joined[at + 1 : at + 5]) in self._pairs:
                self._run(joined[at : at + step], step, sender)
            else:
                self.strangers += 1

    def _answer(self, lane: Lane, pair: Pair) -> None:
        controls, pair.incoming.controls[:] = pair.incoming.controls[:], []
        for run in lane.answers(pair, controls, self._clock()):
            self._out(lane, run, is_sparse=True)

    def _ping(self, lane: Lane, now: float) -> None:
        # Marked, since a path that let what is marked be lost, and nothing else, would be no path.
        for run in lane.pings(now):
            self._out(lane, run, is_sparse=True)

    def _out(self, lane: Lane, run: Run, *, is_sparse: bool) -> bool:
        """False where the port is full."""
        if lane.remote is None:
            return True
        sent = self._port.send_records(*run, lane.remote, is_sparse=is_sparse)
        if sent is Sent.TOO_BIG:
            lane.path.refused(run[1], self._clock())
        self.refused += sent in (Sent.TOO_BIG, Sent.REFUSED)
        return sent is not Sent.FULL

    def _writable(self) -> None:
        while self._waiting:
            lane, run, is_sparse = self._waiting[0]
            if not self._out(lane, run, is_sparse=is_sparse):
                return
            self._waiting.popleft()
        self.on_room()
