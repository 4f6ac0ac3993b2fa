"""What people and devices should not send, sent to a running suite: a clear no, counted, and all else goes on.

What a hub should not send is in test_bad_hub.py, what it may not say on the control connection in test_ws_link.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from procs import proc
from tests.clone import Clone
from tests.faults.hostile import (
    CREDIT,
    DATA,
    FIN,
    HEAD,
    PING,
    PONG,
    RESET,
    BadDevice,
    described,
    frame,
    get,
    violations,
)
from tests.faults.origin import BAD, BOMB_BYTES, bomb
from tests.faults.wall import SMALL_UPLOAD, STREAMS, Got, Ground, walled
from tests.rig import until

pytestmark = pytest.mark.timeout(200)
PROTOCOL, REFUSED, FLOW = 6, 2, 5
MAX_FRAME, INIT_CREDIT = 64 * 1024, 128 * 1024
OPENS = 10_000
GREW_MB = 60  # less than what is unpacked, and more than a process needs for anything here


@pytest.fixture(scope="module")
def running(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The suite with hub, device and an upstream of ours."""
    with walled(clone, tmp_path_factory.mktemp("input")) as found:
        yield found


@pytest.fixture
def ground(running: Ground) -> Iterator[Ground]:
    """That suite; whatever is done to it, the device's connections stay as they are, and work."""
    until(running.is_whole, 10)
    before = running.links()
    yield running
    running.works()
    assert running.links() == before
    assert "unforeseen" not in running.said() and "Traceback" not in running.said()


def raw(ground: Ground, request: bytes, within_s: float = 10.0) -> bytes:
    """What the hub answers to these bytes, until it closes the connection."""
    with socket.create_connection((ground.host, ground.port), timeout=within_s) as connection:
        found = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                found += piece
        return found


