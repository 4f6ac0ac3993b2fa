"""What go2rtc says of its streams. A thread asks its API once a second, and more often while it does not answer.

HTTP by hand, since the standard library's client would be a third of the warden's memory: one GET, version 1.0, so that
the answer ends with the connection.
"""

from __future__ import annotations

import base64
import shlex
import socket
import threading
import time
from collections import deque
from typing import NamedTuple

import msgspec

from procs.errors import Refused
from procs.kinds import Address

ASK_EVERY_S = 1.0
ASK_AGAIN_S = 0.02  # while it is away, and later less often: so exactly do we know when it is back
LIMIT_S = 1.0
MAX_BYTES = 8_000_000


class Stream(NamedTuple):
    """One stream at one moment."""

    watched_by: int
    received: int | None  # bytes from its producer so far; None while there is none
    is_exec: bool  # made by a process that go2rtc starts
    dropped: int  # packets that its viewers were too slow for
    words: tuple[str, ...] = ()  # what that process is started with, without the program itself


class Look(NamedTuple):
    """One question and its outcome."""

    at: float  # when it was asked, on CLOCK_MONOTONIC
    streams: dict[str, Stream] | None  # None: no answer
    problem: str = ""


class _Producer(msgspec.Struct):
    bytes_recv: int | None = None
    url: str = ""
    source: str = ""


class _Sender(msgspec.Struct):
    drops: int = 0


class _Consumer(msgspec.Struct):
    senders: list[_Sender] | None = None


class _Stream(msgspec.Struct):
    producers: list[_Producer] | None = None
    consumers: list[_Consumer] | None = None


_DECODER = msgspec.json.Decoder(dict[str, _Stream])


def decode(body: bytes) -> dict[str, Stream]:
    """The streams of an answer of /api/streams. Raises Refused."""
    try:
        return {name: _summary(stream) for name, stream in _DECODER.decode(body).items()}
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"whoever answers there is no go2rtc: {error}") from None


def _summary(stream: _Stream) -> Stream:
    producers, consumers = stream.producers or [], stream.consumers or []
    received = [each.bytes_recv for each in producers if each.bytes_recv is not None]
    commands = [url for each in producers if (url := each.url or each.source).startswith("exec:")]
    return Stream(
        watched_by=len(consumers),
        received=sum(received) if received else None,
        is_exec=bool(commands),
        dropped=sum(sender.drops for each in consumers for sender in each.senders or []),
        words=_words(commands[0]) if commands else (),
    )


def _words(source: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(source.removeprefix("exec:").partition("#")[0])[1:])
    except ValueError:  # a quote that is not closed
        return ()


def ask(api: Address, login: str) -> dict[str, Stream]:
    """One question. Raises OSError (TimeoutError after LIMIT_S in all) or Refused."""
    deadline = time.monotonic() + LIMIT_S
    header = f"Authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n" if login else ""
    with socket.create_connection((api.host, api.port), timeout=LIMIT_S) as connection:
        connection.sendall(f"GET /api/streams HTTP/1.0\r\nHost: {api}\r\n{header}\r\n".encode())
        answer = bytearray()
        while len(answer) < MAX_BYTES:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    if head.split(b" ")[1:2] != [b"200"]:
        raise Refused(f"/api/streams: {head.splitlines()[0][:80].decode(errors='replace') if head else 'no answer'}")
    return decode(body)


class Watcher:
    """Asks for ever, in a thread; the newest looks are at the right end."""

    def __init__(self, api: Address, login: str) -> None:
        self._api, self._login = api, login
        self.looks: deque[Look] = deque(maxlen=64)
        self._hurry = threading.Event()
        threading.Thread(target=self._ask_on, name="go2rtc", daemon=True).start()

    def hurry(self) -> None:
        """go2rtc has been started: ask now."""
        self._hurry.set()

    def _ask_on(self) -> None:
        answered = time.monotonic()
        while True:
            began = time.monotonic()
            try:
                self.looks.append(Look(began, ask(self._api, self._login)))
                answered = began
                wait_s = ASK_EVERY_S
            except (OSError, Refused) as error:
                self.looks.append(Look(began, None, str(error)))
                wait_s = min(ASK_EVERY_S, max(ASK_AGAIN_S, (began - answered) / 50))
            if self._hurry.wait(max(0.0, wait_s - (time.monotonic() - began))):
                self._hurry.clear()
                answered = time.monotonic()
