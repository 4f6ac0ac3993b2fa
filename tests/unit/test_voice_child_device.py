"""The link to a device: with devices that are as they should be, and as they are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from procs.messages.voice import Services, VoiceSpec
from procs.voice.child import device as link
from procs.voice.child.device import Device
from procs.voice.child.far_end import Frame
from procs.wire import realtime as wire
from procs.wire.conversation import Session, Smalltalk
from tests.rig import free_port
from tests.voice_ends import until

SESSION = Session(allow_recording=False, instructions=Smalltalk(), voice="Watercooler")
HELLO = wire.encode(wire.Hello(name="d", echo="none"))


class Owner:
    """Who talks over the link, and what was told."""

    def __init__(self, port: int, **fields: Any) -> None:
        base: dict[str, Any] = {"id": "x", "run_dir": "", "services": Services([], [], ""), "instructions": ""}
        spec = VoiceSpec(**{**base, "name": "d", "host": "127.0.0.1", "port": port, "reconnect_delay": 0.05, **fields})
        self.frames: list[Frame] = []
        self.states: list[str] = []
        self.opens: list[str] = []
        self.losses = 0
        self.figures: list[str] = []
        self.link = Device(spec, SESSION, self)

    async def opened(self, protocol: str) -> None:
        self.opens.append(protocol)

    def received(self, frame: Frame) -> None:
        self.frames.append(frame)

    def lost(self) -> None:
        self.losses += 1

    def changed(self) -> None:
        if not self.states or self.states[-1] != self.link.state:
            self.states.append(self.link.state)

    def figure(self, name: str, value: float) -> None:
        self.figures.append(name)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Owner]:
        task = asyncio.ensure_future(self.link.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Called:
    """A device of ours, as far as the link goes."""

    def __init__(
        self, *says: str, token: str = "", protocol: str = wire.OURS, tls: ssl.SSLContext | None = None
    ) -> None:
        self.port = free_port()
        self._says, self._token, self._protocol = says, token, protocol
        self._tls = tls
        self.close: tuple[int, str] | None = None
        self.sockets: list[ServerConnection] = []
        self.open = self.most = 0
        self.told: list[str | bytes] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Called]:
        async with serve(
            self._call, "127.0.0.1", self.port, compression=None, ping_interval=None,
            process_request=self._let_in, ssl=self._tls,
            subprotocols=[Subprotocol(self._protocol)] if self._protocol else None,
        ):  # fmt: skip
            yield self

    def _let_in(self, socket: ServerConnection, request: Any) -> Any:
        shown = request.headers.get("Authorization", "")
        return None if shown == (f"Bearer {self._token}" if self._token else "") else socket.respond(401, "no\n")

    async def _call(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        self.open += 1
        self.most = max(self.most, self.open)
        with contextlib.suppress(ConnectionClosed):
            for each in self._says:
                await socket.send(each)
            if self.close:
                await socket.close(*self.close)
            async for frame in socket:
                self.told.append(frame)
        self.open -= 1


def run(test: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(main())


def test_a_device_is_told_of_the_session_first_and_what_it_says_is_passed_on() -> None:
    async def test() -> None:
        async with Called(HELLO, token="secret").running() as its, Owner(its.port, token="secret").running() as owner:
            await until(lambda: owner.frames)
            assert owner.opens == [wire.OURS] and owner.frames == [HELLO]
            left: list[int] = []
            owner.link.send("one", sent=lambda: left.append(len(its.told)))
            owner.link.send(b"two")
            assert left == [], "it waits"
            await until(lambda: len(its.told) == 3)
            assert json.loads(its.told[0])["session"] == {
                "allow_recording": False, "instructions": {"type": "smalltalk"}, "voice": "Watercooler",
            }  # fmt: skip
            assert len(left) == 1 and its.told[1:] == ["one", b"two"] and owner.states == ["connecting", "connected"]

    run(test())


@pytest.mark.parametrize(("protocol", "is_spoken"), [("realtime", "realtime"), ("", "realtime")])
def test_a_published_device_need_not_say_anything(protocol: str, is_spoken: str) -> None:
    async def test() -> None:
        async with Called(protocol=protocol).running() as its, Owner(its.port).running() as owner:
            await until(lambda: owner.opens)
            assert owner.opens == [is_spoken] and owner.frames == []

    run(test())


BUSY = wire.encode(wire.Error(error=wire.Problem(type="fatal", code="busy", message="another one is here")))


@pytest.mark.parametrize(
    ("says", "close", "token", "why"),
    [
        ((BUSY,), (1013, "another one is here"), "", "busy: another one is here"),
        ((), (1013, "another one is here"), "", "busy: another one is here"),
        ((), (1008, "go away"), "", "closed with 1008 go away"),
        ((), None, "other", "refuses the token, or asks for one (HTTP 401)"),
    ],
)
def test_a_device_that_does_not_want_us_says_why_and_was_never_connected(
    says: tuple[str, ...], close: tuple[int, str] | None, token: str, why: str
) -> None:
    async def test() -> None:
        its = Called(*says, token="secret" if token else "")
        its.close = close
        async with its.running(), Owner(its.port, token=token).running() as owner:
            await until(lambda: owner.link.attempts >= 3)
            assert owner.link.problem == why
            assert set(owner.states) == {"connecting", "waiting"} and owner.opens == [] and owner.losses == 0

    run(test())


def test_nobody_there_is_said_once_however_often_it_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        owner = Owner(free_port())
        async with owner.running():
            await until(lambda: owner.link.attempts >= 5)

    run(test())
    assert [record.message for record in caplog.records].count("device not connected") == 1


def test_it_is_away_since_it_was_last_connected_however_often_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "SERVED_S", 60.0)

    async def test() -> None:
        owner = Owner(free_port(), since=700.0)
        async with owner.running():
            await until(lambda: owner.link.attempts >= 3)
            assert owner.link.since == 700.0, "as it was told of the life before"
        its = Called(HELLO)
        owner = Owner(its.port)
        async with owner.running():
            async with its.running():
                await until(lambda: owner.opens)
                connected = owner.link.since
            await until(lambda: owner.link.state == "waiting")
            lost = owner.link.since
            await until(lambda: owner.link.attempts >= 3)
            assert connected < lost == owner.link.since

    run(test())


def test_without_auto_reconnect_one_attempt_is_all() -> None:
    async def test() -> None:
        owner = Owner(free_port(), auto_reconnect=False)
        await owner.link.run()
        assert owner.states == ["connecting", "over"] and "nothing listens" in owner.link.problem

    run(test())


async def failed(owner: Owner) -> None:
    await until(lambda: owner.link.attempts)


async def opened_again(owner: Owner, before: int) -> None:
    await until(lambda: len(owner.opens) > before)


def test_there_are_never_two_connections_and_one_that_was_good_is_made_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "SERVED_S", 0.3)

    async def test() -> None:
        async with Called(HELLO).running() as its, Owner(its.port, reconnect_delay=20.0).running() as owner:
            await until(lambda: owner.opens)
            for _ in range(2):
                await asyncio.sleep(link.SERVED_S + 0.1)
                before, began = len(owner.opens), time.monotonic()
                its.sockets[-1].transport.abort()
                await opened_again(owner, before)
                assert time.monotonic() - began < 5.0  # far from the 20 s that a failure would cost
            assert its.most == 1 and owner.losses == 2
            assert owner.figures == ["planaria_voice_reconnect_seconds"] * 2

    run(test())


def test_one_that_breaks_at_once_counts_as_a_failure() -> None:
    async def test() -> None:
        async with Called(HELLO).running() as its, Owner(its.port, reconnect_delay=20.0).running() as owner:
            await until(lambda: owner.opens)
            its.sockets[-1].transport.abort()
            await until(lambda: owner.link.state == "waiting")
            await asyncio.sleep(0.5)
            assert len(owner.opens) == 1 and owner.link.attempts == 1

    run(test())


def test_one_that_hangs_is_noticed_by_its_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_EVERY_S", 0.2)
    monkeypatch.setattr(link, "PONG_S", 0.2)

    async def test() -> None:
        async with Called(HELLO).running() as its, Owner(its.port).running() as owner:
            await until(lambda: owner.opens)
            its.sockets[0].transport.pause_reading()
            await until(lambda: owner.losses)
            assert "ping" in owner.link.problem
            await until(lambda: len(owner.opens) == 2)
            its.sockets[0].transport.abort()

    run(test())


def test_one_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CONNECT_S", 0.3)

    async def test() -> None:
        async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(nothing, "127.0.0.1", 0)
        async with Owner(server.sockets[0].getsockname()[1]).running() as owner:
            await until(lambda: owner.link.attempts)
            assert owner.link.problem == "does not answer within 0.3 s"
        server.close()

    run(test())


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\0\1\2", b""])
def test_what_is_no_device_is_told_in_words(answer: bytes) -> None:
    async def test() -> None:
        async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        async with Owner(server.sockets[0].getsockname()[1]).running() as owner:
            await until(lambda: owner.link.attempts)
            said = ("does not speak WebSocket", "answers HTTP 200", "the connection broke", "Connection reset by peer")
            assert owner.link.problem in said
        server.close()

    run(test())


def test_a_redirect_is_not_followed_with_our_token() -> None:
    async def test() -> None:
        async with Called(HELLO, token="t").running() as other:

            async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                place = f"http://127.0.0.1:{other.port}/"
                writer.write(f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())
                writer.close()

            server = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
            async with Owner(server.sockets[0].getsockname()[1], token="t").running() as owner:
                await until(lambda: owner.link.attempts)
                assert "HTTP 302" in owner.link.problem and other.sockets == []
            server.close()

    run(test())


@pytest.mark.parametrize("attempts", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("delay", [0.1, 5.0, 60.0])
def test_pauses_are_at_least_as_long_as_was_set_and_double_up_to_a_cap(attempts: int, delay: float) -> None:
    owner = Owner(1, reconnect_delay=delay, failures=attempts)
    most = max(delay, min(link.CAP_S, delay * 2.0 ** min(attempts - 1, 30)))
    pauses = [owner.link._pause() for _ in range(200)]
    assert all(delay <= pause <= most for pause in pauses)
    if most > delay:
        assert max(pauses) - min(pauses) > (most - delay) / 2  # they are not all alike


def test_what_the_device_does_not_read_is_dropped_sound_first() -> None:
    owner = Owner(1)
    sent = [owner.link.send(b"sound", sound=True) for _ in range(link.MAX_SOUND + 10)]
    assert sent.count(True) == link.MAX_SOUND
    assert owner.link.send("an event")
    assert not all(owner.link.send("an event") for _ in range(link.MAX_TOLD))


@pytest.mark.needs("openssl")
def test_with_tls_only_a_device_whose_certificate_is_trusted_gets_the_token(tmp_path: Path) -> None:
    made = ["-subj", "/CN=device", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    ca = str(tmp_path / "cert.pem")

    async def test() -> None:
        async with Called(HELLO, token="t", tls=context).running() as its:
            async with Owner(its.port, token="t", tls=True, ca=ca).running() as owner:
                await until(lambda: owner.opens)
            for wrong, why in ({"ca": ""}, "not trusted"), ({"ca": "/nowhere.pem"}, "cannot be read"):
                async with Owner(its.port, token="t", tls=True, **wrong).running() as owner:
                    await failed(owner)
                    assert why in owner.link.problem
            assert len(its.sockets) == 1

    run(test())
