"""A device and a hub that break the protocol on purpose. Frames of mux1 are put together here, by hand."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.sync.client import ClientConnection, connect
from websockets.sync.connection import Connection
from websockets.sync.server import ServerConnection
from websockets.typing import Subprotocol

from procs.wire import challenge
from tests.faults.wall import Ground
from tests.json_hub import JsonHub

OPEN, HEAD, DATA, CREDIT, RESET, PING, PONG = range(1, 8)
FIN = 1
ANSWER_S = 30.0
PING_EVERY_S = 5.0  # who is silent for 25 s is given up (procs/carrier.py)
MIB = 1024 * 1024


def frame(kind: int, sid: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    """One frame."""
    return struct.pack(">BBHI", 0xA1, kind, flags, sid) + payload


def described(type_: int, sid: int, **what: object) -> bytes:
    """An OPEN or a HEAD."""
    return frame(type_, sid, json.dumps(what).encode())


def get(sid: int, path: str = "/api/streams", **more: object) -> bytes:
    """An OPEN for a GET."""
    return described(OPEN, sid, kind="http", method="GET", path=path, **more)


def answer(sid: int, body: bytes = b"ok") -> list[bytes]:
    """A short answer."""
    length = ["Content-Length", str(len(body))]
    return [described(HEAD, sid, status=200, headers=[length]), frame(DATA, sid, body, FIN)]


def violations(own: int, theirs: int) -> dict[str, str | bytes]:
    """What no side may send, with nothing open: each ends the connection. `own`: an id that the sender may open, and
    has not; `theirs`: one that it may not."""
    return {
        "no frame": b"",
        "half a header": b"\xa1\x03\x00",
        "another magic": b"\x00" + frame(DATA, own)[1:],
        "type 0": frame(0, own),
        "type 8": frame(8, own),
        "text": "hello",
        "HEAD of nothing": described(HEAD, own, status=200),
        "DATA of nothing": frame(DATA, own, b"x"),
        "CREDIT of nothing": frame(CREDIT, own, struct.pack(">I", 1)),
        "RESET of nothing": frame(RESET, own, struct.pack(">H", 1)),
        "PING in a stream": frame(PING, own, bytes(8)),
        "short PING": frame(PING, 0, b"abc"),
        "DATA of all": frame(DATA, 0, b"x"),
        "HEAD of all": described(HEAD, 0, status=200),
        "RESET of all": frame(RESET, 0, struct.pack(">H", 1)),
        "OPEN of all": get(0),
        "an id of the other side": get(theirs),
        "short CREDIT": frame(CREDIT, 0, b"\0\0\1"),
        "no CREDIT": frame(CREDIT, 0, bytes(4)),
        "too much CREDIT": frame(CREDIT, 0, b"\xff" * 4),
        "an oversized message": frame(DATA, own, bytes(2 * MIB)),
    }


class Mux:
    """A data connection, spoken by hand. What the other side has sent is kept until it is asked for."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, *frames: str | bytes) -> None:
        """Anything; that nobody may take it any more is for `closed` to find."""
        with contextlib.suppress(ConnectionClosed):
            for each in frames:
                self.connection.send(each)

    def frames(self, within_s: float = ANSWER_S) -> Iterator[tuple[int, int, int, bytes]]:
        """(type, flags, id, payload) as they come. Raises ConnectionClosed or TimeoutError."""
        deadline = time.monotonic() + within_s
        while True:
            message = self.connection.recv(timeout=max(0.0, deadline - time.monotonic()))
            assert isinstance(message, bytes)
            _, kind, flags, sid = struct.unpack_from(">BBHI", message)
            yield kind, flags, sid, message[8:]

    def first(self, kinds: tuple[int, ...], sid: int, within_s: float = ANSWER_S) -> tuple[int, bytes]:
        """(type, payload) of the first of these frames of a stream."""
        for kind, _, its, payload in self.frames(within_s):
            if its == sid and kind in kinds:
                return kind, payload
        raise AssertionError("unreachable")

    def was_reset(self, sid: int) -> tuple[int, str]:
        """(code, reason) with which the other side ends a stream."""
        payload = self.first((RESET,), sid)[1]
        return int(struct.unpack_from(">H", payload)[0]), payload[2:].decode()

    def body(self, sid: int) -> tuple[int, bytes]:
        """(status, body) of an answer, read to its end without granting any credit."""
        status, found = 0, b""
        for kind, flags, its, payload in self.frames():
            if its != sid:
                continue
            assert kind != RESET, payload
            if kind == HEAD:
                status = int(json.loads(payload)["status"])
            elif kind == DATA:
                found += payload
                if flags & FIN:
                    break
        return status, found

    def closed(self) -> tuple[int, str]:
        """(code, reason) with which the other side closes."""
        try:
            for _ in self.frames():
                pass
        except ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")
        raise AssertionError("unreachable")

    def asked(self) -> tuple[int, dict[str, Any]]:
        """(id, request) that the other side opens next."""
        for kind, _, sid, payload in self.frames():
            if kind == OPEN:
                return sid, json.loads(payload)
        raise AssertionError("unreachable")


