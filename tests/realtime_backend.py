"""A voice backend that knows nothing but the published protocol: it calls a device, hears it and speaks through it.

Written from the published messages alone. Nothing of ours is in it: Ogg-Opus is made and read by FFmpeg.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

RATE = 24_000
Sound = NDArray[np.int16]


class Backend:
    """One connection."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        subprotocols: tuple[str, ...] = ("realtime",),
        tls: ssl.SSLContext | None = None,
        origin: str = "",
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Origin": origin} if origin else {}
        self._open = contextlib.ExitStack()
        opening = connect(
            url,
            subprotocols=[Subprotocol(each) for each in subprotocols],
            additional_headers=headers,
            ssl=tls,
            compression=None,
            max_size=None,
            open_timeout=10,
            close_timeout=1,
        )
        self.ws: ClientConnection = self._open.enter_context(opening)
        self.events: list[dict[str, Any]] = []  # but sound
        self.ogg = b""  # of the microphone

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def send(self, kind: str, **fields: Any) -> None:
        """One event."""
        self.ws.send(json.dumps({"type": kind, **fields}))

    def listen(self, for_s: float) -> None:
        """Take in what comes for so long. Raises ConnectionClosed."""
        until = time.monotonic() + for_s
        while (left := until - time.monotonic()) > 0:
            try:
                self.take(self.ws.recv(left))
            except TimeoutError:
                return

    def heard_after(self, for_s: float) -> bool:
        """Whether there is anything of the microphone."""
        self.listen(for_s)
        return bool(self.ogg)

    def take(self, frame: str | bytes) -> None:
        """What was said."""
        event = json.loads(frame)
        if event["type"] == "input_audio_buffer.append":
            self.ogg += base64.b64decode(event["audio"], validate=True)
        else:
            self.events.append(event)

    def begin(self) -> None:
        """What a conversation begins with."""
        session = {"instructions": {"type": "smalltalk"}, "voice": "Watercooler", "allow_recording": False}
        self.send("session.update", session=session)

    def say(self, sound: Sound, words: str = "") -> None:
        """One response."""
        head = {"object": "realtime.response", "status": "in_progress", "voice": "Watercooler", "chat_history": []}
        self.send("response.created", response=head)
        for piece in pieces(sound):
            self.send("response.audio.delta", delta=base64.b64encode(piece).decode())
        for word in words.split():
            self.send("response.text.delta", delta=word)
        self.send("response.text.done", text=words)
        self.send("response.audio.done")

    @property
    def heard(self) -> Sound:
        """The microphone so far."""
        return decoded(self.ogg)


def pieces(sound: Sound) -> Iterator[bytes]:
    """An Ogg-Opus stream, page by page; the first carries the headers."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg", options={"page_duration": "40000"}) as container:
        stream = container.add_stream("libopus", rate=RATE, options={"application": "voip"})
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(sound[None, :], "s16", "mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    first, second, *rest = (b"OggS" + page for page in file.getvalue().split(b"OggS")[1:])
    yield first + second
    yield from rest


def decoded(ogg: bytes) -> Sound:
    """What a whole stream sounds like."""
    with av.open(io.BytesIO(ogg), "r", format="ogg") as container:
        ours = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in ours.resample(frame)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def tone(seconds: float, hertz: float = 440.0) -> Sound:
    """Something to be heard."""
    at = np.arange(round(seconds * RATE)) / RATE
    return (8000 * np.sin(2 * np.pi * hertz * at)).astype(np.int16)


def is_in(sound: Sound, hertz: float = 440.0) -> bool:
    """Whether a tone is what is loudest in it."""
    if len(sound) < RATE // 10 or np.abs(sound).max() < 500:
        return False
    spectrum = np.abs(np.fft.rfft(sound.astype(float) * np.hanning(len(sound))))
    return abs(float(np.argmax(spectrum)) * RATE / len(sound) - hertz) < 15