def head(ground: Ground, target: str, *lines: bytes, method: str = "GET") -> bytes:
    """The head of a request of the admin's for something of the device."""
    first = f"{method} {ground.base}{target} HTTP/1.1\r\nHost: {ground.host}:{ground.port}\r\nConnection: close\r\n"
    signed = f"Authorization: Bearer {ground.token}\r\n"
    return (first + signed).encode("latin-1") + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def status_of(answer: bytes) -> int:
    """The status of a raw answer; 0 if there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


# --- people: what is asked for ------------------------------------------------------------------------

# target -> (method, status, what the proxy's log says of it)
FORBIDDEN: dict[str, tuple[str, int, str]] = {
    "/../api/config": ("GET", 400, "dot segment"),
    "/files/../../api/config": ("GET", 400, "dot segment"),
    "/%2e%2e/api/config": ("GET", 400, "dot segment"),
    "/files/%2E./api/config": ("GET", 400, "dot segment"),
    "/files/.%2e;x/api/config": ("GET", 400, "dot segment"),
    "/files/..%2fapi/config": ("GET", 400, "hides a slash"),
    "/files/..%5capi/config": ("GET", 400, "hides a slash"),
    "/files/%252e%252e/api/config": ("GET", 400, "encoded twice"),
    "/files/file/1%00": ("GET", 400, "control character"),
    "/files/file/1%0d%0aX-Injected:%20yes": ("GET", 404, "Not Found"),
    "//api/config": ("GET", 400, "empty segment"),
    "/files//file/1": ("GET", 400, "empty segment"),
    "/http://127.0.0.1/api/config": ("GET", 400, "empty segment"),
    "/api/config": ("GET", 403, "no rule allows this path"),
    "/api/config?x": ("POST", 403, "no rule allows this path"),
    "/api/restart": ("POST", 403, "no rule allows this path"),
    "/api/exit?code=0": ("POST", 403, "no rule allows this path"),
    "/api/log": ("GET", 403, "no rule allows this path"),
    "/api/stack": ("GET", 403, "no rule allows this path"),
    "/api/ffmpeg?dst=omega-0&file=/etc/passwd": ("POST", 403, "no rule allows this path"),
    "/api/streams?src=http://127.0.0.1:1/&name=evil": ("PUT", 403, "no rule allows this method"),
    "/api/streams?src=omega-0&dst=rtmp://192.0.2.1/x": ("POST", 403, "no rule allows this method"),
    "/api/streams?src=omega-0": ("DELETE", 403, "no rule allows this method"),
    "/api/stream.mp4?src=nobody": ("GET", 404, "no such stream"),
    "/api/frame.jpeg?src=exec:touch%20/tmp/x": ("GET", 403, "src must be the name of a stream"),
    "/api/frame.jpeg?src=http://127.0.0.1:1/": ("GET", 403, "src must be the name of a stream"),
    "/api/frame.jpeg?src=ffmpeg:/etc/hostname": ("GET", 403, "src must be the name of a stream"),
    "/api/stream.mp4?dst=omega-0": ("GET", 403, "no rule allows query key dst"),
    "/api/stream.mp4?src=omega-0&src=nobody": ("GET", 400, "holds a key twice"),
    "/api/stream.mp4?src=omega-0&%73rc=nobody": ("GET", 400, "key that is not plain"),
    "/files/count?n=1": ("GET", 403, "no rule allows this method"),
    "/files/file/1?x=1": ("GET", 403, "no rule allows query key x"),
    "/nowhere/at/all": ("GET", 403, "no rule allows this path"),
}


@pytest.mark.parametrize("target", FORBIDDEN)
def test_what_no_rule_allows_is_refused_and_goes_nowhere(ground: Ground, target: str) -> None:
    method, status, reason = FORBIDDEN[target]
    before = ground.origin.seen()
    found = raw(ground, head(ground, target, b"Content-Length: 0", method=method))
    assert (status_of(found), reason in found.decode()) == (status, True), found[:600]
    if status != 404:
        until(lambda: '"refused"' in ground.said())
    after = {**ground.origin.seen(), "GET /seen": before["GET /seen"]}
    assert after == before, "the upstream has not heard of it"
    assert sorted(json.loads(ground.ask("/api/streams").body)) == STREAMS


def test_a_target_that_is_a_whole_address_goes_nowhere_else(ground: Ground) -> None:
    for line in ("GET http://127.0.0.1:1984/api/config HTTP/1.1", "GET http://evil.example/ HTTP/1.1",
                 "CONNECT 127.0.0.1:1984 HTTP/1.1", "GET * HTTP/1.1", "GET api HTTP/1.1"):  # fmt: skip
        found = raw(ground, f"{line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert status_of(found) in (0, 400, 404, 405) or b"planaria" in found.lower(), (line, found[:300])
        assert b"config" not in found and b"producers" not in found


# A request whose head is no good, and what the upstream must not have heard.
BAD_HEADS: dict[str, list[bytes]] = {
    "LF in a value": [b"X-A: a\nX-Injected: yes\n\nGET /files/count HTTP/1.1"],
    "CR in a value": [b"X-A: a\rX-Injected: yes"],
    "NUL in a value": [b"X-A: a\0b"],
    "a folded line": [b"X-A: a", b" X-Injected: yes"],
    "a blank in a name": [b"X A: a"],
    "a blank before the colon": [b"X-Injected : yes"],
    "no colon": [b"X-Injected"],
    "no name": [b": yes"],
    "two lengths": [b"Content-Length: 2", b"Content-Length: 3"],
    "a negative length": [b"Content-Length: -1"],
    "a length in words": [b"Content-Length: two"],
    "length and chunks": [b"Content-Length: 2", b"Transfer-Encoding: chunked"],
    "another coding": [b"Transfer-Encoding: gzip"],
    "chunked twice": [b"Transfer-Encoding: chunked, chunked"],
    "a long line": [b"X-A: " + b"a" * 100_000],
    "many lines": [b"X-%d: a" % i for i in range(5000)],
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_head_that_is_no_good_is_refused(ground: Ground, name: str) -> None:
    before = ground.origin.seen().get("POST /echo", 0)
    counted = refusals(ground)
    found = raw(ground, head(ground, "/files/echo", *BAD_HEADS[name], method="POST") + b"0\r\n\r\n")
    assert status_of(found) in (400, 413, 431, 501), found[:300]
    assert ground.origin.seen().get("POST /echo", 0) == before
    assert refusals(ground) > counted


def test_credentials_and_ways_of_the_hub_do_not_reach_the_upstream(ground: Ground) -> None:
    theirs = {"Cookie": "a=b", "Origin": "http://evil", "Forwarded": "for=x", "X-Forwarded-For": "192.0.2.1",
              "X-Forwarded-Host": "evil", "Proxy-Authorization": "x", "TE": "trailers", "X-Kept": "yes",
              "Connection": "X-Mine, close", "X-Mine": "1"}  # fmt: skip
    found = ground.ask("/files/echo", headers=theirs)
    arrived = {name.lower(): value for name, value in json.loads(found.body)}
    assert found.status == 200 and arrived["x-kept"] == "yes" and arrived["host"] == f"127.0.0.1:{ground.origin.port}"
    assert not arrived.keys() & ({name.lower() for name in theirs} - {"x-kept", "connection"})
    assert ground.token not in str(arrived) and "X-Mine" not in str(arrived)


# --- people: slow, or too much -------------------------------------------------------------------------


def test_clients_that_read_or_write_a_byte_a_second_hold_up_nobody(ground: Ground) -> None:
    """That they are let go after a while, test_hub_proxy_route.py shows with shorter limits."""
    request, over = head(ground, "/files/echo", b"Content-Length: 100", method="POST"), threading.Event()

    def trickle(sent: bytes, rest: bytes) -> None:
        with socket.create_connection((ground.host, ground.port)) as connection:
            connection.sendall(sent)
            for at in range(len(rest)):
                connection.sendall(rest[at : at + 1])
                if over.wait(1):
                    return

    slow = [threading.Thread(target=trickle, args=(b"", request), daemon=True) for _ in range(20)]
    slow += [threading.Thread(target=trickle, args=(request, bytes(100)), daemon=True) for _ in range(20)]
    with socket.create_connection((ground.host, ground.port)) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(head(ground, "/files/file/50000000"))
        for thread in slow:
            thread.start()
        for _ in range(5):
            ground.works()
            assert reader.recv(1)
            time.sleep(1)
        assert all(thread.is_alive() for thread in slow), "they are still at it"
    over.set()
    for thread in slow:
        thread.join(5)


def test_an_upload_over_the_cap_is_refused(ground: Ground) -> None:
    said = ground.ask("/small/upload", "POST", bytes(SMALL_UPLOAD + 1))
    assert (said.status, "too large" in said.reason) == (413, True)
    assert ground.ask("/small/upload", "POST", bytes(SMALL_UPLOAD)).status == 200
    assert ground.ask("/files/count?n=large", "POST", bytes(65 * 1024)).status == 413
    assert ground.origin.counted()["large"] == 0


def test_an_endless_upload_ends_at_the_cap(ground: Ground) -> None:
    """Chunks, of which nobody has said how many will come. What is sent beyond the answer goes nowhere, and not for
    long."""
    began, piece = time.monotonic(), b"10000\r\n" + bytes(65536) + b"\r\n"
    with socket.create_connection((ground.host, ground.port), timeout=5) as connection:
        connection.sendall(head(ground, "/small/upload", b"Transfer-Encoding: chunked", method="POST"))
        found = b""
        while time.monotonic() - began < 40:
            try:
                if select.select([connection], [], [], 0.001)[0]:
                    found += connection.recv(65536)
                connection.sendall(piece)
                if found:  # as much as the cap each second: more would only keep the processors from other tests
                    time.sleep(0.05)
            except OSError:
                break
    assert time.monotonic() - began < 30
    assert status_of(found) == 413 and b"too large" in found
    assert "the body is too large" in ground.said()


# --- upstreams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind != "nothing"])  # which is asked again for half a minute
def test_an_answer_that_is_no_http_is_an_error(ground: Ground, kind: str) -> None:
    found = ground.ask(f"/files/bad/{kind}")
    assert "x-injected" not in found.headers and b"X-Injected" not in found.body
    assert found.status in (502, 504) and found.reason, found
    assert '"failed"' in ground.said()


def test_a_bomb_is_never_unpacked(ground: Ground) -> None:
    names = ("hub", "proxy_0", "proxy_1")
    before = {name: proc.rss_bytes(ground.pids()[name]) for name in names}
    found = ground.ask("/files/bomb", headers={"Accept-Encoding": "gzip"})
    assert found.headers["content-encoding"] == "gzip" and found.body == bomb() and len(found.body) < BOMB_BYTES // 100
    for name in names:
        assert proc.rss_bytes(ground.pids()[name]) < before[name] + GREW_MB * 1e6


def test_an_endless_answer_that_nobody_reads_stays_small(ground: Ground) -> None:
    names = ("hub", "proxy_0", "proxy_1")
    before = {name: proc.rss_bytes(ground.pids()[name]) for name in names}
    readers = [socket.create_connection((ground.host, ground.port)) for _ in range(5)]
    for reader in readers:
        reader.sendall(head(ground, "/files/endless"))
    time.sleep(3)
    ground.works()
    for name in names:
        assert proc.rss_bytes(ground.pids()[name]) < before[name] + GREW_MB * 1e6
    for reader in readers:
        reader.close()


def test_an_answer_a_byte_a_second_comes_through(ground: Ground) -> None:
    found = ground.ask("/files/drip/4")
    assert (found.status, found.body) == (200, b"0123")


# --- a device -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(running: Ground) -> Iterator[BadDevice]:
    """Another device of the admin's, at the same hub."""
    device = BadDevice(running, "bad-device")
    yield device
    device.close()


