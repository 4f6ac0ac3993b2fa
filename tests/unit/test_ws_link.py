"""ws_link without I/O: what a connection says and takes, who gets which request, what waits, who the device is."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from procs.errors import ConfigError
from procs.messages.work import JobDone, Ready
from procs.wire import challenge, envelope
from procs.wire.frames.device import MAX_BODY, DataTicketRequest, ProxyHttp
from procs.wire.frames.suite import SuiteRestart
from procs.ws_link import identity, jobs, options, outbox, streams
from procs.ws_link.identity import Identity
from procs.ws_link.jobs import Answer, Hand, Jobs
from procs.ws_link.link import (
    Answered,
    Asked,
    Connected,
    End,
    Noted,
    Pace,
    Paired,
    RestartAsked,
    Retry,
    Send,
    Session,
    Signalled,
    SuiteWatched,
    Unanswerable,
)
from procs.ws_link.questions import MAX_OPEN, Questions
from tests.golden import transcript

ME = Identity("pi-cam-001", "mysecret123", "0123456789abcdef")
KEYS = challenge.keys(ME.secret, ME.device_id)
NONCE = "cd" * 32
ACK = {"device_id": ME.device_id, "server_time": "2026-01-01T12:00:00.000000"}
STREAMS = {"omega-0": {"producers": [{"url": "exec:..."}], "consumers": None}}


def frame(kind: str, payload: object, **more: object) -> str:
    return json.dumps({"type": kind, "ts": "2026-01-01T12:00:00.000000", "payload": payload, **more})


def session(*, connected: bool = True) -> Session:
    made = Session(ME, KEYS, 0.0)
    made.hello("http://127.0.0.1:1984", show_secret=False)
    if connected:
        assert made.received(frame("hello_ack", ACK), 0.0) == [Connected(mux=False, proved=False)]
    return made


# ---- the connection


def shape(value: Any) -> Any:
    """Keys in order and types, without values."""
    if isinstance(value, dict):
        return [(key, shape(each)) for key, each in value.items()]
    return type(value).__name__


def golden(kind: str) -> dict[str, Any]:
    return next(said.frame for said in transcript("device") if said.frame.get("type") == kind)


def test_our_frames_have_the_published_shape() -> None:
    one = session()
    hello = json.loads(one.hello("http://127.0.0.1:1984", show_secret=True))
    ours = [key for key in hello["payload"] if key not in ("caps", "mux", "instance", "nonce")]
    assert ours == list(golden("hello")["payload"]) and list(hello) == list(golden("hello"))
    heartbeat = one.tick(15.0, STREAMS)[0]
    assert isinstance(heartbeat, Send) and shape(json.loads(heartbeat.text)) == shape(golden("heartbeat"))
    assert shape(json.loads(one.capabilities(0.0, STREAMS).text)) == shape(golden("capabilities"))


def test_the_published_hub_is_understood() -> None:
    one, seen = session(connected=False), []
    for said in transcript("device"):
        if said.sender == "hub" and not said.is_close:
            seen += one.received(json.dumps(said.frame), 1.0)
    kinds = ["watch_request", "signal_offer", "signal_ice", "signal_ice", "watch_ended"]
    assert [type(event) for event in seen] == [Connected, Asked, Asked, *(Signalled for _ in kinds)]
    signalled = [event for event in seen if isinstance(event, Signalled)]
    assert [event.kind for event in signalled] == kinds and len({event.session_id for event in signalled}) == 1
    offer = next(said.frame for said in transcript("device") if said.frame.get("type") == "signal_offer")
    assert json.loads(signalled[1].body) == offer["payload"]


@pytest.mark.parametrize("session_id", ["a b", "\u00fc", ""])
def test_a_session_whose_id_the_bus_cannot_carry_is_refused(session_id: str) -> None:
    payload = {"session_id": session_id, "user_id": "1", "ice_servers": []}
    (noted,) = session().received(frame("watch_request", payload), 1.0)
    assert isinstance(noted, Noted) and noted.kind == "malformed watch_request"


def test_a_session_before_we_are_taken_is_refused() -> None:
    payload = {"session_id": "s", "user_id": "1", "ice_servers": []}
    (noted,) = session(connected=False).received(frame("watch_request", payload), 1.0)
    assert isinstance(noted, Noted)


def test_a_challenge_is_answered_and_the_hub_has_to_prove_itself() -> None:
    one = Session(ME, KEYS, 0.0)
    hello = json.loads(one.hello("", show_secret=False))["payload"]
    [send] = one.received(frame("challenge", {"nonce": NONCE}), 1.0)
    assert isinstance(send, Send)
    said = challenge.transcript(ME.device_id, ME.instance, hello["nonce"], NONCE)
    verifier = challenge.verifier(ME.secret, ME.device_id)
    assert challenge.check(verifier, said, json.loads(send.text)["payload"]["proof"])
    ack = ACK | {"caps": ["mux1"], "mux": {}, "signature": challenge.signature(verifier, said)}
    assert one.received(frame("hello_ack", ack), 2.0) == [Connected(mux=True, proved=True)]


WATCH, RESTART = (
    frame("suite_watch", {"for_s": 20}),
    frame("suite_restart", {"process": "hub", "pid": 7}, request_id="r"),
)


def test_the_suite_is_shown_only_where_both_sides_know_of_it() -> None:
    one = Session(ME, KEYS, 0.0, has_suite=True)
    assert "suite" in json.loads(one.hello("", show_secret=False))["payload"]["caps"]
    assert one.received(frame("hello_ack", ACK | {"caps": ["suite"]}), 0.0) == [Connected(False, False, suite=True)]
    assert one.received(WATCH, 1.0) == [SuiteWatched(20)]
    assert one.received(RESTART, 1.0) == [RestartAsked(SuiteRestart("hub", 7), "r")]
    for wrong in ({"for_s": 61}, {"for_s": -1}, {}):
        assert [type(event) for event in one.received(frame("suite_watch", wrong), 1.0)] == [Noted]
    for payload in ({"process": "hub", "pid": 0}, {"process": "", "pid": 7}, {"pid": 7}):
        assert [type(e) for e in one.received(frame("suite_restart", payload, request_id="r"), 1.0)] == [Noted]
    assert [type(event) for event in one.received(frame("suite_restart", {"process": "hub", "pid": 7}), 1.0)] == [Noted]


@pytest.mark.parametrize(("has_suite", "caps"), [(True, []), (True, ["mux1"]), (False, ["suite"])])
def test_nobody_else_restarts_anything(has_suite: bool, caps: list[str]) -> None:
    one = Session(ME, KEYS, 0.0, has_suite=has_suite)
    assert ("suite" in json.loads(one.hello("", show_secret=False))["payload"]["caps"]) is has_suite
    assert [type(event) for event in one.received(RESTART, 0.0)] == [Noted], "nor before hello_ack"
    one.received(frame("hello_ack", ACK | {"caps": caps}), 0.0)
    assert [type(event) for text in (WATCH, RESTART) for event in one.received(text, 1.0)] == [Noted, Noted]


@pytest.mark.parametrize("signature", [None, "0" * 64])
def test_a_hub_that_asks_for_proof_and_gives_none_is_left(signature: str | None) -> None:
    one = session(connected=False)
    one.received(frame("challenge", {"nonce": NONCE}), 1.0)
    [end] = one.received(frame("hello_ack", ACK | {"signature": signature}), 2.0)
    assert isinstance(end, End) and one.state == "proof"


def test_a_second_nonce_is_not_signed() -> None:
    one = session(connected=False)
    one.received(frame("challenge", {"nonce": NONCE}), 1.0)
    assert [type(event) for event in one.received(frame("challenge", {"nonce": "ef" * 32}), 1.0)] == [Noted]
    assert [type(event) for event in session().received(frame("challenge", {"nonce": NONCE}), 1.0)] == [Noted]


def test_each_session_has_a_nonce_of_its_own() -> None:
    nonces = {json.loads(session(connected=False).hello("", show_secret=False))["payload"]["nonce"] for _ in range(9)}
    assert len(nonces) == 9


def test_every_step_of_the_introduction_has_its_own_limit() -> None:
    one = session(connected=False)
    assert one.tick(9.9, {}) == []
    one.received(frame("challenge", {"nonce": NONCE}), 9.9)
    assert one.tick(19.8, {}) == []
    assert one.tick(20.0, {}) == [End("no answer to the proof")]


def test_heartbeats_and_capabilities_come_on_their_beats() -> None:
    one = session()
    kinds: list[tuple[float, str]] = []
    for tenth in range(1, 620):
        now = tenth / 10
        one.received(frame("heartbeat_ack", {}), now)
        kinds += [(now, json.loads(e.text)["type"]) for e in one.tick(now, STREAMS) if isinstance(e, Send)]
    assert [now for now, kind in kinds if kind == "heartbeat"] == [15.0, 30.0, 45.0, 60.0]
    assert [now for now, kind in kinds if kind == "capabilities"] == [30.0, 60.0]


def test_silence_ends_it_and_any_frame_counts() -> None:
    one = session()
    assert not [event for event in one.tick(25.0, {}) if isinstance(event, End)]
    one.received("whatever", 25.0)
    assert not [event for event in one.tick(49.0, {}) if isinstance(event, End)]
    assert one.tick(50.1, {}) == [End("nothing heard for 25 s")]


def test_a_request_that_cannot_be_read_is_answered_by_its_rid() -> None:
    one = session()
    noted, answer = one.received(frame("proxy_http", {"rid": "r7", "method": "GET / HTTP/1.1\r\nX"}), 1.0)
    assert isinstance(noted, Noted) and isinstance(answer, Unanswerable) and (answer.rid, answer.status) == ("r7", 400)
    large = frame("proxy_http", {"rid": "r8", "body_b64": "A" * 3_000_000})
    _, answer = one.received(large, 1.0)
    assert isinstance(answer, Unanswerable) and (answer.rid, answer.status) == ("r8", 413)


def test_no_request_is_taken_before_the_introduction_is_over() -> None:
    one = session(connected=False)
    one.received(frame("challenge", {"nonce": NONCE}), 1.0)
    assert not any(isinstance(event, Asked) for event in one.received(frame("proxy_http", {"rid": "r"}), 1.0))


def test_answers_and_errors_reach_whoever_asked() -> None:
    [event] = session().received(frame("error", {"message": "no"}, request_id="q1"), 1.0)
    assert isinstance(event, Answered) and event.request_id == "q1" and event.answer.type == "error"
    assert session().received(frame("paired", {"code": "123456"}), 1.0) == [Paired("123456")]


def test_too_many_streams_are_announced_by_name() -> None:
    many = {f"omega-{number}": {"producers": [{"url": "x" * 1000}], "consumers": []} for number in range(1100)}
    assert set(json.loads(session().capabilities(0.0, many).text)["payload"]["streams"]) == set(many)


# ---- when to connect again


def test_the_first_attempt_is_quick_and_the_others_spread() -> None:
    retry = Retry(lambda: 0.999)
    waits = [retry.ended(End("gone"), 0.0) for _ in range(8)]
    assert waits[0] < 0.1 and [round(wait) for wait in waits[1:]] == [1, 2, 4, 8, 16, 30, 30]


def test_only_a_connection_that_lasted_ends_the_row() -> None:
    retry = Retry(lambda: 0.999)
    for _ in range(4):
        retry.ended(End("gone"), 0.0)
    retry.taken(10.0)
    assert retry.ended(End("gone"), 12.9) > 1
    retry.taken(20.0)
    assert retry.ended(End("gone"), 23.0) < 0.1


def test_replaced_and_told_to_wait() -> None:
    assert 5 <= Retry().ended(End("replaced", 1012), 0.0) <= 10
    assert 7 <= Retry().ended(End("flooded", 503, 7.0), 0.0) < 9
    assert Retry().ended(End("for ever", 503, 1e9), 0.0) <= 360


# ---- requests


def asked(rid: str, method: str = "GET", **more: Any) -> ProxyHttp:
    return ProxyHttp(rid=rid, method=method, **more)


def ready(jobs: Jobs, worker: str = "0", pid: int = 1, capacity: int = 8, now: float = 0.0) -> list[jobs.Action]:
    return jobs.ready(Ready(worker=worker, pid=pid, capacity=capacity), now)


def test_jobs_go_to_who_has_most_room_and_wait_for_room() -> None:
    table = Jobs()
    ready(table, "0", capacity=1)
    ready(table, "1", capacity=2)
    handed = [action for rid in "abcd" for action in table.take(asked(rid), 0.0)]
    assert [action.worker for action in handed if isinstance(action, Hand)] == ["1", "0", "1"]
    done = table.done("0", JobDone(rid="b", status=200), b"x", 0.0)
    assert done[0] == Answer("b", 200, {}, b"x")
    assert isinstance(done[1], Hand) and (done[1].worker, done[1].job.rid) == ("0", "d")


def test_jobs_wait_for_a_proxy_that_is_being_started() -> None:
    table = Jobs(nobody_s=3.0)
    assert table.take(asked("a"), 0.0) == []
    assert table.tick(2.9) == []
    [hand] = ready(table, now=2.9)
    assert isinstance(hand, Hand) and hand.job.rid == "a"
    table.gone("0", 3.0)
    assert table.tick(5.9) == []
    [answer] = table.tick(6.1)
    assert isinstance(answer, Answer) and answer.status == 503


@pytest.mark.parametrize(("method", "is_repeated"), [("GET", True), ("HEAD", True), ("POST", False), ("DELETE", False)])
def test_what_a_dead_proxy_had(method: str, is_repeated: bool) -> None:
    table = Jobs()
    ready(table, "0", now=0.0)
    table.take(asked("a", method), 0.0)
    ready(table, "1", now=2.0)
    [action] = table.tick(3.1)
    if is_repeated:
        assert isinstance(action, Hand) and action.worker == "1"
    else:
        assert isinstance(action, Answer) and action.status == 502
        assert table.done("0", JobDone(rid="a", status=200), b"", 3.2) == [], "an answer twice"


def test_a_request_that_kills_three_is_not_given_to_a_fourth() -> None:
    table = Jobs()
    ready(table, pid=1)
    actions = table.take(asked("a"), 0.0)
    for pid in (2, 3, 4):
        assert isinstance(actions[0], Hand)
        actions = ready(table, pid=pid)
    assert isinstance(actions[0], Answer) and actions[0].status == 502


def test_an_answer_of_who_was_taken_for_dead_is_not_taken() -> None:
    table = Jobs()
    ready(table, "0", now=0.0)
    table.take(asked("a"), 0.0)
    ready(table, "1", now=2.0)
    table.tick(3.1)
    assert table.done("0", JobDone(rid="a", status=200), b"late", 3.2) == []
    assert table.done("1", JobDone(rid="a", status=200), b"", 3.3) == [Answer("a", 200, {}, b"")]


def test_an_answer_to_the_ws_link_before_is_handed_on_once() -> None:
    table = Jobs()
    done = JobDone(rid="old", status=200)
    assert table.done("0", done, b"x", 0.0) == [Answer("old", 200, {}, b"x")]
    assert table.done("0", done, b"x", 0.0) == []


def test_the_same_rid_twice_is_one_request() -> None:
    table = Jobs()
    ready(table)
    assert len(table.take(asked("a"), 0.0)) == 1
    assert table.take(asked("a"), 0.0) == []


def test_deadlines_are_kept_whoever_has_the_request() -> None:
    table = Jobs()
    ready(table)
    [hand] = table.take(asked("a", timeout_ms=1000), 5.0)
    assert isinstance(hand, Hand) and hand.job.deadline_ms == 6000
    ready(table, now=5.9)
    assert table.tick(5.9) == []
    [answer] = table.tick(6.0)
    assert isinstance(answer, Answer) and (answer.status, answer.body) == (504, b"Gateway Timeout")


def test_headers_become_what_json_can_hold() -> None:
    table = Jobs()
    pairs = [("Vary", "a"), ("vary", "b"), ("Set-Cookie", "x"), ("Set-Cookie", "y"), ("Content-Type", "z")]
    [answer] = table.done("0", JobDone(rid="a", status=200, headers=pairs), b"", 0.0)
    assert isinstance(answer, Answer)
    assert answer.headers == {"Vary": "a, b", "Set-Cookie": "x", "Content-Type": "z"}


@pytest.mark.parametrize(
    ("path", "is_endless"),
    [("/api/stream.mp4?src=a", True), ("//api/ws", True), ("/api/stream.m3u8", False), ("/api/streams", False)],
)
def test_endless_paths(path: str, is_endless: bool) -> None:
    table = Jobs()
    ready(table)
    [action] = table.take(asked("a", path=path), 0.0)
    assert isinstance(action, Answer) == is_endless


def test_a_body_of_just_the_limit_passes() -> None:
    table = Jobs()
    ready(table)
    body = bytes(MAX_BODY)
    [hand] = table.take(asked("a", "POST", body_b64=base64.b64encode(body).decode()), 0.0)
    assert isinstance(hand, Hand) and hand.body == body
    [answer] = table.take(asked("b", "POST", body_b64=base64.b64encode(body + b"x").decode()), 0.0)
    assert isinstance(answer, Answer) and answer.status == 413


# ---- what waits


def test_short_frames_go_first_and_answers_outlive_a_connection() -> None:
    box = outbox.Outbox()
    box.put_bulk("answer", 0.0)
    box.put("heartbeat")
    assert box.first(0.0) == "heartbeat"
    box.new_connection()
    assert box.first(0.0, bulk=False) is None and box.first(0.0) == "answer"
    assert box.first(30.1) is None, "nobody waits for it any more"


def test_a_frame_leaves_only_when_it_was_sent() -> None:
    box = outbox.Outbox()
    box.put_bulk("answer", 0.0)
    text = box.first(0.0)
    assert text
    box.put("heartbeat")
    box.sent(text)
    assert box.first(0.0) == "heartbeat"
    box.sent("heartbeat")
    assert box.first(0.0) is None


def test_the_outbox_is_bounded() -> None:
    box = outbox.Outbox()
    taken = sum(box.put_bulk("x" * 1_000_000, 0.0) for _ in range(100))
    assert taken == outbox.MAX_BULK_BYTES // 1_000_000
    assert all(box.put("y") for _ in range(outbox.MAX_SHORT)) and not box.put("y")


def test_questions_are_asked_again_and_answered_once() -> None:
    questions = Questions()
    replies: list[envelope.Envelope | str] = []
    text = questions.ask("data_ticket", DataTicketRequest(), 10.0, replies.append)
    request_id = json.loads(text)["request_id"]
    assert [json.loads(again)["request_id"] for again in questions.again()] == [request_id]
    answer = envelope.decode(frame("data_ticket", {}, request_id=request_id))
    assert questions.answered(request_id, answer) and not questions.answered(request_id, answer)
    assert replies == [answer]
    questions.ask("data_ticket", DataTicketRequest(), 10.0, replies.append)
    questions.tick(10.0)
    assert replies[1:] == ["the hub did not answer in time"] and questions.again() == []


def test_open_questions_are_bounded() -> None:
    questions = Questions()
    replies: list[envelope.Envelope | str] = []
    for _ in range(MAX_OPEN + 1):
        questions.ask("data_ticket", DataTicketRequest(), 10.0, replies.append)
    assert replies == ["too many open questions"]


# ---- what go2rtc has


def test_only_the_kind_of_a_source_is_told() -> None:
    listed = {
        "door": {
            "producers": [{"url": "rtsp://user:hunter2@192.0.2.7/1", "remote_addr": "192.0.2.7:554", "bytes_recv": 7}],
            "consumers": [{"remote_addr": "198.51.100.1", "user_agent": "x", "format_name": "mse", "bytes_send": 1}],
        },
        "idle": {"producers": None, "consumers": None},
        "odd": 7,
    }
    told = streams.announced(listed)
    assert told["door"] == {"producers": [{"url": "rtsp:..."}], "consumers": [{"format_name": "mse"}]}
    assert told["idle"] == told["odd"] == {"producers": None, "consumers": None}
    assert streams.announced([1]) == {}


def test_who_watches_makes_no_difference() -> None:
    one = streams.announced({"a": {"producers": [{"url": "exec:x"}], "consumers": None}})
    watched = streams.announced({"a": {"producers": [{"url": "exec:x"}], "consumers": [{"format_name": "mse"}]}})
    assert streams.substance(one) == streams.substance(watched)
    assert streams.substance(one) != streams.substance(streams.announced({"a": {"producers": []}}))


# ---- who the device is


def test_an_identity_is_made_once_and_readable_by_us_alone(tmp_path: Path) -> None:
    made = identity.load(tmp_path)
    assert identity.load(tmp_path) == made and made.secret not in repr(made)
    assert (tmp_path / "device.json").stat().st_mode & 0o777 == 0o600
    assert set(json.loads((tmp_path / "device.json").read_text())) == {"device_id", "secret", "instance"}
    other = identity.load(tmp_path, "pi-cam-001", "mysecret123")
    assert other == Identity("pi-cam-001", "mysecret123", made.instance)
    assert identity.load(tmp_path) == made, "what is given is not kept in its place"


def _load(directory: str) -> str:
    return identity.load(Path(directory)).secret


def test_two_that_start_at_once_agree(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(_load, [str(tmp_path)] * 8))) == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"device_id": "", "secret": "s", "instance": "0123456789abcdef"}'])
def test_an_identity_that_cannot_be_read_is_left_for_a_person(tmp_path: Path, text: str) -> None:
    (tmp_path / "device.json").write_text(text)
    with pytest.raises(ConfigError, match=r"device\.json: cannot be used"):
        identity.load(tmp_path)
    assert (tmp_path / "device.json").read_text() == text


def test_what_was_left_half_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "device.new").write_text('{"device_')
    assert identity.load(tmp_path).device_id.startswith("planaria-")
    assert os.listdir(tmp_path).count("device.new") == 0


# ---- settings


def load(*argv: str, **environ: str) -> options.Link:
    return options.load(argv, environ | {"PLANARIA_SUITE": "x"})


def test_published_names_are_taken() -> None:
    chosen = load(
        DEVICE_ID="pi-cam-001", BACKEND_URL="wss://hub.example.org/x/ws/device", GO2RTC_HTTP="http://u:p@10.0.0.1:1/"
    )
    assert chosen.base == "https://hub.example.org/x" and chosen.go2rtc_http == "http://u:p@10.0.0.1:1"
    assert chosen.go2rtc_without_login == "http://10.0.0.1:1"
    assert load().base == "http://localhost:8000"


@pytest.mark.parametrize(
    ("backend", "is_readable"),
    [
        ("ws://localhost:8000/ws/device", False),
        ("ws://127.0.0.1/ws/device", False),
        ("ws://[::1]/ws/device", False),
        ("wss://hub.example.org/ws/device", False),
        ("ws://hub.example.org/ws/device", True),
        ("ws://127.0.0.1.example.org/ws/device", True),
    ],
)
def test_what_others_can_read_is_known(backend: str, is_readable: bool) -> None:
    assert load(BACKEND_URL=backend).is_readable == is_readable


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKEND_URL", "http://hub/ws/device"),
        ("BACKEND_URL", "ws://hub/"),
        ("BACKEND_URL", "ws:///ws/device"),
        ("BACKEND_URL", "ws://user:pw@hub/ws/device"),
        ("BACKEND_URL", "ws://hub:0/ws/device"),
        ("BACKEND_URL", "ws://hub:99999/ws/device"),
        ("BACKEND_URL", "ws://hub/x?y=/ws/device"),
        ("DEVICE_ID", "a/b"),
        ("DEVICE_ID", ".."),
        ("DEVICE_ID", "x" * 129),
        ("GO2RTC_HTTP", "127.0.0.1:1984"),
        ("GO2RTC_HTTP", "http://h/?x"),
        ("DEVICE_SECRET", "\x01hunter2"),
    ],
)
def test_wrong_settings_are_one_line(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}=.*\(environment\): must be ") as caught:
        load(**{name: value})
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_pace_is_the_published_one() -> None:
    pace = Pace()
    assert (pace.heartbeat_s, pace.capabilities_s, pace.silence_s) == (15.0, 30.0, 25.0)
    assert (pace.open_s, pace.step_s, pace.send_s, pace.nobody_s) == (10.0, 10.0, 20.0, 10.0)
    assert (pace.settled_s, pace.replaced_s) == (3.0, 5.0)
