"""A supervisord that is watched: whether it lives (the kernel tells at once) and whether it answers (it is asked)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from procs import proc

ASK_EVERY_S = 2.0
STOPPED_LIMIT_S = 3.5  # the warden has 1.5 s; this is for when both are frozen
SILENT_LIMIT_S = 8.0  # the warden has 5 s; this is for when both are frozen
_EAGER_S = 0.02  # until it has answered once
_TURN_S = 0.5  # we beat this often
# The cheapest thing it answers: "bad request", from its own loop, and with nothing in its log.
_QUESTION = b"GET /RPC2 HTTP/1.0\r\n\r\n"


class Death(NamedTuple):
    """How a supervisord ended."""

    pid: int
    at_s: float  # on the monotonic clock
    kind: str
    reason: str


class Watch:
    """Watches one supervisord. `handle` is its pidfd, `answered` is called at its first answer, `beat` all the time."""

    def __init__(
        self, pid: int, handle: int, path: Path, answered: Callable[[], None], beat: Callable[[], None]
    ) -> None:
        self.pid, self._handle, self._path = pid, handle, path
        self._answered, self._beat = answered, beat
        self._silent_s = 0.0
        self._stopped_at: float | None = None
        self.has_answered = False
        self._ended_by_us: tuple[str, str] | None = None  # kind and reason

    def until_death(self, limit_s: float = float("inf")) -> Death | None:
        """Return how it died; None if it lives and has answered after limit_s."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until or not self.has_answered:
            asked = self._asked()
            every_s = ASK_EVERY_S if asked or self.has_answered else _EAGER_S
            if self._dies(min(time.monotonic() + every_s, max(until, time.monotonic() + _EAGER_S)), asked):
                return self._death()
        return None

    def _dies(self, until: float, asked: socket.socket | None) -> bool:
        """Look until that time whether it dies, or answers."""
        looked_at, answered = time.monotonic(), False
        with contextlib.closing(asked) if asked else contextlib.nullcontext():
            looker = select.poll()
            looker.register(self._handle, select.POLLIN)
            if asked:
                looker.register(asked, select.POLLIN)
            while (left_s := until - time.monotonic()) > 0:
                ready = [number for number, _ in looker.poll(1000 * min(left_s, _TURN_S))]
                self._beat()
                if self._handle in ready:
                    return True
                self._note_stopped(time.monotonic())
                if asked and asked.fileno() in ready:
                    looker.unregister(asked)
                    answered = _has_said(asked)
                    if answered and not self.has_answered:
                        self.has_answered = True
                        self._answered()
        self._note(answered, time.monotonic() - looked_at)
        return False

    def _note(self, answered: bool, for_s: float) -> None:
        """Count how long it has been silent; not how long we were frozen ourselves."""
        self._silent_s = 0.0 if answered else self._silent_s + min(for_s, 2 * ASK_EVERY_S)
        if self._silent_s >= SILENT_LIMIT_S:
            self._silent_s = 0.0
            self._end("silent", f"no answer for {SILENT_LIMIT_S:g} s")

    def _note_stopped(self, now: float) -> None:
        its = proc.stat(self.pid)
        if not its or its.state != "T":
            self._stopped_at = None
            return
        self._stopped_at = self._stopped_at or now
        if now - self._stopped_at >= STOPPED_LIMIT_S:
            self._end("stopped", "by SIGSTOP")

    def _end(self, kind: str, reason: str) -> None:
        self._ended_by_us = (kind, f"{reason}; ended by the keeper")
        with contextlib.suppress(OSError):  # gone meanwhile; or the first process of a container, which can't be
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def _asked(self) -> socket.socket | None:
        """A socket on which it has been asked; None where it can't be."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(str(self._path))
            sock.send(_QUESTION)
        except OSError:  # not there yet, or too many wait already
            sock.close()
            return None
        return sock

    def _death(self) -> Death:
        at_s = time.monotonic()
        if self._ended_by_us:
            return Death(self.pid, at_s, *self._ended_by_us)
        log = self._path.with_name("log") / "supervisord.log"
        return Death(self.pid, at_s, *why(_end_of(log), self.pid))


def why(log: str, pid: int) -> tuple[str, str]:
    """(kind, reason) of a supervisord's end, by the end of its log."""
    _, _, said = log.rpartition(f"supervisord started with pid {pid}\n")
    for line in said.splitlines():
        if "received SIG" in line and " exit request" in line:
            return "exited", line.partition("received ")[2]
    return "killed", "it said nothing: killed, or out of memory"


def _has_said(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(64))
    except OSError:
        return False


def _end_of(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
        return file.read().decode(errors="replace")
    return ""
