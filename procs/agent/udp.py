"""UDP that moves many datagrams a system call: for aioice, in the place of asyncio's own transport, and for the lane.

The kernel cuts what is sent (UDP GSO) and joins what arrives (UDP GRO, udp(7)); where it can't, datagrams go one by
one. What the socket has no room for waits here, up to a bound in bytes; what comes on top is dropped and counted, as
any network does.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import socket
import struct
from asyncio import trsock
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from procs import log

UDP_SEGMENT, UDP_GRO = 103, 104  # linux/udp.h; not in Python's socket module before 3.12
READS_A_WAKE, BYTES_A_WAKE = 64, 1 << 19  # then others have their turn
MAX_JOINED = 64_000  # bytes the kernel cuts in one call, its headers apart
MAX_SEGMENTS = 64
MAX_RUN = 1 << 16  # bytes the kernel joins
WAITING_BYTES = 1 << 20
Address = tuple[str, int]
Ancillary = tuple[int, int, bytes]
_RECORD = b"\x17"  # the first byte of a DTLS record of application data (RFC 7983)
_NO_SEGMENTATION = (errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP)


class Sent(enum.Enum):
    """What has become of datagrams that do not wait. True if they have gone."""

    YES = enum.auto()
    FULL = enum.auto()  # the socket: there will be room
    TOO_BIG = enum.auto()  # for the interface they would leave by
    REFUSED = enum.auto()  # no route, a rule of a firewall

    def __bool__(self) -> bool:
        return self is Sent.YES


class Outlet:
    """Writes to one socket for anybody. `failed(error)` is told of what the socket would not send, `on_room` once it
    was full and nothing waits any more."""

    def __init__(self, sock: socket.socket, failed: Callable[[OSError], object]) -> None:
        self._sock, self._failed = sock, failed
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, Address, Sequence[Ancillary]]] = deque()
        self.waiting_bytes = 0
        self._can_segment, self._is_full = True, False
        self.on_room: Callable[[], object] = lambda: None
        self.dropped = 0

    def send(self, data: bytes, step: int, to: Address, source: Sequence[Ancillary] = ()) -> int:
        """Send datagrams of `step` bytes that lie behind each other; the last may be shorter. How many were taken: they
        have gone, or wait. `source` says where from, in the terms of ip(7) and ipv6(7)."""
        most = step * min(MAX_SEGMENTS, max(1, MAX_JOINED // step))
        taken = 0
        for start in range(0, len(data), most):
            run = data[start : start + most] if len(data) > most else data
            if len(run) > step and not self._waiting and self._cut(run, step, to, source):
                taken += -(-len(run) // step)
            else:
                taken += sum(self._one(run[at : at + step], to, source) for at in range(0, len(run), step))
        return taken

    def send_now(self, data: bytes, step: int, to: Address, ancillary: Sequence[Ancillary] = ()) -> Sent:
        """Send these, which are few enough for one call, or nothing: they never wait, and those that do go first."""
        if self._is_full:
            return Sent.FULL
        if len(data) > step and (sent := self._cut(data, step, to, ancillary)) in (Sent.YES, Sent.FULL):
            return sent
        for at in range(0, len(data), step):
            if not (sent := self._try(data[at : at + step], to, ancillary)):
                if not at:
                    return sent
                self.dropped += -(-(len(data) - at) // step)  # to have all sent again would send some twice
                break
        return Sent.YES

    def forget(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()
        self.waiting_bytes = 0
        self._emptied()

    def _cut(self, run: bytes, step: int, to: Address, source: Sequence[Ancillary]) -> Sent:
        """Have the kernel cut and send them."""
        if not self._can_segment:
            return Sent.REFUSED
        return self._try(run, to, [*source, (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", step))])

    def _try(self, data: bytes, to: Address, ancillary: Sequence[Ancillary]) -> Sent:
        try:
            self._sock.sendmsg([data], ancillary, 0, to)
        except (BlockingIOError, InterruptedError):
            if not self._is_full:
                self._is_full = True
                self._loop.add_writer(self._sock.fileno(), self._write)
            return Sent.FULL
        except OSError as error:
            if error.errno in _NO_SEGMENTATION and self._can_segment:
                log.info("no UDP segmentation here", why=str(error))
                self._can_segment = False
            self._error = error
            return Sent.TOO_BIG if error.errno == errno.EMSGSIZE else Sent.REFUSED
        return Sent.YES

    def _one(self, datagram: bytes, to: Address, source: Sequence[Ancillary]) -> bool:
        """Whether the socket took it, or it waits."""
        if not self._waiting:
            sent = self._try(datagram, to, source)
            if sent is not Sent.FULL:
                if not sent:
                    self.dropped += 1
                    self._failed(self._error)
                return bool(sent)
        if self.waiting_bytes + len(datagram) > WAITING_BYTES:
            self.dropped += 1
            return False
        self._waiting.append((datagram, to, source))
        self.waiting_bytes += len(datagram)
        return True

    def _write(self) -> None:
        """There is room again."""
        while self._waiting:
            datagram, to, source = self._waiting[0]
            sent = self._try(datagram, to, source)
            if sent is Sent.FULL:
                return
            if not sent:
                self._failed(self._error)
            self._waiting.popleft()
            self.waiting_bytes -= len(datagram)
        self._emptied()
        self.on_room()

    def _emptied(self) -> None:
        if self._is_full:
            self._is_full = False
            self._loop.remove_writer(self._sock.fileno())


Arrived = tuple[int, int, Any, list[Ancillary]]


def arrived(
    sock: socket.socket, buffer: memoryview, ancillary_bytes: int = 0, most: int = READS_A_WAKE
) -> Iterator[Arrived]:
    """What has come, run by run, each at the beginning of `buffer`: its size, that of all its datagrams but the last,
    from whom, and what else of it there was room for in `ancillary_bytes`. Ends when that was all, or when others are
    to have their turn. Raises OSError for an ICMP error that a datagram of ours has met."""
    left, space = BYTES_A_WAKE, ancillary_bytes + socket.CMSG_SPACE(4)
    for _ in range(most):
        try:
            size, ancillary, _, sender = sock.recvmsg_into([buffer], space)
        except (BlockingIOError, InterruptedError):
            return
        step = size
        for level, kind, value in ancillary:
            if kind == UDP_GRO and level == socket.IPPROTO_UDP:
                step = int.from_bytes(value[:4], "little")
        yield size, step, sender, ancillary
        left -= size
        if left < 0:
            return


def joins(sock: socket.socket) -> None:
    """Have the kernel join what comes to this one; an older one hands it over one by one."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)


