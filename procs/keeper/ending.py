"""End every process of one checkout's suite, in whatever state it is. Standard library only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from procs import proc
from procs.errors import Unhealthy
from procs.keeper import start

DIE_LIMIT_S = 10.0
_LOOK_EVERY_S = 0.002
KEEPER, SUPERVISORD, REST = range(3)  # in this order they are killed


def end_all(root: Path, beat: Callable[[], None] = lambda: None, spare: int = 0) -> int:
    """Kill everything of the suite but this process, and one to `spare`; returns how many there were.

    Keepers first, who would start supervisord again; then supervisord, which would start the rest again. It goes on
    until two looks in a row find nothing: what is being started is missed by one look in the instant between its
    parent's fork and its own entry in /proc, or while exec changes its environment. Raises Unhealthy if one is still
    there after DIE_LIMIT_S.
    """
    supervisord = proc.supervisord(root)
    seen = _born(proc.descendants(supervisord)) if supervisord else {}
    deadline, clean = time.monotonic() + DIE_LIMIT_S, 0
    while clean < 2:
        beat()
        living = _living(root, seen, spare)
        if living and time.monotonic() > deadline:
            raise Unhealthy(f"still alive after SIGKILL: pids {sorted(living)}")
        ranks = {pid: _rank(pid) for pid in living}
        for pid in (each for each, rank in ranks.items() if rank == SUPERVISORD):
            _kill(pid, signal.SIGSTOP)  # or it sees its keeper die, and has it written down as a crash
        for pid in sorted(living, key=ranks.__getitem__):
            _kill(pid)
        seen |= living
        clean = 0 if living else clean + 1
        if clean < 2:
            time.sleep(_LOOK_EVERY_S)
    return len(seen)


def _living(root: Path, seen: dict[int, float], spare: int) -> dict[int, float]:
    """Those of the suite that live, and those seen before: a dying process has lost its mark before its sockets."""
    still = [pid for pid, since in _born(seen).items() if since == seen[pid]]
    return _born({*still, *proc.marked(root), proc.supervisord(root)} - {0, os.getpid(), spare})


def _born(pids: set[int] | dict[int, float]) -> dict[int, float]:
    """pid -> when it was started, of those that live: with both a process is itself, however pids are used again."""
    found = {pid: proc.stat(pid) for pid in pids}
    return {pid: its.started_s for pid, its in found.items() if its and its.is_alive}


def _rank(pid: int) -> int:
    words = proc.words(pid)
    return KEEPER if "procs.keeper" in words else SUPERVISORD if start.is_supervisord(words) else REST


def _kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    try:
        # The first process of a container can't be killed from inside, nor stopped; supervisord, which it then is, ends
        # on SIGTERM.
        os.kill(pid, signal.SIGTERM if pid == 1 and number == signal.SIGKILL else number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise Unhealthy(f"pid {pid} belongs to another user; run make down as that user") from None
