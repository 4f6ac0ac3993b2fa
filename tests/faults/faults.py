"""Faults as context managers: what a `with` block has in it happens while the fault lasts.

    with frozen(pid) as fault:
        fault.wait_dead(6)          # somebody noticed

Processes: killed, frozen, looping, hung, leaking. What they stand on: slow_disk, full_disk, read_only (disks.py), lossy
(links.py), clock_stepped. A process is held by a pidfd from the first moment, so no signal ever reaches a stranger that
got its pid; and at the end of the block it is thawed, or dead, whatever the block did.

Loops, hangs and leaks happen inside a real interpreter without a line for it in the product: `hooks` puts a .pth file
into a checkout's .venv, by which each Python there handles three real-time signals. Whether a process can be hooked
(go2rtc is no Python, `python -S` reads no .pth, a guard blocks all signals) is read from the kernel: `possible`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from procs import proc

CLOCK = "FAULTS_CLOCK"  # names the file that says by how many seconds a process's clock is wrong
DYING_S = 1.0
LEAK_BYTES, LEAK_MAX_BYTES = 4_000_000, 1_200_000_000  # each 20 ms; not to bring the machine down where nobody acts
HANG, LOOP, LEAK = (signal.SIGRTMIN + number for number in (5, 6, 7))

# No import of `signal`, which would cost each start 4 ms. A mutex that is locked twice is waited for for ever, by a
# call that no signal interrupts and that keeps the interpreter's lock (PyDLL).
_SHIM = f"""\
import _signal

def _hang(number, frame):
    import ctypes
    mutex, library = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)

def _loop(number, frame):
    while True:
        pass

def _leak(number, frame):
    import _thread
    _thread.start_new_thread(_grow, ())

def _grow():
    import time
    kept = []
    while True:
        if len(kept) * {LEAK_BYTES} < {LEAK_MAX_BYTES}:
            kept.append(b"\\1" * {LEAK_BYTES})
        time.sleep(0.02)

def _set_clock(path):
    import time
    real, real_ns, monotonic, known = time.time, time.time_ns, time.monotonic, [0.0, -1.0]

    def by_s():
        if monotonic() - known[1] > 0.2:
            with open(path) as file:
                known[:] = float(file.read()), monotonic()
        return known[0]

    time.time, time.time_ns = lambda: real() + by_s(), lambda: real_ns() + int(by_s() * 1e9)

import os
if "{CLOCK}" in os.environ:
    _set_clock(os.environ["{CLOCK}"])

_signal.signal({int(HANG)}, _hang)
_signal.signal({int(LOOP)}, _loop)
_signal.signal({int(LEAK)}, _leak)
"""


class CannotFault(Exception):
    """This fault can't be done to this process, or on this machine."""


@dataclass(frozen=True)
class Fault:
    """A fault under way: to whom, and since when on CLOCK_MONOTONIC."""

    pid: int
    at_ns: int
    handle: int

    def send(self, number: int) -> None:
        """A signal to that very process; to one that is dead, nothing."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def is_dead(self) -> bool:
        """Whether it has ended (it may still wait to be collected)."""
        return self.dies_within(0)

    def dies_within(self, limit_s: float) -> bool:
        """Wait for its death."""
        return bool(select.select([self.handle], [], [], limit_s)[0])

    def wait_dead(self, limit_s: float) -> float:
        """Seconds from the fault to its death. Fails the test after the limit."""
        assert self.dies_within(limit_s), f"pid {self.pid} still lives after {limit_s:g} s"
        return (time.monotonic_ns() - self.at_ns) / 1e9


@contextlib.contextmanager
def _fault(pid: int, number: int, at_end: int) -> Iterator[Fault]:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        raise CannotFault(f"pid {pid} is gone") from None
    fault = Fault(pid, time.monotonic_ns(), handle)
    try:
        fault.send(number)
        yield fault
    finally:
        fault.send(at_end)
        os.close(handle)


def killed(pid: int) -> AbstractContextManager[Fault]:
    """Dead at once, by SIGKILL."""
    return _fault(pid, signal.SIGKILL, signal.SIGKILL)


def frozen(pid: int) -> AbstractContextManager[Fault]:
    """Stopped, by SIGSTOP, all threads of it; goes on at the end of the block if it is still there."""
    return _fault(pid, signal.SIGSTOP, signal.SIGCONT)


def looping(pid: int) -> AbstractContextManager[Fault]:
    """Its main thread runs round and round in Python; its other threads, and the GIL, are as they were."""
    return _hooked(pid, LOOP)


def hung(pid: int) -> AbstractContextManager[Fault]:
    """Its main thread waits for ever in C and holds the interpreter's lock: no thread of it runs a line of Python."""
    return _hooked(pid, HANG)


