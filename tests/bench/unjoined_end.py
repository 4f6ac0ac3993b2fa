"""tests.bench.our_end on a kernel that neither cuts datagrams nor joins them: UDP_SEGMENT and UDP_GRO fail as there."""

from __future__ import annotations

import errno
import runpy
import socket
from typing import Any

UDP_SEGMENT, UDP_GRO = 103, 104


class Plain(socket.socket):
    """Of such a kernel."""

    def setsockopt(self, level: int, name: int, *value: Any) -> None:
        """Know nothing of those two."""
        if level == socket.IPPROTO_UDP and name in (UDP_SEGMENT, UDP_GRO):
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        super().setsockopt(level, name, *value)

    def sendmsg(self, buffers: Any, ancillary: Any = (), *rest: Any) -> int:
        """What an interface without checksums in hardware says to datagrams that are to be cut."""
        if any((level, name) == (socket.IPPROTO_UDP, UDP_SEGMENT) for level, name, _ in ancillary):
            raise OSError(errno.EIO, "Input/output error")
        return super().sendmsg(buffers, ancillary, *rest)


if __name__ == "__main__":
    socket.socket = Plain  # type: ignore[misc]
    runpy.run_module("tests.bench.our_end", run_name="__main__")
