"""Viewers that cost a bench little: aiortc receives and counts pictures, and decodes none.

python -m tests.bench.watchers go2rtc http://127.0.0.1:1984/api/webrtc?src=omega-0 --count 4
python -m tests.bench.watchers http://127.0.0.1:8000 pi-cam-001 --token TOKEN --count 4
Says `playing` once each has its first pictures, then the number of pictures so far whenever a line comes in.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import queue
import sys
import urllib.request
from typing import Any

import aiortc.rtcrtpreceiver
from aiortc import RTCPeerConnection, RTCSessionDescription

from tests.viewer_minimal import configuration, viewer

FIRST_PICTURES = 10
LIMIT_S = 30.0
_counts: list[list[int]] = []


def _count(
    loop: asyncio.AbstractEventLoop, received: queue.Queue[object], out: asyncio.Queue[object], *_: object
) -> None:
    """In the place of aiortc's thread that decodes."""
    count = [0]
    _counts.append(count)
    while received.get() is not None:
        count[0] += 1
    asyncio.run_coroutine_threadsafe(out.put(None), loop)


async def _of_go2rtc(address: str) -> RTCPeerConnection:
    """One of go2rtc's own."""
    pc = RTCPeerConnection(configuration([]))
    pc.addTransceiver("video", "recvonly")
    await pc.setLocalDescription(await pc.createOffer())
    body = json.dumps({"type": "offer", "sdp": pc.localDescription.sdp}).encode()
    answer = await asyncio.to_thread(_post, address, body)
    await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    return pc


def _post(address: str, body: bytes) -> Any:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as answer:
        return json.loads(answer.read())


def _all_play(count: int) -> bool:
    return len(_counts) == count and min(each[0] for each in _counts) >= FIRST_PICTURES


async def serve(arguments: argparse.Namespace) -> None:
    """Watch until the other side of stdin has gone."""
    async with contextlib.AsyncExitStack() as stack:
        kept: list[object] = []
        for _ in range(arguments.count):
            if arguments.hub == "go2rtc":
                kept.append(await _of_go2rtc(arguments.device))
            else:
                me = await stack.enter_async_context(viewer(arguments.hub, arguments.token))
                kept.append(asyncio.create_task(me.watch(arguments.device)))
        async with asyncio.timeout(LIMIT_S):
            while not _all_play(arguments.count):  # noqa: ASYNC110 - they are counted in other threads
                await asyncio.sleep(0.05)
        print("playing", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(sum(count[0] for count in _counts), flush=True)


def main() -> None:
    """As the words above say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hub")
    parser.add_argument("device")
    parser.add_argument("--token", default="")
    parser.add_argument("--count", type=int, default=1)
    aiortc.rtcrtpreceiver.decoder_worker = _count  # type: ignore[assignment]
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
