"""Where one viewer's packets leave: a socket of its child's, in the leader's hand.

It is the UDP socket that ICE has found a way through; or, where that is a relay's, one whose other end the child reads
and hands to its TURN client (handover.py).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence

UDP_SEGMENT = 103  # linux/udp.h; not in Python's socket module before 3.12
_SIZE = struct.Struct("H")


class Gate:
    """Sends to one address; None where the other end of the socket knows it."""

    def __init__(self, sock: socket.socket, to: tuple[str, int] | None) -> None:
        sock.setblocking(False)
        self._sock, self._to = sock, to
        self._can_cut = to is not None

    def send(self, datagrams: Sequence[memoryview]) -> int:
        """Send these, those of one size in one call, which the kernel cuts (UDP GSO). How many of them were taken: for
        the others there is no room just now."""
        taken = 0
        for run in _runs(datagrams):
            of_these = self._send(run)
            taken += of_these
            if of_these < len(run):
                break
        return taken

    def close(self) -> None:
        """The child has its own end, and what it is connected to."""
        self._sock.close()

    def _send(self, run: list[memoryview]) -> int:
        if len(run) > 1 and self._can_cut:
            try:
                cut = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SIZE.pack(len(run[0])))]
                self._sock.sendmsg(run, cut, 0, self._to)
                return len(run)
            except BlockingIOError:
                return 0
            except OSError as error:
                # These two say that this path is too narrow for the size; others, that there is no segmentation at all.
                self._can_cut = error.errno in (errno.EINVAL, errno.EMSGSIZE)
        for at, datagram in enumerate(run):
            try:
                self._sock.sendto(datagram, self._to) if self._to else self._sock.send(datagram)
            except BlockingIOError:
                return at
            except OSError:  # no route just now, or a firewall: it is lost, as in any network
                pass
        return len(run)


def _runs(datagrams: Sequence[memoryview]) -> list[list[memoryview]]:
    """Cut into what the kernel can take at once: all of one size but the last, which may be shorter."""
    runs: list[list[memoryview]] = []
    size = 0
    for datagram in datagrams:
        if len(datagram) > size:
            runs.append([])
            size = len(datagram)
        runs[-1].append(datagram)
        if len(datagram) < size:
            size = 0  # this one was the last
    return runs
