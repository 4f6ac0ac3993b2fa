"""A browser-style client of a voice backend, written from the published messages of /v1/realtime alone: websockets,
JSON, and FFmpeg for Ogg-Opus. It knows nothing of ours.

Its microphone is on from the beginning to the end, as a browser's is: 40 ms a message, silence where nobody speaks.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import av
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.connection import Connection
from websockets.typing import Subprotocol

from tests.realtime_backend import RATE, Sound, decoded
from tests.rig import until

PIECE_S = 0.04
PIECE = round(RATE * PIECE_S)
# What a server may say, and what each must have. Nothing else is published.
FIELDS: dict[str, set[str]] = {
    "error": {"error"},
    "session.updated": {"session"},
    "response.created": {"response"},
    "unmute.response.text.delta.ready": {"delta"},
    "response.text.delta": {"delta"},
    "response.text.done": {"text"},
    "unmute.response.audio.delta.ready": {"number_of_samples"},
    "response.audio.delta": {"delta"},
    "response.audio.done": set(),
    "conversation.item.input_audio_transcription.delta": {"delta", "start_time"},
    "input_audio_buffer.speech_started": set(),
    "input_audio_buffer.speech_stopped": set(),
    "unmute.interrupted_by_vad": set(),
    "unmute.additional_outputs": {"args"},
}
WORD = "conversation.item.input_audio_transcription.delta"


class Pages(io.RawIOBase):
    """Where FFmpeg writes: what came since one looked."""

    def __init__(self) -> None:
        self._bytes = b""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """More."""
        self._bytes += bytes(data)
        return len(data)

    def taken(self) -> bytes:
        """All of it, once."""
        taken, self._bytes = self._bytes, b""
        return taken


class OggOpus:
    """One stream, made as the sound comes."""

    def __init__(self) -> None:
        self._pages = Pages()
        options = {"page_duration": "40000", "flush_packets": "1"}
        self._container = av.open(self._pages, "w", format="ogg", options=options)
        self._stream = self._container.add_stream("libopus", rate=RATE, options={"application": "audio"})
        self._stream.layout = "mono"

    def made(self, sound: Sound) -> bytes:
        """The pages that are whole with this."""
        frame = av.AudioFrame.from_ndarray(sound[None, :], "s16", "mono")
        frame.sample_rate = RATE
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        return self._pages.taken()


class Talk:
    """One side's end of a conversation with a backend: a microphone that is on, and what the backend says. `events`:
    all of it but sound, each with `at`; `ogg`: the sound, as it came."""

    def __init__(self, ws: Connection) -> None:
        self.ws = ws
        self.events: list[dict[str, Any]] = []
        self.ogg = b""
        self.sounded: list[float] = []  # when sound came
        self.closed: tuple[int, str] | None = None
        self._says: queue.SimpleQueue[Sound] = queue.SimpleQueue()

    def send(self, kind: str, **fields: Any) -> None:
        """One event."""
        self.ws.send(json.dumps({"type": kind, **fields}))

    def say(self, sound: Sound) -> None:
        """Into the microphone, after what is being said."""
        self._says.put(sound)

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """Events of these types."""
        return [event for event in list(self.events) if event["type"] in kinds]

    def until(self, look: Callable[[], Any], within_s: float = 20.0) -> Any:
        """What that gives once it is true."""

        def seen() -> Any:
            found = look()
            assert found or self.closed is None, (self.closed, [event["type"] for event in self.events[-12:]])
            return found

        return until(seen, within_s)

    @property
    def heard(self) -> Sound:
        """All that came of the speaker's sound."""
        return decoded(self.ogg)

    @property
    def words(self) -> list[str]:
        """What the backend has understood."""
        return [event["delta"] for event in self.of(WORD) if event["delta"]]

    def not_published(self) -> list[dict[str, Any]]:
        """Events that nobody says who is published, or that lack something."""
        return [
            event
            for event in list(self.events)
            if event["type"] not in FIELDS or not FIELDS[event["type"]] <= event.keys() or not event.get("event_id")
        ]

    def hear(self) -> None:
        """Take in what is said, until the end."""
        try:
            while True:
                frame = self.ws.recv()
                assert isinstance(frame, str), "all frames are text"
                event = json.loads(frame)
                if event["type"] == "response.audio.delta":
                    self.ogg += base64.b64decode(event["delta"], validate=True)
                    self.sounded.append(time.monotonic())
                else:
                    self.events.append(event | {"at": time.monotonic()})
        except ConnectionClosed as closed:
            self.closed = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")

    def speak(self) -> None:
        """Be the microphone, until the end."""
        encoder = OggOpus()
        left, due = np.zeros(0, np.int16), time.monotonic()
        with contextlib.suppress(ConnectionClosed):
            while self.closed is None:
                if len(left) < PIECE and not self._says.empty():
                    left = np.concatenate([left, self._says.get()])
                piece, left = left[:PIECE], left[PIECE:]
                if pages := encoder.made(np.pad(piece, (0, PIECE - len(piece)))):
                    self.send("input_audio_buffer.append", audio=base64.b64encode(pages).decode())
                due += PIECE_S
                time.sleep(max(0.0, due - time.monotonic()))


class Browser(Talk):
    """A client."""

    def __init__(self, url: str) -> None:
        opening = connect(
            url,
            subprotocols=[Subprotocol("realtime")],
            compression=None,
            max_size=None,
            open_timeout=10,
            close_timeout=1,
            proxy=None,
        )
        self._open = contextlib.ExitStack()
        super().__init__(self._open.enter_context(opening))
        assert self.ws.subprotocol == "realtime"
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self.hear, self.speak)]

    def __enter__(self) -> Browser:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()
        for thread in self._threads:
            thread.join(5)

    def update(self, instructions: dict[str, Any] | None, voice: str | None) -> None:
        """How the conversation is to be."""
        session = {"instructions": instructions, "voice": voice, "allow_recording": False}
        self.send("session.update", session=session)