@pytest.fixture
def bad(other: BadDevice, ground: Ground) -> Iterator[BadDevice]:
    """That device, with a data connection that works; it works again at the end."""
    yield other
    if other.mux.connection.close_code is not None:
        other.again()
    assert other.serves()


VIOLATIONS = violations(own=90, theirs=91)


@pytest.mark.parametrize("name", VIOLATIONS)
def test_what_breaks_the_session_closes_it(bad: BadDevice, name: str) -> None:
    bad.again().send(VIOLATIONS[name])
    code, reason = bad.mux.closed()
    assert code in (1002, 1009) and (reason or name == "an oversized message")
    until(lambda: "data connection that broke the protocol" in bad.ground.said())


def test_a_device_opens_no_streams_at_a_hub(bad: BadDevice) -> None:
    mux = bad.again()
    for sid in range(2, 2 + 2 * OPENS, 2):
        mux.send(get(sid))
    refused = set()
    for kind, _, sid, payload in mux.frames(30):
        if kind == RESET:
            assert struct.unpack_from(">H", payload)[0] == REFUSED
            refused.add(sid)
        if len(refused) == OPENS:
            break
    mux.send(get(2))  # again
    assert mux.closed()[0] == 1002


# What a device may not send in the stream of a request, before it has answered.
BEFORE_HEAD: dict[str, tuple[int, bytes]] = {
    "DATA": (DATA, b"x"),
    "a HEAD that is no JSON": (HEAD, b"{"),
    "a HEAD that is no object": (HEAD, b"[]"),
    "a HEAD without status": (HEAD, b"{}"),
    "a HEAD of another status": (HEAD, b'{"status": 99}'),
    "a HEAD in words": (HEAD, b'{"status": "200"}'),
    "a HEAD with headers that are none": (HEAD, b'{"status": 200, "headers": {"a": "b"}}'),
    "a deep HEAD": (HEAD, b"[" * 50_000),
    "a long HEAD": (HEAD, b'{"status": 200, "x": "' + b"x" * 70_000 + b'"}'),
    "short CREDIT": (CREDIT, b"\0"),
    "no CREDIT": (CREDIT, bytes(4)),
    "too much CREDIT": (CREDIT, b"\xff" * 4),
    "half a RESET": (RESET, b"\0"),
    "a long RESET": (RESET, b"\0\1" + b"x" * 2000),
    "a PING": (PONG, bytes(8)),
}


