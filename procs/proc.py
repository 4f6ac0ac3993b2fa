"""What the kernel tells of processes (proc(5)): who is whose child, who is ours, how old, how large. Standard library
only. A process may be gone at any moment, so a question about one that is answers None, an empty list or 0."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MARK = "PLANARIA_SUITE"  # in the environment of every process of one checkout's suite; its value is the checkout
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """A process at one moment."""

    state: str  # one letter: R running, S sleeping, D waiting for a disk, T stopped, t traced, Z dead and not collected
    parent: int
    cpu_s: float  # that it has used, with all its threads
    started_s: float  # on CLOCK_BOOTTIME; with the pid it names a process for good

    @property
    def is_alive(self) -> bool:
        """Whether it still holds anything. (A dying process has lost its environment before its sockets.)"""
        return self.state not in "ZX"

    @property
    def age_s(self) -> float:
        """How long ago it was started."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started_s


def stat(pid: int) -> Stat | None:
    """What a process does; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            words = file.read().rpartition(b")")[2].split()  # after the name, which may hold anything
    except OSError:
        return None
    cpu_s = (int(words[11]) + int(words[12])) / TICKS_PER_S
    return Stat(words[0].decode(), int(words[1]), cpu_s, int(words[19]) / TICKS_PER_S)


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    found = stat(pid)
    return found is not None and found.is_alive


def pids() -> list[int]:
    """Every process."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def children(pid: int) -> list[int]:
    """The children of all threads of a process, zombies too. A kernel that can't tell is asked the long way."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        if os.path.exists(f"/proc/{pid}/task/{pid}/children"):
            return found
        every = {each: stat(each) for each in pids()}
        found = [each for each, its in every.items() if its and its.parent == pid]
    return found


def descendants(ancestor: int) -> set[int]:
    """All that a process has started, and all that those have started, but no zombies.

    It reads every process: `children` may miss one that is handed on to another parent meanwhile.
    """
    every = {pid: stat(pid) for pid in pids()}
    parents = {pid: its.parent for pid, its in every.items() if its and its.is_alive}
    found: set[int] = set()
    more = {ancestor}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - found - {ancestor}
        found |= more
    return found


def marked(root: Path) -> list[int]:
    """Every living process of this checkout's suite but ourselves, whoever its parent is now."""
    mark = f"{MARK}={root}".encode()
    return sorted(pid for pid in pids() if pid != os.getpid() and mark in _entries(pid, "environ"))


def words(pid: int) -> list[str]:
    """The command line of a process; [] for one that is gone."""
    return [os.fsdecode(word) for word in _entries(pid, "cmdline")]


def environment(pid: int) -> dict[str, str]:
    """What a process was started with; {} where we may not look."""
    return dict(os.fsdecode(entry).split("=", 1) for entry in _entries(pid, "environ") if b"=" in entry)


def _entries(pid: int, name: str) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read().removesuffix(b"\0").split(b"\0")
    except OSError:  # gone meanwhile, or somebody else's
        return []


def supervisord(root: Path) -> int:
    """The running supervisord of a checkout, however it was started, or 0."""
    try:
        pid = int((root / "run/supervisord.pid").read_text())
        is_ours = any("supervisord" in word for word in words(pid)) and os.readlink(f"/proc/{pid}/cwd") == str(root)
    except (OSError, ValueError):
        return 0
    return pid if is_ours and is_alive(pid) else 0


def turns(pid: int) -> str:
    """Changes whenever a process has run, however shortly ("" where the kernel does not count that)."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def rss_bytes(pid: int) -> int:
    """Memory of a process that is in RAM, shared pages counted whole; 0 where that can't be read."""
    return _kilobytes(f"/proc/{pid}/status", "VmRSS:")


def pss_bytes(pid: int) -> int:
    """Memory of a process that is in RAM, each shared page counted by its share (proportional set size)."""
    return _kilobytes(f"/proc/{pid}/smaps_rollup", "Pss:")


def _kilobytes(path: str, field: str) -> int:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(field)), 0)
    except OSError:
        return 0


def kill(pid: int, number: int, *, only_if: Callable[[], bool] = lambda: True) -> bool:
    """Send a signal to a process if `only_if` still holds once nobody else can get its pid. Whether it was sent."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not only_if():
            return False
        import signal  # here: 4 ms that a quick starter need not pay

        signal.pidfd_send_signal(handle, number)
        return True
    except OSError:  # gone, or another user's
        return False
    finally:
        os.close(handle)
