"""An end as aiortc comes, on asyncio: python -m tests.bench.plain_end offer|answer [INTERFACE ADDRESS MTU]

With an interface it is a tunnel of one packet a message, else a channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_interface

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from procs.agent import tun
from procs.agent.lane import vnet
from procs.agent.network import Tunnel
from procs.agent.packing import OPTIONS
from tests.bench import ends
from tests.bench.ends import HIGH_BYTES, LOW_BYTES, OFFER, Lines


async def main(lines: Lines, words: list[str]) -> None:
    """A connection, and what it is for."""
    role, *interface = words
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    channel = await _opened(lines, connection, offers=role == OFFER, is_tunnel=bool(interface))
    channel.bufferedAmountLowThreshold = LOW_BYTES
    if interface:
        _carry(channel, *interface)
    await ends.measure(lines, channel, offers=role == OFFER)


async def _opened(lines: Lines, connection: RTCPeerConnection, *, offers: bool, is_tunnel: bool) -> RTCDataChannel:
    opened: asyncio.Future[RTCDataChannel] = asyncio.get_running_loop().create_future()
    if offers:
        channel = connection.createDataChannel("bench", **(OPTIONS if is_tunnel else {}))
        channel.on("open", lambda: opened.set_result(channel))
    else:
        connection.on("datachannel", opened.set_result)
        await _take(lines, connection)
    await connection.setLocalDescription()
    lines.say({"type": connection.localDescription.type, "sdp": connection.localDescription.sdp})
    if offers:
        await _take(lines, connection)
    return await opened


async def _take(lines: Lines, connection: RTCPeerConnection) -> None:
    said = await lines.frames.get()
    await connection.setRemoteDescription(RTCSessionDescription(said["sdp"], said["type"]))


def _carry(channel: RTCDataChannel, name: str, address: str, mtu: str) -> None:
    """As long as aiortc's queue is short: without that bound it is slower still."""
    tunnel = Tunnel(interface=name, address=(ip_interface(address),), mtu=int(mtu))
    device, _ = tun.claim(tunnel, "planaria bench")

    def send(frames: Sequence[bytes]) -> None:
        for packet in vnet.packets(frames):
            if channel.bufferedAmount < HIGH_BYTES:
                channel.send(packet)

    device.start(send)
    channel.on("message", lambda message: device.write([[vnet.PLAIN + message]]))


if __name__ == "__main__":
    ends.run(main, asyncio.new_event_loop)