@pytest.mark.parametrize("name", BEFORE_HEAD)
def test_what_breaks_a_stream_ends_it_with_a_502(bad: BadDevice, name: str) -> None:
    waiting = bad.viewed()
    sid = bad.mux.asked()[0]
    kind, payload = BEFORE_HEAD[name]
    bad.mux.send(frame(kind, sid, payload))
    code, reason = bad.mux.was_reset(sid)
    assert code == PROTOCOL and reason
    found: Got = waiting.get(timeout=10)
    assert found.status == 502 and found.reason


def broken_off(bad: BadDevice, *frames: bytes, path: str = "/x") -> tuple[int, str]:
    """(code, reason) with which the hub ends a stream whose answer has begun."""
    waiting = bad.viewed(path)
    sid = bad.mux.asked()[0]
    bad.mux.send(
        described(HEAD, sid, status=200, endless=True),
        *(each[:4] + struct.pack(">I", sid) + each[8:] for each in frames),
    )
    found = bad.mux.was_reset(sid)
    assert isinstance(waiting.get(timeout=10), http.client.IncompleteRead), "and nobody takes it for the whole"
    return found


def test_what_comes_after_the_head_must_be_right_too(bad: BadDevice) -> None:
    assert broken_off(bad, described(HEAD, 0, status=200)) == (PROTOCOL, "a second HEAD")
    assert broken_off(bad, frame(DATA, 0, bytes(MAX_FRAME + 1)))[0] == PROTOCOL


