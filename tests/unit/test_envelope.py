"""Text frames: the published transcripts both ways, and what is refused."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec
import pytest

from procs.errors import Refused
from procs.wire import envelope
from procs.wire.envelope import Payload, decode, encode, parse
from procs.wire.frames.connection import Error, Heartbeat, HeartbeatAck, Hello, HelloAck, ViewerHello, ViewerHelloAck
from procs.wire.frames.device import MAX_BODY, Capabilities, DataTicket, PairingCode, ProxyHttp, ProxyHttpResp
from procs.wire.frames.watch import (
    EndWatch,
    SignalAnswer,
    SignalIce,
    SignalOffer,
    ViewerWatchRequest,
    WatchEnded,
    WatchReady,
    WatchRequest,
)
from procs.wire.mux1 import MuxLimits
from procs.wire.nesting import MAX_DEPTH
from procs.wire.webrtc import IceServer
from tests.golden import Said, transcript

FRAMES = [said for channel in ("device", "viewer") for said in transcript(channel) if not said.is_close]
KINDS: dict[str, type[Payload]] = {
    "capabilities": Capabilities,
    "end_watch": EndWatch,
    "error": Error,
    "heartbeat": Heartbeat,
    "heartbeat_ack": HeartbeatAck,
    "hello": Hello,
    "hello_ack": HelloAck,
    "proxy_http": ProxyHttp,
    "proxy_http_resp": ProxyHttpResp,
    "signal_answer": SignalAnswer,
    "signal_ice": SignalIce,
    "signal_offer": SignalOffer,
    "watch_ended": WatchEnded,
    "watch_ready": WatchReady,
    "watch_request": WatchRequest,
}
TO_A_VIEWER: dict[str, type[Payload]] = {
    "hello": ViewerHello,
    "hello_ack": ViewerHelloAck,
    "watch_request": ViewerWatchRequest,
}
FRAME = {"type": "hello", "ts": "2026-01-01T12:00:00.000000", "payload": {"device_id": "a"}}


def kind_of(said: Said) -> type[Payload]:
    kinds = KINDS | TO_A_VIEWER if said.channel == "viewer" else KINDS
    return kinds[said.frame["type"]]


def taken(kind: str, payload: dict[str, Any], as_: type[Payload]) -> Payload:
    return parse(decode(json.dumps({"type": kind, "ts": "", "payload": payload})), as_)


def holds(ours: Any, theirs: Any) -> bool:
    """Whether ours has every field of theirs, with the same value."""
    if isinstance(theirs, dict):
        return isinstance(ours, dict) and all(name in ours and holds(ours[name], theirs[name]) for name in theirs)
    if isinstance(theirs, list):
        return (
            isinstance(ours, list)
            and len(ours) == len(theirs)
            and all(holds(one, other) for one, other in zip(ours, theirs, strict=True))
        )
    return type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize("said", FRAMES, ids=lambda said: f"{said.channel}-{said.sender}-{said.frame['type']}")
def test_every_published_frame_is_taken_and_written_as_it_was(said: Said) -> None:
    read = decode(json.dumps(said.frame))
    assert (read.type, read.request_id, read.ts) == (
        said.frame["type"],
        said.frame.get("request_id"),
        said.frame["ts"],
    )
    payload = parse(read, kind_of(said))
    written = json.loads(encode(read.type, payload, read.request_id, with_request_id="request_id" in said.frame))
    assert list(written) == list(said.frame), "the same fields in the same order"
    assert holds(written["payload"], said.frame["payload"])
    assert list(written["payload"])[: len(said.frame["payload"])] == list(said.frame["payload"])
    assert datetime.fromisoformat(written["ts"]).tzinfo is None
    assert len(written["ts"]) == len(said.frame["ts"])


def test_the_transcripts_hold_every_published_type() -> None:
    assert {said.frame["type"] for said in FRAMES} == KINDS.keys()


@pytest.mark.parametrize("said", FRAMES, ids=lambda said: f"{said.channel}-{said.sender}-{said.frame['type']}")
def test_a_newer_peer_may_say_more(said: Said) -> None:
    more = {"colour": {"red": [1, None]}}
    newer = {**said.frame, **more, "payload": {**said.frame["payload"], **more}}
    assert parse(decode(json.dumps(newer)), kind_of(said)) == parse(decode(json.dumps(said.frame)), kind_of(said))


def test_ours_with_all_that_we_add_comes_back() -> None:
    hello = Hello("pi", "1", "http://127.0.0.1:1984", None, ["mux1", "challenge"], MuxLimits(), "0" * 16, "a" * 64)
    ack = HelloAck("pi", "now", None, ["mux1"], MuxLimits(max_frame=4096), "b" * 64, "/ws/data")
    ticket = DataTicket("a-B_9.~+/=", 30, "/ws/data?x=1")
    for kind, payload in (("hello", hello), ("hello_ack", ack), ("data_ticket", ticket)):
        assert parse(decode(encode(kind, payload, "r1")), type(payload)) == payload
        assert decode(encode(kind, payload, "r1")).request_id == "r1"


def test_unknown_types_and_missing_payloads_are_no_errors() -> None:
    read = decode('{"type":"gps.v2-beta"}')
    assert read == ("gps.v2-beta", msgspec.Raw(b"{}"), None, "")
    assert decode(b' { "payload" : {} , "type" : "a" } ').type == "a"


def test_what_a_browser_adds_to_a_candidate_goes_on() -> None:
    candidate = {"candidate": "", "sdpMid": None, "sdpMLineIndex": None, "usernameFragment": "x"}
    payload = taken("signal_ice", {"session_id": "s", "candidate": candidate}, SignalIce)
    assert json.loads(encode("signal_ice", payload))["payload"]["candidate"] == candidate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"hello"',
        "{",
        "{}",
        '{"type":1,"payload":{}}',
        '{"type":"","payload":{}}',
        '{"type":"a b","payload":{}}',
        '{"type":"a\\n","payload":{}}',
        '{"type":"' + "a" * 65 + '","payload":{}}',
        '{"type":"a","payload":null}',
        '{"type":"a","payload":[]}',
        '{"type":"a","payload":"{}"}',
        '{"type":"a","payload":{}}{}',
        '{"type":"a","payload":{},"request_id":1}',
        '{"type":"a","payload":{},"request_id":"' + "r" * 129 + '"}',
        '{"type":"a","payload":{},"ts":5}',
        '\ufeff{"type":"a","payload":{}}',
        '{"type":"\ud800","payload":{}}',
        b'{"type":"\xff","payload":{}}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_frame_is_refused(text: str | bytes) -> None:
    with pytest.raises(Refused):
        decode(text)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_limited(opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return '{"type":"a","payload":{"x":' + opening * depth + "1" + closing * depth + "}}"

    inner = MAX_DEPTH - 2
    decode(nested(inner))
    for depth in (inner + 1, 500, 100_000):
        with pytest.raises(Refused, match=r"nested|recursion"):
            decode(nested(depth))


def test_depth_is_that_of_brackets_outside_of_texts() -> None:
    text = "[{" * 50 + '"\\' + "[" * 50
    decode(json.dumps({"type": "a", "payload": {"x": text, "y": "\\", "z": [[]] * 100}}))
    with pytest.raises(Refused, match="nested"):
        decode(json.dumps({"type": "a", "payload": {"x": "]" * 50, "y": json.loads("[" * 31 + "]" * 31)}}))


def test_size_is_limited_in_bytes() -> None:
    frame = '{"type":"a","payload":{"x":"ä"}}'
    decode(frame, limit=len(frame) + 1)
    with pytest.raises(Refused, match="34 bytes is over the limit of 32"):
        decode(frame + " ", limit=len(frame))
    with pytest.raises(Refused, match="over the limit of 2097152"):
        decode(" " * (envelope.MAX_BYTES + 1))


ICE = {"candidate": "c", "sdpMid": "0", "sdpMLineIndex": 0}


@pytest.mark.parametrize(
    ("kind", "payload", "field"),
    [
        (Hello, {}, "device_id"),
        (Hello, {"device_id": ""}, "device_id"),
        (Hello, {"device_id": 7}, "device_id"),
        *(
            (Hello, {"device_id": wrong}, "device_id")
            for wrong in ("a/b", "a\n", "\0", "..", ".", "a\u202eb", "é" * 129)
        ),
        (Hello, {"device_id": "a", "device_secret": "s" * 1025}, "device_secret"),
        (Hello, {"device_id": "a", "caps": ["x"] * 65}, "caps"),
        (Hello, {"device_id": "a", "mux": {"max_frame": 0}}, "mux.max_frame"),
        (Hello, {"device_id": "a", "mux": {"max_streams": 2**40}}, "mux.max_streams"),
        (Hello, {"device_id": "a", "nonce": "short"}, "nonce"),
        (Hello, {"device_id": "a", "instance": "a b"}, "instance"),
        (HelloAck, {"device_id": "a", "server_time": "", "signature": "A" * 64}, "signature"),
        *(
            (HelloAck, {"device_id": "a", "server_time": "", "data_path": wrong}, "data_path")
            for wrong in ("ws", "//evil", "@evil", "/a\\b", "/a#b", "/a b", "http://evil/", "/a\n")
        ),
        (ProxyHttp, {"rid": "r", "method": "GE T"}, "method"),
        (ProxyHttp, {"rid": "r", "path": "/" * 20_000}, "path"),
        (ProxyHttp, {"rid": "r", "headers": {"a": 1}}, "headers"),
        (ProxyHttp, {"rid": "r", "headers": {str(n): "" for n in range(101)}}, "headers"),
        (ProxyHttp, {"rid": "r", "timeout_ms": 0}, "timeout_ms"),
        (ProxyHttp, {"rid": "r", "timeout_ms": True}, "timeout_ms"),
        (ProxyHttpResp, {"rid": "r"}, "status"),
        (ProxyHttpResp, {"rid": "r", "status": 99}, "status"),
        (ProxyHttpResp, {"rid": "r", "status": 600}, "status"),
        (ProxyHttpResp, {"rid": "r", "status": 200, "body_b64": None}, "body_b64"),
        (Capabilities, {"device_id": "a", "streams": []}, "streams"),
        (SignalOffer, {"session_id": "s", "sdp": "v=0"}, "sdp"),
        (SignalOffer, {"session_id": "s", "sdp": {"type": "offers", "sdp": ""}}, "sdp.type"),
        (SignalIce, {"session_id": "s"}, "candidate"),
        (SignalIce, {"session_id": "s", "candidate": {**ICE, "sdpMLineIndex": -1}}, "candidate.sdpMLineIndex"),
        (WatchReady, {"session_id": "s", "mode": "p2p", "ice_servers": [{}]}, "urls"),
        (DataTicket, {"ticket": "a b", "expires_in_s": 30, "path": "/"}, "ticket"),
        (PairingCode, {"code": "12345x", "expires_at": "", "ttl": 300}, "code"),
    ],
)
def test_a_field_outside_its_limits_is_refused_by_name(
    kind: type[Payload], payload: dict[str, Any], field: str
) -> None:
    with pytest.raises(Refused, match=rf"^thing: .*{field}`?") as refused:
        taken("thing", payload, kind)
    assert len(str(refused.value)) <= 300


@pytest.mark.parametrize("device_id", ["pi-cam-001", "a", "é" * 128, "...", "Küche 2", "a:b@c?d#e", "a.."])
def test_ids_as_people_choose_them_are_taken(device_id: str) -> None:
    assert taken("hello", {"device_id": device_id}, Hello) == Hello(device_id)


def test_bytes_that_are_no_text_are_refused_where_they_stand() -> None:
    read = decode(b'{"type":"hello","payload":{"device_id":"a\xff"}}')
    with pytest.raises(Refused, match="hello"):
        parse(read, Hello)


def test_a_payload_is_limited_by_its_kind_both_ways() -> None:
    streams = {"x": "y" * 1024 * 1024}
    with pytest.raises(Refused, match="over the limit of 1048576"):
        taken("capabilities", {"device_id": "a", "streams": streams}, Capabilities)
    with pytest.raises(Refused, match="over the limit of 1048576"):
        encode("capabilities", Capabilities("a", streams))
    with pytest.raises(Refused, match="over the limit of 65536"):
        taken("hello", {"device_id": "a", "x": "y" * 65_536}, Hello)
    with pytest.raises(Refused, match="over the limit"):
        encode("x", {"y": "z" * envelope.MAX_BYTES})


def test_the_largest_body_passes_and_a_frame_is_never_larger_than_a_reader_takes() -> None:
    body = "A" * (MAX_BODY * 4 // 3 + 4)
    decode(encode("proxy_http_resp", ProxyHttpResp("r", 200, {}, body)))
    for size in range(envelope.MAX_BYTES - 300, envelope.MAX_BYTES + 10, 10):
        try:
            text = encode("proxy_http_resp", ProxyHttpResp("r", 200, {}, "A" * size))
        except Refused:
            continue
        decode(text)


def test_what_cannot_be_written_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in ("\ud800", 10**5000, endless):
        with pytest.raises(Refused, match="not to be written"):
            encode("capabilities", Capabilities("a", {"x": value}))


def test_no_secret_is_seen_in_a_representation() -> None:
    secret = "s3cr3t" * 10
    shown = [
        Hello("a", device_secret=secret),
        ViewerHello(secret),
        DataTicket(secret, 30, "/"),
        PairingCode("123456", "", 300),
        WatchReady("s", "p2p", [IceServer("turn:x", "u", secret)]),
    ]
    assert "s3cr3t" not in repr(shown) and "123456" not in repr(shown)
