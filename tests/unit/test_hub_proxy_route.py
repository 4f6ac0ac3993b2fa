"""What the hub makes of a device's answers: a device that says what it likes, and the bytes that a viewer gets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import http_parser, web_protocol

from procs.hub import app as hub_app
from procs.hub.devices import pairing
from procs.hub.state import State
from procs.hub.tunnel import proxy_route
from procs.streams.stream import Stream
from procs.wire.mux1 import MORE, Head
from tests import hub_rig
from tests.joined import Joined, quietly
from tests.proxying import rest

Serve = Callable[[Stream], Awaitable[None]]
HIDDEN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nSet-Cookie: a=b\r\n\r\nhidden"
LARGE = bytes(400_000)  # too large to be gathered


class Viewer:
    """The owner of the device `cam`, at a hub."""

    def __init__(self, hub: State, port: int, token: str) -> None:
        self.hub, self._port, self.token = hub, port, token
        self.http = hub_rig.Http(port, token)

    async def open(
        self, path: str = "/x", *more: str, method: str = "GET", at: str = ""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which something of the device was asked for."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        lines = [f"{method} {at}/api/devices/cam/proxy{path} HTTP/1.1", "Host: hub", *more]
        if not any(line.startswith("Authorization:") for line in more) and self.token not in path:
            lines.append(f"Authorization: Bearer {self.token}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        return reader, writer

    async def said(self, method: str = "GET") -> bytes:
        """All that comes of it, and of another request of the hub itself on the same connection."""
        reader, writer = await self.open(method=method)
        writer.write(b"GET / HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def viewing(folder: Path, serve: Serve, **settings: object) -> AsyncIterator[Viewer]:
    """A hub with a device that answers by `serve`, and its owner."""
    tasks: list[asyncio.Task[None]] = []

    def accept(stream: Stream) -> None:
        tasks.append(asyncio.create_task(quietly(serve(stream))))

    ends = Joined(accept)
    async with hub_rig.within(folder, **settings) as (hub, nobody):
        user, token = await hub.accounts.log_in("admin", hub_rig.ADMIN_PASSWORD)
        await hub.registry.register("cam", "cam", "camera", None)
        await hub.store.run(lambda c: c.exec_driver_sql(f"UPDATE devices SET owner_id = {user.id}") and None)
        hub.registry.changed("cam")
        hub.presence.add_link("cam", "", ends.hub, lambda code, reason: ends.hub.lost(reason))
        yield Viewer(hub, nobody.port, token)
    await ends.end()
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(
    ("method", "status", "is_taken"),
    [("HEAD", 200, True), ("GET", 204, True), ("GET", 304, True), ("GET", 100, False), ("GET", 101, False)],
)
def test_no_device_says_what_the_next_answer_is(tmp_path: Path, method: str, status: int, is_taken: bool) -> None:
    """Behind a proxy that shares its connections the next may be anybody's, of anything at the hub."""

    async def serve(stream: Stream) -> None:
        stream.send_head(Head(status))
        await stream.write(HIDDEN + LARGE)
        stream.finish()

    async def main() -> None:
        async with viewing(tmp_path, serve) as viewer:
            said = await viewer.said(method)
        assert b"hidden" not in said and b"\r\n\r\n<!doctype html>" in said, said[:2000]
        assert said.startswith(f"HTTP/1.1 {status if is_taken else 502} ".encode())

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "body", "status"), [("frame.jpeg", b"", 502), ("frame.jpeg", b"x", 200), ("streams", b"", 200)]
)
def test_an_empty_picture_is_none(tmp_path: Path, path: str, body: bytes, status: int) -> None:
    async def serve(stream: Stream) -> None:
        stream.send_head(Head(200, [("Content-Type", "image/jpeg")]))
        if body:
            await stream.write(body)
        stream.finish()

    async def main() -> None:
        async with viewing(tmp_path, serve) as viewer:
            found = await hub_rig.ask(viewer.http, "GET", f"/api/devices/cam/proxy/api/{path}?src=a")
        assert found.status == status
        assert status == 200 or "gives no picture" in found.json["detail"]

    asyncio.run(main())


def test_an_answer_shorter_than_it_says_is_no_whole_one(tmp_path: Path) -> None:
    async def serve(stream: Stream) -> None:
        stream.send_head(Head(200, [("Content-Length", str(len(LARGE) + 1))]))
        await stream.write(LARGE)
        stream.finish()

    async def main() -> None:
        async with viewing(tmp_path, serve) as viewer:
            with contextlib.suppress(ConnectionError):
                assert b"Planaria hub" not in await viewer.said()

    asyncio.run(main())


