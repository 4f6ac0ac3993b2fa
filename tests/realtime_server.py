"""A voice backend that talks with browsers as published, and whose delays are known: it waits on purpose.

Written from the published messages alone. It recognises nothing: what is loud is a voice, and each reply is a tone.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from procs.media.ogg import OggReader
from procs.media.opus import Decoder
from tests.realtime_backend import pieces, tone

PAUSE_S = 0.3  # of silence, after which a turn is over
NOTICED_S = 0.3  # of a voice, after which the bot stops speaking
THINKS_S = 0.15
SPEAKS_AFTER_S = 0.1
REPLY_S = 4.0
PAGE_S = 0.04
_LOUD = 500


class Server:
    """How it behaves: `deaf` does not notice who speaks over it, `jumpy` takes a cough for a voice, `mute` never
    replies, `full` has no room, `ill` says that it is not well, `open` says how it is without a key."""

    def __init__(self, mode: str = "", key: str = "") -> None:
        self.mode, self.key = mode, key
        self.sessions: list[dict[str, Any]] = []
        self.connections = 0
        self.port = 0

    def talk(self, socket: ServerConnection) -> None:
        """One conversation."""
        self.connections += 1
        with contextlib.suppress(ConnectionClosed):
            Conversation(self, socket).run()

    def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """What is asked by HTTP; None lets a WebSocket in."""
        if request.path == "/v1/health" and self.mode == "open":
            return _json(200, {"ok": True})
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return _json(401, {"detail": "who are you?"})
        if request.path == "/v1/health":
            return _json(200, {"stt_up": self.mode != "ill", "ok": self.mode != "ill"})
        if request.path == "/v1/voices":
            return _json(200, [{"name": "Somebody", "good": True, "source": {"path_on_server": "some/body.wav"}}])
        return _json(503, {"detail": "no room"}) if self.mode == "full" else None


def _json(status: int, body: object) -> Response:
    return Response(status, "", Headers({"Content-Type": "application/json"}), json.dumps(body).encode())


class Conversation:
    """Each page that comes is 40 ms of its clock."""

    def __init__(self, server: Server, socket: ServerConnection) -> None:
        self._server, self._socket = server, socket
        self._reader, self._decoder = OggReader(gated=True), Decoder()
        self._voice_s, self._silence_s = 0.0, 0.0
        self._reply: Iterator[bytes] = iter(())
        self._speaking = False

    def run(self) -> None:
        """Until it is closed."""
        while True:
            event = json.loads(self._socket.recv())
            if event["type"] == "session.update":
                self._server.sessions.append(event["session"])
                self._send("session.updated", session=event["session"])
                self._begin()
            elif event["type"] == "input_audio_buffer.append":
                self._hear(base64.b64decode(event["audio"]))
                self._speak()

    def _send(self, kind: str, **fields: Any) -> None:
        self._socket.send(json.dumps({"type": kind, "event_id": "event_0", **fields}))

    def _begin(self) -> None:
        """A reply: thinking takes the time that it takes; meanwhile nobody listens."""
        if self._server.mode == "mute":
            return
        head: dict[str, Any] = {
            "object": "realtime.response",
            "status": "in_progress",
            "voice": None,
            "chat_history": [],
        }
        self._send("response.created", response=head)
        time.sleep(THINKS_S)
        self._send("unmute.response.text.delta.ready", delta="hm")
        time.sleep(SPEAKS_AFTER_S)
        self._reply, self._speaking = pieces(tone(REPLY_S)), True

    def _hear(self, ogg: bytes) -> None:
        for each in self._reader.feed(ogg):
            pcm = self._decoder.decode(each.packet)
            loud = bool(len(pcm)) and np.abs(pcm.astype(np.int32)).max() > _LOUD
            self._voice_s += PAGE_S / 2 if loud else 0.0
            self._silence_s = 0.0 if loud else self._silence_s + PAGE_S / 2
        if self._speaking:
            self._over()
        elif self._voice_s > NOTICED_S and self._silence_s > PAUSE_S:
            self._voice_s = 0.0
            self._send("conversation.item.input_audio_transcription.delta", delta="what", start_time=1.0)
            self._send("input_audio_buffer.speech_stopped")
            self._begin()
        elif self._silence_s > PAUSE_S:
            self._voice_s = 0.0

    def _over(self) -> None:
        enough = 0.0 if self._server.mode == "jumpy" else NOTICED_S
        if self._silence_s > PAUSE_S:
            self._voice_s = 0.0
        if self._voice_s > enough and self._server.mode != "deaf":
            self._send("unmute.interrupted_by_vad")
            self._speaking = False

    def _speak(self) -> None:
        """A page for each that was heard, so in real time."""
        if not self._speaking:
            return
        page = next(self._reply, None)
        if page is None:
            self._speaking = False
            self._send("response.text.done", text="hm")
            self._send("response.audio.done")
        else:
            self._send("response.audio.delta", delta=base64.b64encode(page).decode())


@contextmanager
def serving(mode: str = "", key: str = "") -> Iterator[Server]:
    """One that runs until the end of the block."""
    server = Server(mode, key)
    listening = serve(
        server.talk,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol("realtime")],
        process_request=server.answer,
        compression=None,
        ping_interval=None,
    )
    with listening:
        server.port = listening.socket.getsockname()[1]
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield server
        listening.shutdown()
        thread.join()
