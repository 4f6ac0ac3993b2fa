"""One end of a pair of agents for the benches: python -m tests.bench.peer_end KIND offer|answer [TUN_FD]

KIND is records or packed, which are planes 2 and 1, ours, which is a channel as our agents have it, or plain: aiortc as
it comes. Descriptions go out and come in as lines of JSON. With a TUN, which is there already and set up, the end is a
tunnel; without, the side that offers measures what it is told to. At the end of stdin it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvloop
from aiortc import RTCConfiguration, RTCDataChannel, RTCDtlsTransport, RTCPeerConnection, RTCSessionDescription

from procs import prctl
from procs.agent import ice
from procs.agent.dtls import Dtls
from procs.agent.packing import OPTIONS, Packing
from procs.agent.records import Records

BATCH, BATCH_BYTES = 64, 1 << 17  # of packets read at once
HIGH_WATER = 1 << 18
MESSAGE = bytes(16 * 1024)
PING = b"p" * 64


# --- a tunnel -----------------------------------------------------------------------------------------


def read(tun: int) -> list[bytes]:
    """What the kernel has for us."""
    packets: list[bytes] = []
    left = BATCH_BYTES
    with contextlib.suppress(BlockingIOError):
        while left > 0 and len(packets) < BATCH:
            packets += (os.read(tun, 65600),)
            left -= len(packets[-1])
    return packets


def write(tun: int, packets: Sequence[bytes]) -> None:
    """Give packets to the kernel."""
    for packet in packets:
        try:
            os.write(tun, packet)
        except OSError:
            continue


def carried(tun: int, plane: Records | Packing) -> Callable[[], object]:
    """A plane of ours, and the interface."""
    plane.on_packets = lambda packets: write(tun, packets)
    return lambda: plane.send(read(tun))


def plainly(tun: int, channel: RTCDataChannel) -> Callable[[], object]:
    """One packet a message, as long as aiortc's queue is short: without that bound it is slower still."""
    channel.on("message", lambda message: write(tun, [message]))

    def send() -> None:
        for packet in read(tun):
            if channel.bufferedAmount < HIGH_WATER:
                channel.send(packet)

    return send


def tunnel(kind: str, tun: int, dtls: RTCDtlsTransport, channel: RTCDataChannel) -> None:
    """Packets go both ways from now on."""
    os.set_blocking(tun, False)
    if kind == "plain":
        send = plainly(tun, channel)
    else:
        records = Records(dtls)
        send = carried(tun, records if kind == "records" else Packing(channel))
    asyncio.get_running_loop().add_reader(tun, send)


# --- a channel ----------------------------------------------------------------------------------------


def answer(channel: RTCDataChannel) -> None:
    """Send pings back, and say how much has come of the rest since it was asked last."""
    came = 0

    def message(text: bytes | str) -> None:
        nonlocal came
        if isinstance(text, str):
            channel.send(str(came))
            came = 0
        elif len(text) == len(PING):
            channel.send(text)
        else:
            came += len(text)

    channel.on("message", message)


async def bulk(channel: RTCDataChannel, seconds: float) -> float:
    """Mbit/s that came to the other side, until the last byte."""
    came: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    room = asyncio.Event()
    channel.bufferedAmountLowThreshold = HIGH_WATER // 2
    channel.on("bufferedamountlow", room.set)
    channel.once("message", came.set_result)
    since_s, sent = time.monotonic(), 0
    while time.monotonic() - since_s < seconds:
        while channel.bufferedAmount < HIGH_WATER:
            channel.send(MESSAGE)
            sent += len(MESSAGE)
        room.clear()
        await room.wait()
    channel.send("how much?")
    assert int(await came) == sent, "a reliable channel has lost something"
    return sent * 8e-6 / (time.monotonic() - since_s)


async def pings(channel: RTCDataChannel, count: int) -> list[float]:
    """Round trips in microseconds."""
    back: asyncio.Queue[Any] = asyncio.Queue()
    channel.on("message", back.put_nowait)
    took = []
    for _ in range(count):
        since_s = time.perf_counter()
        channel.send(PING)
        await back.get()
        took.append((time.perf_counter() - since_s) * 1e6)
    channel.remove_listener("message", back.put_nowait)
    return took


# --- both ---------------------------------------------------------------------------------------------


async def connect(lines: asyncio.StreamReader, *, plain: bool, offers: bool, **options: Any) -> tuple[Any, Any]:
    """A DTLS transport, and a channel that is open."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    opened: asyncio.Future[RTCDataChannel] = asyncio.get_running_loop().create_future()
    if offers:
        channel = connection.createDataChannel("bench", **options)
        channel.on("open", lambda: opened.set_result(channel))
    else:
        connection.on("datachannel", opened.set_result)
        await connection.setRemoteDescription(await described(lines))
    assert connection.sctp
    dtls = connection.sctp.transport
    if not plain:
        ice.prepare(dtls.transport.iceGatherer._connection, (20000, 60000))
    await connection.setLocalDescription()
    ours = connection.localDescription
    print(json.dumps({"type": ours.type, "sdp": ours.sdp}), flush=True)
    if offers:
        await connection.setRemoteDescription(await described(lines))
    return dtls, await opened


async def described(lines: asyncio.StreamReader) -> RTCSessionDescription:
    """What the other side says."""
    said = json.loads(await lines.readline())
    return RTCSessionDescription(said["sdp"], said["type"])


async def main(kind: str, *, offers: bool, tun: int | None) -> None:
    """Until nobody asks any more."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    options = {} if tun is None else OPTIONS
    dtls, channel = await connect(lines, plain=kind == "plain", offers=offers, **options)
    if tun is not None:
        tunnel(kind, tun, dtls, channel)
    elif kind != "plain":
        Dtls(dtls, lambda texts: None)
    if not offers and tun is None:
        answer(channel)
    print(json.dumps("ready"), flush=True)
    while line := await lines.readline():
        what, much = json.loads(line)
        print(json.dumps(await (bulk if what == "bulk" else pings)(channel, much)), flush=True)


if __name__ == "__main__":
    prctl.bind_to_parent()
    which, role, *rest = sys.argv[1:]
    loops = asyncio.new_event_loop if which == "plain" else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(main(which, offers=role == "offer", tun=int(rest[0]) if rest else None))
