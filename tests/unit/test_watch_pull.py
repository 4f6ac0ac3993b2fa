"""One pull a stream, whatever becomes of it: against a small RTSP server that fails in all ways that it can."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from procs.messages import Unit
from procs.settings import Address
from procs.webrtc_peer import pull, rtsp
from procs.webrtc_peer.pull import Pulls, State
from tests.unit.test_depacketizer import IDR, SLICE
from tests.unit.test_watch_sorter import rtp

SDP = (
    "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:trackID=0\r\n"
    "a=fmtp:96 profile-level-id=42C020;sprop-parameter-sets=Z0LAIA==,aM48gA==\r\n"
)
WITHIN_S = 10


class Server:
    """`say`: the SDP that it has, by stream; each PLAY gives a keyframe and a picture."""

    def __init__(self) -> None:
        self.say = {"cam": SDP}
        self.played = 0
        self.open: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.answer(writer, await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    def answer(self, writer: asyncio.StreamWriter, head: bytes) -> None:
        method, url, _ = head.decode().split(" ", 2)
        number = re.findall(r"CSeq: (\d+)", head.decode())[0]
        body = self.say.get(url.split("/")[-1].partition("?")[0], "") if method == "DESCRIBE" else ""
        status = "404 Not Found" if method == "DESCRIBE" and not body else "200 OK"
        more = f"Session: 7;timeout=60\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        writer.write(f"RTSP/1.0 {status}\r\nCSeq: {number}\r\n{more}".encode())
        if method == "PLAY":
            self.played += 1
            for at, part in enumerate((IDR[:900], SLICE)):
                self.packet(writer, rtp(part, number=at, time=3000 * at))

    def packet(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"$\0" + len(data).to_bytes(2, "big") + data)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, Address]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield server, Address("127.0.0.1", port)
    finally:
        listening.close()
        for writer in server.open:
            writer.transport.abort()


class Seen:
    """What a leader would see."""

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self.states: list[State] = []

    def on_unit(self, stream: str, unit: Unit, data: bytes) -> None:
        self.units.append(unit)

    def on_state(self, stream: str, state: State) -> None:
        self.states.append(state)

    async def until(self, units: int = 0, states: int = 0) -> None:
        async with asyncio.timeout(WITHIN_S):
            while len(self.units) < units or len(self.states) < states:  # noqa: ASYNC110 - it changes in callbacks
                await asyncio.sleep(0.01)


def test_a_stream_is_pulled_once_and_comes_back_after_each_loss() -> None:
    async def main() -> None:
        seen = Seen()
        async with serving() as (server, address):
            pulls = Pulls(address, seen.on_unit, seen.on_state)
            for _ in range(3):
                pulls.want("cam")
            await seen.until(units=2)
            assert server.played == pulls.connects == 1
            server.open[-1].transport.abort()
            await seen.until(units=4)
        assert [unit.number for unit in seen.units] == [1, 2, 3, 4]
        assert [unit.is_keyframe for unit in seen.units] == [True, False] * 2
        times = [unit.time_us for unit in seen.units]
        assert times == sorted(set(times))
        assert [state.state for state in seen.states] == ["starting", "live", "dry", "live"]
        assert seen.states[1].codecs == ("h264/42c020",)

    asyncio.run(main())


def test_what_nobody_watches_ends_after_a_while_unless_somebody_does_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "LINGER_S", 0.2)

    async def main() -> None:
        seen = Seen()
        async with serving() as (server, address):
            pulls = Pulls(address, seen.on_unit, seen.on_state)
            pulls.want("cam")
            await seen.until(units=1)
            pulls.unwant("cam")
            pulls.want("cam")
            await asyncio.sleep(0.4)
            assert len(pulls) == 1
            pulls.unwant("cam")
            pulls.unwant("never wanted")
            async with asyncio.timeout(WITHIN_S):
                while len(pulls) or not server.open[-1].is_closing():  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
            assert server.played == 1

    asyncio.run(main())


def test_a_stream_that_is_not_there_is_unknown_only_when_it_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "UNKNOWN_AFTER_S", 0.3)

    async def main() -> None:
        seen = Seen()
        async with serving() as (server, address):
            server.say = {"old": SDP.replace("H264/90000", "H265/90000")}
            pulls = Pulls(address, seen.on_unit, seen.on_state)
            pulls.want("cam")
            await seen.until(states=3)
            assert [state.is_unknown for state in seen.states] == [False, False, True]
            assert seen.states[-1].why == "go2rtc has no stream cam"
            server.say["cam"] = SDP
            await seen.until(units=1)
            assert seen.states[-1].state == "live"
            pulls.want("old")
            await seen.until(states=7)
            assert seen.states[-1].why == "old has H265, and no H.264 to pass on"

    asyncio.run(main())


def test_a_stream_that_falls_silent_is_pulled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "SILENT_S", 0.2)
    monkeypatch.setattr(pull, "LOOK_S", 0.05)

    async def main() -> None:
        seen = Seen()
        async with serving() as (server, address):
            Pulls(address, seen.on_unit, seen.on_state).want("cam")
            await seen.until(units=4)
            assert server.played >= 2 and "no picture" in seen.states[2].why

    asyncio.run(main())


def test_no_go2rtc_is_dry_and_tried_again() -> None:
    async def main() -> None:
        seen = Seen()
        async with serving() as (_, address):
            pass
        Pulls(address, seen.on_unit, seen.on_state).want("cam")
        await seen.until(states=2)
        assert seen.states[1].state == "dry" and not seen.states[1].is_unknown

    asyncio.run(main())


def test_what_nobody_had_foreseen_is_raised_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def describe(*_: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        seen = Seen()
        pulls = Pulls(Address("127.0.0.1", 1), seen.on_unit, seen.on_state)
        pulls.want("cam")
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(ZeroDivisionError):
                await pulls.watch()

    monkeypatch.setattr(rtsp, "describe", describe)
    asyncio.run(main())