class BadDevice:
    """A device of the admin's beside the real one, that does what it is told to, not what it should."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.ground, self.id = ground, name
        self._stack = contextlib.ExitStack()
        self.instance, self.secret = os.urandom(8).hex(), os.urandom(8).hex()
        self.url = f"ws://{ground.host}:{ground.port}"
        verifier = challenge.verifier(self.secret, name).to_text()
        ground.rest("POST", "/api/devices/register", {"device_id": name, "verifier": verifier})
        self.control = self.come_in()
        code = self.question("pairing_request", "pairing_code")["code"]
        ground.rest("POST", "/api/devices/pair", {"pairing_code": code}, token=ground.token)
        self.mux = self.data()

    def come_in(self) -> ClientConnection:
        """A control connection, taken by the hub."""
        control = self._stack.enter_context(
            connect(f"{self.url}/ws/device", ping_interval=None, max_size=None, close_timeout=1)
        )
        nonce = challenge.nonce()
        hello = {"device_id": self.id, "caps": ["mux1", "challenge"], "mux": {}, "instance": self.instance}
        self.say("hello", {**hello, "nonce": nonce}, to=control)
        asked = json.loads(control.recv(ANSWER_S))
        said = challenge.transcript(self.id, self.instance, nonce, asked["payload"]["nonce"])
        proof = challenge.proof(challenge.keys(self.secret, self.id), said)
        self.say("challenge_resp", {"proof": proof}, to=control)
        taken = json.loads(control.recv(ANSWER_S))
        assert taken["type"] == "hello_ack", taken
        return control

    def say(self, kind: str, payload: object, request_id: str = "", to: ClientConnection | None = None) -> None:
        """One frame on the control connection."""
        text = {"type": kind, "ts": "2026-01-01T12:00:00.000000", "payload": payload}
        (to or self.control).send(json.dumps(text | ({"request_id": request_id} if request_id else {})))

    def question(self, kind: str, answered_by: str) -> dict[str, Any]:
        """What the hub answers to a question."""
        self.say(kind, {}, request_id="q")
        return self.until(answered_by)

    def until(self, kind: str) -> dict[str, Any]:
        """The payload of the next frame of this type."""
        while True:
            found = json.loads(self.control.recv(ANSWER_S))
            if found["type"] == kind:
                payload: dict[str, Any] = found["payload"]
                return payload

    def data(self) -> Mux:
        """A data connection."""
        granted = self.question("data_ticket", "data_ticket")
        coming = connect(
            self.url + granted["path"],
            additional_headers={"Authorization": f"Bearer {granted['ticket']}"},
            subprotocols=[Subprotocol("planaria.mux1")],
            compression=None, ping_interval=None, max_size=None, close_timeout=1,
        )  # fmt: skip
        return Mux(self._stack.enter_context(coming))

    def again(self) -> Mux:
        """Another data connection in place of the one there was."""
        self.mux.connection.close()
        self.mux = self.data()
        return self.mux

    def viewed(self, path: str = "/x") -> queue.Queue[Any]:
        """Have the admin ask for something of this device; the answer is put into the queue, or why there is none."""
        found: queue.Queue[Any] = queue.Queue()

        def ask() -> None:
            try:
                found.put(self.ground.ask(path, device=self.id))
            except (OSError, http.client.HTTPException) as error:
                found.put(error)

        threading.Thread(target=ask, daemon=True).start()
        return found

    def serves(self) -> bool:
        """Whether a request for this device is handed to it, and its answer handed back."""
        waiting = self.viewed("/works")
        sid, request = self.mux.asked()
        self.mux.send(*answer(sid, b"it works"))
        got = waiting.get(timeout=ANSWER_S)
        return (request["path"], got.status, got.body) == ("/works", 200, b"it works")

    def close(self) -> None:
        """Be gone."""
        self._stack.close()


class BadHub(JsonHub):
    """A hub whose data connections are spoken by hand: each that comes in goes to `come`."""

    def __init__(self) -> None:
        self.came: queue.Queue[Mux] = queue.Queue()
        super().__init__(caps=("mux1",))

    def _websocket(self, sock: socket.socket) -> None:
        if b"/ws/data" not in sock.recv(4096, socket.MSG_PEEK).partition(b"\r\n")[0]:
            super()._websocket(sock)
            return
        server: Any = SimpleNamespace(socket_closed=self.over)
        protocol = ServerProtocol(max_size=None, subprotocols=[Subprotocol("planaria.mux1")])
        # It pings, as one does who lives: however long a test thinks of something else, nobody takes it for dead.
        connection = ServerConnection(
            sock, protocol, server, ping_interval=PING_EVERY_S, ping_timeout=None, close_timeout=1
        )
        connection.handshake(lambda _, __: None, None)
        connection.start_keepalive()
        with connection:
            self.came.put(Mux(connection))
            connection.recv_events_thread.join()

    def data(self) -> Mux:
        """The next data connection that comes in."""
        return self.came.get(timeout=ANSWER_S)

    def newest(self, before: Mux) -> Mux:
        """That one while it is open and no other has come in, else the last one that has."""
        while before.connection.protocol.state is not State.OPEN or not self.came.empty():
            before = self.data()
        return before