class BatchTransport(asyncio.DatagramTransport):
    """What aioice and dtls.py have of a local address: a UDP socket of its own, or its part of one that many share. If
    `on_records` is set, it gets the DTLS records of application data, all that came together; nothing needs to look
    for STUN in those."""

    def __init__(self, protocol: asyncio.DatagramProtocol, extra: dict[str, Any]) -> None:
        super().__init__(extra)
        self._protocol = protocol
        self.on_records: Callable[[list[bytes]], None] | None = None
        self.unreadable = 0  # datagrams that have come

    def send_cut(self, data: bytes, step: int, to: Address) -> int:
        """Send datagrams of `step` bytes that lie behind each other; the last may be shorter. How many were taken."""
        raise NotImplementedError

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram."""
        self.send_cut(bytes(data), len(data), addr)

    def _sort(self, datagrams: list[bytes], sender: Address, records: list[bytes]) -> None:
        """Add records to those, and hand the rest over."""
        for datagram in datagrams:
            if self.on_records and datagram[:1] == _RECORD:
                records.append(datagram)
            else:
                self._hand(datagram, sender)

    def _hand(self, datagram: bytes, sender: Address) -> None:
        try:
            self._protocol.datagram_received(datagram, sender)
        except Exception as error:  # aioice's parser raises whatever comes to it, and anybody can send here
            self.unreadable += 1
            log.debug("a datagram that is not understood", why=f"{type(error).__name__}: {error}")


class UdpTransport(BatchTransport):
    """Reads a bound, non-blocking UDP socket for a protocol, and writes for anybody."""

    def __init__(self, sock: socket.socket, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__(protocol, {"socket": trsock.TransportSocket(sock), "sockname": sock.getsockname()})
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._outlet = Outlet(sock, protocol.error_received)
        self._outlet.on_room = self._emptied
        self._buffer = memoryview(bytearray(MAX_RUN))
        self._closing = False
        joins(sock)
        protocol.connection_made(self)
        self._loop.add_reader(sock.fileno(), self._read)

    @property
    def dropped(self) -> int:
        """Datagrams on the way out."""
        return self._outlet.dropped

    def _read(self) -> None:
        records: list[bytes] = []
        try:
            for size, step, sender, _ in arrived(self._sock, self._buffer):
                if not size:
                    self.unreadable += 1
                    continue  # anybody can send one, and aiortc ends the session of who gets it
                joined = bytes(self._buffer[:size])
                cut = [joined] if step >= size else [joined[at : at + step] for at in range(0, size, step)]
                self._sort(cut, sender, records)
                if self._closing:
                    break
        except OSError as error:  # an ICMP error that a datagram of ours has met
            self._protocol.error_received(error)
        if records and self.on_records:
            self.on_records(records)

    def send_cut(self, data: bytes, step: int, to: Address) -> int:
        """As above."""
        return 0 if self._closing or not data else self._outlet.send(data, step, to)

    # --- what asyncio asks of a transport -------------------------------------------------------------

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for room in the socket."""
        return self._outlet.waiting_bytes

    def is_closing(self) -> bool:
        """Whether it has been closed."""
        return self._closing

    def close(self) -> None:
        """Read no more; what waits is still sent."""
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._sock.fileno())
            if not self._outlet.waiting_bytes:
                self._loop.call_soon(self._end)

    def abort(self) -> None:
        """Close, and forget what waits."""
        if self._outlet.waiting_bytes:
            self._outlet.forget()
            if self._closing:
                self._loop.call_soon(self._end)
        self.close()

    def _emptied(self) -> None:
        if self._closing:
            self._end()

    def _end(self) -> None:
        self._outlet.forget()
        self._protocol.connection_lost(None)
        self._sock.close()
