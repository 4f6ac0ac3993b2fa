"""A device's ears and mouth, called by backends: as the published transcript has it, by one that was written from what
is published alone, by ours with all that it is told, and by several that want the same device."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from procs.media.opus import Encoder
from procs.settings import ROOT
from procs.wire import realtime as wire
from procs.wire.audio_frame import AudioFrame, pack_audio, parse_audio
from procs.wire.conversation import Response
from tests.audio_rig import Device, device, is_free, wav
from tests.realtime_backend import RATE, Backend, Sound, is_in, pieces, tone
from tests.rig import until

GOLDEN = [json.loads(line) for line in (ROOT / "tests/golden/realtime.jsonl").read_text().splitlines()]
OURS = (wire.OURS, wire.PUBLISHED)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A device that hears a tone of two seconds again and again."""
    folder = tmp_path_factory.mktemp("device")
    heard = wav(folder / "heard.wav", tone(2.0, 1000))
    with device(folder, "--input", str(heard), "--loop", "--patience-s", "0.2") as its:
        yield its


def test_the_published_transcript(running: Device) -> None:
    before = len(running.played())
    sound = pieces(tone(1.0))
    with Backend(running.url) as backend:
        for line in GOLDEN:
            frame = line["frame"]
            if line["from"] == "device":
                assert set(frame) == {"type", "audio"} and frame["type"] == "input_audio_buffer.append"
                until(lambda: backend.heard_after(0.05))
            elif "close" in frame:
                backend.listen(1.2)
                backend.ws.close(frame["close"], frame["reason"])
            elif frame["type"] == "response.audio.delta":
                for piece in sound:
                    backend.send(frame["type"], delta=base64.b64encode(piece).decode())
                backend.listen(0.5)  # before it is interrupted
            else:
                backend.ws.send(json.dumps(frame))
    assert backend.events == [], "it says nothing but what is published"
    assert backend.ogg[5] & 2 and backend.ogg[28:36] == b"OpusHead", "who waits for the beginning of a stream gets it"
    assert is_in(running.played()[before:])
    until(lambda: is_free(running))


def test_a_backend_that_knows_only_what_is_published(running: Device) -> None:
    before = len(running.played())
    with Backend(running.url) as backend:
        assert backend.ws.subprotocol == "realtime"
        backend.begin()
        backend.say(tone(1.0, 700), "a tone")
        backend.listen(3.0)
        heard = backend.heard
    assert 2.5 < len(heard) / RATE < 3.5 and is_in(heard, 1000)
    played = running.played()[before:]
    assert is_in(played, 700) and (abs(played) > 3000).sum() > 0.5 * RATE, "all of it, and not a moment"


class Ours:
    """A backend that speaks what is ours, too."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.ws = backend, backend.ws
        self.frames: list[AudioFrame] = []
        self.events: list[Any] = []
        self._seq = self._at = 0
        self._encoder = Encoder()

    def until(self, look: Callable[[], Any], within_s: float = 10.0) -> Any:
        """Listen until that is true."""
        deadline = time.monotonic() + within_s
        while not (found := look()):
            assert time.monotonic() < deadline, self.events[-5:]
            frame = self.ws.recv(deadline - time.monotonic())
            if isinstance(frame, bytes):
                self.frames.append(parse_audio(frame))
            else:
                self.events.append(wire.decode(frame, wire.FROM_DEVICE))
        return found

    def of(self, kind: type) -> list[Any]:
        """Events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def created(self) -> None:
        """A response begins."""
        self.ws.send(wire.encode(wire.ResponseCreated(response=Response())))

    def speak(self, sound: Sound) -> None:
        """Its sound, as fast as it goes."""
        for packet in self._encoder.encode(sound):
            self.ws.send(pack_audio(AudioFrame(packet, self._seq, self._at)))
            self._seq, self._at = self._seq + 1, self._at + 480

    def is_now(self, response: int, state: str, heard_ms: float = 0) -> bool:
        """Whether this was told last of the speaker."""
        return any(
            (last.response, last.state) == (response, state) and last.heard_ms >= heard_ms
            for last in self.of(wire.Playback)[-1:]
        )


@pytest.fixture
def ours(running: Device) -> Iterator[Ours]:
    """One that holds the device."""
    with Backend(running.url, subprotocols=OURS) as backend:
        assert backend.ws.subprotocol == wire.OURS
        yield Ours(backend)
    until(lambda: is_free(running))


def test_a_backend_of_ours_is_told_what_is_heard(ours: Ours) -> None:
    ours.until(lambda: len(ours.frames) > 20)
    hello, state = ours.events[:2]
    assert (type(hello), hello.echo, hello.muted, hello.wake) == (wire.Hello, "cancelled", False, "")
    assert (state.microphone, state.speaker, state.awake) == ("ok", "ok", True)
    first, *rest = ours.frames
    assert (first.seq, first.timestamp, first.first) == (0, 0, True)
    assert [(f.seq, f.timestamp, f.first) for f in rest] == [(i, i * 480, False) for i in range(1, len(rest) + 1)]
    ours.created()
    ours.speak(tone(1.0))
    ours.ws.send(wire.encode(wire.AudioDone()))
    ours.until(lambda: ours.is_now(1, "playing", 300))
    ours.until(lambda: ours.is_now(1, "done"))
    assert 900 <= ours.of(wire.Playback)[-1].heard_ms <= 1100


