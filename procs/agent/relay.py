"""The way into a TURN client. One by TCP takes whatever it gets, and all of it would stand before a slow path for
seconds: in it, and in the kernel. So both get little at a time, and the rest waits here, no longer than it is worth
(aging.py).

Private names of aioice 0.13, as in ice.py.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from typing import Any

from aioice.turn import TurnClientTcpProtocol, TurnTransport

from procs.agent.aging import Aging
from procs.agent.udp import Address, BatchTransport

UNSENT_BYTES = 8 << 10  # in the kernel, of which a path is not waiting yet
HANDED_BYTES = 8 << 10  # in the client: with those, a fifth of a second at 1 Mbit/s
WAITING_BYTES = 768 << 10  # here
_TCP_NOTSENT_LOWAT = 25  # of linux/tcp.h, which Python 3.11 lacks
_CHANNEL = struct.Struct("!HH")


class RelayTransport(BatchTransport):
    """In the place of aioice's, of an allocation. What is `sendto` goes at once (STUN, media); the records of a DTLS
    session wait for their turn."""

    def __init__(self, below: TurnTransport, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__(protocol, {})
        self._below = below
        self._client: Any = below._TurnTransport__inner_protocol  # type: ignore[attr-defined]
        self._waiting: deque[tuple[bytes, Address]] = deque()
        self._bytes, self._lost = 0, 0
        self._aging = Aging()
        self._is_full = False
        self._client.pause_writing, self._client.resume_writing = self._full, self._has_room
        if isinstance(self._client, TurnClientTcpProtocol):
            self._client.transport.set_write_buffer_limits(high=HANDED_BYTES)
            if sock := self._client.transport.get_extra_info("socket"):
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As aioice has it."""
        return self._below.get_extra_info(name, default)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram before all that wait."""
        self._below.sendto(data, addr)

    def send_cut(self, data: bytes, step: int, to: Address) -> int:
        """As BatchTransport has it. Those that have waited for too long since it was asked last count as not taken."""
        now, taken = time.monotonic(), 0
        for start in range(0, len(data), step):
            if self._bytes >= WAITING_BYTES:
                break
            datagram = data[start : start + step]
            self._waiting.append((datagram, to))
            self._bytes += len(datagram)
            self._aging.add(datagram, 1, now)
            taken += 1
        self._go()
        lost = min(self._lost, taken)
        self._lost -= lost
        return taken - lost

    def close(self) -> None:
        """As aioice has it."""
        self._waiting.clear()
        self._below.close()

    def let_go(self) -> None:
        """Close without a word of the TURN server: aioice waits for one for a minute, in which it holds a socket."""
        sending: set[asyncio.Task[None]] = self._below._TurnTransport__send_tasks  # type: ignore[attr-defined]
        leaving: asyncio.Task[None] | None = self._below._TurnTransport__close_task  # type: ignore[attr-defined]
        for task in (*sending, *([leaving] if leaving else [])):
            task.cancel()

    def _full(self) -> None:
        self._is_full = True

    def _has_room(self) -> None:
        self._is_full = False
        self._go()

    def _go(self) -> None:
        for datagram, _ in self._aging.stale(self._bytes, time.monotonic()):
            self._waiting.popleft()
            self._bytes -= len(datagram)
            self._lost += 1
        while self._waiting and not self._is_full:
            datagram, to = self._waiting.popleft()
            self._bytes -= len(datagram)
            self._hand_over(datagram, to)

    def _hand_over(self, datagram: bytes, to: Address) -> None:
        """Now, where there is a channel already: aioice does it in a task of each datagram's own, by which nobody can
        tell how much there is."""
        client = self._client
        channel = client.peer_to_channel.get(to)
        if channel is None or time.time() > client.channel_refresh_at[channel]:
            self._below.sendto(datagram, to)
        elif not client.transport.is_closing():
            client._send(_CHANNEL.pack(channel, len(datagram)) + datagram)
