"""Voice events: the published ones as they stand, ours beside them, and what is refused by which reason."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from procs.errors import Refused
from procs.wire import realtime
from procs.wire.audio_frame import MAX_PACKET, AudioFrame, pack_audio, parse_audio
from procs.wire.conversation import ChatMessage, Constant, Outputs, Session
from procs.wire.realtime import FROM_BACKEND, FROM_BROWSER, FROM_DEVICE, Side, UnknownType
from tests.golden import Said, transcript

SOUND = base64.b64encode(b"OggS\0\2" + bytes(40)).decode()
SIDES: dict[str, Side[Any]] = {"backend": FROM_BACKEND, "device": FROM_DEVICE}
SAID = [said for said in transcript("realtime") if not said.is_close]
SESSION = '{"type": "session.update", "session": '


@pytest.mark.parametrize("said", SAID, ids=lambda said: said.frame["type"])
def test_a_published_event_is_read_and_written_as_it_stands(said: Said) -> None:
    frame = {name: SOUND if str(value).startswith("<base64") else value for name, value in said.frame.items()}
    event = realtime.decode(json.dumps(frame), SIDES[said.sender])
    written = json.loads(realtime.encode(event))
    made = written.pop("event_id")
    assert written == frame and next(iter(written)) == "type"
    assert len(made) == 27 and made.startswith("event_") and made[6:].isalnum()
    assert realtime.decode(realtime.encode(event), SIDES[said.sender]) == event, "the id is kept"


@pytest.mark.parametrize(
    ("event", "side"),
    [
        (realtime.Hello("kitchen", "half-duplex", wake="okay_nabu", output_ms=40.0), FROM_DEVICE),
        (realtime.Playback(2, "paused", 1234.5, 80.0), FROM_DEVICE),
        (realtime.State(True, False, "ok", "missing: no such device"), FROM_DEVICE),
        (realtime.Pause(), FROM_BACKEND),
        (realtime.Volume(70), FROM_BACKEND),
        (realtime.AudioDelta(bytes(range(256))), FROM_BACKEND),
        (realtime.Transcription("", event_id="event_1"), FROM_BACKEND),
        (realtime.AdditionalOutputs(Outputs([], {"timing": {"x": None}}, [{"t": 1}])), FROM_BACKEND),
        (realtime.SessionUpdate(Session(True, Constant("Hi", "fr/en"), None)), FROM_BROWSER),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_is_written_is_read_the_same(event: realtime.Event, side: Side[Any]) -> None:
    assert realtime.decode(realtime.encode(event), side) == event


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not an event"),
        ("[]", "not an event"),
        ('{"type": null}', "not an event"),
        ('{"type": "session.update", "session": {}}', "allow_recording"),
        (SESSION + '{"allow_recording": 1}}', "session.update: Expected `bool`"),
        (SESSION + '{"allow_recording": true, "instructions": {"type": "sing"}}}', "session.instructions"),
        (SESSION + '{"allow_recording": true, "instructions": {"type": "news", "language": "de"}}}', "language"),
        ('{"type": "input_audio_buffer.append", "audio": "QUI"}', "Invalid base64"),
        ('{"type": "input_audio_buffer.append", "audio": "<sound>"}', "Invalid base64"),
        ('{"type": "input_audio_buffer.append", "audio": "' + "QUJD" * 65_537 + '"}', "length"),
        ('{"type": "input_audio_buffer.append", "event_id": "' + "x" * 513 + '", "audio": ""}', "event_id"),
        ('{"type": "input_audio_buffer.append", "audio": "\ud800"}', "not an event"),
        ('{"type": "input_audio_buffer.append", "audio": "", "x": ' + "[" * 32 + "]" * 32 + "}", "nested"),
        ("[" * 100_000, "not an event"),
        (" " * (realtime.MAX_BYTES + 1), "over the limit"),
    ],
)
def test_what_is_no_event_is_refused(text: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        realtime.decode(text, FROM_BROWSER)
    assert not isinstance(refused.value, UnknownType)


def test_a_type_that_is_unknown_or_of_another_side_is_told_apart_and_unknown_fields_are_no_errors() -> None:
    for kind in ("response.cancel", "planaria.hello", "response.audio.delta"):
        with pytest.raises(UnknownType, match=kind):
            realtime.decode(json.dumps({"type": kind}), FROM_BROWSER)
    with pytest.raises(Refused, match="percent"):
        realtime.decode('{"type": "planaria.volume", "percent": 101}', FROM_BACKEND)
    assert realtime.decode('{"type": "planaria.pause", "event_id": "e", "x": [{}]}', FROM_BACKEND).event_id == "e"


def test_an_event_that_would_be_refused_is_not_written() -> None:
    too_long = realtime.AdditionalOutputs(Outputs([ChatMessage("user", "x" * 60_000)] * 20))
    for event in (too_long, realtime.TextDelta("\ud800")):
        with pytest.raises(Refused):
            realtime.encode(event)


def test_the_better_subprotocol_is_taken_of_what_is_offered() -> None:
    assert realtime.chosen(["realtime", "planaria.realtime.v1"]) == realtime.OURS
    assert realtime.chosen(["chat", "realtime"]) == realtime.PUBLISHED
    assert realtime.chosen(["chat"]) is realtime.chosen([]) is None


def test_a_binary_frame_is_as_drawn_and_counters_wrap() -> None:
    data = pack_audio(AudioFrame(b"\x08opus", 0x1_0203, 0x1_0405_0607, first=True))
    assert data == b"\x01\x01\x02\x03\x04\x05\x06\x07\x08opus"
    assert parse_audio(data) == AudioFrame(b"\x08opus", 0x0203, 0x0405_0607, True)
    assert not parse_audio(b"\x01\xfe" + data[2:]).first
    for poor in (b"", data[:8], b"\x02" + data[1:], data[:8] + bytes(MAX_PACKET + 1)):
        with pytest.raises(Refused):
            parse_audio(poor)
