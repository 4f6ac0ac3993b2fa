"""A link as bad as one likes, between two network namespaces: a rate, a buffer, delay, loss, and what else happens to
packets out there; all of it can be changed while packets are on their way. The kernel's own, netem, is not everywhere.

    near [wan] == TUN == this process == TUN == [name] far

The process holds both interfaces and everything that is under way. When it ends, however that is, so does the link.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gc
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from procs import prctl
from procs.settings import ROOT

if TYPE_CHECKING:  # the process needs nothing of it
    from tests.nat import Place

LIMIT_S = 10.0
MTU = 1500
TXQUEUE = 5000  # packets that the kernel keeps for us while others have the processor
BATCH = 64  # packets read from one side before the other has its turn
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000


@dataclass(frozen=True)
class Shape:
    """What a link does to packets of one direction."""

    rate: float = 0  # bit/s; 0: without end
    buffer_s: float = 0.2  # of waiting at that rate; what comes to a full buffer is dropped
    delay_s: float = 0
    jitter_s: float = 0  # up to so much more, packets staying in order
    loss: float = 0  # of all packets
    burst: float = 0  # how many in a row are lost, in the mean; 0: each for itself
    duplicate: float = 0
    late: float = 0  # packets that others overtake, since they take `late_s` longer
    late_s: float = 0.02
    cut: bool = False  # nothing arrives, and nobody is told


class Counts(NamedTuple):
    """What became of packets since the start."""

    passed: int = 0
    octets: int = 0  # of those
    lost: int = 0  # by loss, or since the link was cut
    overflowed: int = 0
    duplicated: int = 0
    late: int = 0
    waiting: int = 0  # in the buffer now


class Lane:
    """One direction. Pure: packets and the time go in, and to `out` what arrives. A late call is no fault: what should
    have happened since the last one is reckoned as if it had been in time."""

    def __init__(self, out: Callable[[bytes], object], seed: int) -> None:
        self._out, self._random = out, random.Random(seed).random
        self.shape = Shape()
        self._waiting: deque[tuple[float, bytes]] = deque()  # since when, what
        self._octets = 0  # of those
        self._free_at = 0.0  # when the last one will have left the buffer
        self._under_way: list[tuple[float, int, bytes]] = []  # a heap, by the time of arrival
        self._last_at = 0.0  # when the last of them arrives that nobody overtakes
        self._number = 0
        self._is_bad = False  # in a burst of losses
        self._counts = dict.fromkeys(Counts._fields, 0)

    @property
    def counts(self) -> Counts:
        """So far."""
        return Counts(**{**self._counts, "waiting": len(self._waiting)})

    def take(self, packet: bytes, now: float) -> None:
        """A packet comes in. To be called after `turn` of the same time."""
        room = self.shape.buffer_s * self.shape.rate / 8
        if self._waiting and self.shape.rate and self._octets + len(packet) > room:
            self._counts["overflowed"] += 1
            return
        self._waiting.append((now, packet))
        self._octets += len(packet)

    def turn(self, now: float) -> float:
        """Let arrive what is due; when to come again."""
        self._leave(now)
        under_way = self._under_way
        while under_way and under_way[0][0] <= now:
            self._arrive(heapq.heappop(under_way)[2])
        next_at = under_way[0][0] if under_way else float("inf")
        return min(next_at, max(self._free_at, self._waiting[0][0])) if self._waiting else next_at

    def _leave(self, now: float) -> None:
        """Put on their way those that the rate lets out of the buffer until now."""
        waiting, rate = self._waiting, self.shape.rate
        while waiting and self._free_at <= now:
            came_at, packet = waiting.popleft()
            self._octets -= len(packet)
            self._free_at = max(self._free_at, came_at) + (len(packet) * 8 / rate if rate else 0)
            self._send(packet, self._free_at)

    def _send(self, packet: bytes, now: float) -> None:
        shape = self.shape
        if shape.cut or (shape.loss and self._is_lost()):
            self._counts["lost"] += 1
            return
        copies = 1
        if shape.duplicate and self._random() < shape.duplicate:
            self._counts["duplicated"] += 1
            copies = 2
        at = now + shape.delay_s + (shape.jitter_s and self._random() * shape.jitter_s)
        if shape.late and self._random() < shape.late:
            self._counts["late"] += 1
            at += shape.late_s
        else:
            at = self._last_at = max(at, self._last_at)
        for _ in range(copies):
            self._number += 1
            heapq.heappush(self._under_way, (at, self._number, packet))

    def _is_lost(self) -> bool:
        """Independent, or by Gilbert's model: nothing arrives in the bad state, everything in the good one."""
        loss, burst = self.shape.loss, self.shape.burst
        if not burst:
            return self._random() < loss
        stays = 1 - 1 / burst
        enters = loss / (1 - loss) / burst if loss < 1 else 1
        self._is_bad = self._random() < (stays if self._is_bad else enters)
        return self._is_bad

    def _arrive(self, packet: bytes) -> None:
        self._counts["passed"] += 1
        self._counts["octets"] += len(packet)
        self._out(packet)