def test_a_message_of_nothing_but_pieces_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_route, "MAX_MESSAGE", 1024 * 1024)

    async def serve(stream: Stream) -> None:
        stream.send_head(Head(101))
        while True:
            await stream.write(b"", MORE)

    async def main() -> None:
        async with viewing(tmp_path, serve) as viewer:
            upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
            reader, writer = await viewer.open("/ws", *upgrade, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            assert await asyncio.wait_for(reader.readexactly(1), 30) == b"\x88", "the end of a WebSocket"
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(("role", "first"), [("viewer", b'{"type":"mse"}'), ("owner", b'{"type":"webrtc/offer"}')])
def test_who_may_only_look_gets_no_sound_to_a_device_by_its_own_player(tmp_path: Path, role: str, first: bytes) -> None:
    came = list[bytes]()

    async def serve(stream: Stream) -> None:
        stream.send_head(Head(101))
        while (chunk := await stream.read()) is not None:
            came.append(bytes(chunk.data))

    async def main() -> None:
        async with viewing(tmp_path, serve) as viewer, aiohttp.ClientSession() as http:
            made = (await hub_rig.ask(viewer.http, "POST", "/api/tokens", {"name": "x", "role": role})).json
            headers = {"Authorization": f"Bearer {made['token']}"}
            at = f"ws://127.0.0.1:{viewer.http.port}/api/devices/cam/proxy/api/ws"
            async with http.ws_connect(at, headers=headers) as ws:
                await ws.send_str('{"type":"webrtc/offer"}')
                await ws.send_str('{"type":"mse"}')
                async with asyncio.timeout(20):
                    while b'{"type":"mse"}' not in came:  # noqa: ASYNC110 - nothing tells
                        await asyncio.sleep(0.01)
        assert came[0] == first

    asyncio.run(main())


async def _log_out(viewer: Viewer) -> None:
    assert (await hub_rig.ask(viewer.http, "POST", "/api/auth/logout")).status == 200


async def _change_password(viewer: Viewer) -> None:
    change = {"old_password": hub_rig.ADMIN_PASSWORD, "new_password": "another password"}
    assert (await hub_rig.ask(viewer.http, "POST", "/api/auth/password", change)).status == 200


async def _pair_with_another(viewer: Viewer) -> None:
    other = await asyncio.to_thread(viewer.http.new_user, "bob")
    device = await viewer.hub.registry.find("cam")
    assert device
    code = (await pairing.generate(viewer.hub, device.key)).code
    assert (await hub_rig.ask(other, "POST", "/api/devices/pair", {"pairing_code": code})).status == 200


async def _delete(viewer: Viewer) -> None:
    assert (await hub_rig.ask(viewer.http, "DELETE", "/api/devices/cam")).status == 200


@pytest.mark.parametrize("end", [_log_out, _change_password, _pair_with_another, _delete])
def test_what_is_under_way_ends_with_what_lets_it_in(tmp_path: Path, end: Callable[[Viewer], Awaitable[None]]) -> None:
    """An endless answer, and one that would go on by the device's next connection."""

    async def serve(stream: Stream) -> None:
        known = [("Content-Length", "9000000"), ("ETag", '"1"')]
        stream.send_head(Head(200, [] if stream.opening.path == "/endless" else known, endless=not known))
        while True:
            await stream.write(bytes(1000))
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with viewing(tmp_path, serve) as viewer:
            ways = [await viewer.open("/endless"), await viewer.open("/file")]
            for reader, _ in ways:
                assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert len(viewer.hub.views) == 2
            await end(viewer)
            for reader, writer in ways:
                with contextlib.suppress(ConnectionError):
                    await asyncio.wait_for(reader.read(), 5)
                writer.close()
            assert len(viewer.hub.views) == 0

    asyncio.run(main())


def test_a_device_never_sees_the_token_of_an_address(tmp_path: Path) -> None:
    seen: list[str] = []

    async def serve(stream: Stream) -> None:
        seen.append(f"{stream.opening.path} {dict(stream.opening.headers)}")
        stream.send_head(Head(200))
        stream.finish(b"ok")

    async def main() -> None:
        async with viewing(tmp_path, serve, compat=True) as viewer:
            for path in ("/x?token={}", "/x?a=%2f&token={}&b", "/x?to%6ben={}"):
                asked = path.format(viewer.token)
                reader, writer = await viewer.open(asked, f"Referer: http://hub{asked}", "Connection: close")
                assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 ")
                writer.close()
            assert not any(viewer.token in each for each in seen)
            assert [each.partition(" ")[0] for each in seen] == ["/x", "/x?a=%2f&b", "/x"]

    asyncio.run(main())


@pytest.mark.parametrize("is_head", [True, False])
def test_who_does_not_get_done_with_a_request_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_head: bool
) -> None:
    monkeypatch.setattr(hub_app, "IDLE_S", 0.5)
    monkeypatch.setattr(proxy_route, "UPLOAD_IDLE_S", 0.5)

    async def never(stream: Stream) -> None:
        raise AssertionError

    async def trickle(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.1)

    async def main() -> None:
        async with viewing(tmp_path, never) as viewer:
            if is_head:
                reader, writer = await asyncio.open_connection("127.0.0.1", viewer.http.port)
                writer.write(b"GET / HTTP/1.1\r\nX-A: ")
            else:
                reader, writer = await viewer.open("/x", "Content-Length: 1000", method="POST")
            trickling = asyncio.create_task(trickle(writer))
            said = b""
            with contextlib.suppress(ConnectionError):  # what it had not read when it closed makes that a reset
                said = await asyncio.wait_for(reader.read(1000), 5)
            assert said == b"" if is_head else said.startswith(b"HTTP/1.1 408 ")
            trickling.cancel()
            writer.close()

    asyncio.run(main())


