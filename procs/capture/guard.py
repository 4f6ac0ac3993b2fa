"""The process that ends a command with all it started, however its own parent ends. Standard library only.

    capture --> guard --> command --> whatever the command starts

The guard is forked by the capture and outlives it by a moment: the kernel tells it that its parent is dead, and it
kills every descendant: orphans are handed to it (PR_SET_CHILD_SUBREAPER), sessions of their own and stopped ones
included. If the guard itself is killed, the command dies of that, and the capture, to which the rest is handed then,
ends the rest. What escapes: grandchildren, when both are killed within milliseconds; and
a chain of processes that fork, take a group of their own and exit, faster than /proc is read. A cgroup would hold them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import NoReturn

from procs import prctl, proc

NOT_RUN = 127  # as a shell has it
_PAUSE_S, _PAUSE_MAX_S = 0.001, 0.05


def start(command: tuple[str, ...], stdout: int, stderr: int) -> int:
    """Run a command under a guard, with nothing to read and these two descriptors to write to; returns the guard's pid.

    The guard exits as the command does (128 + n for one ended by signal n), once all that it left behind is dead.
    """
    prctl.adopt_orphans()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as it may be inherited, no exit code would be kept
    parent = os.getpid()
    guard = os.fork()
    if guard:
        return guard
    try:
        _guard(command, parent, stdout, stderr)
    finally:  # whatever happens, this copy of the capture must not go on as one
        os._exit(1)


def _guard(command: tuple[str, ...], parent: int, stdout: int, stderr: int) -> NoReturn:
    every = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, every)
    os.setsid()  # a signal to the capture's process group (Ctrl-C) is for the capture; we follow it
    prctl.bind_to_parent(parent, signal.SIGCONT)  # which also wakes a guard that is stopped
    prctl.adopt_orphans()
    _wire(stdout, stderr)
    child = _started(command)
    _wire(-1, -1)  # or the command's output would not end when the command does
    code = None
    while code is None and os.getppid() == parent:  # a stray signal means nothing
        signal.sigwait({signal.SIGCHLD, signal.SIGCONT})
        _end_group(child)
        code = _reaped(child)
    if code is None:
        _kill_group(child)
    end_descendants()
    os._exit(1 if code is None else code)


def _end_group(child: int) -> None:
    """If the command has ended, kill its process group while that is still its own: at one blow, which no chain of
    processes that fork and exit can outrun."""
    with contextlib.suppress(ChildProcessError):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            _kill_group(child)


def _kill_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # a command may be another user's by now (sudo)
        os.killpg(child, signal.SIGKILL)


def _wire(stdout: int, stderr: int) -> None:
    """Have 0, 1 and 2 be /dev/null and these two (below 0: /dev/null as well), and nothing else open."""
    null = os.open(os.devnull, os.O_RDWR)
    stdout, stderr = (os.dup(stdout), os.dup(stderr)) if stdout >= 0 else (null, null)
    for number, descriptor in enumerate((null, stdout, stderr)):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def _started(command: tuple[str, ...]) -> int:
    guard = os.getpid()
    child = os.fork()
    if child:
        with contextlib.suppress(PermissionError):  # it has done so itself, and runs already
            os.setpgid(child, child)
        return child
    try:
        os.setpgid(0, 0)
        prctl.bind_to_parent(guard)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and a command expects to die of them
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_RUN)


def _reaped(child: int) -> int | None:
    """Collect all the dead; returns the exit code of `child` if it is among them."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == child:
                code = exit_code(found[1])
    return code


def exit_code(status: int) -> int:
    """The code a shell would report for a wait status."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def end_descendants() -> None:
    """Kill every descendant of this process, and theirs, until none is left. Those of other users are left alone.

    It takes two looks in a row that find none: one that is handed on between two reads of /proc is missed once.
    """
    not_ours: set[int] = set()
    pause_s, clean = _PAUSE_S, 0
    while clean < 2:
        living = proc.descendants(os.getpid()) - not_ours
        clean = 0 if living else clean + 1
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:
                not_ours.add(pid)
            except ProcessLookupError:
                pass
        if living:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        _reaped(0)
