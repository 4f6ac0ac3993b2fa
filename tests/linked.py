"""A ws_link process and stand-ins for proxies, for tests. Ended by pid."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import zmq

from procs import bus, rpc
from procs.errors import DeadlineExceeded
from procs.messages import encode
from procs.messages.requests import Describe, LinkState
from procs.messages.work import Job, JobDone, Ready, TicketGrant, TicketRefused, TicketWanted, decode_to_worker
from procs.settings import ROOT
from tests import warm
from tests.rig import clean_environ, free_port, until

# The same process with other ideas of how long is long.
QUICK = """
from procs import life
from procs.ws_link import link, options, shell
pace = link.Pace({pace})
life.run("ws_link", options.load, lambda s, alive: shell.serve(s, alive.run_dir, alive.serving, pace))
"""


def state_of(run_dir: Path) -> LinkState | None:
    """What the ws_link of a run directory says; None while it says nothing."""
    with rpc.Requester(run_dir, bus.WS_LINK_STATE) as requester:
        try:
            body = requester.ask(Describe(), within_s=2).body
        except DeadlineExceeded:
            return None
    assert isinstance(body, LinkState)
    return body


class Linked:
    """One device's ws_link, which can be killed and started again."""

    def __init__(self, run_dir: Path, backend: str, *flags: str, pace: str = "", **environ: str) -> None:
        self.run_dir, self.log = run_dir, run_dir / "ws_link.log"
        # One that does not exist, if a test does not care: nobody's go2rtc is to be announced.
        environ = {"GO2RTC_HTTP": f"http://127.0.0.1:{free_port()}"} | environ
        self._environ = clean_environ(
            PLANARIA_RUN_DIR=str(run_dir), PYTHONPATH=str(ROOT), BACKEND_URL=backend, **environ
        )
        what = ["-c", QUICK.format(pace=pace)] if pace else ["-m", "procs.ws_link"]
        self._words = [*what, *flags]
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        with self.log.open("ab") as out:
            self.process = warm.start(self._words, "procs.ws_link.shell", self._environ, stdout=out, stderr=out)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it as everything here ends."""
        self.process.send_signal(number)
        self.process.wait()

    def state(self) -> LinkState | None:
        """What it says of itself; None while it says nothing."""
        return state_of(self.run_dir)

    def until(self, look: Callable[[LinkState], object], within_s: float = 15.0) -> LinkState:
        """What it says once that is as wanted."""
        return until(lambda: state if (state := self.state()) and look(state) else None, within_s)

    def logged(self) -> str:
        """All that it and those before it have written."""
        return self.log.read_text()


@contextmanager
def linked(run_dir: Path, backend: str, *flags: str, pace: str = "", **environ: str) -> Iterator[Linked]:
    """A running ws_link."""
    link = Linked(run_dir, backend, *flags, pace=pace, **environ)
    try:
        yield link
    except BaseException:
        print(link.logged())  # for whoever reads why a test failed
        raise
    finally:
        link.kill()


Handler = Callable[[Job, bytes], tuple[int, list[tuple[str, str]], bytes] | None]


def echo(job: Job, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    """An answer that shows what was asked."""
    return 200, [("Content-Type", "text/plain")], f"{job.method} {job.path} ".encode() + body


class Worker:
    """A stand-in for a proxy on the bus, in a thread: says that it is there, and answers jobs with `handle`."""

    def __init__(self, run_dir: Path, name: str = "0", handle: Handler = echo, *, capacity: int = 8) -> None:
        self.name, self.handle, self.capacity = name, handle, capacity
        self.pid = os.getpid() * 100 + int.from_bytes(os.urandom(1), "big")
        self.jobs: list[Job] = []
        self.bodies: list[bytes] = []
        self.tickets: list[TicketGrant | TicketRefused] = []
        self.wanted: list[int] = []
        self.late: list[tuple[JobDone, bytes]] = []  # to be sent as soon as it can be
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sock = bus.work_connector(self._context, run_dir, name)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.die()

    def die(self) -> None:
        """Be gone, without a word."""
        self._ended.set()
        self._thread.join()
        self._context.destroy()

    def _send(self, message: Ready | JobDone | TicketWanted, body: bytes = b"") -> bool:
        try:
            self._sock.send_multipart([encode(message), body], flags=zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def _serve(self) -> None:
        turn = 0
        while not self._ended.is_set():
            if turn % 5 == 0:
                self._send(Ready(worker=self.name, pid=self.pid, capacity=self.capacity))
            turn += 1
            while self.wanted:
                self._send(TicketWanted(id=self.wanted.pop()))
            self.late = [each for each in self.late if not self._send(*each)]
            if self._sock.poll(50):
                data, body = self._sock.recv_multipart()
                self._take(decode_to_worker(data), body)

    def _take(self, message: Job | TicketGrant | TicketRefused, body: bytes) -> None:
        if not isinstance(message, Job):
            self.tickets.append(message)
            return
        self.jobs.append(message)
        self.bodies.append(body)
        if answer := self.handle(message, body):
            status, headers, data = answer
            self.late.append((JobDone(rid=message.rid, status=status, headers=headers), data))
