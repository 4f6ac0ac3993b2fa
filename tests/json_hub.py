"""A hub as it was published: JSON only, written without a line of our wire code, and as badly behaved as a test wants.

With a `secret` it also speaks our challenge, computed here anew.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection

from tests.rig import free_port, until

NONCE = "ab" * 32


class JsonHub:
    """Listens until closed. What devices have sent is in `frames`, by type; `ask` has a device make a request."""

    def __init__(
        self, port: int = 0, *, secret: str = "", caps: tuple[str, ...] = (), tls: ssl.SSLContext | None = None
    ):
        self.port = port or free_port()
        self.secret, self.caps, self._tls = secret, caps, tls
        self.registered: list[dict[str, Any]] = []
        self.frames: dict[str, list[dict[str, Any]]] = {}
        self.opened: list[float] = []  # when connections were accepted
        self.answers: dict[str, queue.Queue[dict[str, Any]]] = {}
        self.refuse_http: tuple[int, dict[str, str]] | None = None  # status and headers for every WebSocket
        self.pairing_code = {"code": "123456", "expires_at": "2030-01-01T00:00:00", "ttl": 300}
        self.on_hello: Callable[[ServerConnection, dict[str, Any]], None] = self.take
        self.device: ServerConnection | None = None
        self.over = threading.Event()
        self._rids = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def backend(self) -> str:
        """What BACKEND_URL has to be."""
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}/ws/device"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Die: nothing is said to anybody."""
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection without a word."""
        self.device = None
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError, ConnectionClosed))
            stack.enter_context(sock)
            if self._tls:
                sock = stack.enter_context(self._tls.wrap_socket(sock, server_side=True))
                first = b"GET" if self.registered else b"POST"
            else:
                first = sock.recv(4, socket.MSG_PEEK)
            self._open.add(sock)
            try:
                if first.startswith(b"POST"):
                    self._http(sock)
                else:
                    self._websocket(sock)
            finally:
                self._open.discard(sock)

    def _http(self, sock: socket.socket) -> None:
        file = sock.makefile("rb")
        with file:
            if line := file.readline():
                path = line.split()[1].decode()
                headers = {}
                while (header := file.readline()) not in (b"\r\n", b""):
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = file.read(int(headers.get("content-length", "0")))
                if path == "/api/devices/register":
                    self.registered.append(json.loads(body))
                    said = {"device_id": self.registered[-1]["device_id"], "message": "registered"}
                else:
                    said = self.pairing_code | {"asked": path}
                data = json.dumps(said).encode()
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
                sock.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))

    def _websocket(self, sock: socket.socket) -> None:
        self.opened.append(time.monotonic())
        if self.refuse_http:
            sock.recv(65536)
            status, headers = self.refuse_http
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            sock.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n{lines}\r\n".encode())
            return
        # What serves is this class: of a Server, a connection wants to know only whether it still does.
        server: Any = SimpleNamespace(socket_closed=self.over)
        protocol = ServerProtocol(max_size=4 * 1024 * 1024)
        connection = ServerConnection(sock, protocol, server, ping_interval=None, close_timeout=1)
        connection.handshake(lambda _, __: None, None)
        if connection.protocol.state is not State.OPEN:
            return
        with connection:
            hello = json.loads(connection.recv(10))
            self._keep(hello)
            self.on_hello(connection, hello)

    def _keep(self, frame: dict[str, Any]) -> None:
        self.frames.setdefault(frame["type"], []).append(frame)

    def take(self, connection: ServerConnection, hello: dict[str, Any]) -> None:
        """What a hub does with a hello: check it, and go on until the connection ends."""
        payload = {"device_id": hello["payload"]["device_id"], "server_time": "2026-01-01T12:00:00.000000"}
        if self.secret:
            self.send("challenge", {"nonce": NONCE}, to=connection)
            proof = json.loads(connection.recv(10))
            self._keep(proof)
            right, signature = scram(self.secret, hello["payload"], NONCE, proof["payload"]["proof"])
            if not right:
                connection.close(1008, "Wrong credential")
                return
            payload |= {"signature": signature}
        if self.caps:
            payload |= {"caps": list(self.caps), "mux": {"max_frame": 65536}, "data_path": "/ws/data"}
        self.send("hello_ack", payload, to=connection)
        self.device = connection
        self.read(connection)

    def hang(self, connection: ServerConnection, hello: dict[str, Any]) -> None:
        """Say nothing, ever."""
        self.over.wait(60)

    def read(self, connection: ServerConnection) -> None:
        """Take frames, answering heartbeats and what our devices ask."""
        for text in connection:
            frame = json.loads(text)
            self._keep(frame)
            if frame["type"] == "heartbeat":
                self.send("heartbeat_ack", {}, to=connection)
            elif frame["type"] == "proxy_http_resp" and frame["payload"]["rid"] in self.answers:
                self.answers[frame["payload"]["rid"]].put(frame["payload"])
            elif frame["type"] == "data_ticket":
                ticket = {"ticket": "t1", "expires_in_s": 30, "path": "/ws/data"}
                self.send("data_ticket", ticket, frame["request_id"], to=connection)
            elif frame["type"] == "pairing_request":
                self.send("pairing_code", self.pairing_code, frame["request_id"], to=connection)

    def send(self, kind: str, payload: object, request_id: str = "", to: ServerConnection | None = None) -> None:
        """One frame to the device."""
        frame = {"type": kind, "ts": "2026-01-01T12:00:00.000000", "payload": payload}
        self.send_text(json.dumps(frame | ({"request_id": request_id} if request_id else {})), to)

    def send_text(self, text: str | bytes, to: ServerConnection | None = None) -> None:
        """Anything, as one message."""
        connection = to or self.connected()
        with self._lock:
            connection.send(text)

    def connected(self, within_s: float = 20.0) -> ServerConnection:
        """The device's connection, once it has been taken."""
        return until(lambda: self.device, within_s)

    def got(self, kind: str, count: int = 1, within_s: float = 20.0) -> dict[str, Any]:
        """The count-th frame of a type, once it is there."""
        return until(lambda: self.frames.get(kind, [])[count - 1 :], within_s)[0]

    def begin(self, path: str = "/api", method: str = "GET", **more: Any) -> str:
        """Have the device make a request; returns its rid."""
        self._rids += 1
        rid = f"rid-{self.port}-{self._rids}"
        self.answers[rid] = queue.Queue()
        self.send("proxy_http", {"rid": rid, "method": method, "path": path, **more})
        return rid

    def answer(self, rid: str, within_s: float = 20.0) -> tuple[int, dict[str, str], bytes]:
        """What came of it: status, headers, body."""
        payload = self.answers[rid].get(timeout=within_s)
        return payload["status"], payload["headers"], base64.b64decode(payload["body_b64"])

    def ask(self, path: str = "/api", method: str = "GET", **more: Any) -> tuple[int, dict[str, str], bytes]:
        """Both."""
        return self.answer(self.begin(path, method, **more))


def scram(secret: str, hello: dict[str, Any], nonce: str, proof: str) -> tuple[bool, str]:
    """Whether a proof is right, and the hub's signature for it."""
    key = hashlib.pbkdf2_hmac("sha256", secret.encode(), b"planaria device\0" + hello["device_id"].encode(), 4096)
    client = hmac.digest(key, b"client", "sha256")
    stored = hashlib.sha256(client).digest()
    said = b""
    for part in ("planaria device challenge 1", hello["device_id"], hello["instance"], hello["nonce"], nonce):
        said += len(part.encode()).to_bytes(4, "big") + part.encode()
    mask = hmac.digest(stored, said, "sha256")
    expected = bytes(a ^ b for a, b in zip(client, mask, strict=True)).hex()
    server = hmac.digest(hmac.digest(key, b"server", "sha256"), said, "sha256")
    return hmac.compare_digest(expected, proof), server.hex()
