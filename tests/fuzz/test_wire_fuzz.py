"""What comes over the network against anything: text frames, credentials and header fields are taken or Refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.errors import Refused
from procs.wire import challenge, envelope, fields, signal
from procs.wire.envelope import Payload
from procs.wire.frames import connection, device, suite, viewer, watch
from procs.wire.nesting import MAX_DEPTH
from tests import fleet, golden
from tests.unit.test_envelope import FRAMES, kind_of

KINDS: list[type[Payload]] = sorted(
    {
        kind
        for frames in (connection, device, suite, viewer, watch)
        for kind in vars(frames).values()
        if isinstance(kind, type) and issubclass(kind, Payload)
    },
    key=lambda kind: kind.__name__,
)
GOLDEN = [json.dumps(said.frame).encode() for said in FRAMES]
GOLDEN.append(json.dumps({"type": "suite", "payload": {"at": "", "processes": [], **fleet.CARRIES}}).encode())
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(sorted({name for kind in KINDS for name in kind.__struct_encode_fields__})) | st.text(
    max_size=4
)
values = anything | st.sampled_from(
    ["a" * 64, "/", "offer", -1, 0, 1, 2**31, 2**63, 2**64, {"type": "offer", "sdp": ""}]
)
payloads = st.dictionaries(names, values, max_size=8)
edits = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3), st.binary(max_size=6)), min_size=1, max_size=6)


def take(data: bytes | str) -> None:
    """Read it as every kind. What is taken can be written, and says the same when read again."""
    with suppress(Refused):
        frame = envelope.decode(data)
        assert envelope.decode(envelope.encode(frame.type, {}, frame.request_id)).type == frame.type
        for kind in KINDS:
            with suppress(Refused):
                payload = envelope.parse(frame, kind)
                again = envelope.encode(frame.type, payload, frame.request_id)
                assert msgspec.structs.asdict(envelope.parse(envelope.decode(again), kind)) == msgspec.structs.asdict(
                    payload
                )


@settings(deadline=None)  # a busy machine
@given(data=st.binary() | st.text())
def test_any_bytes_and_any_text(data: bytes | str) -> None:
    take(data)


@settings(deadline=None)  # a busy machine
@given(frame=anything, payload=payloads | anything)
def test_any_json(frame: Any, payload: Any) -> None:
    take(json.dumps(frame))
    take(json.dumps({"type": "hello", "request_id": "r", "ts": "", "payload": payload}))
    take(json.dumps({"type": frame, "payload": payload}, ensure_ascii=False))


@settings(deadline=None)  # a busy machine
@given(golden=st.sampled_from(GOLDEN), changes=edits)
def test_damaged_published_frames(golden: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    data = bytearray(golden)
    for where, cut, put in changes:
        at = where % (len(data) + 1)
        data[at : at + cut] = put
    take(bytes(data))


@settings(deadline=None)  # a busy machine
@given(said=st.sampled_from(FRAMES), name=st.text(max_size=9), value=values, choice=st.integers(0, 20))
def test_published_frames_with_one_field_of_another_kind(said: Any, name: str, value: Any, choice: int) -> None:
    payload = dict(said.frame["payload"])
    replaced = [*sorted(payload), name]
    payload[replaced[choice % len(replaced)]] = value
    text = json.dumps({**said.frame, "payload": payload})
    take(text)
    with suppress(Refused):
        envelope.parse(envelope.decode(text), kind_of(said))


@settings(deadline=None)  # a busy machine
@given(
    depth=st.integers(0, 60),
    mixed=st.lists(st.sampled_from(['"[', "\\", '"', "[]", "{", "}"])),
)
def test_nesting_is_seen_as_a_parser_sees_it(depth: int, mixed: list[str]) -> None:
    text = json.dumps("".join(mixed))
    frame = '{"type":"a","payload":{"x":' + "[" * depth + text + "]" * depth + ',"y":' + text + "}}"
    take(frame)
    take(frame.replace("]", "", 1))
    try:
        envelope.decode(frame)
    except Refused:
        assert depth + 2 > MAX_DEPTH
    else:
        assert depth + 2 <= MAX_DEPTH


@settings(deadline=None)  # a busy machine
@given(text=st.text(), said=st.binary(max_size=40))
def test_any_text_as_a_credential(text: str, said: bytes) -> None:
    with suppress(Refused):
        assert challenge.Verifier.from_text(text).to_text() == text
    mine = challenge.Keys(b"c" * 32, b"s" * 32, b"v" * 32)
    assert not challenge.check(challenge.Verifier(mine.stored_key, mine.server_key), said, text)
    assert not challenge.check_signature(mine, said, text)


headers = st.text(max_size=12) | st.sampled_from(["Connection", "te", "Content-Length", "Host", "Transfer-Encoding"])


@settings(deadline=None)  # a busy machine
@given(
    pairs=st.lists(st.tuples(headers, st.text(max_size=12) | st.sampled_from(["5", "te, x", "chunked"])), max_size=110)
)
def test_any_header_fields(pairs: list[tuple[str, str]]) -> None:
    for rule in (fields.request_fields, fields.response_fields):
        with suppress(Refused):
            kept = rule(pairs)
            assert rule(kept) == kept, "nothing is left to be dropped"
            line = "".join(f"{name}: {value}\r\n" for name, value in kept).encode()
            assert line.count(b"\r") == line.count(b"\n") == len(kept) and b"\0" not in line
            assert not {name.lower() for name, _ in kept} & fields.HOP_BY_HOP


SIGNALLING = [json.dumps(said.frame).encode() for said in golden.transcript("signal")]


@settings(deadline=None)  # a busy machine
@given(
    data=st.binary()
    | st.builds(
        lambda kind, more: json.dumps({"type": kind, "to": "b"} | more).encode(),
        st.sampled_from(sorted(signal.TYPES)),
        payloads,
    )
    | st.builds(
        lambda frame, at, junk: frame[:at] + junk + frame[at:],
        st.sampled_from(SIGNALLING),
        st.integers(0, 200),
        st.binary(max_size=4),
    )
)
def test_any_signalling(data: bytes) -> None:
    with suppress(Refused):
        if frame := signal.decode(data):
            assert signal.decode(signal.encode(frame)) == frame
    with suppress(Refused, UnicodeDecodeError):
        routed, passed = signal.relayed(data.decode(), "alice")
        assert signal.decode(passed) == routed and routed.sender == "alice"
