"""A webrtc_peer process for tests, with its own children or stand-ins for them; and a hub's side of a session."""

from __future__ import annotations

import asyncio
import json
import signal
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp

from procs import proc
from procs.settings import ROOT
from tests import warm
from tests.json_hub import JsonHub
from tests.rig import Go2rtc, clean_environ, free_port, until

# The same process with other children.
WITH = """
from procs import brood
if __name__ == "__main__":
    BROOD = brood.hatch("webrtc_peer", "{module}", "live")
    from procs import life
    from procs.webrtc_peer import options, shell
    life.run("webrtc_peer", options.load, lambda s, alive: shell.serve(s, alive, BROOD))
"""


class Peered:
    """One device's webrtc_peer, which can be killed and started again."""

    def __init__(self, run_dir: Path, go2rtc: Go2rtc | None = None, *, children: str = "", **environ: str) -> None:
        self.log = run_dir / "webrtc_peer.log"
        at = go2rtc or f"127.0.0.1:{free_port()}"  # of which there is none, if a test does not care
        api, rtsp = (go2rtc.api, go2rtc.rtsp) if go2rtc else (at, at)
        self._environ = clean_environ(
            PLANARIA_RUN_DIR=str(run_dir), PYTHONPATH=str(ROOT), GO2RTC_HTTP=f"http://{api}",
            **{"PLANARIA_GO2RTC_RTSP": str(rtsp)} | environ,
        )  # fmt: skip
        what = ["-c", WITH.format(module=children)] if children else ["-m", "procs.webrtc_peer"]
        self._words = [*what, "--verbose"]
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        with self.log.open("ab") as out:
            self.process = warm.start(self._words, "procs.webrtc_peer.birth", self._environ, stdout=out, stderr=out)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it as everything here ends."""
        self.process.send_signal(number)
        self.process.wait()

    def zygote(self) -> int:
        """Its pid."""
        return until(lambda: proc.children(self.process.pid), 20)[0]

    def children(self) -> list[int]:
        """Those of the zygote."""
        return [pid for pid in proc.children(self.zygote()) if proc.is_alive(pid)]

    def logged(self) -> str:
        """All that it and those before it have written."""
        return self.log.read_text()

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """Those of an event."""
        lines = [json.loads(line) for line in self.logged().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]


@contextmanager
def peered(run_dir: Path, go2rtc: Go2rtc | None = None, *, children: str = "", **environ: str) -> Iterator[Peered]:
    """A running webrtc_peer."""
    peer = Peered(run_dir, go2rtc, children=children, **environ)
    try:
        yield peer
    except BaseException:
        print(peer.logged())  # for whoever reads why a test failed
        raise
    finally:
        peer.kill()


def heard(hub: JsonHub, kind: str, session_id: str, within_s: float = 20.0) -> dict[str, Any]:
    """The first frame of a kind of a session, once it is there."""
    return until(lambda: of(hub, kind, session_id), within_s)[0]


def of(hub: JsonHub, kind: str, session_id: str) -> list[dict[str, Any]]:
    """The payloads of a kind of a session so far."""
    found = [frame["payload"] for frame in list(hub.frames.get(kind, []))]
    return [payload for payload in found if payload["session_id"] == session_id]


def watch(hub: JsonHub, session_id: str, stream: str = "") -> None:
    """Somebody wants to watch."""
    asked = {"session_id": session_id, "user_id": "1", "ice_servers": []}
    hub.send("watch_request", asked | ({"stream": stream} if stream else {}))


class Watcher:
    """aiortc as the viewer of a session. `pictures` that could be decoded; `loudest` sample of each piece of sound, in
    all the last ones."""

    def __init__(self, hub: JsonHub, session_id: str, *, only: Sequence[str] = (), sound: bool = False) -> None:
        """`only`: the codecs of pictures that it takes, such as VP8."""
        self._hub, self._session_id, self._taken = hub, session_id, 0
        self._works: list[asyncio.Task[None]] = []
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.pictures = 0
        self.loudest: deque[int] = deque(maxlen=50)
        video = self.pc.addTransceiver("video", "recvonly")
        if only:
            can = RTCRtpReceiver.getCapabilities("video")
            video.setCodecPreferences([codec for codec in can.codecs if codec.name in only] if can else [])
        if sound:
            self.pc.addTransceiver("audio", "recvonly")
        self.pc.on("track", lambda track: self._works.append(asyncio.ensure_future(self._see(track))))

    async def __aenter__(self) -> Self:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        sdp = {"type": "offer", "sdp": self.pc.localDescription.sdp}
        self._hub.send("signal_offer", {"session_id": self._session_id, "sdp": sdp})
        answer = (await asyncio.to_thread(heard, self._hub, "signal_answer", self._session_id))["sdp"]
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        self.answer: str = answer["sdp"]
        self._works.append(asyncio.ensure_future(self._trickle()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for work in self._works:
            work.cancel()
        await self.pc.close()

    async def until(self, look: Callable[[], Any], within_s: float = 20.0) -> None:
        """Wait for what tells nobody. Fails the test after the limit."""
        async with asyncio.timeout(within_s):
            while not look():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    @property
    def hears(self) -> bool:
        """Whether there is a tone in all of the last second."""
        return len(self.loudest) == self.loudest.maxlen and min(self.loudest) > 1000

    async def _see(self, track: Any) -> None:
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                self.pictures += track.kind == "video"
                if track.kind == "audio":
                    self.loudest.append(max(map(abs, array("h", bytes(frame.planes[0])))))

    async def _trickle(self) -> None:
        while True:
            for payload in of(self._hub, "signal_ice", self._session_id)[self._taken :]:
                self._taken += 1
                if payload["candidate"]:
                    candidate = candidate_from_sdp(payload["candidate"]["candidate"].removeprefix("candidate:"))
                    candidate.sdpMid = payload["candidate"]["sdpMid"]
                    await self.pc.addIceCandidate(candidate)
            await asyncio.sleep(0.02)


async def pictures(hub: JsonHub, session_id: str, count: int, within_s: float = 20.0) -> int:
    """Be the viewer of a session: offer, and count the pictures that can be decoded, up to `count`."""
    async with Watcher(hub, session_id) as watcher:
        await watcher.until(lambda: watcher.pictures >= count, within_s)
    return count