# --- the process ---------------------------------------------------------------------------------------------


def main() -> None:
    """`python -m tests.emulator NEAR_FD FAR_FD`: a line of JSON on stdin changes shapes and is answered with counts."""
    prctl.bind_to_parent()
    gc.disable()  # nothing here refers to itself
    near, far = (int(word) for word in sys.argv[1:3])
    lanes = {near: Lane(_writer(far), 1), far: Lane(_writer(near), 2)}
    by_name = {"far": lanes[near], "near": lanes[far]}
    while True:
        now = time.monotonic()
        wait_s = min(lane.turn(now) for lane in lanes.values()) - now
        # Not epoll, whose time is in milliseconds.
        for ready in select.select([0, *lanes], [], [], min(max(wait_s, 0), 1))[0]:
            if ready == 0:
                _obey(by_name)
            else:
                _read(ready, lanes[ready])


def _read(descriptor: int, lane: Lane) -> None:
    now = time.monotonic()
    lane.turn(now)
    with contextlib.suppress(BlockingIOError):
        for _ in range(BATCH):
            lane.take(os.read(descriptor, MTU), now)


def _writer(descriptor: int) -> Callable[[bytes], object]:
    def write(packet: bytes) -> None:
        with contextlib.suppress(OSError):  # its end is down, or full: what any link does then
            os.write(descriptor, packet)

    return write


def _obey(lanes: dict[str, Lane]) -> None:
    line = sys.stdin.readline()
    if not line:
        sys.exit()  # whoever made us has gone
    now = time.monotonic()
    for name, change in json.loads(line).items():
        lanes[name].turn(now)
        lanes[name].shape = dataclasses.replace(lanes[name].shape, **change)
    print(json.dumps({name: lane.counts for name, lane in lanes.items()}), flush=True)


# --- for tests -----------------------------------------------------------------------------------------------


class Link:
    """A link that stands. Both directions are perfect until something is said of them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def both(self, **change: float) -> None:
        """Change fields of `Shape` of both directions."""
        self._say({"near": change, "far": change})

    def to_near(self, **change: float) -> Counts:
        """Change the way to the near end; what it has done so far."""
        return self._say({"near": change})["near"]

    def to_far(self, **change: float) -> Counts:
        """Change the way to the far end; what it has done so far."""
        return self._say({"far": change})["far"]

    def _say(self, changes: dict[str, dict[str, float]]) -> dict[str, Counts]:
        """Done once it is answered."""
        process = self._process
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(changes) + "\n")
        process.stdin.flush()
        assert select.select([process.stdout], [], [], LIMIT_S)[0], "the link does not answer"
        answer = process.stdout.readline()
        assert answer, "the link has died"
        return {name: Counts(*counts) for name, counts in json.loads(answer).items()}


@contextmanager
def link(near: Place, far: Place, far_name: str, near_address: str, far_address: str) -> Iterator[Link]:
    """A link from near, where it is `wan`, the way out, to far. Needs root and /dev/net/tun."""
    ends = [_tun(near, "wan"), _tun(far, far_name)]
    try:
        words = [sys.executable, "-m", "tests.emulator", *map(str, ends)]
        process = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=ends
        )
    finally:
        for each in ends:
            os.close(each)
    try:
        _configure(far, far_name, far_address, near_address)
        _configure(near, "wan", near_address, far_address)
        near.ip(f"route add default via {far_address}")
        yield Link(process)
    finally:
        process.kill()
        process.communicate()


def _tun(place: Place, name: str) -> int:
    """A TUN interface there, which lasts as long as somebody has this descriptor."""
    with place.entered():
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


def _configure(place: Place, name: str, address: str, peer: str) -> None:
    # No address of IPv6 by itself: with it each end would begin to talk.
    place.ip(
        f"link set {name} mtu {MTU} txqueuelen {TXQUEUE} addrgenmode none",
        f"addr add {address} peer {peer} dev {name}",
        f"link set {name} up",
    )


if __name__ == "__main__":
    main()
