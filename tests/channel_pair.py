"""Two connected RTCPeerConnections in one process, over loopback, with our sockets and one data channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiortc import RTCConfiguration, RTCDataChannel, RTCDtlsTransport, RTCPeerConnection

from procs.agent import ice

LIMIT_S = 10.0


class Side(NamedTuple):
    """One end."""

    connection: RTCPeerConnection
    channel: RTCDataChannel

    @property
    def dtls(self) -> RTCDtlsTransport:
        """Its DTLS transport."""
        assert self.connection.sctp is not None
        return self.connection.sctp.transport


@asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[tuple[Side, Side]]:
    """Both ends, until the end of the test. `options` are those of the channel."""
    here, there = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    arrived: asyncio.Future[RTCDataChannel] = asyncio.get_running_loop().create_future()
    there.on("datachannel", arrived.set_result)
    opened = asyncio.Event()
    channel = here.createDataChannel("test", **options)
    channel.on("open", opened.set)
    try:
        async with asyncio.timeout(LIMIT_S):
            _prepare(here)
            await here.setLocalDescription(await here.createOffer())
            await there.setRemoteDescription(here.localDescription)
            _prepare(there)
            await there.setLocalDescription(await there.createAnswer())
            await here.setRemoteDescription(there.localDescription)
            await opened.wait()
            far = await arrived
        yield Side(here, channel), Side(there, far)
    finally:
        await asyncio.gather(here.close(), there.close())


def _prepare(connection: RTCPeerConnection) -> None:
    assert connection.sctp is not None
    ice.prepare(connection.sctp.transport.transport.iceGatherer._connection, (20000, 40000))
