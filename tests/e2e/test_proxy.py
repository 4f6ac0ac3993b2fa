"""A real go2rtc behind a proxy's Worker: what viewers get, what they don't, and that those who leave free it."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from procs.proxy import go2rtc
from procs.streams.stream import Chunk, Stream
from procs.wire.mux1 import DROPPED_BEFORE, FIN, KEY, MORE, TEXT, Code
from tests import proxying, rig
from tests.proxying import Hub

MJPEG = "exec:ffmpeg -v error -re -f lavfi -i testsrc2=s=320x180:r=15 -f mjpeg -q:v 5 -"
PRODUCER = {"width": 640, "height": 360, "fps": 30, "gop": 30, "bitrate": "2M"}


@pytest.fixture(scope="module")
def source() -> Iterator[rig.Go2rtc]:
    """go2rtc with two H.264 streams and one of MJPEG."""
    with rig.go2rtc({"workers": 2, "producer": PRODUCER}, sources={"jpegs": MJPEG}) as running:
        yield running


@asynccontextmanager
async def through(source: rig.Go2rtc) -> AsyncIterator[Hub]:
    """The hub's end of a proxy in front of it."""
    async with proxying.hub(go2rtc.upstream(source.api.host, source.api.port), within_s=60) as hub:
        yield hub


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(work())


def consumers(source: rig.Go2rtc) -> int:
    """How many watch anything, as go2rtc says."""
    with urllib.request.urlopen(source.url("/api/streams"), timeout=5) as answer:
        listed: dict[str, Any] = json.load(answer)
    return sum(len(stream["consumers"] or []) for stream in listed.values())


async def all_left(source: rig.Go2rtc, within_s: float = 1.0) -> None:
    """Wait until nobody watches. Fails after the limit."""
    deadline = time.monotonic() + within_s
    while await asyncio.to_thread(consumers, source):
        assert time.monotonic() < deadline, "somebody who has left still counts as a viewer"
        await asyncio.sleep(0.05)


async def first(stream: Stream, enough: int) -> bytes:
    """The first bytes of an answer."""
    found = bytearray()
    while len(found) < enough:
        chunk = await stream.read()
        assert chunk
        found += chunk.data
    return bytes(found)


async def message(stream: Stream) -> tuple[bytes, int]:
    """A whole message of a WebSocket, and the flags of all its frames."""
    pieces, flags = [], 0
    while True:
        chunk: Chunk | None = await stream.read()
        assert chunk
        pieces.append(bytes(chunk.data))
        flags |= chunk.flags
        if not chunk.flags & MORE:
            return b"".join(pieces), flags


async def watch_by_mse(hub: Hub, name: str = "omega-0") -> tuple[Stream, bytes]:
    """A viewer's WebSocket after the first messages; (stream, initialisation segment)."""
    stream = hub.open("GET", f"/api/ws?src={name}", [("Origin", "https://hub.example")], kind="ws", mode="live")
    assert (await stream.head()).status == 101
    await stream.write(b'{"type":"mse","value":"avc1.640029,avc1.64002A,avc1.640033,mp4a.40.2"}', TEXT)
    said, flags = await message(stream)
    assert flags & TEXT and json.loads(said)["type"] == "mse"
    init, flags = await message(stream)
    assert not flags & TEXT and init[4:8] == b"ftyp"
    return stream, init


def test_pages_and_answers(source: rig.Go2rtc) -> None:
    async def work() -> None:
        async with through(source) as hub:
            page = await hub.get("/stream.html?src=omega-0")
            assert page.head.status == 200 and b"video-stream.js" in page.body
            assert (await hub.get("/video-rtc.js")).field("content-type").startswith("text/javascript")
            listed = await hub.get("/api/streams")
            assert listed.head.status == 200 and {"omega-0", "omega-1", "jpegs"} <= json.loads(listed.body).keys()
            assert b"exec:" not in listed.body and b"testsrc2" not in listed.body
            one = await hub.get("/api/streams?src=jpegs")
            assert json.loads(one.body).keys() <= {"producers", "consumers"} and b"exec:" not in one.body
            about = await hub.get("/api")
            assert json.loads(about.body)["config_path"] == "" and b"/tmp" not in about.body

    run(work)


def test_what_viewers_must_not(source: rig.Go2rtc) -> None:
    before = (source.log.parent / "go2rtc.yaml").read_text()

    async def work() -> None:
        async with through(source) as hub:
            for method, path, status in (
                ("POST", "/api/config", 403),
                ("PUT", "/api/streams?src=rtsp://127.0.0.1/x", 403),
                ("PUT", "/api/streams?src=omega-9", 403),
                ("GET", "/api/stream.mp4?src=rtsp://127.0.0.1:1/", 403),
                ("GET", "/api/stream.mp4?src=nobody", 404),
                ("GET", "/api/frame.jpeg?src=nobody", 404),
                ("GET", "/api/%63onfig", 403),
                ("GET", "/api/../api/config", 400),
                ("GET", "//api/config", 400),
                ("POST", "/api/exit?code=1", 403),
            ):
                got = await hub.ask(method, path, body=b"x" if method == "POST" else b"")
                assert got.head.status == status, path
            stream = hub.open("GET", "/api/ws?src=nobody", kind="ws")
            assert (await stream.head()).status == 404
        assert source.process.poll() is None

    run(work)
    assert (source.log.parent / "go2rtc.yaml").read_text() == before


