"""Who is ours: what supervisord has started, what go2rtc has started of us, and all that is below them. Reads /proc.

A process that somebody runs by hand beside the suite sends heartbeats too; it is none of ours, and nobody ends it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import zmq

from procs import proc
from procs.messages.warden import Heartbeat
from procs.warden.go2rtc import Stream
from procs.warden.policy import GO2RTC, SUPERVISORD, Known
from procs.warden.table import Row, Table

MAX_DEPTH = 8  # supervisord, go2rtc, capture, guard, a command and what it starts


class _Other(NamedTuple):
    """One of ours that go2rtc has started."""

    name: str
    since: float
    handle: int  # pidfd: readable when it has ended


class Relatives:
    """One a warden."""

    def __init__(self, poller: zmq.Poller) -> None:
        self._poller = poller
        self.supervisord = os.getppid()
        self._rows: dict[int, Row] = {}
        self._others: dict[int, _Other] = {}
        self._early: dict[int, float] = {}
        self._tree: dict[int, proc.Stat] = {}
        self._note(self.supervisord)
        self._rooms: set[int] = set()  # those that run a room of ours, and so give signs of life
        self._words: dict[int, list[str]] = {}
        self._turns: dict[int, str] = {}  # of those that were stopped

    def update(self, told: Table) -> list[Known]:
        """Take supervisord's table; returns all that live."""
        self.supervisord = told.supervisord
        self._rows = {row.pid: row for row in told.processes if row.pid}
        for pid in self._rows.keys() - self._tree.keys():
            self._note(pid)
        return self.known()

    def known(self) -> list[Known]:
        """All that live and are watched."""
        rows = [Known(row.name, pid, row.since, self._gives_signs(row)) for pid, row in self._rows.items()]
        return rows + [Known(other.name, pid, other.since, True) for pid, other in self._others.items()]

    def _gives_signs(self, row: Row) -> bool:
        # Only a yes is remembered: one that is asked between fork and exec still has supervisord's words, or none.
        if row.pid not in self._rooms and (
            row.name == GO2RTC or any(w.startswith("procs.") for w in proc.words(row.pid))
        ):
            self._rooms.add(row.pid)
        return row.pid in self._rooms

    def is_ours(self, beat: Heartbeat, now: float) -> bool:
        """Whether a heartbeat is of one that we watch; a producer of go2rtc's is watched from its first one on."""
        if beat.pid in self._rows or beat.pid in self._others:
            return True
        its = proc.stat(beat.pid)
        if its and its.parent == self.supervisord:
            self._early[beat.pid] = now  # supervisord has still to tell us of it
        boss = self.pid_of(GO2RTC)
        if not its or not boss or its.parent != boss:  # while it is down it is 0, which is the parent of init
            return False
        try:
            handle = os.pidfd_open(beat.pid)
        except OSError:
            return False
        self._poller.register(handle, zmq.POLLIN)
        self._others[beat.pid] = _Other(f"{beat.program} {beat.instance}".strip(), now, handle)
        self._note(beat.pid)
        return True

    def is_supervised(self, pid: int) -> bool:
        """Whether supervisord has started it, and not go2rtc."""
        return pid in self._rows

    def early_signs(self) -> list[tuple[int, float]]:
        """Heartbeats that came before supervisord had told us of who sends them."""
        found = [(pid, at) for pid, at in self._early.items() if pid in self._rows]
        self._early.clear()
        return found

    def gone(self, ready: Mapping[object, int]) -> list[tuple[str, int]]:
        """Name and pid of those that go2rtc had started and that have ended."""
        ended = [(other.name, pid, other.handle) for pid, other in self._others.items() if other.handle in ready]
        for _, pid, handle in ended:
            self._poller.unregister(handle)
            os.close(handle)
            del self._others[pid]
        return [(name, pid) for name, pid, _ in ended]

    def look(self) -> dict[int, str]:
        """Read the tree of processes anew; returns those that are stopped, with what to call them.

        One that has run since it was last seen stopped is not among them: what holds a program back by stopping it many
        times a second (cpulimit) is often met in that state.
        """
        self._tree = tree(self.supervisord)
        self._rooms &= self._tree.keys()
        self._words = {pid: words for pid, words in self._words.items() if pid in self._tree}
        before, self._turns = self._turns, {pid: proc.turns(pid) for pid, its in self._tree.items() if its.state == "T"}
        return {pid: self.name_of(pid) for pid, turns in self._turns.items() if before.get(pid, turns) == turns}

    def name_of(self, pid: int) -> str:
        """What to call any process of the tree."""
        if pid == self.supervisord:
            return SUPERVISORD
        if pid in self._rows:
            return self._rows[pid].name
        if pid in self._others:
            return self._others[pid].name
        words, its = proc.words(pid), self._tree.get(pid)
        own = os.path.basename(words[0]) if words else "a process"
        return f"{own} of {self.name_of(its.parent)}" if its and its.parent in self._tree else own

    def pid_of(self, name: str) -> int:
        """The process of a program of supervisord's, or 0."""
        return next((pid for pid, row in self._rows.items() if row.name == name), 0)

    def since(self, pid: int) -> float:
        """When a program of supervisord's was started."""
        return self._rows[pid].since

    def makers(self, streams: Mapping[str, Stream]) -> dict[str, tuple[int, ...]]:
        """For each stream that go2rtc runs a command for: the processes that run it.

        Where no process has the words of a stream, whatever names the stream and is nobody else's is taken for it: a
        wrapper may have put other words in their place. A name alone would say little: it may stand in the path of
        another stream's file.
        """
        boss = self.pid_of(GO2RTC)
        below = [pid for pid, its in self._tree.items() if its.parent == boss]
        own = proc.words(boss)  # which a child has until exec: what was read then says nothing
        for pid in below:
            if self._words.get(pid) in (None, [], own):
                self._words[pid] = proc.words(pid)
        owners = {pid: owned(self._words[pid], streams) for pid in below}
        return {name: tuple(sorted(pid for pid in below if name in owners[pid])) for name in streams}

    def readers(self) -> list[int]:
        """Those of go2rtc's children that only read what a capture writes."""
        return [pid for pid, words in self._words.items() if "procs.capture.read_fifo" in words]

    def kill(self, pid: int, number: int) -> bool:
        """Send a signal to one of ours, if it is still the one that we know. Whether it was sent."""
        its = self._tree.get(pid)
        return its is not None and proc.kill(pid, number, only_if=lambda: _started(pid) == its.started_s)

    def _note(self, pid: int) -> None:
        if its := proc.stat(pid):
            self._tree[pid] = its


