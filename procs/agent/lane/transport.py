"""An ICE connection's part of a way: a transport for each of our addresses, in the place of sockets."""

from __future__ import annotations

import asyncio

from procs.agent.lane.way import Address, Way
from procs.agent.udp import BatchTransport


class Riding:
    """One connection on a way, by its username fragment. When the last of its transports is closed, the way is told to
    forget it."""

    def __init__(self, way: Way, ufrag: str) -> None:
        self.way, self.ufrag = way, ufrag
        self._transports: dict[str, WayTransport] = {}
        way.expect(ufrag, self._take)

    def add(self, local: str, protocol: asyncio.DatagramProtocol) -> None:
        """That protocol has this address of ours."""
        self._transports[local] = WayTransport(self, local, protocol)

    def closed(self, local: str) -> None:
        """The transport of that address is."""
        self._transports.pop(local, None)
        if not self._transports:
            self.way.forget(self.ufrag)

    def _take(self, local: str, sender: Address, datagrams: list[bytes]) -> None:
        if transport := self._transports.get(local):  # else it came to one that we have told nobody, such as a tunnel's
            transport.take(sender, datagrams)


class WayTransport(BatchTransport):
    """One address of ours at the port."""

    def __init__(self, riding: Riding, local: str, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__(protocol, {"sockname": (local, riding.way.number)})
        self._riding, self._local = riding, local
        self._closing = False
        protocol.connection_made(self)

    def take(self, sender: Address, datagrams: list[bytes]) -> None:
        """This has come."""
        records: list[bytes] = []
        self._sort(datagrams, sender, records)
        if records and self.on_records:
            self.on_records(records)

    def send_cut(self, data: bytes, step: int, to: Address) -> int:
        """As above."""
        return (
            0 if self._closing or not data else self._riding.way.send(self._riding.ufrag, self._local, to, data, step)
        )

    def get_write_buffer_size(self) -> int:
        """What waits does so at the port."""
        return 0

    def is_closing(self) -> bool:
        """Whether it has been closed."""
        return self._closing

    def close(self) -> None:
        """The connection does not use it any more."""
        if not self._closing:
            self._closing = True
            self._riding.closed(self._local)
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """The same."""
        self.close()