def test_no_device_says_who_may_show_or_read_its_pages(tmp_path: Path) -> None:
    ours = {"x-content-type-options": "nosniff", "x-frame-options": "DENY"}
    ours["cross-origin-resource-policy"] = "same-origin"

    async def serve(stream: Stream) -> None:
        stream.send_head(Head(200, [(name, "theirs") for name in [*ours, *ours]]))
        stream.finish(b"page")

    async def main() -> None:
        async with viewing(tmp_path, serve) as viewer:
            said = (await viewer.said()).decode().partition("\r\n\r\n")[0]
        fields = [line.partition(": ") for line in said.lower().split("\r\n")]
        assert {name: [v for n, _, v in fields if n == name] for name in ours} == {
            name: [value.lower()] for name, value in ours.items()
        }

    asyncio.run(main())


def test_what_is_packed_gets_to_the_device_as_it_was_sent(tmp_path: Path) -> None:
    packed = gzip.compress(b"pictures" * 100)

    async def send_back(stream: Stream) -> None:
        body = await rest(stream)
        stream.send_head(Head(200))
        stream.finish(body)

    async def main() -> None:
        async with viewing(tmp_path, send_back) as viewer:
            fields = ("Content-Encoding: gzip", f"Content-Length: {len(packed)}", "Connection: close")
            reader, writer = await viewer.open("/x", *fields, method="POST")
            writer.write(packed)
            assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"\r\n\r\n" + packed)
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("parser", ["HttpRequestParser", "HttpRequestParserPy"])
def test_chunks_that_are_none_free_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parser: str) -> None:
    """aiohttp's parser in C does not tell the body of it, so that it just stops coming; the one in Python does."""
    monkeypatch.setattr(proxy_route, "UPLOAD_IDLE_S", 0.5)
    monkeypatch.setattr(web_protocol, "HttpRequestParser", getattr(http_parser, parser))

    async def read_on(stream: Stream) -> None:
        while await stream.read():
            pass

    async def main() -> None:
        async with viewing(tmp_path, read_on) as viewer:
            reader, writer = await viewer.open("/x", "Transfer-Encoding: chunked", method="POST")
            writer.write(b"5\r\nhello\r\n")
            await asyncio.sleep(0.1)  # or it would be refused before it gets to the device
            writer.write(b"no length\r\n")
            assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] in (b"400", b"408")
            assert [link.streams for link in viewer.hub.presence.links("cam")] == [0]
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "target"),
    [
        ("/api/devices/cam/proxy/api/frame.jpeg?src=a", "/api/frame.jpeg?src=a"),
        ("/api/devices/cam/proxy", "/"),
        ("http://hub:8000/api/devices/cam/proxy/x?url=http://a/b", "/x?url=http://a/b"),
        ("HTTPS://hub/api/devices/cam/proxy", "/"),
        ("/api/devices/cam/proxy/", "/"),
        ("/api/devices/cam/proxy//x/..%2fy?a=%20&b", "//x/..%2fy?a=%20&b"),
    ],
)
def test_a_target_is_passed_on_as_it_was_sent(sent: str, target: str) -> None:
    assert proxy_route._split(sent) == ("/api/devices/cam/proxy", target)


def test_a_target_in_absolute_form_leads_to_the_same_path_of_the_device(tmp_path: Path) -> None:
    async def serve(stream: Stream) -> None:
        stream.send_head(Head(302, [("Location", stream.opening.path)]))
        stream.finish()

    async def main() -> None:
        async with viewing(tmp_path, serve) as viewer:
            reader, writer = await viewer.open("/a/b?c", "Connection: close", at="http://hub")
            said = await asyncio.wait_for(reader.read(), 10)
            assert said.startswith(b"HTTP/1.1 302 ") and b"\r\nLocation: /api/devices/cam/proxy/a/b?c\r\n" in said
            writer.close()

    asyncio.run(main())


def test_a_devices_address_without_its_last_slash_leads_to_the_one_with_it(tmp_path: Path) -> None:
    async def never(stream: Stream) -> None:
        raise AssertionError

    async def main() -> None:
        async with viewing(tmp_path, never) as viewer:
            answer = await hub_rig.ask(viewer.http, "GET", "/api/devices/cam/proxy?a=b")
            assert (answer.status, answer.headers["Location"]) == (308, "/api/devices/cam/proxy/?a=b")

    asyncio.run(main())
