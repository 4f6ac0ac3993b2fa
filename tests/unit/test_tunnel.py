"""What the hub makes of a request while connections to the device come and go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from procs.errors import Refused
from procs.hub.tunnel import resume, tunnel
from procs.hub.tunnel.tunnel import Answer, Request, Tunnel, TunnelError
from procs.streams.link import Link
from procs.streams.stream import Stream
from procs.wire.mux1 import Code, Head
from tests.joined import Joined, quietly

Serve = Callable[[Stream], Awaitable[None]]
EIGHT, NINE = "Sun, 01 Nov 2026 08:00:08 GMT", "Sun, 01 Nov 2026 08:00:09 GMT"
FILE = bytes(range(256)) * 8000
HEADERS = [("Content-Length", str(len(FILE))), ("ETag", '"1"'), ("Accept-Ranges", "bytes")]
GET = Request("dev", "GET", "/file", [])
POST = Request("dev", "POST", "/count", [], b"1")


class Device:
    """Connections to one device, of which the n-th serves with the n-th of `serves`; the last one for all after it."""

    def __init__(self, *serves: Serve) -> None:
        self._serves = list(serves)
        self._tasks: list[asyncio.Task[None]] = []
        self._joined: list[Joined] = []
        self.hub: Link | None = None
        self.opened = 0

    def links(self, device_id: str) -> list[Link]:
        return [self.hub] if self.hub else []

    def was_online_within(self, device_id: str, seconds: float) -> bool:
        return True

    async def link_for(self, device_id: str, deadline_s: float) -> Link:
        if self.hub is None:
            self._connect()
        assert self.hub
        return self.hub

    def cut(self) -> None:
        """The connection breaks."""
        assert self.hub
        self.hub.lost("cut")
        self.hub = None

    def _connect(self) -> None:
        def accept(stream: Stream) -> None:
            self.opened += 1
            serve = self._serves.pop(0) if len(self._serves) > 1 else self._serves[0]
            self._tasks.append(asyncio.create_task(quietly(serve(stream))))

        self._joined.append(Joined(accept))
        self.hub = self._joined[-1].hub

    async def end(self) -> None:
        for each in self._joined:
            await each.end()
        for task in self._tasks:
            task.cancel()


async def serve_file(stream: Stream) -> None:
    """As a static server does, ranges too."""
    asked = dict(stream.opening.headers)
    first = int(asked["Range"][6:-1]) if "Range" in asked else 0
    if first:
        of = f"bytes {first}-{len(FILE) - 1}/{len(FILE)}"
        stream.send_head(Head(206, [*HEADERS[1:], ("Content-Range", of)]))
    else:
        stream.send_head(Head(200, HEADERS))
    await stream.write(FILE[first:])
    stream.finish()


async def whole(answer: Answer) -> bytes:
    found = bytearray(answer.gathered)
    while answer.rest and (piece := await answer.rest.read()) is not None:
        found += piece
    return bytes(found)


def ask(device: Device, request: Request) -> tuple[int, bytes, Counter[str]]:
    """(status, body, counts) of a request."""
    counts = Counter[str]()

    def count(name: str) -> None:
        counts[name] += 1

    async def run() -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(20):
                answer = await Tunnel(device, count).request(request)
                return answer.head.status, await whole(answer)
        finally:
            await device.end()

    return *asyncio.run(run()), counts


def cut_after(device: list[Device], size: int, *, head: bool = True) -> Serve:
    """Breaks the connection after so many bytes of the file."""

    async def serve(stream: Stream) -> None:
        await stream.read()
        if head:
            stream.send_head(Head(200, HEADERS))
            await stream.write(FILE[:size])
            await asyncio.sleep(0.1)
        device[0].cut()

    return serve


@pytest.mark.parametrize(("size", "head"), [(0, False), (0, True), (1000, True), (500_000, True)])
def test_a_download_survives_its_connection(size: int, head: bool) -> None:
    devices: list[Device] = []
    devices.append(Device(cut_after(devices, size, head=head), cut_after(devices, 0, head=False), serve_file))
    status, body, counts = ask(devices[0], GET)
    assert (status, body) == (200, FILE)
    assert counts["sent_again"] or counts["resumed"]


def test_what_changed_meanwhile_is_not_put_together() -> None:
    async def serve_other(stream: Stream) -> None:
        stream.send_head(Head(200, [("Content-Length", "3"), ("ETag", '"2"')]))
        stream.finish(b"abc")

    devices: list[Device] = []
    devices.append(Device(cut_after(devices, 500_000), serve_other))
    with pytest.raises(TunnelError, match="changed"):
        ask(devices[0], GET)


def test_a_short_answer_is_whole_or_asked_for_again() -> None:
    async def half(stream: Stream) -> None:
        stream.send_head(Head(200, [("Content-Length", "6")]))
        await stream.write(b"abc")
        await asyncio.sleep(0.05)
        devices[0].cut()

    async def full(stream: Stream) -> None:
        stream.send_head(Head(200, [("Content-Length", "6")]))
        stream.finish(b"ABCDEF")

    devices = [Device(half, full)]
    assert ask(devices[0], GET)[:2] == (200, b"ABCDEF")


def resets(code: int) -> Serve:
    async def serve(stream: Stream) -> None:
        stream.reset(code, "so")

    return serve


async def serve_post(stream: Stream) -> None:
    body = b""
    while chunk := await stream.read():
        body += bytes(chunk.data)
    stream.send_head(Head(201))
    stream.finish(body)


def test_what_was_never_taken_is_sent_again() -> None:
    assert ask(Device(resets(Code.NOT_SENT), resets(Code.TOO_MANY), serve_post), POST)[:2] == (201, b"1")


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [(Code.UNKNOWN, 502, "unknown"), (Code.REFUSED, 403, ""), (Code.TIMEOUT, 504, ""), (Code.UPSTREAM_ERROR, 502, "")],
)
def test_an_end_is_told_as_it_was(code: int, status: int, outcome: str) -> None:
    device = Device(resets(code), serve_post)
    with pytest.raises(TunnelError) as failed:
        ask(device, POST)
    assert (failed.value.status, failed.value.outcome, device.opened) == (status, outcome, 1)


def test_a_post_is_never_sent_twice() -> None:
    async def takes_it_and_dies(stream: Stream) -> None:
        await stream.read()
        devices[0].cut()

    devices = [Device(takes_it_and_dies, serve_post)]
    with pytest.raises(TunnelError) as failed:
        ask(devices[0], POST)
    assert (failed.value.status, failed.value.outcome, devices[0].opened) == (502, "unknown", 1)


def test_an_upload_that_was_not_taken_can_not_be_repeated() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a" * 1000

    with pytest.raises(TunnelError) as failed:
        ask(Device(resets(Code.NOT_SENT), serve_post), POST._replace(body=pieces()))
    assert (failed.value.status, failed.value.outcome) == (503, "not-sent")


def test_nobody_there() -> None:
    class Nowhere:
        def links(self, device_id: str) -> list[Link]:
            return []

        def was_online_within(self, device_id: str, seconds: float) -> bool:
            return False

        async def link_for(self, device_id: str, deadline_s: float) -> Link:
            async with asyncio.timeout(deadline_s):
                await asyncio.sleep(60)
            raise AssertionError

    with pytest.raises(TunnelError, match="offline") as failed:
        asyncio.run(Tunnel(Nowhere(), print).request(POST))
    assert (failed.value.status, failed.value.outcome) == (503, "not-sent")


def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(stream: Stream) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(tunnel, "DEADLINE_S", 0.2)
    monkeypatch.setattr(tunnel, "SLACK_S", 0.1)
    with pytest.raises(TunnelError) as failed:
        ask(Device(silent), POST)
    assert (failed.value.status, failed.value.outcome) == (504, "unknown")


async def in_time(pauses: int) -> AsyncIterator[bytes]:
    """An upload that takes its time."""
    for _ in range(pauses):
        await asyncio.sleep(0.1)
        yield b"x"


def test_the_time_for_an_answer_begins_with_the_end_of_an_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(stream: Stream) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(tunnel, "DEADLINE_S", 0.2)
    monkeypatch.setattr(tunnel, "SLACK_S", 0.1)
    assert ask(Device(serve_post), POST._replace(body=in_time(6)))[:2] == (201, b"xxxxxx")
    with pytest.raises(TunnelError) as failed:
        ask(Device(silent), POST._replace(body=in_time(1)))
    assert (failed.value.status, failed.value.outcome) == (504, "unknown")


@pytest.mark.parametrize(
    ("error", "status"), [(Refused("no chunk"), 400), (TimeoutError(), 408), (ConnectionResetError(), 400)]
)
def test_a_body_that_is_none_ends_the_stream(error: Exception, status: int) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"x"
        raise error

    async def run() -> None:
        device = Device(serve_post)
        with pytest.raises(TunnelError) as failed:
            async with asyncio.timeout(20):
                await Tunnel(device, print).request(POST._replace(body=breaks()))
        assert failed.value.status == status
        assert device.hub and device.hub.streams == 0
        await device.end()

    asyncio.run(run())


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Length", "9")],
        [("Content-Length", "9"), ("ETag", 'W/"1"')],
        [("ETag", '"1"')],
        [("Content-Length", "9"), ("Last-Modified", EIGHT)],
        [("Content-Length", "9"), ("Last-Modified", EIGHT), ("Date", EIGHT)],
        [("Content-Length", "9"), ("Last-Modified", "never"), ("Date", NINE)],
        [("Content-Length", "9"), ("ETag", '"1"'), ("Accept-Ranges", "none")],
    ],
)
def test_only_what_can_be_recognized_goes_on(headers: list[tuple[str, str]]) -> None:
    assert resume.request(GET, Head(200, headers), 3) is None


def test_a_date_that_is_over_will_do() -> None:
    headers = [("Content-Length", "9"), ("Last-Modified", EIGHT), ("Date", NINE)]
    again = resume.request(GET, Head(200, headers), 3)
    assert again and dict(again.headers)["If-Range"] == EIGHT


def test_who_asked_for_a_range_gets_no_other() -> None:
    assert resume.request(GET._replace(headers=[("range", "bytes=1-")]), Head(200, HEADERS), 3) is None
    assert resume.request(GET, Head(206, HEADERS), 3) is None


def test_an_answer_before_the_end_of_an_upload_leaves_no_stream_open() -> None:
    """Else a few such uploads would fill the connection for good."""

    async def refuse(stream: Stream) -> None:
        stream.send_head(Head(413))
        stream.finish(b"too large")

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    async def run() -> None:
        device = Device(refuse)
        for _ in range(3):
            answer = await Tunnel(device, print).request(POST._replace(body=endless()))
            assert (answer.head.status, answer.gathered, answer.rest) == (413, b"too large", None)
        assert device.hub and device.hub.streams == 0
        await device.end()

    asyncio.run(run())
