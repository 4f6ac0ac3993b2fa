"""Anything as a target, as an answer's bytes, or as a video: refused or passed on whole, and never a way around."""

from __future__ import annotations

import asyncio
import posixpath
import re
from urllib.parse import unquote

from hypothesis import given, settings
from hypothesis import strategies as st

from procs.errors import UpstreamFailed
from procs.proxy import go2rtc, headers, options, policy
from procs.proxy.http1 import Connection
from procs.proxy.live import Backlog, Messages, Mjpeg
from procs.proxy.mp4 import Mp4
from procs.proxy.policy import Allowed, Denied
from procs.proxy.unit import Unit
from procs.wire.mux1 import DROPPED_BEFORE, KEY
from tests.examples import some_of

FILES = {"url": "http://127.0.0.1:1", "prefix": "/files", "rules": ["GET /pub/**?*"]}
ALL = (go2rtc.upstream("127.0.0.1", 1984), *options.upstreams({"files": FILES}, "test"))

# Pieces from which attacks are made, so that the search comes near them.
_PIECES = (
    *(
        "/",
        "//",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        "%2f",
        "%5c",
        "\\",
        "%25",
        "%252e",
        "%00",
        "%0d%0a",
        ";",
        "?",
        "&",
        "=",
        "#",
    ),
    *("api", "config", "streams", "ws", "stream.mp4", "frame.jpeg", "exit", "files", "pub", "secret", "..;", ":", "@"),
    *(
        "src",
        "dst",
        "src=",
        "exec:id",
        "rtsp://x",
        "omega-0",
        "http://",
        "localhost",
        " ",
        "\r\n",
        "\x00",
        "é",
        "%c3%a9",
    ),
)
targets = st.lists(st.sampled_from(_PIECES) | st.text(max_size=3), max_size=12).map("".join)
rooted = targets.map(lambda text: f"/{text}")


def understood(target: str) -> set[str]:
    """Paths that some server might take this for: decoded up to three times, made plain, backslashes as slashes."""
    found = set()
    path = target.split("?")[0]
    for _ in range(3):
        for each in (path, path.replace("\\", "/"), re.sub(r";[^/]*", "", path)):
            found.add(re.sub("/+", "/", posixpath.normpath(each)))
        path = unquote(path)
    return found


@settings(max_examples=some_of(400), deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "get", "X"]), rooted | targets, st.booleans()
)
def test_no_target_leads_elsewhere(method: str, target: str, websocket: bool) -> None:
    found = policy.decide(ALL, method, target, websocket=websocket)
    if isinstance(found, Denied):
        assert found.status in (400, 403) and found.reason
        return
    assert isinstance(found, Allowed) and found.target.startswith("/") and method in found.rule.methods
    assert re.fullmatch(r"[!-~]+", found.target)  # it goes into a request line
    below = understood(found.target)
    if found.upstream.name == "files":
        assert all(path.startswith("/pub") for path in below)
    else:
        assert all(any(rule.path.fullmatch(path) for rule in go2rtc.RULES) for path in below)
        assert "dst" not in found.keys or found.rule.answer == "page"
        assert not any(":" in name.split("/")[0] and re.match(r"[a-z]+:", name) for name in found.streams)


@settings(max_examples=some_of(300), deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_locations_stay_below_the_device(here: str, there: str) -> None:
    target = "/" + here.replace("?", "").replace("#", "")
    moved = headers.relative(ALL[0], target, "/" + there.lstrip("/\\"))
    assert moved is None or not moved.startswith("/")


@settings(max_examples=some_of(250), deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *(
                    b"HTTP/1.1 200 OK\r\n",
                    b"HTTP/1.1 100 C\r\n",
                    b"Content-Length: 3\r\n",
                    b"Content-Length: 9\r\n",
                    b"\r\n",
                ),
                *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc"),
                *(b"HTTP/1.1 204 N\r\n", b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n"),
            ]
        )
        | st.binary(max_size=8),
        max_size=12,
    ),
    st.integers(1, 20),
    st.sampled_from(["GET", "HEAD", "POST"]),
)
def test_any_answer_ends(pieces: list[bytes], step: int, method: str) -> None:
    """It comes whole or breaks off with an error of ours, whatever it is and wherever it is cut."""

    async def run() -> None:
        connection = Connection()
        connection.connection_made(_Wire())
        connection.begin(method, b"GET / HTTP/1.1\r\n\r\n")
        data = b"".join(pieces)
        for at in range(0, len(data), step):
            connection.data_received(data[at : at + step])
        connection.connection_lost(None)
        try:
            await connection.head(1)
            size = 0
            while piece := await connection.read(1):
                size += len(piece)
            assert connection.status >= 200 and size <= len(data)
            if connection.length is not None and method != "HEAD" and connection.status not in (204, 304):
                assert size == connection.length
        except UpstreamFailed:
            pass
        assert not connection.is_reusable

    asyncio.run(run())


class _Wire(asyncio.Transport):
    """A transport that leads nowhere."""

    def write(self, data: object) -> None:
        """Lose it."""

    def abort(self) -> None:
        """Nothing to be done."""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def pause_reading(self) -> None:
        """Nothing to be done."""

    def resume_reading(self) -> None:
        """Nothing to be done."""


_BOX_NAMES = st.sampled_from(
    [b"ftyp", b"moov", b"moof", b"mdat", b"trak", b"traf", b"tfhd", b"trun", b"tkhd", b"hdlr", b"mvex"]
)
boxes = st.recursive(
    st.binary(max_size=40),
    lambda inner: st.lists(st.tuples(_BOX_NAMES, inner), max_size=4).map(
        lambda each: b"".join((len(body) + 8).to_bytes(4, "big") + name + body for name, body in each)
    ),
    max_leaves=20,
)


@settings(max_examples=some_of(250), deadline=None)
@given(boxes | st.binary(max_size=200), st.integers(1, 50))
def test_any_video_passes_whole(data: bytes, step: int) -> None:
    for splitter in (Mp4(), Mjpeg()):
        units = [unit for at in range(0, len(data), step) for unit in splitter.feed(data[at : at + step])]
        assert b"".join(unit.data for unit in units) + splitter.rest() == data
    messages = Messages()
    for is_text in (True, False):
        assert messages.unit(data, is_text=is_text).data == data


@settings(max_examples=some_of(300), deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), max_size=60))
def test_whatever_is_left_out_pictures_go_on_with_a_keyframe(steps: list[tuple[bool, bool, int]]) -> None:
    backlog, seen, put, now = Backlog(late_s=0.5, max_waiting=50), [], 0, 0.0
    for is_key, may_drop, takes in steps:
        backlog.put(Unit(b"%03d" % put, is_key, may_drop), now)
        put, now = put + 1, now + 0.2
        seen += [backlog.pop() for _ in range(min(takes, len(backlog)))]
    seen += [backlog.pop() for _ in range(len(backlog))]
    numbers = [int(data) for data, _ in seen]
    assert numbers == sorted(numbers) and len(numbers) + backlog.dropped == put
    droppable = {number for number, step in enumerate(steps) if step[1]}
    assert set(range(put)) - set(numbers) <= droppable
    shown = [(int(data), flags) for data, flags in seen if int(data) in droppable]
    before = -1
    for number, flags in shown:
        if any(missing in droppable for missing in range(before + 1, number)):
            assert flags & DROPPED_BEFORE and flags & KEY
        before = number
