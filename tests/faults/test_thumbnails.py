"""Thumbnails through a real hub: of a published device made by hand, and of ours with a real go2rtc."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests import hub_rig
from tests.faults.test_agent import agent
from tests.hub_rig import Answer, Http, Process, Talker
from tests.rig import Go2rtc, free_port, go2rtc, until

JPEG = b"\xff\xd8 a picture \xff\xd9"
RUNS = {"producers": [{"url": "exec:...", "format_name": "mpegts"}], "consumers": [{"format_name": "mp4"}]}
IDLE = {"producers": [{"url": "exec:..."}], "consumers": None}
NAMES = ("door", "yard/left", "Küche 2")


def path(stream: str, device: str = "cam") -> str:
    return f"/api/devices/{device}/streams/{quote(stream, safe='')}/thumbnail"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with hub_rig.process(tmp_path_factory.mktemp("hub") / "run", PLANARIA_COMPAT="1") as running:
        yield running


class Published:
    """A published device, whose answers are as it is told."""

    def __init__(self, talker: Talker) -> None:
        self._talker = talker
        self.asked: Counter[str] = Counter()
        self.status, self.body = 200, JPEG
        self.answers = threading.Event()
        self.answers.set()
        threading.Thread(target=self._serve, daemon=True).start()

    def announce(self, **streams: object) -> None:
        """Say which streams there are."""
        self._talker.say("capabilities", {"device_id": "cam", "streams": streams})

    def _serve(self) -> None:
        try:
            while frame := self._talker.hear("proxy_http", 60):
                self.asked[frame["payload"]["path"]] += 1
                threading.Thread(target=self._answer, args=(frame["payload"]["rid"],), daemon=True).start()
        except Exception:  # the test is over
            return

    def _answer(self, rid: str) -> None:
        self.answers.wait(20)
        body = base64.b64encode(self.body).decode()
        with contextlib.suppress(Exception):  # the test is over
            self._talker.say("proxy_http_resp", {"rid": rid, "status": self.status, "headers": {}, "body_b64": body})


@pytest.fixture
def owner(hub: Process) -> Http:
    return hub.admin


@pytest.fixture
def device(hub: Process, owner: Http) -> Iterator[Published]:
    hub_rig.paired(hub, owner, "cam")
    with hub_rig.device(hub, "cam") as talker:
        yield Published(talker)
    assert owner("DELETE", "/api/devices/cam").status == 200


def get_ready(device: Published, owner: Http, stream: str = "door") -> Answer:
    """The first answer that is not of a time when nothing was announced yet."""
    return until(lambda: answer if (answer := owner("GET", path(stream))).status != 404 else None)


def test_a_picture_comes_once_and_is_kept(device: Published, owner: Http) -> None:
    device.announce(**dict.fromkeys(NAMES, IDLE))
    for name in NAMES:
        answer = get_ready(device, owner, name)
        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, JPEG, "image/jpeg")
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert float(answer.headers["X-Planaria-Age"]) < 10
        again = owner("GET", path(name), headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", answer.headers["ETag"])
        assert float(again.headers["X-Planaria-Age"]) >= float(answer.headers["X-Planaria-Age"])
        assert owner("GET", path(name), headers={"If-None-Match": '"other"'}).status == 200
    assert [parse_qs(urlsplit(each).query) for each in device.asked] == [
        {"src": [name], "w": ["320"]} for name in NAMES
    ]
    assert set(device.asked.values()) == {1}


def test_what_a_device_says_is_a_picture_or_nothing(device: Published, owner: Http) -> None:
    device.announce(page=RUNS, gone=RUNS, broken=RUNS)
    device.body = b"<script>alert(1)</script>"
    answer = get_ready(device, owner, "page")
    assert answer.status == 502 and b"script" not in answer.body and int(answer.headers["Retry-After"]) > 2
    device.status = 404
    assert owner("GET", path("gone")).status == 404
    device.status = 500
    assert "status 500" in owner("GET", path("broken")).detail
    assert owner("GET", path("broken")).status == 502 and sum(device.asked.values()) == 3


def test_whose_it_is_not_sees_nothing(hub: Process, device: Published, owner: Http) -> None:
    device.announce(door=RUNS)
    get_ready(device, owner)
    stranger = owner.new_user(f"stranger{time.time()}")
    assert stranger("GET", path("door")).status == 404
    assert hub.http("GET", path("door")).status == 401
    assert owner("GET", path("nothing")).status == 404 and owner("GET", path("door", "nobody")).status == 404


def test_a_device_that_is_away(hub: Process, owner: Http) -> None:
    hub_rig.paired(hub, owner, "away")
    answer = owner("GET", path("door", "away"))
    assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0


def test_a_device_that_does_not_answer_holds_up_no_other_call(device: Published, owner: Http) -> None:
    device.announce(door=RUNS, yard=RUNS, roof=RUNS)
    until(lambda: owner("GET", path("nothing")).status == 404)
    device.answers.clear()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(owner, "GET", path(name)) for name in ("door", "yard")]
        until(lambda: len(device.asked) == 2)
        answer = owner("GET", path("roof"))
        assert answer.status == 503 and answer.detail
        device.answers.set()
        assert [each.result().status for each in slow] == [200, 200]


# Our own device, and a real go2rtc behind a counter


class Relay(http.server.ThreadingHTTPServer):
    """In front of a go2rtc: passes GET on, and notes which pictures were asked for."""

    def __init__(self, behind: Go2rtc) -> None:
        self.behind = behind
        self.pictures: list[str] = []
        super().__init__(("127.0.0.1", free_port()), _PassOn)


class _PassOn(http.server.BaseHTTPRequestHandler):
    server: Relay
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/api/frame.jpeg"):
            self.server.pictures.append(parse_qs(urlsplit(self.path).query)["src"][0])
        try:
            with urllib.request.urlopen(self.server.behind.url(self.path), timeout=20) as answer:
                status, kind, body = answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            status, kind, body = error.code, "text/plain", error.read()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def counted(behind: Go2rtc) -> Iterator[Relay]:
    with Relay(behind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def crowd(count: int, seconds: float, ask: Callable[[], Answer]) -> list[Answer]:
    """So many look for so long, as fast as they can."""
    found: list[Answer] = []
    until_then = time.monotonic() + seconds

    def look() -> None:
        while time.monotonic() < until_then:
            found.append(ask())
            time.sleep(0.2)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(look) for _ in range(count)]:
            done.result()
    return found


@pytest.mark.long
def test_fifty_viewers_cost_a_real_go2rtc_one_picture_at_a_time(
    hub: Process, owner: Http, run_dir: Path, tmp_path: Path
) -> None:
    producer = {"width": 640, "height": 360, "fps": 30, "gop": 30, "bitrate": "2M"}
    someone = owner.new_user("someone")
    with go2rtc({"workers": 2, "producer": producer}) as camera, counted(camera) as counter:
        words = ["--device-id", "real", "--backend", hub.ws("/ws/device"), "--go2rtc-http"]
        with agent(run_dir, *words, f"http://127.0.0.1:{counter.server_port}"):
            until(lambda: hub.metric("devices_online") == 1 and hub.metric("data_links") == 2, 20)
            hub_rig.paired(hub, someone, "real")
            idle = path("omega-0", "real")
            first = until(lambda: answer if (answer := someone("GET", idle)).status == 200 else None, 20)
            assert first.body[:2] == b"\xff\xd8" and 500 < len(first.body) < 60_000
            found = crowd(50, 3.0, lambda: someone("GET", idle))
            assert {answer.status for answer in found} == {200} and len(found) > 200
            assert counter.pictures == ["omega-0"], "an idle stream stays one, however many look"
            watching = urllib.request.urlopen(camera.url("/api/stream.mp4?src=omega-1"), timeout=10)
            with watching:
                watching.read(10_000)
                running = path("omega-1", "real")
                began = time.monotonic()
                found = crowd(50, 5.0, lambda: someone("GET", running))
                assert {answer.status for answer in found} == {200}
                assert len({answer.headers["ETag"] for answer in found}) >= 2, "the picture changes"
                fetches = counter.pictures.count("omega-1")
                assert 2 <= fetches <= 1 + (time.monotonic() - began) / 2
                print(f"\n50 viewers: {len(found)} answers, {fetches} fetches in 5 s; before: 1 of an idle stream")
    assert json.loads(hub.http("GET", "/health").body)["status"] == "healthy"
