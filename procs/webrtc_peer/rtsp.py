"""A small RTSP client: asks go2rtc for a stream and hands its RTP packets on as they come, in one TCP connection.

Why not PyAV: ffmpeg's parser gives a picture out only when the next one has begun, a frame of delay for everybody.
Source: RFC 2326 (RTSP), 10.12 (interleaved), RFC 4566 (SDP).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
from collections.abc import Callable
from typing import NamedTuple, cast

from procs.errors import LinkLost, Refused
from procs.webrtc_peer.rtsp_login import Login, Server, User

ANSWER_S = 10.0  # go2rtc starts a producer for DESCRIBE
KEEPALIVE_S = 20.0  # go2rtc gives up on a client that says nothing for a minute
SET_LOGIN = "PLANARIA_GO2RTC_USERNAME and PLANARIA_GO2RTC_PASSWORD"
MAX_ANSWER = 64 * 1024
MAX_WAITING = 64 * 1024
# The first of these that a stream has is taken: what a viewer's browser is sure to play, and we pass on as it is; else
# whatever sound there is.
QUERY = "video=h264&audio=opus,pcma,pcmu&audio"
_NAMES = {"mpeg4-generic": "aac"}  # of RTP; ours


class Answer(NamedTuple):
    """What go2rtc says to a request."""

    status: int
    headers: dict[str, str]
    body: str


class Track(NamedTuple):
    """One track of a stream's description."""

    kind: str  # video or audio
    codec: str  # lower case: h264, opus, pcma, aac, ...
    clock: int  # ticks a second of its RTP times
    payload_type: int
    control: str
    sets: tuple[bytes, ...] = ()  # H.264: parameter sets; AAC: its AudioSpecificConfig
    profile: str = ""  # H.264: profile-level-id, lower case


class NoSuchStream(LinkLost):
    """go2rtc does not have it, or nothing of it that we could pass on."""

    exit_code = 11


class Connection(asyncio.Protocol):
    """One connection. `over` is done, with LinkLost, when it has ended."""

    def __init__(self, user: User | None = None) -> None:
        self._login = Login(user) if user else None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over.add_done_callback(lambda over: over.exception())  # nobody has to look
        self._transport: asyncio.Transport | None = None
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._sequence = 0
        self._rest = b""
        self._take: Callable[[bytes], None] = lambda _: None

    async def ask(self, method: str, url: str, *more: str) -> Answer:
        """A request and its answer, with a login where that is asked for. Raises LinkLost."""
        answer = await self._ask(method, url, *more)
        if answer.status == 401 and self._login and self._login.take(answer.headers.get("www-authenticate", "")):
            answer = await self._ask(method, url, *more)
        if answer.status == 401:
            raise LinkLost("go2rtc does not take the login" if self._login else f"go2rtc wants a login: {SET_LOGIN}")
        return answer

    async def _ask(self, method: str, url: str, *more: str) -> Answer:
        self._sequence += 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[self._sequence] = answer
        self.say(method, url, *more)
        try:
            async with asyncio.timeout(ANSWER_S):
                await answer
        except TimeoutError:
            raise LinkLost(f"no answer to {method} within {ANSWER_S:g} s") from None
        return answer.result()

    def say(self, method: str, url: str, *more: str) -> None:
        """A request whose answer nobody waits for."""
        if not self._transport or self._transport.is_closing():
            raise LinkLost("closed")
        login = self._login.headers(method, url) if self._login else []
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._sequence}", "User-Agent: planaria", *login, *more, "", ""]
        self._transport.write("\r\n".join(lines).encode())

    def write(self, data: bytes) -> None:
        """Send a packet, framed by whoever calls. One that nobody takes in time is left out."""
        if self._transport and self._transport.get_write_buffer_size() < MAX_WAITING:
            self._transport.write(data)

    def hand(self, take: Callable[[bytes], None]) -> None:
        """Give each RTP packet to this from now on."""
        self._take = take

    def close(self) -> None:
        """End it at once."""
        self._end("closed by us")
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"the connection ended: {error}" if error else "go2rtc ended the connection")

    def data_received(self, data: bytes) -> None:
        buffer, at = self._rest + data, 0
        try:
            while (end := self._part(buffer, at)) > 0:
                at = end
        except Refused as reason:
            self._end(str(reason))
            self.close()
        self._rest = buffer[at:]

    def _part(self, buffer: bytes, at: int) -> int:
        """Take one packet or answer; the index behind it, 0 when it is not whole yet."""
        if len(buffer) - at < 4:
            return 0
        if buffer[at] == 0x24:  # $
            end = at + 4 + (buffer[at + 2] << 8 | buffer[at + 3])
            if end > len(buffer):
                return 0
            if not buffer[at + 1] & 1:  # the odd channels carry RTCP
                self._take(buffer[at + 4 : end])
            return end
        head_end = buffer.find(b"\r\n\r\n", at)
        if head_end < 0:
            if len(buffer) - at > MAX_ANSWER:
                raise Refused("an answer without an end")
            return 0
        return self._answer(buffer, at, head_end + 4)

    def _answer(self, buffer: bytes, at: int, body: int) -> int:
        first, *lines = buffer[at:body].decode(errors="replace").split("\r\n")
        headers: dict[str, str] = {}
        for name, _, value in (line.partition(":") for line in lines):
            before = headers.get(name.strip().lower(), "")
            headers[name.strip().lower()] = f"{before}, {value.strip()}" if before else value.strip()
        length = _number(headers.get("content-length", "0"))
        if not 0 <= length <= MAX_ANSWER:
            raise Refused("an answer of an impossible length")
        end = body + length
        if end > len(buffer):
            return 0
        words = first.split()
        asked = self._answers.pop(_number(headers.get("cseq", "")), None)
        if asked and not asked.done():
            status = _number(words[1]) if len(words) > 1 else 0
            asked.set_result(Answer(status, headers, buffer[body:end].decode(errors="replace")))
        return end

    def _end(self, why: str) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LinkLost(why))
        self._answers.clear()
        if not self.over.done():
            self.over.set_exception(LinkLost(why))


