"""Requests through a Worker to upstreams that behave, and to many that don't."""

from __future__ import annotations

import asyncio
import gzip
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import pytest

from procs.errors import StreamReset
from procs.proxy import go2rtc
from procs.proxy.policy import Upstream
from procs.wire.mux1 import Code
from tests import proxying
from tests.proxying import Hub, request_of, saying, serving, upstream
from tests.rig import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))


async def code_of(answer: Awaitable[object]) -> int:
    """The code that a stream was reset with."""
    with pytest.raises(StreamReset) as error:
        await answer
    return error.value.code


def test_one_connection_carries_many() -> None:
    seen: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            await request_of(reader)
            seen.append(number)
            writer.write(OK)

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(upstream(port)) as hub:
            for _ in range(5):
                assert (await hub.get("/up/a")).body == b"ok"
            assert (await hub.ask("POST", "/up/a", body=b"x")).body == b"ok"
            assert len(await asyncio.gather(*(hub.get("/up/a") for _ in range(20)))) == 20
        assert seen[:6] == [0] * 6 and len(seen) == 26

    run(work)


def test_headers_that_stay_out_and_in() -> None:
    heard: list[dict[str, str]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        heard.append((await request_of(reader))[1])
        writer.write(
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/c/d?e=f\r\n"
            b"Set-Cookie: a=b\r\nX-Two: 1\r\nX-Two: 2\r\n"
            b"Service-Worker-Allowed: /\r\nClear-Site-Data: *\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
            b"WWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n" % writer.get_extra_info("sockname")[1]
        )

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(upstream(port)) as hub:
            sent = [
                ("Host", "hub.example"), ("Origin", "https://evil.example"), ("Cookie", "a=b"), ("Authorization", "x"),
                ("X-Forwarded-For", "1.2.3.4"), ("Forwarded", "for=1"), ("Connection", "keep-alive, x-mine"),
                ("X-Mine", "1"), ("TE", "trailers"), ("Expect", "100-continue"), ("Accept", "a"), ("Accept", "b"),
                ("Range", "bytes=0-1"),
            ]  # fmt: skip
            got = await hub.ask("GET", "/up/a/b", sent)
            assert heard == [{"host": f"127.0.0.1:{port}", "accept": "b", "range": "bytes=0-1"}]
            assert got.head.headers == [
                ("Location", "../c/d?e=f"), ("X-Two", "1"), ("X-Two", "2"), ("Content-Length", "0"),
            ]  # fmt: skip

    run(work)


@pytest.mark.parametrize(
    "headers",
    [
        [("X", "a\r\nInjected: b")],
        [("X\r\nInjected", "b")],
        [("X: y\r\nZ", "b")],
        [("X", "a\0")],
        [("Content-Length", "5"), ("Content-Length", "6")],
        [("Content-Length", "+5")],
        [("Content-Length", "-1")],
        [("", "x")],
        [("X" * 40, "y" * 1000)] * 40,
        [("A", "b")] * 200,
    ],
)
def test_headers_that_could_be_read_otherwise_are_refused(headers: list[tuple[str, str]]) -> None:
    async def work() -> None:
        async with serving(saying(OK)) as port, proxying.hub(upstream(port)) as hub:
            for method in ("GET", "POST"):
                got = await hub.ask(method, "/up/a", headers)
                assert got.head.status == 400
            assert (await hub.get("/up/a")).body == b"ok"

    run(work)


def test_an_upstream_that_comes_later() -> None:
    async def work() -> None:
        port = free_port()
        async with proxying.hub(upstream(port)) as hub:
            assert await code_of(hub.ask("POST", "/up/a", body=b"x")) == Code.NOT_SENT
            assert await code_of(hub.get("/up/a", timeout_ms=100)) == Code.NOT_SENT
            early = asyncio.create_task(hub.get("/up/a"))
            await asyncio.sleep(0.3)
            assert not early.done()
            async with serving(saying(OK), port):
                assert (await early).body == b"ok"

    run(work)


NO_PAGE = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 19\r\n\r\n404 page not found\n"
ABOUT = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"version":"1.9"}'


