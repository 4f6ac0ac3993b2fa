"""What is told of the speech services while one of them hangs: what is known, and nobody waits for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from procs.messages.voice import Services
from procs.voice import services, unreached
from procs.voice.services import Health

UP = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
LONG_S = 60.0  # longer than any test


class Service:
    """One that counts who asks it; `hangs`: it accepts, and says nothing."""

    def __init__(self) -> None:
        self.hangs = False
        self.asked = 0
        self.port = 0

    async def call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            if self.hangs:
                await reader.read()
            else:
                writer.write(UP)
        writer.close()


@contextlib.asynccontextmanager
async def asked(service: Service, told: list[bool]) -> AsyncIterator[Health]:
    """Three services, of which the test has the language model in its hand, and who asks them."""
    async with contextlib.AsyncExitStack() as stack:
        others = Service()
        for each in (others, service):
            server = await stack.enter_async_context(await asyncio.start_server(each.call, "127.0.0.1", 0))
            each.port = server.sockets[0].getsockname()[1]
        near = f"ws://127.0.0.1:{others.port}"
        health = Health(Services([near], [near], f"http://127.0.0.1:{service.port}"), told.append)
        work = asyncio.ensure_future(health.work())
        try:
            yield health
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test

    asyncio.run(main())


def test_who_asks_for_what_is_known_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "ASK_S", LONG_S)

    async def test() -> None:
        model = Service()
        async with asked(model, []) as health:
            assert await health.known(0.0) == {"stt": "", "tts": "", "llm": ""}, "who is near is waited for"
            model.hangs = True
            for _ in range(3):
                assert await health.known(0.0) == {"stt": "", "tts": "", "llm": ""}, "as it was known"
            async with asyncio.timeout(10):
                while model.asked < 2:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.01)
            assert model.asked == 2, "all three wait for the same answer"

    run(test())


def test_what_is_down_is_said_in_no_words_of_python() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        health = Health(
            Services([f"ws://127.0.0.1:{port}"], ["ws://x.invalid:1"], f"http://localhost:{port}"), lambda _: None
        )
        work = asyncio.ensure_future(health.work())
        nobody = "refuses the connection: nothing listens there"
        found = await health.look()
        assert found["stt"] == f"ws://127.0.0.1:{port}: {nobody}"
        assert found["tts"] == "ws://x.invalid:1: nobody knows its name"
        assert found["llm"].startswith(f"http://localhost:{port}: ") and "Connect call failed" not in found["llm"]
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    run(test())
    assert unreached.why(OSError(113, "Connect call failed ('10.0.0.5', 8765)")) == "No route to host"
    assert (
        unreached.why(OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1)")) == "cannot be reached"
    )


def test_what_has_not_answered_yet_is_not_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "ASK_S", LONG_S)

    async def test() -> None:
        model = Service()
        model.hangs = True
        async with asked(model, []) as health:
            found = await health.known(0.0)
            assert found["llm"] == "it has not answered yet"

    run(test())


def test_a_health_check_has_what_was_so_a_moment_ago_and_else_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "FRESH_S", 0.0)
    monkeypatch.setattr(services, "ASK_S", 0.5)

    async def test() -> None:
        model, told = Service(), list[bool]()
        async with asked(model, told) as health:
            assert not any((await health.look()).values()) and told == [True]
            model.hangs = True
            assert not any((await health.look()).values()) and told == [True], "it was up a moment ago"
            monkeypatch.setattr(services, "RECENT_S", 0.0)
            assert (await health.look())["llm"].endswith("no answer within 0.5 s") and told[-1] is False

    run(test())
