"""Signalling frames: the published ones go through unchanged, anything else is refused with its reason."""

from __future__ import annotations

import json

import pytest

from procs.errors import Refused
from procs.wire import signal
from tests.golden import Said, transcript


@pytest.mark.parametrize("said", transcript("signal"), ids=lambda said: said.frame["type"])
def test_a_published_frame_is_read_and_written_as_it_stands(said: Said) -> None:
    text = json.dumps(said.frame)
    frame = signal.decode(text)
    assert frame is not None
    written = json.loads(signal.encode(frame))
    assert written == json.loads(text)
    assert next(iter(written)) == "type"


def test_what_is_ours_goes_with_it() -> None:
    auth = signal.Auth("A" * 43 + "=", "B" * 86 + "==", '{"planes":[2,1]}')
    offer = signal.Offer("a", "b", "v=0", "s-1", auth)
    assert signal.decode(signal.encode(offer)) == offer
    assert json.loads(signal.encode(offer))["from"] == "a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"type": 1}',
        '{"type": "register"}',
        '{"type": "register", "id": ""}',
        '{"type": "register", "id": "a/b"}',
        '{"type": "register", "id": "a\\u0000"}',
        '{"type": "offer", "from": "a", "to": "b"}',
        '{"type": "offer", "from": "a", "to": "b", "sdp": {"type": "offer", "sdp": ""}}',
        '{"type": "offer", "from": "a", "to": "b", "sdp": "v=0", "session": "x y"}',
        '{"type": "offer", "from": "a", "to": "b", "sdp": "v=0", "auth": {"key": "k", "signature": "s"}}',
        '{"type": "candidate", "from": "a", "to": "b", "candidate": 5}',
        '{"type": "candidate", "from": "a", "to": "b", "candidate": {"candidate": "", "sdpMLineIndex": -1}}',
        '{"type": "offer", "from": "a", "to": "b", "sdp": "' + "x" * signal.MAX_BYTES + '"}',
        "[" * 10_000,
        '{"type": "bye", "from": "\ud800", "to": "b"}',
    ],
)
def test_what_is_no_frame_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        signal.decode(text)


def test_unknown_types_and_fields_are_no_errors() -> None:
    assert signal.decode('{"type": "presence", "x": 1}') is None
    assert signal.decode('{"type": "ping", "t": [1, {"deep": 2}]}') == signal.Ping()


def test_a_token_is_not_shown() -> None:
    assert "hush" not in repr(signal.Register("a", "hush"))


def test_the_server_passes_a_frame_on_as_from_who_sent_it() -> None:
    frame, passed = signal.relayed('{"type": "bye", "to": "b", "to": "c", "new": {"x": [1, null]}}', "a")
    assert frame == signal.Bye("a", "c")
    assert json.loads(passed) == {"type": "bye", "to": "c", "new": {"x": [1, None]}, "from": "a"}
    deep = '{"type": "bye", "to": "b", "x": ' + "[" * 40 + "]" * 40 + "}"
    for poor in (deep, '{"type": "bye", "from": "b", "to": "c"}', '{"type": "ping", "to": "b"}', '{"type": "bye"}'):
        with pytest.raises(Refused):
            signal.relayed(poor, "a")
