"""An agent written from the published signalling protocol alone: aiortc, websockets, JSON. It knows nothing of ours.

As a program it calls a peer and says what its standard input has, line by line, or waits to be called; what it hears
it prints. So it can be put into a network namespace, frozen or killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiortc import RTCConfiguration, RTCDataChannel, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp
from websockets.asyncio.client import ClientConnection, connect

PING_S = 30.0


class Minimal:
    """One agent. `heard`: what came on its channels, as (peer, message); `errors`: what the server said was wrong."""

    def __init__(self, ws: ClientConnection, name: str, ice: tuple[str, ...] = (), label: str = "mvp") -> None:
        self.name, self.ws, self._label = name, ws, label
        self._ice = RTCConfiguration([RTCIceServer(url) for url in ice])
        self.peers: dict[str, RTCPeerConnection] = {}
        self.channels: dict[str, RTCDataChannel] = {}
        self.opened = asyncio.Event()
        self.heard: asyncio.Queue[tuple[str, str | bytes]] = asyncio.Queue()
        self.errors: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def call(self, peer: str) -> None:
        """Offer a connection with a channel on it."""
        pc = self._new(peer)
        self._open(peer, pc.createDataChannel(self._label))
        await pc.setLocalDescription(await pc.createOffer())
        await self._say("offer", to=peer, sdp=pc.localDescription.sdp)

    async def say(self, peer: str, message: str | bytes) -> None:
        """Send something, once there is a channel."""
        await self.opened.wait()
        self.channels[peer].send(message)

    async def serve(self) -> None:
        """Take what the server sends, for as long as it does."""
        async for text in self.ws:
            frame = json.loads(text)
            match frame["type"]:
                case "offer":
                    await self._answer(frame["from"], frame["sdp"])
                case "answer":
                    await self.peers[frame["from"]].setRemoteDescription(RTCSessionDescription(frame["sdp"], "answer"))
                case "candidate":
                    await self._candidate(frame["from"], frame["candidate"])
                case "error":
                    self.errors.put_nowait(frame)
                case "bye" if pc := self.peers.pop(frame["from"], None):
                    await pc.close()
                case "ping":
                    await self.ws.send('{"type": "pong"}')

    async def ping(self) -> None:
        """As the published agent does."""
        while True:
            await asyncio.sleep(PING_S)
            await self.ws.send('{"type": "ping"}')

    async def _answer(self, peer: str, sdp: str) -> None:
        pc = self._new(peer)
        pc.on("datachannel", lambda channel: self._open(peer, channel))
        await pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        await self._say("answer", to=peer, sdp=pc.localDescription.sdp)

    async def _candidate(self, peer: str, said: dict[str, Any] | None) -> None:
        candidate = candidate_from_sdp(said["candidate"].removeprefix("candidate:")) if said else None
        if candidate is not None and said is not None:
            candidate.sdpMid, candidate.sdpMLineIndex = said.get("sdpMid"), said.get("sdpMLineIndex")
        await self.peers[peer].addIceCandidate(candidate)

    def _new(self, peer: str) -> RTCPeerConnection:
        self.peers[peer] = pc = RTCPeerConnection(self._ice)
        return pc

    def _open(self, peer: str, channel: RTCDataChannel) -> None:
        if channel.label != self._label:
            return  # the published agent has one, and passes over others
        self.channels[peer] = channel
        channel.on("message", lambda message: self.heard.put_nowait((peer, message)))
        if channel.readyState == "open":
            self.opened.set()
        else:
            channel.on("open", self.opened.set)

    async def _say(self, kind: str, **fields: object) -> None:
        await self.ws.send(json.dumps({"type": kind, "from": self.name, **fields}))


@asynccontextmanager
async def agent(
    url: str, name: str, token: str | None = None, ice: tuple[str, ...] = (), label: str = "mvp"
) -> AsyncIterator[Minimal]:
    """One that is registered, and takes what comes."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with connect(url, additional_headers=headers, proxy=None) as ws:
        await ws.send(json.dumps({"type": "register", "id": name, "token": token}))
        me = Minimal(ws, name, ice, label)
        tasks = [asyncio.create_task(work) for work in (me.serve(), me.ping())]
        try:
            yield me
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, *(pc.close() for pc in me.peers.values()), return_exceptions=True)


async def _run(arguments: argparse.Namespace) -> None:
    async with agent(arguments.url, arguments.id, arguments.token, tuple(arguments.ice)) as me:
        if arguments.call:
            await me.call(arguments.call)
            for line in sys.stdin:
                await me.say(arguments.call, line.rstrip("\n"))
        while True:
            peer, message = await me.heard.get()
            print(json.dumps([peer, message if isinstance(message, str) else message.hex()]), flush=True)
            if arguments.echo:
                await me.say(peer, message)


def main() -> None:
    """Until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="ws://HOST:PORT/ws/signal")
    parser.add_argument("id")
    parser.add_argument("--token")
    parser.add_argument("--ice", action="append", default=[], help="stun:HOST:PORT")
    parser.add_argument("--call", metavar="PEER")
    parser.add_argument("--echo", action="store_true")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
