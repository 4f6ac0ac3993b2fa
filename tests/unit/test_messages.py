"""Messages of the bus: what is taken, what is refused, what survives a newer version on the other side."""

from __future__ import annotations

import msgspec
import pytest

from procs.errors import Refused
from procs.messages import MAX_BYTES, decode, encode
from procs.messages.requests import Bitrate, Describe, Description, Keyframe, Reply, Request
from procs.messages.warden import Heartbeat

REQUEST = Request(id=7, deadline_ms=1000, idempotent=True, body=Bitrate(bits_per_s=64_000))


@pytest.mark.parametrize("body", [Keyframe(), Describe(), Bitrate(bits_per_s=2_000_000)])
def test_a_request_comes_back_as_it_went(body: Keyframe | Describe | Bitrate) -> None:
    sent = Request(id=1, deadline_ms=2, idempotent=False, body=body)
    assert decode(encode(sent), Request) == sent


def test_a_reply_with_a_description_comes_back_as_it_went() -> None:
    body = Description("omega-0", 1, 640, 360, 30, 2_000_000, "x264", 5, 0, "cpu", "nvenc: no driver")
    sent = Reply(id=1, ok=True, body=body)
    assert decode(encode(sent), Reply) == sent


def test_unknown_fields_are_ignored() -> None:
    newer = msgspec.msgpack.encode({**msgspec.to_builtins(REQUEST), "type": "request", "colour": "red"})
    assert decode(newer, Request) == REQUEST


@pytest.mark.parametrize(
    "change",
    [
        {"type": "reply"},
        {"id": -1},
        {"id": 2**63},
        {"idempotent": 1},
        {"body": {"type": "bitrate", "bits_per_s": 1}},
        {"body": {"type": "selfdestruct"}},
        {"body": None},
    ],
)
def test_what_is_outside_its_limits_is_refused_with_a_reason(change: dict[str, object]) -> None:
    wrong = msgspec.msgpack.encode({**msgspec.to_builtins(REQUEST), "type": "request", **change})
    with pytest.raises(Refused, match="not a Request: "):
        decode(wrong, Request)


def test_too_large_is_refused_on_both_sides() -> None:
    with pytest.raises(Refused, match="over the limit"):
        decode(b"\0" * (MAX_BYTES + 1), Request)
    with pytest.raises(Refused, match="over the limit"):
        encode(Reply(id=1, ok=False, reason="x" * MAX_BYTES))


def test_a_heartbeat_names_its_process() -> None:
    beat = Heartbeat(program="headless_agent", instance="omega-0", pid=12, serving=True)
    assert decode(encode(beat), Heartbeat) == beat
    with pytest.raises(Refused):
        decode(encode(Heartbeat(program="", instance="", pid=12, serving=True)), Heartbeat)
