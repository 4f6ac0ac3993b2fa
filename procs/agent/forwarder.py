"""All packets between one interface and its peers: by the fast lane where that is up, else as the session has it.

The hot path of plane 3 is here: what the interface has is read, sorted, sealed and sent in one turn of the event loop,
what a datagram socket has is opened, judged and written in another. Flows that are sparse go first, and come first at
the other end. What is more than one turn can carry waits in a queue that is fair (fair_queue.py), since in the
interface's it would wait in line. While the UDP port is full, neither is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from procs.agent import joining
from procs.agent.device import TunDevice
from procs.agent.fair_queue import TURN_BYTES, FairQueue, Frames
from procs.agent.lane import vnet
from procs.agent.lane.lanes import Lanes
from procs.agent.network import Tunnel
from procs.agent.packets import MIN_MTU6
from procs.agent.switch import Switch


class Forwarder:
    """`elsewhere(peer, packets)` sends those of a peer whose lane is not up, and says how many were taken."""

    def __init__(
        self, device: TunDevice, switch: Switch, lanes: Lanes, elsewhere: Callable[[str, list[bytes]], int]
    ) -> None:
        self._device, self._switch, self._lanes, self._elsewhere = device, switch, lanes, elsewhere
        self._is_offloaded, self._joins = False, False
        self._queue = FairQueue()
        self._held: Frames = {}  # what was last sent, as the port was full
        lanes.on_frames, lanes.on_room = self._from_lane, self._has_room

    def start(self) -> None:
        """Read the interface from now on, in the running event loop."""
        if self._device.fd >= 0:
            self._device.start(self._from_interface)

    def tick(self, now: float) -> None:
        """Some ten times a second: lanes go up and down. Segments come as one while any is up: to cut them here costs
        the other planes more than it saves."""
        self._lanes.tick(now)
        if self._lanes.are_up != self._is_offloaded and self._device.fd >= 0:
            self._is_offloaded = not self._is_offloaded
            self._joins = "uso" in self._device.offload(on=self._is_offloaded)

    def from_session(self, peer: str, packets: Sequence[bytes]) -> None:
        """What has come from a peer by any other plane."""
        self._to_interface(peer, joining.iovs(packets))

    def _from_interface(self, frames: list[bytes]) -> bool:
        """Whether some still wait."""
        queue = self._queue
        found, answers = self._switch.sort(frames)
        if answers:
            self._device.write(answers)
        now = time.monotonic()
        sparse, found = queue.part(found, now)
        for peer, its in sparse.items():
            self._to_peer(peer, its, is_sparse=True)
        if queue or sum(map(len, frames)) > TURN_BYTES:
            for peer, lost in queue.add(found).items():
                self._switch.sent(peer, lost, 0)
            found = queue.take(now)
        for peer, its in found.items():
            self._to_peer(peer, its)
        if self._lanes.is_full:
            self._held = found
            self._device.pause()
        return bool(queue)

    def _has_room(self) -> None:
        self._queue.has_left(self._held, time.monotonic())
        self._held = {}
        self.start()

    def _to_peer(self, peer: str, frames: list[bytes], *, is_sparse: bool = False) -> None:
        if self._lanes.is_up(peer):
            self._switch.sent(peer, frames, self._lanes.send(peer, frames, is_sparse=is_sparse))
        else:
            packets = vnet.packets(frames)
            self._switch.sent_packets(peer, packets, self._elsewhere(peer, packets))

    def _from_lane(self, peer: str, frames: Sequence[vnet.Iov]) -> None:
        self._to_interface(peer, joining.datagrams(frames) if self._joins else frames)

    def _to_interface(self, peer: str, frames: Sequence[vnet.Iov]) -> None:
        if self._switch.allowed(peer) and self._device.fd >= 0:
            self._device.write(self._switch.admit(peer, frames))


def least_of(tunnel: Tunnel) -> int:
    """The largest packet that a lane has to carry to be of use: IPv6 has none smaller."""
    return MIN_MTU6 if any(address.version == 6 for address in tunnel.address) else 0
