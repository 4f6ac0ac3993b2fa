"""A UDP socket for aioice that moves many datagrams a system call, in the place of asyncio's own transport.

The kernel cuts what is sent (UDP GSO) and joins what arrives (UDP GRO, udp(7)); where it can't, datagrams go one by
one. What the socket has no room for waits here, up to a bound in bytes; what comes on top is dropped and counted, as
any network does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from asyncio import trsock
from collections import deque
from collections.abc import Callable
from typing import Any

from procs import log

UDP_SEGMENT, UDP_GRO = 103, 104  # linux/udp.h; not in Python's socket module before 3.12
READS_A_WAKE, BYTES_A_WAKE = 64, 1 << 19  # then others have their turn
MAX_JOINED = 64_000  # bytes the kernel cuts in one call, its headers apart
MAX_SEGMENTS = 64
WAITING_BYTES = 1 << 20
Address = tuple[str, int]
_ANCILLARY_BYTES = socket.CMSG_SPACE(4)
_RECORD = b"\x17"  # the first byte of a DTLS record of application data (RFC 7983)


class UdpTransport(asyncio.DatagramTransport):
    """Reads a bound, non-blocking UDP socket for a protocol, and writes for anybody. If `on_records` is set, it gets
    the DTLS records of application data, all that came together; nothing needs to look for STUN in those."""

    def __init__(self, sock: socket.socket, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__({"socket": trsock.TransportSocket(sock), "sockname": sock.getsockname()})
        self._sock, self._protocol = sock, protocol
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, Address]] = deque()
        self._waiting_bytes = 0
        self._buffer = memoryview(bytearray(1 << 16))
        self._can_segment, self._closing = True, False
        self.on_records: Callable[[list[bytes]], None] | None = None
        self.dropped = 0  # on the way out
        self.unreadable = 0  # that have come
        with contextlib.suppress(OSError):  # an older kernel: one by one
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        protocol.connection_made(self)
        self._loop.add_reader(sock.fileno(), self._read)

    # --- in -------------------------------------------------------------------------------------------

    def _read(self) -> None:
        records: list[bytes] = []
        try:
            self._read_all(records)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:  # an ICMP error that a datagram of ours has met
            self._protocol.error_received(error)
        if records and self.on_records:
            self.on_records(records)

    def _read_all(self, records: list[bytes]) -> None:
        """Raises BlockingIOError when that was all."""
        buffer, left = self._buffer, BYTES_A_WAKE
        for _ in range(READS_A_WAKE):
            size, ancillary, _, sender = self._sock.recvmsg_into([buffer], _ANCILLARY_BYTES)
            if not size:
                self.unreadable += 1
                continue  # anybody can send one, and aiortc ends the session of who gets it
            step = int.from_bytes(ancillary[0][2][:4], "little") if ancillary else size
            joined = bytes(buffer[:size])
            for datagram in [joined] if step >= size else [joined[at : at + step] for at in range(0, size, step)]:
                if self.on_records and datagram[:1] == _RECORD:
                    records.append(datagram)
                else:
                    self._hand(datagram, sender)
            left -= size
            if left < 0 or self._closing:
                return

    def _hand(self, datagram: bytes, sender: Address) -> None:
        try:
            self._protocol.datagram_received(datagram, sender)
        except Exception as error:  # aioice's parser raises whatever comes to it, and anybody can send here
            self.unreadable += 1
            log.debug("a datagram that is not understood", why=f"{type(error).__name__}: {error}")

    # --- out ------------------------------------------------------------------------------------------

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram."""
        self.send_cut(bytes(data), len(data), addr)

    def send_cut(self, data: bytes, step: int, to: Address) -> int:
        """Send datagrams of `step` bytes that lie behind each other; the last may be shorter. How many were taken."""
        if self._closing or not data:
            return 0
        most = step * min(MAX_SEGMENTS, max(1, MAX_JOINED // step))
        taken = 0
        for start in range(0, len(data), most):
            taken += self._out(data[start : start + most] if len(data) > most else data, step, to)
        return taken

    def _out(self, data: bytes, step: int, to: Address) -> int:
        if len(data) > step and not self._waiting and self._can_segment:
            try:
                self._sock.sendmsg([data], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", step))], 0, to)
                return -(-len(data) // step)
            except (BlockingIOError, InterruptedError):
                pass  # they wait below
            except OSError as error:
                # These two say that this path is too narrow for the size; others, that there is no segmentation at all.
                if error.errno not in (errno.EINVAL, errno.EMSGSIZE):
                    log.info("no UDP segmentation here", why=str(error))
                    self._can_segment = False
        return sum(self._one(data[start : start + step], to) for start in range(0, len(data), step))

    def _one(self, datagram: bytes, to: Address) -> bool:
        """Whether the socket took it, or it waits."""
        if not self._waiting:
            try:
                self._sock.sendto(datagram, to)
                return True
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock.fileno(), self._write)
            except OSError as error:
                self.dropped += 1
                self._protocol.error_received(error)
                return False
        if self._waiting_bytes + len(datagram) > WAITING_BYTES:
            self.dropped += 1
            return False
        self._waiting.append((datagram, to))
        self._waiting_bytes += len(datagram)
        return True

    def _write(self) -> None:
        """There is room again."""
        while self._waiting:
            datagram, to = self._waiting[0]
            try:
                self._sock.sendto(datagram, to)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._protocol.error_received(error)
            self._waiting.popleft()
            self._waiting_bytes -= len(datagram)
        self._loop.remove_writer(self._sock.fileno())
        if self._closing:
            self._end()

    # --- what asyncio asks of a transport -------------------------------------------------------------

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for room in the socket."""
        return self._waiting_bytes

    def is_closing(self) -> bool:
        """Whether it has been closed."""
        return self._closing

    def close(self) -> None:
        """Read no more; what waits is still sent."""
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._sock.fileno())
            if not self._waiting:
                self._loop.call_soon(self._end)

    def abort(self) -> None:
        """Close, and forget what waits."""
        if self._waiting:
            self._loop.remove_writer(self._sock.fileno())
            self._waiting.clear()
            if self._closing:
                self._loop.call_soon(self._end)
        self.close()

    def _end(self) -> None:
        self._protocol.connection_lost(None)
        self._sock.close()