def _started(pid: int) -> float:
    its = proc.stat(pid)
    return its.started_s if its else 0.0


def tree(root: int) -> dict[int, proc.Stat]:
    """A process and all below it that live, now."""
    found: dict[int, proc.Stat] = {}
    level = [root]
    for _ in range(MAX_DEPTH):
        below: list[int] = []
        for pid in level:
            its = proc.stat(pid)
            if its and its.is_alive:
                found[pid] = its
                below += proc.children(pid)
        level = [pid for pid in below if pid not in found]
    return found


def owned(words: Sequence[str], streams: Mapping[str, Stream]) -> set[str]:
    """The streams that a process with this command line makes: one, unless two are made by the same command."""
    lengths = {name: len(stream.words) for name, stream in streams.items() if _runs(words, stream.words)}
    longest = max(lengths.values(), default=0)
    if longest:
        return {name for name, length in lengths.items() if length == longest}
    return {name for name, stream in streams.items() if stream.is_exec and names(words, name)}


def _runs(words: Iterable[str], wanted: tuple[str, ...]) -> bool:
    """Whether a command line has all these words, in their order. A file's path may have become a URL."""
    rest = iter(words)
    return bool(wanted) and all(any(word in (each, f"file:{each}") for word in rest) for each in wanted)


def names(words: Iterable[str], stream: str) -> bool:
    """Whether a command line speaks of a stream."""
    pattern = re.compile(rf"(?<![\w.-]){re.escape(stream)}(?![\w-])")
    return any(pattern.search(word) for word in words)
