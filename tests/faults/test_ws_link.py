"""ws_link as a process, against a hub that shares no code with it: what is published, and what goes wrong."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from procs import bus, rpc
from procs.errors import Refused
from procs.messages.requests import Pair, PairingCode
from procs.messages.work import JobDone, TicketGrant, TicketRefused
from tests.json_hub import NONCE, JsonHub
from tests.linked import Worker, linked
from tests.rig import free_port, go2rtc, until

ID = ("--device-id", "pi-cam-001")
SECRET = "correct horse battery staple"


def test_a_published_hub_is_served(run_dir: Path) -> None:
    with JsonHub() as hub, Worker(run_dir) as worker, linked(run_dir, hub.backend, *ID):
        assert hub.ask("/api/streams?x=1") == (200, {"Content-Type": "text/plain"}, b"GET /api/streams?x=1 ")
        body = os.urandom(1024 * 1024)
        status, _, said = hub.ask(
            "/api/webrtc", "POST", headers={"Content-Type": "x"}, body_b64=base64.b64encode(body).decode()
        )
        assert (status, said) == (200, b"POST /api/webrtc " + body) or (status, len(said)) == (413, len(said))
        assert worker.jobs[1].headers == [("Content-Type", "x")] and worker.bodies[1] == body
        assert hub.registered[0]["device_id"] == "pi-cam-001" and "secret" not in json.dumps(hub.registered)
        hello = hub.got("hello")["payload"]
        assert hello["device_id"] == "pi-cam-001" and "device_secret" not in hello


def test_a_secret_is_proved_and_never_sent(run_dir: Path) -> None:
    with (
        JsonHub(secret=SECRET, caps=("mux1",)) as hub,
        linked(run_dir, hub.backend, *ID, DEVICE_SECRET=SECRET) as link,
    ):
        state = link.until(lambda state: state.state == "connected")
        assert state.mux and state.device_id == "pi-cam-001" and state.hub == hub.backend
        assert SECRET not in json.dumps([hub.frames, hub.registered]) + link.logged()
        assert SECRET not in Path(f"/proc/{link.process.pid}/cmdline").read_text()


def test_a_wrong_secret_is_told_and_tried_with_growing_pauses(run_dir: Path) -> None:
    with JsonHub(secret="another") as hub, linked(run_dir, hub.backend, *ID, DEVICE_SECRET=SECRET) as link:
        state = link.until(lambda state: state.state == "refused")
        assert "Wrong credential" in state.said
        time.sleep(3)
        assert len(hub.opened) < 8, "a loop"


def test_a_hub_that_does_not_know_us_is_left(run_dir: Path) -> None:
    def pretend(connection: ServerConnection, hello: dict[str, Any]) -> None:
        hub.send("challenge", {"nonce": NONCE}, to=connection)
        connection.recv(10)
        ack = {"device_id": "pi-cam-001", "server_time": "t", "caps": ["mux1"], "mux": {}, "signature": "0" * 64}
        hub.send("hello_ack", ack, to=connection)
        with contextlib.suppress(ConnectionClosed):
            connection.recv(10)

    with JsonHub() as hub:
        hub.on_hello = pretend
        with linked(run_dir, hub.backend, *ID) as link:
            state = link.until(lambda state: state.said)
            assert "can't show that it knows this device" in state.said and state.state != "connected"


@pytest.mark.parametrize("compat", ["0", "1"])
def test_the_secret_itself_goes_out_only_when_told_so(run_dir: Path, compat: str) -> None:
    with JsonHub() as hub, linked(run_dir, hub.backend, *ID, DEVICE_SECRET=SECRET, PLANARIA_COMPAT=compat) as link:
        hello = hub.got("hello")["payload"]
        assert hello.get("device_secret") == (SECRET if compat == "1" else None)
        link.until(lambda state: state.state == "connected")
        assert SECRET not in link.logged()


def test_jobs_outlive_a_kill_of_ws_link(run_dir: Path) -> None:
    with (
        JsonHub() as hub,
        Worker(run_dir, handle=lambda job, body: None) as worker,
        linked(run_dir, hub.backend, *ID) as link,
    ):
        rids = [hub.begin("/api"), hub.begin("/api/webrtc", "POST")]
        until(lambda: len(worker.jobs) == 2)
        link.kill()
        worker.late += [(JobDone(rid=rid, status=200, headers=[]), rid.encode()) for rid in rids]
        link.start()
        for rid in rids:
            assert hub.answer(rid) == (200, {}, rid.encode())


def test_a_dead_proxys_get_goes_to_another_and_its_post_does_not(run_dir: Path) -> None:
    with JsonHub() as hub, linked(run_dir, hub.backend, *ID) as link:
        first = Worker(run_dir, "0", lambda job, body: None)
        get, post = hub.begin("/api"), hub.begin("/api/webrtc", "POST")
        until(lambda: len(first.jobs) == 2)
        first.die()
        with Worker(run_dir, "1") as second:
            status, _, said = hub.answer(post)
            assert status == 502 and b"may have been made" in said
            assert hub.answer(get) == (200, {"Content-Type": "text/plain"}, b"GET /api ")
            assert [job.rid for job in second.jobs] == [get]
        link.until(lambda state: state.refused.get("job: lost job") == 1)


def test_a_proxy_that_is_back_under_its_name_gets_the_get_at_once(run_dir: Path) -> None:
    with JsonHub() as hub, linked(run_dir, hub.backend, *ID):
        first = Worker(run_dir, "0", lambda job, body: None)
        get = hub.begin("/api")
        until(lambda: first.jobs)
        first.die()
        began = time.monotonic()
        with Worker(run_dir, "0"):
            assert hub.answer(get)[0] == 200
            assert time.monotonic() - began < 2, "it was taken for the dead one"


def test_what_json_cannot_carry_is_refused_with_its_reason(run_dir: Path) -> None:
    with JsonHub() as hub, linked(run_dir, hub.backend, *ID, pace="nobody_s=2.0") as link:
        hub.connected()
        began = time.monotonic()
        assert hub.ask("/api")[0] == 503 and 1.9 < time.monotonic() - began < 6, "no proxy came"
        with Worker(run_dir, handle=lambda job, body: (200, [], b"x" * 1_048_577) if job.path == "/big" else None):
            for path in ("/api/stream.mp4?src=a", "/api/stream.mjpeg", "/api/ws?src=a", "/api/stream.ts"):
                assert hub.ask(path)[0] == 501
            assert hub.ask("/up", "POST", body_b64=base64.b64encode(bytes(1_048_577)).decode())[0] == 413
            assert hub.ask("/up", "POST", body_b64="A" * 3_000_000)[0] == 413
            assert hub.ask("/up", "POST", body_b64="not base64!")[0] == 400
            assert hub.ask("/" + "x" * 9000)[0] == 414
            assert hub.ask("/api", "GET /etc")[0] == 400
            assert hub.ask("/api", headers={f"x{i}": "y" * 900 for i in range(90)})[0] == 431
            assert hub.ask("/big")[0] == 413
            assert hub.ask("/slow", timeout_ms=300) == (
                504, {"Content-Type": "text/plain; charset=utf-8"}, b"Gateway Timeout",
            )  # fmt: skip
        assert link.state().reconnects == 0  # type: ignore[union-attr]


def test_the_65th_job_is_told_to_come_later(run_dir: Path) -> None:
    with JsonHub() as hub, Worker(run_dir, handle=lambda job, body: None), linked(run_dir, hub.backend, *ID):
        rids = [hub.begin("/api") for _ in range(65)]
        assert hub.answer(rids[64])[0] == 503


def wait_for_opening(hub: JsonHub, after: float) -> None:
    until(lambda: hub.opened[-1] > after)


def test_a_hub_that_is_gone_and_back_is_found_again_at_once(run_dir: Path) -> None:
    hub = JsonHub()
    with hub, linked(run_dir, hub.backend, *ID, pace="settled_s=1.0") as link:
        link.until(lambda state: state.state == "connected")
        time.sleep(1.2)  # a connection that has lasted
        for _ in range(2):
            cut_at = time.monotonic()
            hub.cut()
            wait_for_opening(hub, cut_at)
            assert hub.opened[-1] - cut_at < 0.5, "the first attempt comes within 100 ms"
            link.until(lambda state: state.state == "connected")
            time.sleep(1.2)
        hub.close()
        link.until(lambda state: state.state == "connecting" and state.said)
        with JsonHub(hub.port) as back:
            assert back.got("hello", within_s=20)["payload"]["device_id"] == "pi-cam-001"
            link.until(lambda state: state.state == "connected")


def test_a_hub_that_closes_cleanly_each_time_makes_no_loop(run_dir: Path) -> None:
    with JsonHub() as hub:
        hub.on_hello = lambda connection, hello: connection.close()
        with linked(run_dir, hub.backend, *ID):
            until(lambda: len(hub.opened) >= 2)
            time.sleep(4)
            assert len(hub.opened) < 10


def test_a_device_that_is_replaced_keeps_away_for_a_while(run_dir: Path) -> None:
    def replace(connection: ServerConnection, hello: dict[str, Any]) -> None:
        hub.send("hello_ack", {"device_id": "pi-cam-001", "server_time": "t"}, to=connection)
        connection.close(1012, "Replaced by new connection")

    with JsonHub() as hub:
        hub.on_hello = replace
        with linked(run_dir, hub.backend, *ID, pace="replaced_s=1.5") as link:
            until(lambda: hub.opened)
            time.sleep(1.3)
            assert len(hub.opened) == 1
            until(lambda: len(hub.opened) == 2, 10)
            assert "replaced by another connection" in link.logged()


def test_a_flooded_hub_says_when_to_come_back(run_dir: Path) -> None:
    with JsonHub() as hub:
        hub.refuse_http = 503, {"Retry-After": "3"}
        with linked(run_dir, hub.backend, *ID) as link:
            until(lambda: hub.opened)
            hub.refuse_http = None
            link.until(lambda state: state.state == "connected")
            assert 2.9 < hub.opened[1] - hub.opened[0] < 4.5


def test_a_hub_that_falls_silent_is_left(run_dir: Path) -> None:
    pace = "heartbeat_s=0.3, silence_s=1.0"
    with JsonHub() as hub, linked(run_dir, hub.backend, *ID, pace=pace) as link:
        link.until(lambda state: state.state == "connected")
        hub.got("heartbeat", 5)
        assert len(hub.opened) == 1, "answered heartbeats keep it"
        hub.on_hello = hub.hang
        hub.send = lambda *_, **__: None  # type: ignore[method-assign]
        until(lambda: len(hub.opened) == 2)
        assert "nothing heard" in link.until(lambda state: state.said).said


def test_a_hub_that_never_answers_hello_is_left(run_dir: Path) -> None:
    with JsonHub() as hub:
        hub.on_hello = hub.hang
        with linked(run_dir, hub.backend, *ID, pace="step_s=0.5"):
            until(lambda: len(hub.opened) == 2)


def test_a_listener_that_never_speaks_is_left(run_dir: Path) -> None:
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        linked(run_dir, f"ws://127.0.0.1:{port}/ws/device", *ID, pace="open_s=1.0") as link,
    ):
        assert "within" in link.until(lambda state: state.said, 20).said


WRONG: list[str | bytes] = [
    "", "null", "[]", "7", '"hello"', "{}", '{"type": 7}', '{"type": "proxy_http", "payload": []}',
    '{"type": "proxy_http", "payload": {}}', '{"type": "proxy_http", "payload": {"rid": "a/b"}}',
    '{"type": "hello_ack", "payload": {"device_id": "pi-cam-001", "server_time": "t"}}',
    '{"type": "challenge", "payload": {"nonce": "' + NONCE + '"}}', '{"type": "challenge", "payload": {"nonce": 1}}',
    '{"type": "data_ticket", "request_id": "x", "payload": {}}', '{"type": "pairing_code", "payload": {}}',
    '{"type": "heartbeat_ack", "payload": ""}', '{"type": "watch_request", "payload": {"session_id": 1}}',
    '{"type": "signal_offer", "payload": {"session_id": "s"}}', '{"type": "signal_ice", "payload": null}',
    '{"type": "watch_ended", "payload": 1}', '{"type": "error", "payload": {"message": 1}}',
    '{"type": "of the future", "payload": {}}', '{"type": "future", "payload": {"a": ' + "[" * 500 + "]" * 500 + "}}",
    '{"type": "future", "payload": {"a": "' + "x" * 3_000_000 + '"}}', b"\x00\x01binary", '{"type": "pai',
]  # fmt: skip


def test_wrong_frames_of_every_type_are_counted_and_the_link_lives(run_dir: Path) -> None:
    with JsonHub() as hub, Worker(run_dir), linked(run_dir, hub.backend, *ID) as link:
        for text in WRONG:
            hub.send_text(text)
        assert hub.ask("/api")[0] == 200
        state = link.until(lambda state: True)
        assert (state.state, state.reconnects) == ("connected", 0)
        assert sum(state.refused.values()) >= len(WRONG) - 1, state.refused  # but a heartbeat_ack may carry anything


def test_a_frame_over_every_limit_breaks_the_connection_and_it_comes_back(run_dir: Path) -> None:
    with JsonHub() as hub, Worker(run_dir), linked(run_dir, hub.backend, *ID) as link:
        connection = hub.connected()
        with contextlib.suppress(ConnectionClosed):
            hub.send_text("x" * (17 * 1024 * 1024))
        until(lambda: hub.device not in (connection, None) and hub.device)
        assert hub.ask("/api")[0] == 200
        assert link.process.poll() is None


def test_a_flood_is_answered_and_heartbeats_go_on(run_dir: Path) -> None:
    with (
        JsonHub() as hub,
        Worker(run_dir, handle=lambda job, body: None) as worker,
        linked(run_dir, hub.backend, *ID, pace="heartbeat_s=0.2") as link,
    ):
        rids = [hub.begin("/api", timeout_ms=8000) for _ in range(3000)]
        assert all(hub.answer(rid)[0] == 503 for rid in rids[64:])
        before = len(hub.frames["heartbeat"])
        hub.got("heartbeat", before + 2)
        assert len(worker.jobs) <= 64 and link.process.poll() is None
        link.until(lambda state: state.refused.get("job: too many jobs") == 3000 - 64)


def test_a_hub_that_asks_and_never_reads_is_left_and_memory_stays(run_dir: Path) -> None:
    def greedy(connection: ServerConnection, hello: dict[str, Any]) -> None:
        hub.send("hello_ack", {"device_id": "pi-cam-001", "server_time": "t"}, to=connection)
        sock = connection.socket
        payload = json.dumps({"type": "proxy_http", "payload": {"rid": "r", "path": "/api/ws"}}).encode()
        frame = b"\x81" + bytes([len(payload)]) + payload if len(payload) < 126 else b""
        assert frame
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(frame * 100)

    with JsonHub() as hub:
        hub.on_hello = greedy
        with linked(run_dir, hub.backend, *ID, pace="send_s=1.0") as link:
            until(lambda: len(hub.opened) >= 2, 40)
            peak = next(x for x in Path(f"/proc/{link.process.pid}/status").read_text().splitlines() if "VmHWM" in x)
            assert int(peak.split()[1]) < 250_000, peak
            assert link.process.poll() is None


def test_a_ticket_is_got_for_a_proxy_and_waits_for_the_hub(run_dir: Path) -> None:
    port = free_port()
    with (
        Worker(run_dir) as worker,
        linked(run_dir, f"ws://127.0.0.1:{port}/ws/device", *ID, DEVICE_SECRET=SECRET) as link,
    ):
        link.until(lambda state: state.workers == 1)
        worker.wanted.append(7)
        time.sleep(0.3)
        with JsonHub(port, secret=SECRET, caps=("mux1",)):
            got = until(lambda: worker.tickets and worker.tickets[0], 15)
        assert got == TicketGrant(7, f"ws://127.0.0.1:{port}/ws/data", "t1", "pi-cam-001")


def test_a_hub_without_data_connections_is_said_so(run_dir: Path) -> None:
    with JsonHub() as hub, Worker(run_dir) as worker, linked(run_dir, hub.backend, *ID) as link:
        link.until(lambda state: state.state == "connected")
        worker.wanted.append(9)
        assert until(lambda: worker.tickets and worker.tickets[0]) == TicketRefused(
            9, "the hub takes no data connections"
        )
        assert "data_ticket" not in hub.frames, "a published hub would not know it"


@pytest.mark.parametrize("secret", ["", SECRET])
def test_a_pairing_code_is_got_from_old_and_new_hubs(run_dir: Path, secret: str) -> None:
    with (
        JsonHub(secret=secret) as hub,
        linked(run_dir, hub.backend, *ID, DEVICE_SECRET=SECRET) as link,
        rpc.Requester(run_dir, bus.WS_LINK_STATE) as requester,
    ):
        link.until(lambda state: state.state == "connected")
        assert requester.ask(Pair(), within_s=5, idempotent=False).body == PairingCode(
            "123456", "2030-01-01T00:00:00", 300
        )
        assert ("pairing_request" in hub.frames) == bool(secret)
        hub.send("paired", {"code": "123456"})
        link.until(lambda state: state.paired == "123456")
        assert "123456" not in link.logged()
        hub.close()
        link.until(lambda state: state.state == "connecting")
        with pytest.raises(Refused, match="not connected"):
            requester.ask(Pair(), within_s=5, idempotent=False)


def test_what_go2rtc_has_is_announced_at_once_and_without_logins(run_dir: Path) -> None:
    sources = {"door": "rtsp://user:hunter2@127.0.0.1:1/a"}
    with (
        go2rtc({"workers": 1}, sources=sources) as running,
        JsonHub() as hub,
        linked(run_dir, hub.backend, *ID, GO2RTC_HTTP=running.url("").rstrip("/")),
    ):
        first = hub.got("capabilities", within_s=5)["payload"]
        assert first["device_id"] == "pi-cam-001" and set(first["streams"]) == {"omega-0", "door"}
        assert first["streams"]["door"]["producers"][0]["url"] == "rtsp:..."
        put = urllib.request.Request(running.url("api/streams?src=rtsp://127.0.0.1:1/b&name=late"), method="PUT")
        urllib.request.urlopen(put, timeout=5).close()
        until(lambda: "late" in hub.frames["capabilities"][-1]["payload"]["streams"])
        assert "hunter2" not in json.dumps(hub.frames)


def test_an_untrusted_certificate_is_not_trusted(run_dir: Path, tmp_path: Path) -> None:
    import ssl
    import subprocess

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    with JsonHub(tls=tls) as hub:
        with linked(run_dir, hub.backend, *ID) as link:
            said = link.until(lambda state: state.said).said
            assert "certificate" in said.lower() and "PLANARIA_HUB_CA" in said
            assert not hub.registered
        with linked(run_dir, hub.backend, *ID, PLANARIA_HUB_CA=str(cert)) as link:
            link.until(lambda state: state.state == "connected")
        by_name = hub.backend.replace("127.0.0.1", "localhost")
        with linked(run_dir, by_name, *ID, PLANARIA_HUB_CA=str(cert)) as link:
            said = link.until(lambda state: "certificate" in state.said).said
            assert "for another name" in said and "localhost" in said and "PLANARIA_HUB_CA" not in said


def test_an_open_line_to_a_far_hub_is_warned_of(run_dir: Path) -> None:
    with linked(run_dir, "ws://192.0.2.1:8000/ws/device", *ID) as link:
        until(lambda: "everybody on the way can read" in link.logged())


def test_redirects_are_not_followed(run_dir: Path) -> None:
    with JsonHub() as other, JsonHub() as hub:
        hub.refuse_http = 302, {"Location": other.backend.replace("ws:", "http:")}
        with linked(run_dir, hub.backend, *ID) as link:
            assert "redirected" in link.until(lambda state: state.said).said
        assert not other.opened