def test_more_than_there_is_credit_for_ends_the_stream(bad: BadDevice) -> None:
    """Of an answer whose viewer reads nothing."""
    with socket.create_connection((bad.ground.host, bad.ground.port)) as viewer:
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        own = head(bad.ground, "/x").replace(bad.ground.base.encode(), f"/api/devices/{bad.id}/proxy".encode())
        viewer.sendall(own)
        sid = bad.mux.asked()[0]
        bad.mux.send(described(HEAD, sid, status=200, endless=True))
        bad.mux.send(*[frame(DATA, sid, bytes(MAX_FRAME))] * 200)
        assert bad.mux.was_reset(sid) == (FLOW, "more DATA than there was credit for")


@pytest.mark.parametrize(
    "pair",
    [["X-A", "a\r\nX-Injected: yes"], ["X-A", "a\nX-Injected: yes"], ["X-A", "a\rb"], ["X-A\r\nX-Injected", "yes"],
     ["X A", "b"], ["", "b"], ["X-A", "a\0b"], ["Content-Length", "1\r\n\r\n"]],
)  # fmt: skip
def test_no_header_of_a_device_is_smuggled_to_a_viewer(bad: BadDevice, pair: list[str]) -> None:
    waiting = bad.viewed()
    sid = bad.mux.asked()[0]
    bad.mux.send(described(HEAD, sid, status=200, headers=[pair]), frame(DATA, sid, b"ok", FIN))
    found: Got = waiting.get(timeout=10)
    assert found.status == 502 and "x-injected" not in found.headers and found.reason


