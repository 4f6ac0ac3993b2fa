"""The life of every process of ours: it starts by recovering and stops by dying.

`run` gives a process all of design section 2: it dies with its parent, is alone under its name, waits when it is
in a crash loop, turns a hang into a crash, says that it lives, and ends with the exit code of what ended it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

from procs import locks, log, settings
from procs.backoff import crash_pause
from procs.errors import ConfigError, NotHere, PlanariaError
from procs.locks import hold
from procs.prctl import bind_to_parent as bind_to_parent

S = TypeVar("S")
BEAT_S = 1.0
CRASH_ROW_FORGOTTEN_S = 60.0  # two failed starts further apart than this are no loop
SERVING_HANG_S = 5.0  # the longest that a main loop which serves may stand still; the warden, if it hears us, has 4
SERVED_CAP_S = 15.0  # the longest pause of those that serve and end at once: nobody is waiting for a first answer
MAX_STACK = 2000
SETTLED_S = 10.0  # a run that served for so long ends a row, however it ends


class Before(NamedTuple):
    """The runs before this one."""

    failures: int  # in a row
    served: bool  # whether the last of them had
    stack: str  # on which it died, if it has left one
    refused: bool = False  # whether the last of them said what it lacks, or which setting is wrong


class CrashRow:
    """How many runs in a row ended by themselves before they had settled, kept in a file that outlives us. This is for
    what go2rtc or a person starts: supervisord's plugin does the same for its own (procs/warden/pacing.py).

    A run that was killed while it served says nothing; one that died of a signal of its own leaves its stack in a file
    beside. Only a hint: losing it costs nothing but a pause, so it is not synced to disk.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._stack = path, path.with_suffix(".stack")
        self._before, self._text = 0, ""
        self._served_at = 0.0

    def begin(self) -> Before:
        """Count this run as failed until `served` says otherwise; returns what came before it."""
        served, word = not self._path.exists(), ""
        with contextlib.suppress(OSError, ValueError):
            if time.time() - self._path.stat().st_mtime < CRASH_ROW_FORGOTTEN_S:
                self._text = self._path.read_text()
                count, _, word = self._text.partition(" ")
                self._before, served = int(count), word == "served"
        stack = self._of_the_run_before()
        self._before += bool(stack) and not self._path.exists()  # it had served, or it would be counted already
        self._write(str(self._before + 1))
        return Before(self._before, served, stack, word == "refused")

    def _of_the_run_before(self) -> str:
        """What faulthandler has written there; what it writes from now on is of this run."""
        with contextlib.suppress(OSError):
            descriptor = locks.open_file(self._stack, os.O_RDWR | os.O_APPEND)
            # Its end: the main thread comes last.
            stack = os.pread(descriptor, MAX_STACK, max(0, os.fstat(descriptor).st_size - MAX_STACK))
            os.truncate(descriptor, 0)
            faulthandler.enable(descriptor)
            return stack.decode(errors="replace")
        faulthandler.enable()
        return ""

    def served(self) -> None:
        """This run is a good one: the row is over, unless it `ended` at once."""
        self._served_at = time.monotonic()
        self._path.unlink(missing_ok=True)

    def mistaken(self) -> None:
        """This run was asked for what can't be, by a person who is told so: nothing is known of the program by it."""
        if not self._served_at:
            self._path.unlink(missing_ok=True)
            if self._text:
                self._write(self._text)

    def refused(self) -> None:
        """This run ends since it can't do what it was asked for, and has said so: it counts, but no fault is in it."""
        if not self._served_at:
            self._write(f"{self._before + 1} refused")

    def ended(self) -> None:
        """This run ends by itself. One that had only just served does not end the row: go2rtc would start it again and
        again without a pause."""
        if self._served_at and time.monotonic() - self._served_at < SETTLED_S:
            self._write(f"{self._before + 1} served")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._path.write_text(text)


class Alive:
    """What a main loop tells the rest of the world: `beat` at every turn, `serving` once it does its work."""

    def __init__(
        self, program: str, instance: str, run_dir: Path, row: CrashRow, hang_limit_s: float, failures: int = 0
    ) -> None:
        self.program, self.instance, self.run_dir = program, instance, run_dir
        self.failures = failures  # runs in a row, before this one, that ended by themselves and could not say why
        self._row, self._hang_limit_s = row, hang_limit_s
        self._armed_at = -BEAT_S
        self._sends_heartbeats = False
        self.beats = 0
        self.dropped = 0  # pictures left out so far; heartbeats tell
        self.is_serving = False

    def beat(self) -> None:
        """The main loop turns. Cheap enough for every frame: the watchdog is re-armed once a second at most."""
        self.beats += 1
        now = time.monotonic()
        if now - self._armed_at >= BEAT_S:
            self._armed_at = now
            # A thread of C that needs no lock of the interpreter: it fires even when Python can't run a line.
            limit_s = min(self._hang_limit_s, SERVING_HANG_S) if self.is_serving else self._hang_limit_s
            faulthandler.dump_traceback_later(limit_s, exit=True)
            if self.is_serving and not self._sends_heartbeats:
                self._sends_heartbeats = True
                threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True).start()

    def allow(self, limit_s: float) -> None:
        """So long it may take from now to the next beat: for a start that has a limit of its own."""
        self._armed_at = time.monotonic()
        faulthandler.dump_traceback_later(limit_s, exit=True)

    def serving(self) -> None:
        """The work is there to be had (first answer, first frame): this run is no crash. Heartbeats start with the
        next beats. To be called just before the first output, so that a kill right after it finds the row ended."""
        if not self.is_serving:
            self.is_serving = True
            self._armed_at = -BEAT_S
            self._row.served()

    def _send_heartbeats(self) -> None:
        # Imported here, in a thread: ZeroMQ and msgspec cost 90 ms, more than a whole first frame.
        import zmq

        from procs import bus
        from procs.messages import encode
        from procs.messages.warden import Heartbeat

        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        sock = bus.connector(context, zmq.PUSH, self.run_dir, bus.WARDEN_HEARTBEAT)
        seen = -1
        while True:
            if self.beats != seen:  # a main loop that stands still sends nothing, though this thread runs
                seen = self.beats
                message = Heartbeat(self.program, self.instance, os.getpid(), serving=True, dropped=self.dropped)
                if sock.poll(int(BEAT_S * 1000), zmq.POLLOUT):  # else nobody listens, and a beat is worth nothing later
                    with contextlib.suppress(zmq.Again):
                        sock.send(encode(message), flags=zmq.DONTWAIT)
            time.sleep(BEAT_S)


