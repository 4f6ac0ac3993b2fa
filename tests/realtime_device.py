"""A device that knows nothing but the published protocol: backends call it, it lends them its microphone and speaker.

Written from the published messages alone. Nothing of ours is in it: Ogg-Opus is made and read by FFmpeg. It can be as
bad as devices are: it reboots, it talks rubbish, and it accepts a connection and hangs.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from tests.realtime_backend import RATE, Sound, decoded, pieces

PAGE_S = 0.04
AFTER_S = 60  # of silence, after what the microphone hears
RUBBISH: list[str | bytes] = [
    "no JSON",
    '{"type":"nobody.knows"}',
    '{"type":"input_audio_buffer.append"}',
    '{"type":"input_audio_buffer.append","audio":"%%%"}',
    json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(b"OggS" + bytes(500)).decode()}),
    json.dumps({"type": "input_audio_buffer.append", "audio": ""}),
    "[" * 5000,
    b"\x01\x00binary",
]


@dataclass
class Call:
    """One connection."""

    token: str
    subprotocol: str
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    events: list[dict[str, Any]] = field(default_factory=list)  # but sound
    ogg: bytes = b""  # for its speaker

    def kinds(self) -> list[str]:
        """What was said to it, each kind once in a row."""
        return [kind for kind, _ in itertools.groupby(event["type"] for event in self.events)]

    def heard(self) -> Sound:
        """What came out of its speaker."""
        return decoded(self.ogg)


class Device:
    """One that can be called at `port`. `microphone`: what it hears, then silence; None: it sends nothing at all.
    `rubbish`: it says that between. `mute_s`: silence at first."""

    def __init__(
        self, port: int, microphone: Sound | None, *, rubbish: bool = False, mute_s: float = 0.0, token: str = ""
    ) -> None:
        self.port, self._microphone, self._rubbish, self._token = port, microphone, rubbish, token
        self._mute_s = mute_s
        self._pages: list[bytes] = []
        self.calls: list[Call] = []
        self._server: Server | None = None
        self._sockets: list[ServerConnection] = []

    def boot(self) -> None:
        """Let it be called."""
        if self._microphone is not None and not self._pages:
            before, after = np.zeros(round(self._mute_s * RATE), np.int16), np.zeros(AFTER_S * RATE, np.int16)
            self._pages = list(pieces(np.concatenate((before, self._microphone, after))))
        self._server = serve(
            self._call, "127.0.0.1", self.port, subprotocols=[Subprotocol("realtime")], compression=None,
            process_request=self._let_in, ping_interval=None,
        )  # fmt: skip
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def crash(self) -> None:
        """As if its plug were pulled, but that the kernel resets its connections."""
        assert self._server
        self._server.shutdown()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                each.socket.shutdown(socket.SHUT_RDWR)
                each.socket.close()
        self._sockets.clear()

    def _let_in(self, ws: ServerConnection, request: Any) -> Any:
        shown = request.headers.get("Authorization", "")
        return None if shown == (f"Bearer {self._token}" if self._token else "") else ws.respond(401, "no\n")

    def _call(self, ws: ServerConnection) -> None:
        call = Call(ws.request.headers.get("Authorization", "") if ws.request else "", ws.subprotocol or "")
        self.calls.append(call)
        self._sockets.append(ws)
        threading.Thread(target=self._speak, args=(ws,), daemon=True).start()
        try:
            for frame in ws:
                event = json.loads(frame)
                if event["type"] == "response.audio.delta":
                    call.ogg += base64.b64decode(event["delta"], validate=True)
                else:
                    call.events.append(event)
        except (ConnectionClosed, OSError):
            pass
        finally:
            call.ended = time.monotonic()

    def _speak(self, ws: ServerConnection) -> None:
        """Its microphone, in real time."""
        next_at = time.monotonic()
        with contextlib.suppress(ConnectionClosed, OSError):
            for number, page in enumerate(self._pages):
                if self._rubbish and number % 10 == 0:
                    for each in RUBBISH:
                        ws.send(each)
                ws.send(json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(page).decode()}))
                next_at += PAGE_S
                time.sleep(max(0.0, next_at - time.monotonic()))


@contextlib.contextmanager
def device(port: int, microphone: Sound | None, **how: Any) -> Iterator[Device]:
    """One that is on until the end of the block."""
    its = Device(port, microphone, **how)
    its.boot()
    try:
        yield its
    finally:
        with contextlib.suppress(Exception):
            its.crash()


@contextlib.contextmanager
def hanging(port: int) -> Iterator[list[socket.socket]]:
    """One whose kernel accepts connections, and which does nothing with them."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", port)) as listening:
        listening.settimeout(0.1)
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    accepted.append(listening.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield accepted
        finally:
            over.set()
            thread.join()
            for each in accepted:
                each.close()