def test_what_a_device_may_not_set_at_the_hubs_address_is_left_out(bad: BadDevice) -> None:
    theirs = [["Set-Cookie", "planaria_view_x=y"], ["Clear-Site-Data", '"*"'], ["Service-Worker-Allowed", "/"],
              ["Connection", "upgrade"], ["Upgrade", "h2c"], ["Strict-Transport-Security", "max-age=1"],
              ["Access-Control-Allow-Origin", "*"], ["X-Kept", "yes"]]  # fmt: skip
    waiting = bad.viewed()
    sid = bad.mux.asked()[0]
    bad.mux.send(described(HEAD, sid, status=200, headers=theirs), frame(DATA, sid, b"ok", FIN))
    found: Got = waiting.get(timeout=10)
    assert (found.status, found.headers["x-kept"]) == (200, "yes")
    assert not found.headers.keys() & {name.lower() for name, _ in theirs[:-1]}


WRONG: list[str | bytes] = [
    "", "null", "[]", "7", "{}", '{"type": 7}', '{"type": "hello", "payload": {}}',
    '{"type": "heartbeat", "payload": 7}',
    '{"type": "capabilities", "payload": {"device_id": 7}}', '{"type": "capabilities", "payload": []}',
    '{"type": "capabilities", "payload": {"device_id": "another", "streams": {}}}',
    '{"type": "proxy_http_resp", "payload": {}}', '{"type": "proxy_http_resp", "payload": {"rid": "a", "status": 200}}',
    '{"type": "proxy_http_resp", "payload": {"rid": "a", "status": 7}}', '{"type": "signal_answer", "payload": {}}',
    '{"type": "signal_answer", "payload": {"session_id": "x", "sdp": {"type": "answer", "sdp": "v=0"}}}',
    '{"type": "signal_ice", "payload": {"session_id": 1}}', '{"type": "watch_ended", "payload": {}}',
    '{"type": "device_presence", "payload": 1}', '{"type": "of the future", "payload": {}}', '{"type": "pai',
    '{"type": "challenge_resp", "payload": {"proof": "00"}}', b"\0\1binary",
    '{"type": "future", "payload": {"a": ' + "[" * 500 + "]" * 500 + "}}",
    '{"type": "future", "payload": {"a": "' + "x" * 3_000_000 + '"}}',
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(WRONG)))
def test_wrong_frames_of_every_type_are_counted_and_the_connection_lives(bad: BadDevice, at: int) -> None:
    before = refusals(bad.ground)
    bad.control.send(WRONG[at])
    bad.say("heartbeat", {}, request_id="still here")
    bad.until("heartbeat_ack")
    if b"heartbeat" not in str(WRONG[at]).encode():  # which may carry anything
        assert refusals(bad.ground) > before


def refusals(ground: Ground) -> float:
    """What the hub has refused so far."""
    lines = [line for line in ground.metrics().splitlines() if line.startswith("planaria_hub_refused_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_a_frame_over_every_limit_breaks_that_connection_alone(bad: BadDevice) -> None:
    with contextlib.suppress(ConnectionClosed):
        bad.control.send("x" * (5 << 20))
    with pytest.raises(ConnectionClosed) as end:
        bad.control.recv(10)
    assert end.value.rcvd is None or end.value.rcvd.code == 1009
    bad.control.close()
    bad.control = bad.come_in()


def test_a_ping_is_answered_whatever_was_before(bad: BadDevice) -> None:
    bad.mux.send(frame(PING, 0, b"abcdefgh"))
    assert bad.mux.first((PONG,), 0)[1] == b"abcdefgh"


def test_no_data_connection_without_a_good_ticket(bad: BadDevice) -> None:
    for ticket in ("", "x" * 43, "Bearer"):
        with socket.create_connection((bad.ground.host, bad.ground.port), timeout=10) as connection:
            connection.sendall(
                f"GET /ws/data HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n"
                f"Authorization: Bearer {ticket}\r\n\r\n".encode()
            )
            found = connection.recv(4096)
        assert status_of(found) == 401
