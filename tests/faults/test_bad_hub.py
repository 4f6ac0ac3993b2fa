"""A device whose hub breaks the protocol, or asks for what nobody may have: it says no, and what is right still works.

Real ws_link and proxies, and an upstream of ours, against a hub that puts its frames together by hand. What it may say
on the control connection is in test_ws_link.py.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from procs.settings import ROOT
from tests.faults.hostile import (
    CREDIT,
    DATA,
    FIN,
    HEAD,
    OPEN,
    PING,
    PONG,
    RESET,
    BadHub,
    Mux,
    described,
    frame,
    get,
    violations,
)
from tests.faults.origin import Origin, content
from tests.faults.wall import RULES
from tests.linked import Linked, linked
from tests.rig import clean_environ, free_port, until

PROTOCOL, FLOW, TOO_MANY = 6, 5, 7
STREAMS, OPENS = 64, 10_000
INIT_CREDIT, MAX_FRAME = 128 * 1024, 64 * 1024
# The same process, but that it takes each connection that it had for a good one: a hub that closes one after the other
# is left alone for longer and longer.
PROXY = """
from procs import life
from procs.proxy import options, shell
shell.STEADY_S = 0.0
life.run("proxy", options.load, shell.serve)
"""


class Wall:
    """A device and its hub."""

    def __init__(self, hub: BadHub, link: Linked, proxy: subprocess.Popen[bytes], origin: Origin, log: Path) -> None:
        self.hub, self.link, self.proxy, self.origin, self._log = hub, link, proxy, origin, log
        self.mux = hub.data()
        self._next = 1

    def sid(self) -> int:
        """An id that was never opened on this connection."""
        self._next += 2
        return self._next

    def again(self) -> Mux:
        """The data connection that the proxy makes when the one before is over."""
        self.mux, self._next = self.hub.data(), 1
        return self.mux

    def renewed(self) -> None:
        """Go on with a connection that is open: what has ended one in an earlier test is that test's affair."""
        if (mux := self.hub.newest(self.mux)) is not self.mux:
            self.mux, self._next = mux, 1

    def works(self) -> bool:
        """Whether a request is answered as ever."""
        sid = self.sid()
        self.mux.send(get(sid, "/files/file/1000"), frame(DATA, sid, b"", FIN))
        return self.mux.body(sid) == (200, content(1000))

    def said(self) -> str:
        """What the proxy has logged."""
        return self._log.read_text()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wall]:
    """A device with one proxy, connected to a hub that is no good."""
    folder = tmp_path_factory.mktemp("bad")
    run = folder / "run"
    run.mkdir(mode=0o700)
    with Origin(folder) as origin, BadHub() as hub, linked(run, hub.backend, "--device-id", "pi-cam-001") as link:
        files = {"url": f"http://127.0.0.1:{origin.port}", "prefix": "/files", "rules": RULES, "max_upload": "1M"}
        (run / "proxy.json").write_text(json.dumps({"upstreams": {"files": files}}))
        environ = clean_environ(PLANARIA_RUN_DIR=str(run), GO2RTC_HTTP=f"http://127.0.0.1:{free_port()}")
        with (folder / "proxy.log").open("ab") as out:
            command = [sys.executable, "-c", PROXY]
            proxy = subprocess.Popen(command, env=environ, stdout=out, stderr=out, cwd=ROOT)
        try:
            yield Wall(hub, link, proxy, origin, folder / "proxy.log")
        finally:
            proxy.send_signal(signal.SIGKILL)
            proxy.wait()


@pytest.fixture
def wall(running: Wall) -> Iterator[Wall]:
    """That device. What was done to it costs it neither a process nor the control connection."""
    before = running.link.until(lambda state: state.state == "connected").reconnects
    running.renewed()
    yield running
    assert running.works()
    assert running.proxy.poll() is None
    assert running.link.until(lambda state: state.state == "connected").reconnects == before
    assert "unforeseen" not in running.said()


VIOLATIONS = violations(own=91, theirs=90)


@pytest.mark.parametrize("name", VIOLATIONS)
def test_what_breaks_the_session_closes_it_and_the_next_one_works(wall: Wall, name: str) -> None:
    mux = wall.mux
    mux.send(VIOLATIONS[name])
    code, reason = mux.closed()
    assert code in (1002, 1009) and (reason or name in ("no frame", "an oversized message", "text"))
    wall.again()
    until(lambda: '"no data connection"' in wall.said() or name == "text")


def opened(wall: Wall, path: str = "/files/slow?s=5", **more: object) -> int:
    """A stream that is open, its answer some time away."""
    sid = wall.sid()
    wall.mux.send(get(sid, path, **more))
    return sid