def run(
    program: str,
    load: Callable[[], S],
    main: Callable[[S, Alive], Awaitable[None] | None],
    instance: Callable[[S], str] = lambda _: "",
    *,
    singleton: bool | Callable[[S], bool] = True,
    bound: bool = True,
    pause_cap_s: float = 30.0,
    hang_limit_s: float = 10.0,
) -> NoReturn:
    """Be one process of the suite: load settings, then run `main` (plain or async) until it returns or raises.

    `instance` names the copy where a program has several; `singleton` may depend on the settings. One that is not
    `bound` outlives its parent: only the keeper, whose work that is. Never returns: exits 0 when `main` returns, else
    with the code of the error (procs/errors.py), 1 for anything unforeseen. Nothing is cleaned up on the way out.
    """
    log.configure(program)
    threading.excepthook = _die_of_thread  # a thread that fails silently would leave half a process
    try:
        is_paced = not bound or bind_to_parent()  # supervisord's plugin paces what it starts
        loaded = load()
        alone = singleton(loaded) if callable(singleton) else singleton
        _live(program, instance(loaded), loaded, main, alone, 0.0 if is_paced else pause_cap_s, hang_limit_s)
    except SystemExit as exit_request:  # argparse's --help
        _exit(exit_request.code if isinstance(exit_request.code, int) else 1)
    except KeyboardInterrupt:
        _exit(130)
    except PlanariaError as error:
        log.error(str(error))
        if _row and isinstance(error, ConfigError | NotHere):
            is_mistake = isinstance(error, ConfigError) and os.isatty(0)
            (_row.mistaken if is_mistake else _row.refused)()
        _exit(error.exit_code)
    except ModuleNotFoundError as error:
        log.error(f"{error}: make up installs what is needed")
        _exit(NotHere.exit_code)
    except Exception as error:  # the one place: an unforeseen error is a crash, and a crash is an exit
        log.error(f"unforeseen {type(error).__name__}: {error}", trace=True)
        _exit(1)
    _exit(0)


def _live(
    program: str,
    instance: str,
    loaded: S,
    main: Callable[[S, Alive], Awaitable[None] | None],
    singleton: bool,
    pause_cap_s: float,
    hang_limit_s: float,
) -> None:
    global _row
    name = f"{program}-{instance}" if instance else program
    run_dir = settings.run_dir()
    if singleton:
        hold(run_dir / f"{name}.lock")  # the descriptor stays open for as long as we live
    row = _row = CrashRow(run_dir / f"{name}.crashes")
    before = row.begin()
    if before.stack:
        log.error("the run before died of a fault of its own", stack=before.stack)
    cap_s = SERVED_CAP_S if before.served and pause_cap_s else pause_cap_s
    pause_s = crash_pause(before.failures, cap_s=cap_s)
    if pause_s:
        log.warning("crash loop: waiting before this start", failures=before.failures, wait_s=round(pause_s, 2))
        time.sleep(pause_s)
    alive = Alive(program, instance, run_dir, row, hang_limit_s, 0 if before.refused else before.failures)
    alive.beat()
    work = main(loaded, alive)
    if isinstance(work, Awaitable):
        import asyncio  # here: 45 ms that a producer, which has no event loop, need not pay

        asyncio.run(_with_beats(work, alive))


async def _with_beats(work: Awaitable[None], alive: Alive) -> None:
    """Run async work with a beat that stops when the event loop does."""
    import asyncio

    loop = asyncio.get_running_loop()

    def beat() -> None:
        alive.beat()
        loop.call_later(BEAT_S, beat)

    beat()
    await work


_row: CrashRow | None = None  # of this process; whatever ends it has to know


def _die_of_thread(args: threading.ExceptHookArgs) -> None:
    error = args.exc_value
    log.error(f"thread {args.thread.name if args.thread else '?'}: {type(error).__name__}: {error}")
    _exit(error.exit_code if isinstance(error, PlanariaError) else 1)


def _exit(code: int) -> NoReturn:
    """Leave at once: no finalizers, no waiting for threads. What must be written has been written."""
    if code and _row:
        _row.ended()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # None where it was closed before we started
            stream.flush()
    os._exit(code)
