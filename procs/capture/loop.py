"""The loop of a capture: wait for the command or a reader, hand pictures on, notice what ends it."""

from __future__ import annotations

import gc
import os
import select
import time
from typing import TYPE_CHECKING, Protocol

from procs import log
from procs.capture.command import Command
from procs.capture.options import Capture
from procs.errors import EncoderFailed, NoFirstFrame, OutputClosed, Refused
from procs.pipes import Stdout

if TYPE_CHECKING:
    from procs.capture.unit import Unit

TURN_S = 0.5  # the longest wait, so that the watchdog sees us live
LOOK_EVERY_S = 0.05  # for a reader, while there is none
CHUNK = 65536


class Alive(Protocol):
    """What we tell of ourselves (life.Alive)."""

    def beat(self) -> None:
        """The loop turns."""

    def serving(self) -> None:
        """The first picture is here."""


class Output(Protocol):
    """Where units go."""

    def put(self, unit: Unit) -> None:
        """Take the next one."""

    def look(self) -> None:
        """Something may have changed; called at every turn."""

    def watched(self) -> list[tuple[int, int]]:
        """Descriptors and events that should wake the loop."""

    def gone(self) -> None:
        """A watched descriptor has an error."""


class Pipe:
    """Our stdout."""

    def __init__(self, chosen: Capture, alive: Alive) -> None:
        self._stdout = Stdout(chosen.stdout_limit_s, CHUNK, alive.beat)

    def put(self, unit: Unit) -> None:
        self._stdout.write(unit.data)

    def look(self) -> None:
        """Nothing to see: `put` writes all of it."""

    def watched(self) -> list[tuple[int, int]]:
        return [(self._stdout.descriptor, 0)]  # an error is reported in any case

    def gone(self) -> None:
        """Noticed here, a reader need not wait for the next picture to be gone."""
        raise OutputClosed("stdout: the reader has closed it")


def capture(chosen: Capture, alive: Alive) -> None:
    """Run the command until it ends, which is always an error: whoever started us starts us again."""
    log.configure(f"capture {chosen.title()}")
    if chosen.raw:
        _guard_only(chosen, alive)
    output = _opened(chosen, alive)
    loop = _Loop(chosen, alive, output, Command(chosen.command))
    gc.freeze()  # what the imports made stays; no collection has to walk it
    gc.enable()
    while True:
        loop.turn()


def _opened(chosen: Capture, alive: Alive) -> Output:
    """Where the pictures go. Opened before the command is started: what can't be written to is said first."""
    if not chosen.fifo:
        return Pipe(chosen, alive)
    from procs.capture.fifo import Fifo

    return Fifo(chosen.fifo)


def _guard_only(chosen: Capture, alive: Alive) -> None:
    """The command writes to our stdout itself."""
    try:
        os.fstat(1)
    except OSError as error:
        raise OutputClosed(f"stdout: {error.strerror}") from None
    command = Command(chosen.command, stdout=1)
    # Our own copy of stdout stays open: go2rtc kills us at the end of it, and what the command said has to come first.
    gc.enable()
    alive.serving()
    listens = True
    while True:
        alive.beat()
        ready = _wait([(command.death, select.POLLIN), *([(command.stderr, select.POLLIN)] if listens else [])], TURN_S)
        listens = listens and command.listen()
        if command.death in ready:
            raise command.end()


def _wait(watched: list[tuple[int, int]], limit_s: float) -> dict[int, int]:
    """Which of the descriptors have one of their events, or an error, within the limit."""
    poll = select.poll()
    for descriptor, events in watched:
        poll.register(descriptor, events)
    return dict(poll.poll(limit_s * 1000))


class _Loop:
    """Nothing of it lasts: a new process starts a new one."""

    def __init__(self, chosen: Capture, alive: Alive, output: Output, command: Command) -> None:
        from procs.capture.framing import Detecting  # here: the command starts up meanwhile

        self._chosen, self._alive, self._output, self._command = chosen, alive, output, command
        self._framing = Detecting(chosen.input, chosen.fps)
        self._listens, self._is_over = True, False
        self._pictures = 0
        self._started_s = self._heard_s = time.monotonic()

    def turn(self) -> None:
        """Wait for something to happen, and do what follows from it."""
        self._alive.beat()
        watched, command = self._output.watched(), self._command
        quiet_s = self._framing.waiting()
        limit_s = min(TURN_S if watched else LOOK_EVERY_S, TURN_S if quiet_s is None else quiet_s)
        inputs = [
            command.stdout,
            *([command.stderr] if self._listens else []),
            *([] if self._is_over else [command.death]),
        ]
        ready = _wait([*((each, select.POLLIN) for each in inputs), *watched], limit_s)
        for descriptor, _ in watched:
            if ready.get(descriptor, 0) & (select.POLLERR | select.POLLHUP):
                self._output.gone()
        self._output.look()
        if command.stderr in ready:
            self._listens = command.listen()
        if command.death in ready:
            self._is_over = command.is_over()  # what it has written is still to be read
        if command.stdout in ready:
            self._read()
        elif quiet_s is not None and time.monotonic() - self._heard_s >= quiet_s:
            self._hand_on(self._framing.quiet(time.monotonic_ns()))
        self._insist()

    def _read(self) -> None:
        data = self._command.read()
        if data == b"":
            self._hand_on(self._framing.quiet(time.monotonic_ns()))
            raise self._command.end()
        if data:
            self._heard_s = time.monotonic()
            try:
                units = self._framing.push(data, time.monotonic_ns())
            except Refused as error:
                raise self._command.failure(f"the command's output: {error}") from None
            self._hand_on(units)

    def _hand_on(self, units: list[Unit]) -> None:
        for unit in units:
            is_first = unit.picture and not self._pictures
            if is_first:
                self._alive.serving()
            self._pictures += unit.picture
            self._output.put(unit)
            if is_first:  # said afterwards: the first line of a process costs 5 ms
                log.info("first picture", after_s=round(time.monotonic() - self._started_s, 3))

    def _insist(self) -> None:
        """Raise for a command that makes no picture, or stands still: whoever hangs is to crash."""
        now = time.monotonic()
        if not self._pictures and now - self._started_s > self._chosen.first_frame_limit_s:
            what = f"no first picture within {self._chosen.first_frame_limit_s:g} s"
            raise self._command.failure(what, NoFirstFrame)
        if self._pictures and now - self._heard_s > self._chosen.stall_limit_s:
            what = f"the command has written nothing for {self._chosen.stall_limit_s:g} s"
            raise self._command.failure(what, EncoderFailed)