NO_OPENING: dict[str, bytes] = {
    "no JSON": b"{", "no object": b"[]", "nothing": b"", "no text": b'{"kind": "\xff"}', "deep": b"[" * 50_000,
    "no kind": b'{"method": "GET", "path": "/"}', "another kind": b'{"kind": "tcp", "method": "GET", "path": "/"}',
    "no path": b'{"kind": "http", "method": "GET", "path": ""}', "numbers": b'{"kind": "http", "method": 1, "path": 2}',
    "a long method": b'{"kind": "http", "method": "' + b"G" * 17 + b'", "path": "/"}',
    "headers that are none": b'{"kind": "http", "method": "GET", "path": "/", "headers": {"a": "b"}}',
    "no time": b'{"kind": "http", "method": "GET", "path": "/", "timeout_ms": 0}',
    "half a character": b'{"kind": "http", "method": "GET", "path": "/", "headers": [["a", "\\ud800"]]}',
    "another urgency": b'{"kind": "http", "method": "GET", "path": "/", "prio": 4}',
    "too much": b'{"kind": "http", "method": "GET", "path": "/", "x": "' + b"x" * 70_000 + b'"}',
}  # fmt: skip


@pytest.mark.parametrize("name", NO_OPENING)
def test_a_request_that_is_none_is_reset(wall: Wall, name: str) -> None:
    sid = wall.sid()
    wall.mux.send(frame(OPEN, sid, NO_OPENING[name]))
    code, reason = wall.mux.was_reset(sid)
    assert code == PROTOCOL and "OPEN" in reason


IN_A_STREAM: dict[str, tuple[bytes, int]] = {
    "a HEAD of whoever asks": (json.dumps({"status": 200}).encode(), HEAD),
    "short CREDIT": (b"\0", CREDIT), "no CREDIT": (bytes(4), CREDIT), "too much CREDIT": (b"\xff" * 4, CREDIT),
    "half a code": (b"\0", RESET), "a RESET that tells a story": (b"\0\1" + b"x" * 100_000, RESET),
    "a PONG": (bytes(8), PONG), "a long frame": (bytes(MAX_FRAME + 1), DATA),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_A_STREAM)
def test_what_breaks_a_stream_ends_that_stream_alone(wall: Wall, name: str) -> None:
    other, sid = opened(wall, "/files/slow?s=1"), opened(wall)
    payload, kind = IN_A_STREAM[name]
    wall.mux.send(frame(DATA, other, b"", FIN), frame(kind, sid, payload))
    code, reason = wall.mux.was_reset(sid)
    assert code == PROTOCOL and reason
    assert wall.mux.body(other) == (200, b"at last")


