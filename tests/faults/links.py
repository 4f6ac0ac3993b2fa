"""A TCP connection that goes bad: a proxy that delays, slices, swallows and resets."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

from procs.kinds import Address

_PIECE = 65536
_LOOK_EVERY_S = 0.01


class Link:
    """A way to an address, over `here`. Each fault may be set and taken back while connections are open."""

    def __init__(self, to: Address) -> None:
        self._to = to
        self.delay_s = 0.0
        """Each piece arrives so much later."""
        self.slice_bytes = _PIECE
        """The largest piece that is passed on at once."""
        self.is_black_hole = False
        """Nothing arrives, and nobody is told."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.here = Address("127.0.0.1", self._listener.getsockname()[1])
        self._ends: set[socket.socket] = set()
        self._reset: set[socket.socket] = set()
        self._over = False
        self._start(self._accept)

    @staticmethod
    def _start(target: Callable[..., None], *arguments: socket.socket) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the end
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection((self._to.host, self._to.port), timeout=5)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                self._ends |= {client, server}
                self._start(self._pump, client, server)
                self._start(self._pump, server, client)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                time.sleep(self.delay_s)
                while data:
                    while self.is_black_hole and not self._over:
                        time.sleep(_LOOK_EVERY_S)
                    target.sendall(data[: self.slice_bytes])
                    data = data[self.slice_bytes :]
        for end in {source, target} - self._reset:  # whose peer must not be told of an orderly end
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Each open connection ends with RST, at both ends."""
        ends = self._ends - self._reset
        self._reset |= ends
        for end in ends:
            _disconnect(end)

    def close(self) -> None:
        """The end, for all connections."""
        self._over = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _disconnect(end: socket.socket) -> None:
    """Connect it to nobody (connect(2), AF_UNSPEC), which sends RST at once; close() would wait for the thread that
    reads it."""
    nobody = struct.pack("H14x", socket.AF_UNSPEC)
    ctypes.CDLL(None).connect(end.fileno(), nobody, len(nobody))


@contextlib.contextmanager
def lossy(to: Address) -> Iterator[Link]:
    """A link to an address, good until something is set on it."""
    link = Link(to)
    try:
        yield link
    finally:
        link.close()
