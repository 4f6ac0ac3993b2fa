"""One pull a stream, whatever becomes of it: against a small RTSP server that fails in all ways that it can."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from procs.messages.watch import Unit
from procs.webrtc_peer import options, pull, rtsp
from procs.webrtc_peer.pull import Pulls, State
from procs.webrtc_peer.rtsp_login import Login, User
from procs.webrtc_peer.rtsp_login import Server as Origin
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
        self.challenge: list[str] = []  # how a login is asked for
        self.login: Callable[[str, str], str] = lambda method, url: ""  # what has to be answered
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
        if self.challenge and f"Authorization: {self.login(method, url)}\r\n" not in head.decode():
            challenges = "".join(f"WWW-Authenticate: {each}\r\n" for each in self.challenge)
            writer.write(f"RTSP/1.0 401 Unauthorized\r\nCSeq: {number}\r\n{challenges}\r\n".encode())
            return
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
async def serving() -> AsyncIterator[tuple[Server, Origin]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield server, Origin("127.0.0.1", port)
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
        pulls = Pulls(Origin("127.0.0.1", 1), seen.on_unit, seen.on_state)
        pulls.want("cam")
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(ZeroDivisionError):
                await pulls.watch()

    monkeypatch.setattr(rtsp, "describe", describe)
    asyncio.run(main())


def md5(*parts: str) -> str:
    return hashlib.md5(":".join(parts).encode()).hexdigest()


def digest(method: str, url: str) -> str:
    """As RFC 2069 has it, of what `test_a_login` is asked."""
    response = md5(md5("ann", "a camera", "pass,word"), "n1", md5(method, url))
    return f'Digest username="ann", realm="a camera", nonce="n1", uri="{url}", response="{response}"'


@pytest.mark.parametrize("scheme", ["digest", "basic"])
def test_a_login_is_given_where_it_is_asked_for_and_a_wrong_one_once(scheme: str) -> None:
    challenges = {"digest": ['Basic realm="x"', 'Digest realm="a camera", nonce="n1"'], "basic": ['Basic realm="x"']}

    async def main() -> None:
        async with serving() as (server, address):
            server.challenge = challenges[scheme]
            server.login = digest if scheme == "digest" else lambda *_: "Basic YW5uOnBhc3Msd29yZA=="
            seen = Seen()
            Pulls(address._replace(user=User("ann", "pass,word")), seen.on_unit, seen.on_state).want("cam")
            await seen.until(units=2)
            for user, why in ((User("ann", "wrong"), "does not take the login"), (None, "wants a login")):
                refused = Seen()
                Pulls(address._replace(user=user), refused.on_unit, refused.on_state).want("cam")
                await refused.until(states=2)
                assert refused.states[1].state == "dry" and why in refused.states[1].why
                assert not refused.states[1].is_unknown

    asyncio.run(main())


def test_the_login_is_that_of_the_environment_else_of_the_api(tmp_path: Path) -> None:
    environ = {"PLANARIA_RUN_DIR": str(tmp_path), "GO2RTC_HTTP": "http://ann:p%3Aw@10.0.0.7:1984"}
    chosen = options.load([], environ)
    assert chosen.rtsp_at == ("10.0.0.7", 8554, ("ann", "p:w")) and "p:w" not in repr((chosen, chosen.rtsp_at))
    environ |= {"PLANARIA_GO2RTC_USERNAME": "bob", "PLANARIA_GO2RTC_PASSWORD": "secret"}
    chosen = options.load([], environ | {"PLANARIA_GO2RTC_RTSP": "0.0.0.0:7"})
    assert chosen.rtsp_at == ("127.0.0.1", 7, ("bob", "secret")) and "secret" not in repr((chosen, chosen.rtsp_at))


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_digests_are_those_of_the_standard(algorithm: str, response: str) -> None:
    """RFC 7616, 3.9.1."""
    login = Login(User("Mufasa", "Circle of Life"), lambda: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    nonce, opaque = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
    asked = f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, nonce="{nonce}"'
    assert login.headers("GET", "/dir/index.html") == []
    assert login.take(f'{asked}, opaque="{opaque}"')
    (said,) = login.headers("GET", "/dir/index.html")
    for part in (f'response="{response}"', "nc=00000001", "qop=auth", f'opaque="{opaque}"', f"algorithm={algorithm}"):
        assert part in said
    assert "nc=00000002" in login.headers("GET", "/")[0]
    assert not login.take(asked) and not login.take(asked.replace(nonce, "other"))
    assert login.take(f"{asked.replace(nonce, 'third')}, stale=TRUE")
    assert "Circle" not in repr(User("Mufasa", "Circle of Life"))


@pytest.mark.parametrize("challenge", ["", "Negotiate", 'Digest realm="x"', 'Digest nonce="1", qop="auth-int"',
                                       'Digest nonce="1", algorithm=ROT13'])  # fmt: skip
def test_what_can_not_be_answered_is_not(challenge: str) -> None:
    login = Login(User("ann", "x"))
    assert not login.take(challenge) and login.headers("GET", "/") == []