def test_more_than_there_is_credit_for_ends_the_stream(wall: Wall) -> None:
    sid = wall.sid()
    wall.mux.send(described(OPEN, sid, kind="http", method="POST", path="/files/upload"))
    wall.mux.send(*[frame(DATA, sid, bytes(MAX_FRAME))] * (2 + INIT_CREDIT // MAX_FRAME * 8))
    code, reason = wall.mux.was_reset(sid)
    assert (code, reason) == (FLOW, "more DATA than there was credit for")


def test_data_after_the_end_ends_the_stream(wall: Wall) -> None:
    sid = opened(wall)
    wall.mux.send(frame(DATA, sid, b"", FIN), frame(DATA, sid, b"more"))
    assert wall.mux.was_reset(sid) == (PROTOCOL, "DATA after FIN")


def test_a_used_id_closes_the_connection(wall: Wall) -> None:
    sid, mux = opened(wall), wall.mux
    mux.send(get(sid))
    code, reason = mux.closed()
    assert code == 1002 and f"stream {sid}" in reason
    wall.again()


def test_of_ten_thousand_streams_only_so_many_are_taken_and_the_others_told(wall: Wall) -> None:
    before = wall.origin.seen().get("GET /slow", 0)
    sids = [wall.sid() for _ in range(OPENS)]
    for sid in sids:
        wall.mux.send(get(sid, "/files/slow?s=30"))
    refused = {}
    for kind, _, sid, payload in wall.mux.frames(30):
        if kind == RESET:
            refused[sid] = struct.unpack_from(">H", payload)[0]
        if len(refused) == OPENS - STREAMS:
            break
    assert set(refused.values()) == {TOO_MANY} and min(refused) > sids[STREAMS - 1]
    until(lambda: wall.origin.seen()["GET /slow"] - before == STREAMS)
    wall.mux.send(*(frame(RESET, sid, b"\0\1") for sid in sids[:STREAMS]))


def test_frames_for_streams_that_are_over_harm_nobody(wall: Wall) -> None:
    sid = opened(wall, "/files/file/10")
    wall.mux.send(frame(DATA, sid, b"", FIN))
    assert wall.mux.body(sid) == (200, content(10))
    for kind, payload in ((DATA, b"late"), (CREDIT, b"\0\0\1\0"), (RESET, b"\0\1"), (HEAD, b"{}")):
        wall.mux.send(frame(kind, sid, payload))
    wall.mux.send(frame(PING, 0, b"abcdefgh"))
    assert wall.mux.first((PONG,), 0)[1] == b"abcdefgh"


HEADERS = {
    "CR LF in a value": ["X-A", "a\r\nX-Injected: yes"], "CR in a value": ["X-A", "a\rX-Injected: yes"],
    "LF in a value": ["X-A", "a\nX-Injected: yes"], "NUL in a value": ["X-A", "a\0b"],
    "CR LF in a name": ["X-A\r\nX-Injected", "yes"], "a blank in a name": ["X A", "b"],
    "a colon in a name": ["X-A:", "b"],
    "no name": ["", "b"], "DEL in a value": ["X-A", "a\x7fb"],
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_no_header_is_smuggled_in(wall: Wall, name: str) -> None:
    sid = opened(wall, "/files/echo", headers=[HEADERS[name]])
    wall.mux.send(frame(DATA, sid, b"", FIN))
    status, body = wall.mux.body(sid)
    assert status == 400 and b"\nX-Injected" not in body


def test_headers_that_are_the_proxys_alone_do_not_reach_the_upstream(wall: Wall) -> None:
    theirs = {
        "Host": "evil", "Origin": "http://evil", "Cookie": "a=b", "Authorization": "Bearer x", "Forwarded": "for=x",
        "X-Forwarded-For": "192.0.2.1", "Transfer-Encoding": "chunked", "Connection": "X-Mine", "X-Mine": "1",
        "Upgrade": "h2c", "TE": "trailers", "Proxy-Authorization": "x", "Content-Length": "0", "X-Kept": "yes",
    }  # fmt: skip
    sid = opened(wall, "/files/echo", headers=[list(pair) for pair in theirs.items()])
    wall.mux.send(frame(DATA, sid, b"", FIN))
    status, body = wall.mux.body(sid)
    assert status in (200, 400)
    arrived = {name.lower(): value for name, value in json.loads(body)} if status == 200 else {"x-kept": "yes"}
    assert arrived.get("host", "").startswith("127.0.0.1") or status == 400
    kept = arrived.keys() & {name.lower() for name in theirs} - {"host"}
    assert kept <= {"x-kept", "connection"} and arrived.get("connection", "keep-alive") != "X-Mine"


TARGETS = {
    "/files/../api": 400, "/files/%2e%2e/api": 400, "/files/..%2fapi": 400, "/files/%252e%252e/x": 400,
    "//files/x": 400, "/files/file//1": 400, "http://127.0.0.1/x": 400, "/files/file/1%00": 400, "/files\\file": 400,
    "files": 400, "/files/file/1 HTTP/1.1\r\nX: y": 400, "/files/file/\u00e9": 400, "/nowhere": 403, "/api/config": 403,
    "/files/file/1?x=1": 403, "/files/count?n=1": 403, "/files/slow?s=1&s=2": 400, "/" + "x" * 9000: 400,
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[:30].encode("unicode_escape").decode())
def test_what_no_rule_allows_is_refused_whatever_the_hub_thinks(wall: Wall, target: str) -> None:
    before = wall.origin.seen()
    sid = opened(wall, target)
    status, body = wall.mux.body(sid)
    assert status == TARGETS[target] and body.strip()
    after = wall.origin.seen()
    assert {name: count for name, count in after.items() if name != "GET /seen"} == {
        name: count for name, count in before.items() if name != "GET /seen"
    }
    assert '"refused"' in wall.said()


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "CONNECT", "TRACE", "GET\r\nX: y", "get"])
def test_no_other_method(wall: Wall, method: str) -> None:
    sid = wall.sid()
    wall.mux.send(described(OPEN, sid, kind="http", method=method, path="/files/file/1"), frame(DATA, sid, b"", FIN))
    status, body = wall.mux.body(sid)
    assert status in (400, 403) and body.strip()


def test_an_upload_ends_at_the_cap(wall: Wall) -> None:
    """Though its length was not said before, and credit is given as for any other."""
    sid = wall.sid()
    wall.mux.send(described(OPEN, sid, kind="http", method="POST", path="/files/upload"))
    credit, status, sent = INIT_CREDIT, 0, 0
    while not status:
        while credit >= MAX_FRAME and sent < 8 << 20:
            wall.mux.send(frame(DATA, sid, bytes(MAX_FRAME)))
            credit, sent = credit - MAX_FRAME, sent + MAX_FRAME
        kind, _, its, payload = next(wall.mux.frames())
        if its == sid and kind == CREDIT:
            credit += struct.unpack(">I", payload)[0]
        elif its == sid and kind == HEAD:
            status = json.loads(payload)["status"]
        assert kind != RESET, payload
    assert status == 413 and sent < 3 << 20
    assert "the body is too large" in wall.said()


def test_the_device_told_a_hub_of_another_make_the_same(wall: Wall) -> None:
    """By JSON, too, nothing passes that no rule allows."""
    for target, status in (("/files/../api", 400), ("/api/config", 403), ("/files/file/1000", 200)):
        assert wall.hub.ask(target)[0] == status, target
    assert wall.hub.ask("/files/endless")[0] in (413, 501, 504)
    assert os.getpgid(wall.proxy.pid)