class Player:
    """A stream that plays; read `tracks`, then `play`."""

    def __init__(self, connection: Connection, url: str, tracks: list[Track]) -> None:
        self._connection, self._url, self.tracks = connection, url, tracks

    async def play(self, take: Callable[[bytes], None]) -> None:
        """Hand RTP packets of all tracks to `take` until the connection ends. Raises LinkLost, then or at once."""
        session: list[str] = []
        for at, track in enumerate(self.tracks):
            transport = f"Transport: RTP/AVP/TCP;unicast;interleaved={2 * at}-{2 * at + 1}"
            status, headers, _ = await self._connection.ask("SETUP", track.control, transport, *session)
            if status != 200:
                raise LinkLost(f"go2rtc answered SETUP with {status}")
            session = [f"Session: {headers.get('session', '').partition(';')[0]}"]
        self._connection.hand(take)
        await self._connection.ask("PLAY", self._url, *session)
        while True:
            await asyncio.wait([self._connection.over], timeout=KEEPALIVE_S)
            if self._connection.over.done():
                await self._connection.over
            self._connection.say("OPTIONS", self._url, *session)

    def close(self) -> None:
        """End it at once."""
        self._connection.close()


async def describe(server: Server, stream: str) -> Player:
    """Connect and ask for a stream. Raises LinkLost, OSError; NoSuchStream when go2rtc has nothing for us."""
    url = f"rtsp://{server.host}:{server.port}/{stream}"
    connection, tracks = await description(server, f"{url}?{QUERY}", url)
    if any(track.codec == "h264" for track in tracks):
        return Player(connection, url, tracks)
    connection.close()
    # It says the same, 404, of a stream that it does not know and of one that has nothing of what was asked for.
    connection, tracks = await description(server, url, url)
    connection.close()
    has = ", ".join(track.codec.upper() for track in tracks)
    raise NoSuchStream(f"{stream} has {has}, and no H.264 to pass on" if has else f"go2rtc has no stream {stream}")


async def description(server: Server, asked: str, base: str) -> tuple[Connection, list[Track]]:
    """A new connection, since go2rtc ends each that it has refused something; no tracks where it has. Raises LinkLost,
    OSError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(ANSWER_S):
        _, connection = await loop.create_connection(lambda: Connection(server.user), server.host, server.port)
    try:
        answer = await connection.ask("DESCRIBE", asked, "Accept: application/sdp")
    except BaseException:
        connection.close()
        raise
    if answer.status != 200:
        return connection, []
    return connection, described(answer.body, answer.headers.get("content-base", base).rstrip("/"))


def described(sdp: str, base: str) -> list[Track]:
    """The first video and the first audio track of a description that we know how to pass on."""
    tracks: dict[str, Track] = {}
    for kind, section in re.findall(r"^m=(video|audio) (.*?)(?=^m=|\Z)", sdp, re.MULTILINE | re.DOTALL):
        found = re.search(r"^a=rtpmap:(\d{1,3}) ([\w-]+)/([1-9]\d{0,8})\b", section, re.MULTILINE)
        control = re.search(r"^a=control:(\S+)", section, re.MULTILINE)
        if found and control and kind not in tracks:
            url = control[1] if "://" in control[1] else f"{base}/{control[1]}"
            codec = _NAMES.get(found[2].lower(), found[2].lower())
            sets = _config(section) if codec == "aac" else _sets(section)
            tracks[kind] = Track(kind, codec, int(found[3]), int(found[1]), url, sets, _profile(section))
    return list(tracks.values())


def _number(text: str) -> int:
    """-1 for what is none, or none that anybody means."""
    return int(text) if text.isdecimal() and len(text) < 10 else -1


def _sets(section: str) -> tuple[bytes, ...]:
    found = re.search(r"sprop-parameter-sets=([^;\s]+)", section)
    with contextlib.suppress(binascii.Error):
        return tuple(base64.b64decode(each, validate=True) for each in found[1].split(",")) if found else ()
    return ()


def _config(section: str) -> tuple[bytes, ...]:
    found = re.search(r"mode=AAC-hbr\b", section) and re.search(r"\bconfig=((?:[0-9a-fA-F]{2})+)", section)
    return (bytes.fromhex(found[1]),) if found else ()


def _profile(section: str) -> str:
    found = re.search(r"profile-level-id=([0-9a-fA-F]{6})", section)
    return found[1].lower() if found else ""
