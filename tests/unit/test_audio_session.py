"""What a device says and does with one backend, without a network, a codec or a clock."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from procs.audio_io import token
from procs.audio_io.options import load
from procs.audio_io.session import Finish, Play, Send, Session, Wrong
from procs.audio_io.sound import Cursor, Figures, SoundState
from procs.errors import ConfigError
from procs.media.ogg import OggReader, OggWriter
from procs.wire import realtime as wire
from procs.wire.audio_frame import AudioFrame, pack_audio, parse_audio

PACKET = bytes((0x48, 1, 2, 3))  # 20 ms, by its first byte
STATE = SoundState(
    microphone="ok", speaker="ok", echo="none", muted=False, awake=True, wake="", output_ms=30, figures=Figures()
)


def told(session: Session, frame: object, now: float = 0.0) -> list[Any]:
    """What a frame asks for."""
    return list(session.received(frame if isinstance(frame, bytes) else json.dumps(frame), now))


def delta(data: bytes) -> dict[str, str]:
    """Sound as published."""
    return {"type": "response.audio.delta", "delta": base64.b64encode(data).decode()}


def created() -> dict[str, Any]:
    """A response as published."""
    return {"type": "response.created", "response": {"object": "realtime.response", "status": "in_progress"}}


def test_a_poisoned_page_costs_itself_and_nothing_else() -> None:
    session, writer = Session(ours=True, serial=1), OggWriter(7)
    pages = [writer.write([PACKET, PACKET]) for _ in range(4)]
    poisoned = pages[1][:-1] + bytes((pages[1][-1] ^ 1,))
    assert told(session, created()) == []
    first = told(session, delta(pages[0]))
    assert first == [Play(PACKET, 1, 0, True), Play(PACKET, 1, 480, False)]
    errors = [a for a in told(session, delta(poisoned)) + told(session, delta(pages[2])) if isinstance(a, Send)]
    assert all("whole Opus packets" in json.loads(error.frame)["error"]["message"] for error in errors) and errors
    assert told(session, delta(pages[3]))[-1] == Play(PACKET, 1, 7 * 480, False), "its time is known all the same"
    assert told(session, {"type": "response.audio.done"}) == [Finish()]
    assert told(session, created()) + told(session, delta(writer.write([PACKET]))) == [Play(PACKET, 2, 8 * 480, True)]


def test_rubbish_is_told_and_counted_and_not_answered_by_a_flood() -> None:
    session = Session(ours=True, serial=1)
    rubbish: list[object] = [
        {"type": "response.cancel"},
        {"type": "response.audio.delta", "delta": "%"},
        b"\x09",
        [],
        7,
    ]
    answers = [told(session, each) for each in rubbish]
    assert all([type(action) for action in each] == [Wrong, Send] for each in answers)
    assert session.refused == {"unknown type": 1, "malformed": 4}
    assert len(told(session, b"", 0.9)) == 1 and len(told(session, b"", 1.1)) == 2, "it is for the log all the same"
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    assert told(session, error, 9.0) == [], "two that do not understand each other fall silent"
    published = Session(ours=False, serial=1)
    rubbish.append(pack_audio(AudioFrame(PACKET, 0, 0)))
    assert [type(action) for each in rubbish for action in told(published, each)] == [Wrong] * 6
    assert published.refused.total() == 6


def test_a_published_backend_is_told_nothing_but_what_is_published() -> None:
    session = Session(ours=False, serial=9)
    assert session.begin("kitchen", STATE, 0) == [] == session.looked(Cursor(1, "playing", 9, 9), STATE, 1.0)
    sent = [send for _ in range(4) for send in session.microphone(PACKET, 480)]
    pages = [wire.decode(str(send.frame), wire.FROM_DEVICE) for send in sent]
    reader = OggReader(gated=True)
    assert [len(reader.feed(page.audio)) for page in pages if isinstance(page, wire.Append)] == [2, 2]


def test_how_far_a_response_is_is_told_at_each_change_and_now_and_then() -> None:
    session = Session(ours=True, serial=1)
    hello, state = (wire.decode(str(send.frame), wire.FROM_DEVICE) for send in session.begin("kitchen", STATE, 4))
    assert isinstance(hello, wire.Hello) and isinstance(state, wire.State) and hello.name == "kitchen"
    looks = [
        (Cursor(4, "flushed", 9, 0), 0.0, 0),
        (Cursor(5, "playing", 0, 100), 0.02, 1),
        (Cursor(5, "playing", 60, 40), 0.1, 0),
        (Cursor(5, "playing", 200, 0), 0.23, 1),
        (Cursor(5, "paused", 210, 0), 0.24, 1),
        (Cursor(5, "paused", 210, 0), 9.0, 0),
        (Cursor(6, "playing", 0, 10), 9.1, 1),
    ]
    sent = [session.looked(cursor, STATE, now) for cursor, now, _ in looks]
    assert [len(each) for each in sent] == [count for *_, count in looks]
    assert [json.loads(send.frame)["response"] for each in sent for send in each] == [1, 1, 1, 2]
    (send,) = session.looked(Cursor(6, "playing", 0, 10), SoundState(**{**vars_of(STATE), "muted": True}), 9.1)
    assert json.loads(send.frame)["type"] == "planaria.state"


def vars_of(state: SoundState) -> dict[str, Any]:
    """The fields of a state."""
    return {name: getattr(state, name) for name in state.__struct_fields__}


def test_what_is_not_sent_leaves_a_gap() -> None:
    session = Session(ours=True, serial=1)
    session.microphone(PACKET, 480)
    session.skipped(960)
    frames = [parse_audio(bytes(session.microphone(PACKET, 480)[0].frame)) for _ in range(2)]  # type: ignore[arg-type]
    assert [(f.seq, f.timestamp, f.first) for f in frames] == [(1, 1440, True), (2, 1920, False)]


def test_a_token_is_made_once_where_others_can_reach_it(run_dir: Path) -> None:
    assert token.find(load([], {}), run_dir).lets_in(None) and not list(run_dir.iterdir())
    public = load(["--host", "0.0.0.0"], {})
    made, again = token.find(public, run_dir), token.find(public, run_dir)
    assert made.is_new and not again.is_new and made.text == again.text
    assert made.lets_in(f"Bearer {made.text}") and made.lets_in(f"bearer  {made.text} ")
    assert not any(
        made.lets_in(each) for each in (None, "", made.text, f"Basic {made.text}", "Bearer é", "Bearer \udcff")
    )
    given = load([], {"PLANARIA_AUDIO_TOKEN": "a-token-of-my-own"})
    assert given.needs_token and token.find(given, run_dir).lets_in("Bearer a-token-of-my-own")
    (run_dir / "short").write_text("short")
    with pytest.raises(ConfigError, match="16 to 256"):
        token.find(load([], {"PLANARIA_AUDIO_TOKEN_FILE": str(run_dir / "short")}), run_dir)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--port", "70000"], "--port='70000'"),
        (["--host", "everywhere"], "an IP address of this machine"),
        (["--cert", "cert.pem"], "must both be set"),
        (["--input", "x.wav"], "are for --no-audio"),
        (["--no-audio", "--input", "no.wav"], "no such file or folder"),
        (["--no-audio", "--input", "say: | "], "no sentence"),
        (["--cert", "no.pem", "--key", "README.md"], "no.pem cannot be read: No such file"),
        (["--cert", "README.md", "--key", "README.md"], "in PEM"),
        (["--wake-word", "computer"], "one of okay_nabu"),
    ],
)
def test_wrong_settings_are_one_line(argv: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        load(argv, {})
    assert "\n" not in str(refused.value)