def test_every_way_to_watch(source: rig.Go2rtc) -> None:
    async def work() -> None:
        async with through(source) as hub:
            for path, start, enough in (
                ("/api/stream.mp4?src=omega-0", b"ftyp", 60_000),
                ("/api/stream.mjpeg?src=jpegs", b"image/jpeg", 60_000),
            ):
                stream = hub.open("GET", path, mode="live")
                stream.finish()
                head = await stream.head()
                assert head.status == 200 and head.endless
                assert start in (await first(stream, enough))[:200]
                stream.reset(Code.CANCEL)
            jpeg = await hub.get("/api/frame.jpeg?src=omega-0")
            assert jpeg.head.status == 200 and jpeg.body[:3] == b"\xff\xd8\xff" and jpeg.body[-2:] == b"\xff\xd9"
            short = await hub.get("/api/stream.mp4?src=omega-0&duration=1&filename=a.mp4")
            assert (
                short.body[4:8] == b"ftyp" and b"moof" in short.body and "a.mp4" in short.field("content-disposition")
            )
            master = await hub.get("/api/stream.m3u8?src=omega-0&mp4")
            playlist = master.body.decode().strip().splitlines()[-1]
            media = (await hub.get(f"/api/{playlist}")).body.decode()
            segment = next(line for line in media.splitlines() if line.startswith("segment"))
            assert b"moof" in (await hub.get(f"/api/hls/{segment}")).body
        await all_left(source, 7)  # HLS viewers leave by being silent for 5 s

    run(work)


def test_ten_viewers_come_and_go(source: rig.Go2rtc) -> None:
    async def work() -> None:
        async with through(source) as hub:
            viewers = []
            for _ in range(10):
                stream = hub.open("GET", "/api/stream.mjpeg?src=jpegs", mode="live")
                stream.finish()
                viewers.append(stream)
            for stream in viewers:
                assert b"image/jpeg" in await first(stream, 2000)
            assert await asyncio.to_thread(consumers, source) == 10
            for stream in viewers:
                stream.reset(Code.CANCEL)
            await all_left(source)
            assert len(hub.worker) == 0

    run(work)


def test_video_over_a_websocket(source: rig.Go2rtc) -> None:
    async def work() -> None:
        async with through(source) as hub:
            stream, _ = await watch_by_mse(hub)
            kinds = [await message(stream) for _ in range(45)]
            assert all(data[4:8] == b"moof" for data, _ in kinds)
            keys = sum(bool(flags & KEY) for _, flags in kinds)
            assert 1 <= keys <= 3  # one a second
            assert not any(flags & DROPPED_BEFORE for _, flags in kinds)
            stream.finish((1000).to_bytes(2, "big") + b"done")  # the viewer closes
            while chunk := await stream.read():
                if chunk.flags & FIN:
                    assert int.from_bytes(chunk.data[:2], "big") == 1000
            await all_left(source)
            gone, _ = await watch_by_mse(hub, "omega-1")
            gone.reset(Code.CANCEL)  # or is gone without a word
            await all_left(source)

    run(work)


@pytest.mark.parametrize(
    "path",
    [
        "/api/ws?src=omega-0",
        pytest.param("/api/stream.mp4?src=omega-0", marks=pytest.mark.long),
        pytest.param("/api/stream.mjpeg?src=jpegs", marks=pytest.mark.long),
    ],
)
def test_a_viewer_who_stops_gets_pictures_of_now(source: rig.Go2rtc, path: str) -> None:
    """Nothing is read for four seconds; then come few pictures of then, a gap that says so, and whole ones of now."""

    async def work() -> None:
        async with through(source) as hub:
            if "ws" in path:
                stream, _ = await watch_by_mse(hub)
            else:
                stream = hub.open("GET", path, mode="live")
                stream.finish()
                await stream.head()
                await first(stream, 20_000)
            watched = time.monotonic()
            while time.monotonic() - watched < 4:  # so that all windows have their size
                await stream.read()
            await asyncio.sleep(4)
            began, stale, seen = time.monotonic(), 0, 0
            while True:
                chunk = await stream.read()
                assert chunk and time.monotonic() - began < 3
                if chunk.flags & DROPPED_BEFORE:
                    break
                stale += len(chunk.data)
            assert stale < 400_000  # what was underway
            assert chunk.flags & KEY or chunk.flags & MORE
            while time.monotonic() - began < 1.5:
                chunk = await stream.read()
                assert chunk
                seen += not chunk.flags & MORE
            assert seen >= 10  # and it goes on
            stream.reset(Code.CANCEL)
            await all_left(source)

    run(work)


def test_go2rtc_dies_and_comes_back() -> None:
    async def work() -> None:
        with rig.go2rtc({"workers": 1, "producer": PRODUCER}) as source:
            async with through(source) as hub:
                viewer, _ = await watch_by_mse(hub)
                assert (await hub.get("/api/streams")).head.status == 200
                command = rig.command_line(source.process.pid)
                source.process.kill()
                source.process.wait()
                waiting = asyncio.create_task(hub.get("/api/streams"))
                while (chunk := await viewer.read()) and not chunk.flags & FIN:
                    pass
                assert chunk and int.from_bytes(chunk.data[:2], "big") == 1012
                again = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
                try:
                    assert (await waiting).head.status == 200
                    assert b"omega-0" in (await waiting).body
                finally:
                    again.kill()
                    await again.wait()

    run(work)