def test_a_go2rtc_that_does_not_know_its_own_paths_yet() -> None:
    """It listens before; who asks in that moment is to be told what it says a little later."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            asked.append((await request_of(reader))[0].split()[1])
            writer.write(ABOUT if asked.count("/api") > 2 else NO_PAGE)

    asked: list[str] = []

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(go2rtc.upstream("127.0.0.1", port)) as hub:
            assert b"1.9" in (await hub.get("/api")).body and asked == ["/api"] * 3
        asked.clear()
        async with serving(handle) as port, proxying.hub(go2rtc.upstream("127.0.0.1", port)) as hub:
            gone = "/api/hls/playlist.m3u8?id=over"
            assert (await hub.get(gone)).head.status == 404 and asked == [gone], "a session may be over"

    run(work)


def test_a_go2rtc_that_will_never_know_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procs.proxy.upstream.STARTING_S", 0.1)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            await request_of(reader)
            writer.write(NO_PAGE)

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(go2rtc.upstream("127.0.0.1", port)) as hub:
            assert (await hub.get("/api")).head.status == 404

    run(work)


def test_a_kept_connection_that_is_gone() -> None:
    """It was closed while nobody looked: what may be repeated is, and at once; other requests ride no old one."""
    asked: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        asked.append((await request_of(reader))[0])
        writer.write(OK)
        if number == 0:  # the next request gets no answer
            asked.append((await request_of(reader))[0])
            writer.transport.abort()

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(upstream(port)) as hub:
            await hub.get("/up/1")
            began = time.monotonic()
            assert (await hub.get("/up/2")).body == b"ok"
            assert time.monotonic() - began < 0.2
            assert [line.split()[1] for line in asked] == ["/1", "/2", "/2"]

    run(work)


def test_what_changes_something_is_sent_once() -> None:
    asked: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        asked.append((await request_of(reader))[0])
        if number:
            writer.write(OK)
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(upstream(port)) as hub:
            assert await code_of(hub.ask("POST", "/up/a", body=b"x")) == Code.UNKNOWN
            await asyncio.sleep(0.1)
            assert len(asked) == 1
            assert (await hub.ask("POST", "/up/a", body=b"x")).body == b"ok"

    run(work)


@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_an_answer_that_breaks_off_early_is_asked_for_again(part: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await request_of(reader)
        if number >= 3:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nwhole now")
            return
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.005)
        writer.transport.abort()

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(upstream(port)) as hub:
            if part.startswith(b"HTTP/1.1 200 OK\r\nContent-Le") and not part.endswith(b"half"):
                assert await code_of(hub.get("/up/a")) == Code.UPSTREAM_ERROR
            else:
                assert (await hub.get("/up/a")).body == b"whole now"

    run(work)


def test_a_long_answer_that_breaks_off() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(200_000)

    async def work() -> None:
        async with serving(saying(answer)) as port, proxying.hub(upstream(port)) as hub:
            stream = hub.open("GET", "/up/a")
            stream.finish()
            assert (await stream.head()).status == 200
            assert await code_of(proxying.rest(stream)) == Code.UPSTREAM_ERROR

    run(work)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nX: x\r\n\r\n", 200, b"abcd"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil", 200, b"until"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 404 Nope\r\nContent-Length: 1\r\n\r\n!", 404, b"!"),
        (OK + b"HTTP/1.1 200 OK\r\nX-Smuggled: 1\r\nContent-Length: 9\r\n\r\nsmuggled!", 200, b"ok"),
    ],
)  # fmt: skip
def test_ways_in_which_an_answer_ends(answer: bytes, status: int, body: bytes) -> None:
    async def work() -> None:
        async with serving(saying(answer)) as port, proxying.hub(upstream(port)) as hub:
            for _ in range(3):
                got = await hub.get("/up/a")
                assert (got.head.status, got.body) == (status, body) and "smuggled" not in str(got).lower()

    run(work)


def test_head_has_no_body() -> None:
    async def work() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
        async with serving(saying(answer, answer)) as port, proxying.hub(upstream(port)) as hub:
            for _ in range(2):
                got = await hub.ask("HEAD", "/up/a")
                assert got.field("content-length") == "1000000" and got.body == b""

    run(work)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_an_answer_that_is_none(answer: bytes) -> None:
    async def work() -> None:
        async with serving(saying(answer)) as port, proxying.hub(upstream(port)) as hub:
            assert await code_of(hub.get("/up/a")) == Code.UPSTREAM_ERROR
            lost = Code.UPSTREAM_ERROR if answer.endswith(b"zz\r\n") else Code.UNKNOWN  # the former after its head
            assert await code_of(hub.ask("POST", "/up/a", body=b"x")) == lost

    run(work)


def test_limits_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        line = (await request_of(reader))[0]
        if "half" in line:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await asyncio.sleep(20)

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(upstream(port)) as hub:
            began = time.monotonic()
            assert await code_of(hub.get("/up/silent", timeout_ms=200)) == Code.TIMEOUT
            assert 0.15 < time.monotonic() - began < 1
            assert await code_of(hub.ask("POST", "/up/silent", body=b"x", timeout_ms=200)) == Code.UNKNOWN
            assert await code_of(hub.get("/up/half")) == Code.TIMEOUT

    monkeypatch.setattr("procs.proxy.worker.IDLE_LIMIT_S", 0.3)
    run(work)


def test_uploads() -> None:
    """As long as they say, or chunked; never longer, and never more than is allowed."""
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            seen.append((await request_of(reader))[2])
            writer.write(OK)

    async def work() -> None:
        whole = os.urandom(300_000)
        up = [("PUT /big upload"), ("POST /small")]
        async with serving(handle) as port, proxying.hub(upstream(port, *up, max_upload="400K")) as hub:
            for headers in ([], [("Content-Length", str(len(whole)))]):
                assert (await hub.ask("PUT", "/up/big", headers, whole)).body == b"ok"
            assert seen == [whole, whole]
            assert (await hub.ask("POST", "/up/small")).body == b"ok" and seen[2] == b""
            too_much = [
                ("PUT", "/up/big", [("Content-Length", "409601")], b"x"),
                ("PUT", "/up/big", [], bytes(500_000)),
                ("POST", "/up/small", [], bytes(70_000)),
            ]
            for method, path, headers, body in too_much:
                assert (await hub.ask(method, path, headers, body)).head.status == 413
            smuggled = b"x\r\n\r\nGET /secret HTTP/1.1\r\nHost: x\r\n\r\n"
            assert (await hub.ask("POST", "/up/small", [("Content-Length", "1")], smuggled)).head.status == 400
            assert (await hub.ask("POST", "/up/small", [("Content-Length", "9")], b"short")).head.status == 400
            assert len(seen) == 3

    run(work)


def test_an_upload_may_take_longer_than_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        size = len((await request_of(reader))[2])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % size)

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(upstream(port, "PUT /x upload"), within_s=10) as hub:
            stream = hub.open("PUT", "/up/x", timeout_ms=300)
            for _ in range(6):
                await stream.write(b"x")
                await asyncio.sleep(0.1)
            stream.finish()
            assert (await stream.head()).status == 200 and await proxying.rest(stream) == b"6"
            stalled = hub.open("PUT", "/up/x", timeout_ms=300)
            await stalled.write(b"x")
            with pytest.raises(StreamReset) as caught:
                await stalled.head()
            assert caught.value.code == Code.UNKNOWN

    monkeypatch.setattr("procs.proxy.upstream.BODY_LIMIT_S", 0.5)
    run(work)


def test_an_answer_before_the_end_of_the_upload() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 507 Full\r\nContent-Length: 4\r\n\r\nfull")
        await asyncio.sleep(5)

    async def work() -> None:
        async with (
            serving(handle) as port,
            proxying.hub(upstream(port, "PUT /x upload", max_upload="1G"), within_s=10) as hub,
        ):
            stream = hub.open("PUT", "/up/x")
            await stream.write(bytes(100_000))
            assert (await stream.head()).status == 507 and await proxying.rest(stream) == b"full"
            stream.finish()

    run(work)


def test_a_slow_viewer_slows_the_upstream() -> None:
    sent = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal sent
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(upstream(port)) as hub:
            stream = hub.open("GET", "/up/a")
            stream.finish()
            await stream.head()
            await asyncio.sleep(0.5)
            stuck = sent
            await asyncio.sleep(0.3)
            assert sent == stuck < 12_000_000  # buffers of sockets, and ours
            for _ in range(200):
                await stream.read()
            assert sent > stuck
            stream.reset(Code.CANCEL)

    run(work)


def test_a_reset_closes_the_upstream_at_once() -> None:
    closed: asyncio.Queue[float] = asyncio.Queue()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        line = (await request_of(reader))[0]
        if "body" in line:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        try:
            await reader.read()
        finally:
            closed.put_nowait(time.monotonic())

    async def work() -> None:
        async with serving(handle) as port, proxying.hub(upstream(port)) as hub:
            for path in ("/up/silent", "/up/body"):
                stream = hub.open("GET", path)
                stream.finish()
                await asyncio.sleep(0.15)
                stream.reset(Code.CANCEL)
                began = time.monotonic()
                assert await closed.get() - began < 0.2
            await asyncio.sleep(0.05)
            assert len(hub.worker) == 0

    run(work)


def test_what_is_packed_stays_so() -> None:
    bomb = gzip.compress(bytes(50_000_000))

    async def work() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
        async with serving(saying(answer)) as port, proxying.hub(upstream(port)) as hub:
            got = await hub.get("/up/a")
            assert got.body == bomb and got.field("content-encoding") == "gzip"

    run(work)


@pytest.mark.needs("nginx")
def test_files_of_nginx(tmp_path: Path) -> None:
    folder = tmp_path / "www"
    folder.mkdir()
    big = os.urandom(5_000_000)
    (folder / "big").write_bytes(big)
    (folder / "dir").mkdir()

    async def work(port: int) -> None:
        async with proxying.hub(upstream(port)) as hub:
            got = await hub.get("/up/big")
            assert got.body == big and got.field("content-length") == str(len(big)) and got.field("etag")
            part = await hub.ask("GET", "/up/big", [("Range", "bytes=1000-1999")])
            assert part.head.status == 206 and part.body == big[1000:2000]
            assert (await hub.ask("GET", "/up/big", [("If-None-Match", got.field("etag"))])).head.status == 304
            moved = await hub.get("/up/dir")
            assert moved.head.status == 301 and moved.field("location") == "./dir/"
            answers = await asyncio.gather(*(hub.get("/up/big") for _ in range(5)))
            assert all(answer.body == big for answer in answers)

    with proxying.nginx(folder) as port:
        asyncio.run(work(port))


def test_many_requests_at_once_over_one_link() -> None:
    async def work() -> None:
        async with serving(saying(*[OK] * 10_000)) as port, proxying.hub(upstream(port)) as hub:
            gate = asyncio.Semaphore(60)

            async def one(hub: Hub) -> bytes:
                async with gate:
                    return (await hub.get("/up/a")).body

            assert set(await asyncio.gather(*(one(hub) for _ in range(300)))) == {b"ok"}

    run(work)


def test_refusals_cost_nothing_and_are_counted() -> None:
    async def work() -> None:
        nobody: tuple[Upstream, ...] = (upstream(free_port()),)
        async with proxying.hub(*nobody) as hub:
            for path, status in (("/etc/passwd", 403), ("/up/../x", 400), ("http://x/", 400), ("/up//x", 400)):
                got = await hub.ask("GET", path, body=b"x" * 1000)
                assert got.head.status == status and got.body
            assert sum(hub.worker.refused.values()) == 4
            await asyncio.sleep(0.05)
            assert len(hub.worker) == 0 and hub.link.streams == 0

    run(work)