def test_it_stops_and_says_how_much_was_heard(ours: Ours) -> None:
    ours.created()
    ours.speak(tone(5.0))
    ours.until(lambda: ours.is_now(1, "playing", 400))
    ours.ws.send(wire.encode(wire.Pause()))
    ours.until(lambda: ours.is_now(1, "paused"))
    paused = ours.of(wire.Playback)[-1]
    ours.ws.send(wire.encode(wire.Resume()))
    ours.until(lambda: ours.is_now(1, "playing", paused.heard_ms + 100))
    ours.ws.send(wire.encode(wire.Interrupted()))
    ours.until(lambda: ours.is_now(1, "flushed"))
    flushed = ours.of(wire.Playback)[-1]
    assert paused.heard_ms < flushed.heard_ms < 3000 and flushed.buffered_ms == 0
    ours.created()
    ours.speak(tone(0.5))
    ours.until(lambda: ours.is_now(2, "playing", 100))
    ours.ws.send(wire.encode(wire.Mute(muted=True)))
    ours.until(lambda: ours.of(wire.State)[-1].muted)
    ours.ws.send(wire.encode(wire.Mute(muted=False)))
    ours.until(lambda: not ours.of(wire.State)[-1].muted)


def test_what_comes_far_too_fast_does_not_keep_it_from_hearing(ours: Ours) -> None:
    ours.created()
    ours.speak(tone(60.0))
    ours.until(lambda: any(each.buffered_ms > 10_000 for each in ours.of(wire.Playback)))
    heard = len(ours.frames)
    ours.until(lambda: len(ours.frames) > heard + 50)
    assert max(each.buffered_ms for each in ours.of(wire.Playback)) < 40_000, "the oldest is left out"
    assert [f.seq for f in ours.frames] == list(range(len(ours.frames))), "nothing was left out"


def test_a_living_backend_is_kept_and_a_dead_one_is_not(running: Device, ours: Ours) -> None:
    ours.until(lambda: ours.frames)
    with Backend(running.url) as late:
        with pytest.raises(ConnectionClosed) as closed:
            late.listen(5)
        assert closed.value.rcvd and (closed.value.rcvd.code, late.events[0]["error"]["code"]) == (1013, "busy")
    heard = len(ours.frames)
    ours.until(lambda: len(ours.frames) > heard + 10)
    ours.ws.close()
    dead = half_open(running.port)
    try:
        with Backend(running.url) as next_one:
            next_one.listen(3.0)
            assert len(next_one.heard) > RATE, "it is in within a second or so"
        wait_for_end(dead, 5)
    finally:
        dead.close()


def half_open(port: int) -> socket.socket:
    """A backend whose machine is gone: its connection is there, and nobody answers."""
    sock = socket.create_connection(("127.0.0.1", port))
    key = base64.b64encode(bytes(16)).decode()
    lines = ["GET / HTTP/1.1", "Host: device", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    sock.sendall("\r\n".join([*lines, f"Sec-WebSocket-Key: {key}", "", ""]).encode())
    assert sock.recv(4096).startswith(b"HTTP/1.1 101")
    return sock


def wait_for_end(sock: socket.socket, limit_s: float) -> None:
    """Read until the other side has closed."""
    sock.settimeout(limit_s)
    with contextlib.suppress(ConnectionError):
        while sock.recv(65536):
            pass


@pytest.mark.long
def test_nobody_is_sent_the_microphone_who_does_not_answer(running: Device) -> None:
    until(lambda: is_free(running))
    since = time.monotonic()
    with contextlib.closing(half_open(running.port)) as dead:
        wait_for_end(dead, 30)
    assert time.monotonic() - since < 25, "ten seconds, on a machine that has time"


def test_without_a_card_it_is_there_and_says_what_is_missing(tmp_path: Path) -> None:
    named = ("--microphone", "no such card", "--speaker", "no such card", "--name", "kitchen")
    with device(tmp_path / "device", *named, is_file=False) as its, Backend(its.url, subprotocols=OURS) as backend:
        ours = Ours(backend)
        ours.until(lambda: len(ours.frames) > 20 and ours.of(wire.State)[-1].speaker.startswith("missing: "))
        state = ours.of(wire.State)[-1]
        assert ours.of(wire.Hello)[0].name == "kitchen" and state.microphone.startswith("missing: ")
        ours.created()
        ours.speak(tone(0.5))
        ours.until(lambda: ours.is_now(1, "playing", 100))


def test_pages_of_a_browser_here_are_turned_away(running: Device) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Backend(running.url, origin="https://example.com")
    assert refused.value.response.status_code == 403


@pytest.mark.needs("openssl")
def test_beyond_this_machine_it_takes_a_token_and_speaks_tls(tmp_path: Path) -> None:
    made = ["-subj", "/CN=device", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    flags = ("--host", "0.0.0.0", "--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem"))
    with device(tmp_path / "device", *flags, scheme="wss") as its, contextlib.ExitStack() as held:
        silent = held.enter_context(socket.create_connection(("127.0.0.1", its.port)))
        file = its.run_dir / "audio-token"
        token = file.read_text().strip()
        assert len(token) > 40 and file.stat().st_mode & 0o777 == 0o600
        assert token not in its.said and str(file) in its.said
        for wrong in ("", token[:-1], token + "x"):
            with pytest.raises(InvalidStatus) as refused:
                Backend(its.url, token=wrong, tls=trusted)
            assert refused.value.response.status_code == 401
        with pytest.raises((InvalidMessage, OSError)):
            Backend(its.url.replace("wss", "ws"), token=token)
        assert "no token" in its.said and "wrong token" in its.said
        assert its.said.count("wss:// is spoken here") == 1
        with Backend(its.url, token=token, tls=trusted, origin="https://example.com") as backend:
            backend.listen(0.5)
            assert backend.ogg
        wait_for_end(silent, 30)  # TLS has a deadline, too