def leaking(pid: int) -> AbstractContextManager[Fault]:
    """It grows by 200 MB a second, by a thread of its own; all else goes on."""
    return _hooked(pid, LEAK)


def _hooked(pid: int, number: int) -> AbstractContextManager[Fault]:
    if not _handles(pid, number):  # an unhandled real-time signal would be a kill
        raise CannotFault(f"pid {pid} does not handle signal {number}: no Python with our hooks")
    return _fault(pid, number, signal.SIGKILL)


KINDS: Mapping[str, Callable[[int], AbstractContextManager[Fault]]] = {
    "killed": killed, "frozen": frozen, "looping": looping, "hung": hung, "leaking": leaking,
}  # fmt: skip
_NEEDS = {"looping": LOOP, "hung": HANG, "leaking": LEAK}


@contextlib.contextmanager
def together(pids: Mapping[str, int], kinds: Mapping[str, str]) -> Iterator[dict[str, Fault]]:
    """Several faults within milliseconds, by name, the deepest descendants first. One that is dead already, by what was
    done to another, counts as hit."""
    with contextlib.ExitStack() as stack:
        done = {}
        for name in sorted(kinds, key=lambda name: -name.count("/")):
            try:
                done[name] = stack.enter_context(KINDS[kinds[name]](pids[name]))
            except CannotFault:
                if not _is_dying(pids[name]):
                    raise
                done[name] = Fault(pids[name], time.monotonic_ns(), -1)
        yield done


def _is_dying(pid: int) -> bool:
    """Whether it is gone in a moment: one whose parent was just killed may have no memory any more and not be dead."""
    until = time.monotonic() + DYING_S
    while proc.is_alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not proc.is_alive(pid)


def possible(pid: int) -> tuple[str, ...]:
    """The kinds of fault that can be done to a process as it is now."""
    return tuple(kind for kind in KINDS if kind not in _NEEDS or _handles(pid, _NEEDS[kind]))


def _handles(pid: int, number: int) -> bool:
    """Whether a Python process has a handler for a signal, and lets it through."""
    try:
        is_python = "python" in os.path.basename(os.readlink(f"/proc/{pid}/exe"))  # Go has a handler for every signal
        fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except (OSError, ValueError):
        return False
    bit = 1 << (number - 1)
    return is_python and bool(int(fields["SigCgt"], 16) & bit) and not int(fields["SigBlk"], 16) & bit


@contextlib.contextmanager
def hooks(root: Path) -> Iterator[None]:
    """Whatever Python of a checkout's .venv is started in the block can be hung, can loop and leak."""
    (packages,) = (root / ".venv/lib").glob("python3*/site-packages")
    files = {"planaria_faults.py": _SHIM, "planaria_faults.pth": "import planaria_faults\n"}
    try:
        for name, text in files.items():
            (packages / name).write_text(text)
        yield
    finally:
        for name in reversed(files):  # the .pth first: it must never point to nothing
            (packages / name).unlink(missing_ok=True)


class Clock:
    """The wall clock of each hooked Python that is started with `environ`. CLOCK_MONOTONIC is left alone, as it is
    where somebody sets the clock; others (go2rtc) and what C asks by itself (datetime, files' times) see no difference.

    (libfaketime 0.9.10 would reach those too, but every time.sleep of Python 3.11 fails under it with EINVAL.)
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.step(0)
        self.environ = {CLOCK: str(self._file)}

    def step(self, by_s: float) -> None:
        """Have it be wrong by so much from the next fifth of a second on."""
        new = self._file.with_suffix(".new")
        new.write_text(str(by_s))
        new.rename(self._file)  # whoever reads it finds it whole


@contextlib.contextmanager
def clock_stepped(clock: Clock, by_s: float) -> Iterator[None]:
    """The clock is set by so many seconds, and back at the end of the block."""
    try:
        clock.step(by_s)
        yield
    finally:
        clock.step(0)
