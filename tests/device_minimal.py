"""Devices that a voice backend calls, written from the published messages alone: one that is as it should be, and some
that are not. They know nothing of ours; each counts who has called it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from websockets.exceptions import ConnectionClosed
from websockets.server import ServerProtocol
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from tests.browser_minimal import FIELDS, Talk
from tests.realtime_device import RUBBISH
from tests.rig import free_port

# A device is told by whom it is called how the conversation is to be.
SAID_TO_DEVICES = FIELDS | {"session.update": {"session"}}


class Device:
    """One that is well. `talks`: each connection so far; `most`: how many there were at a time."""

    def __init__(self) -> None:
        self.port = free_port()
        self.talks: list[Talk] = []
        self.opened: list[float] = []
        self.most = self._now = 0
        self._server: Server | None = None
        self._living: list[ServerConnection] = []

    def start(self) -> None:
        """Be there."""
        realtime = [Subprotocol("realtime")]
        self._server = serve(
            self._call, "127.0.0.1", self.port, subprotocols=realtime, compression=None, max_size=None, close_timeout=1
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def vanish(self) -> None:
        """Be gone, as with a reboot: connections break without a word."""
        if self._server:
            self._server.shutdown()
        for ws in self._living:
            with contextlib.suppress(OSError):
                ws.socket.shutdown(socket.SHUT_RDWR)
        self._server, self._living = None, []

    @property
    def talk(self) -> Talk:
        """The last connection."""
        return self.talks[-1]

    @property
    def is_called(self) -> bool:
        """Whether there is a connection."""
        return self._now > 0

    def _call(self, ws: ServerConnection) -> None:
        self._now += 1
        self.most = max(self.most, self._now)
        self.opened.append(time.monotonic())
        self._living.append(ws)
        try:
            self.be(Talk(ws))
        finally:
            self._now -= 1

    def be(self, talk: Talk) -> None:
        """One connection, until it is over."""
        self.talks.append(talk)
        speaking = threading.Thread(target=talk.speak, daemon=True)
        speaking.start()
        talk.hear()
        speaking.join(5)


class Rubbish(Device):
    """One that says nothing that can be understood, beside its microphone."""

    def be(self, talk: Talk) -> None:
        """One connection, until it is over."""
        threading.Thread(target=self._babble, args=(talk,), daemon=True).start()
        super().be(talk)

    def _babble(self, talk: Talk) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                for frame in RUBBISH:
                    talk.ws.send(frame)
                time.sleep(0.2)


class Hanging:
    """One that accepts, and says nothing. `answers`: it has learnt to shake hands, and then says nothing."""

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self._listener.getsockname()[1]
        self.opened: list[float] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.opened.append(time.monotonic())
                self._open.append(client)
                if self._answers:
                    self._shake(client)

    def _shake(self, client: socket.socket) -> None:
        hand = ServerProtocol(subprotocols=[Subprotocol("realtime")])
        while not (asked := hand.events_received()):
            hand.receive_data(client.recv(65536))
        hand.send_response(hand.accept(asked[0]))  # type: ignore[arg-type]
        for data in hand.data_to_send():
            client.sendall(data)

    def still_open(self) -> int:
        """Connections that the other side has not ended."""
        return sum(not _has_ended(client) for client in self._open)

    def close(self) -> None:
        """The end."""
        self._listener.close()
        for client in self._open:
            client.close()


def _has_ended(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        while data := client.recv(65536):
            pass
        return not data
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextlib.contextmanager
def device(kind: type[Device] = Device) -> Iterator[Device]:
    """One that is there until the end of the block."""
    its = kind()
    its.start()
    try:
        yield its
    finally:
        its.vanish()
