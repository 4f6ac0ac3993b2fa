"""What must hold of a suite's processes at every moment, whatever is done to them: a census, and who breaks it.

Nothing is registered here: a suite is what carries its checkout's mark, with all that it has started; a process is
called what supervisord calls it, and a descendant by its parent's name and its own.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from procs import proc

GRACE_S = 1.0  # to die, to be collected, to find that another copy holds the lock
GRACES_S = {
    "stopped": 6.0,  # the promise: whatever is frozen is replaced by then
    "handover": 6.0,  # the new supervisord's keeper waits while the one that started it still watches it
    "uncollected": 6.0,  # by a parent that is busy, starts others, or waits for a disk or for a processor
}
LOOK_EVERY_S = 0.2
WAITING = " (waiting)"  # stands behind the name of a copy that serves only once another one has ended


class Seen(NamedTuple):
    """One process at one moment."""

    parent: int
    state: str
    words: tuple[str, ...]
    program: str  # as supervisord has named it, or whoever it descends from
    waits: bool  # for a lock that somebody else holds


Look = Mapping[int, Seen]


class Broken(NamedTuple):
    """An invariant that did not hold."""

    kind: str
    pids: tuple[int, ...]
    text: str


def look(root: Path) -> Look:
    """The suite of a checkout, now: all that is marked, and all that descends from it, zombies too."""
    stats = {pid: its for pid in proc.pids() if (its := proc.stat(pid))}
    members = set(proc.marked(root))
    while more := {pid for pid, its in stats.items() if its.parent in members} - members:
        members |= more
    waiting = waiting_for_locks()
    found = {}
    for pid in members & stats.keys():
        program = proc.environment(pid).get("SUPERVISOR_PROCESS_NAME", "")
        its = stats[pid]
        found[pid] = Seen(its.parent, its.state, tuple(proc.words(pid)), program, pid in waiting)
    return found


def waiting_for_locks() -> set[int]:
    """Processes that wait for a record lock (proc_locks(5))."""
    return {int(line.split()[5]) for line in Path("/proc/locks").read_text().splitlines() if " -> POSIX" in line}


def locks_held(folder: Path) -> dict[int, list[str]]:
    """Who holds which lock files of a folder."""
    files = {}
    for path in folder.glob("*.lock"):
        its = path.stat()
        files[f"{os.major(its.st_dev):02x}:{os.minor(its.st_dev):02x}:{its.st_ino}"] = path.stem
    held: dict[int, list[str]] = {}
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "POSIX" and words[5] in files:
            held.setdefault(int(words[4]), []).append(files[words[5]])
    return held


def is_supervisord(seen: Seen) -> bool:
    """Whether it is one, and not only about to become one of its children."""
    return any(re.search(r"(^|[./])supervisord$", word) for word in seen.words)


def names(seen: Look) -> dict[int, str]:
    """What each living process is called: supervisord, go2rtc, go2rtc/headless_agent, capture_x/fork/ffmpeg, ...

    Several of one name get a number, in the order of their command lines. One that waits for another copy to end is
    not yet what it is going to be.
    """
    living = [pid for pid in seen if seen[pid].state not in "ZX"]
    successors = {pid for pids in _handovers(seen) for pid in pids if seen[pid].parent in seen}
    plain = {pid: _name(pid, seen) + (WAITING if seen[pid].waits or pid in successors else "") for pid in living}
    by_name: dict[str, list[int]] = {}
    for pid in sorted(plain, key=lambda pid: (seen[pid].words, pid)):
        by_name.setdefault(plain[pid], []).append(pid)
    return {
        pid: name if len(pids) == 1 else f"{name}#{number}"
        for name, pids in by_name.items()
        for number, pid in enumerate(pids)
    }


def _name(pid: int, seen: Look) -> str:
    its = seen[pid]
    above = seen.get(its.parent)
    is_fork = above is not None and above.words == its.words
    if is_supervisord(its) and not is_fork:
        return "supervisord"
    if above is None:
        return (its.program if _outlives(its) else f"orphan of {its.program}") or "nameless"
    if is_supervisord(above) and not is_fork:
        return its.program or "nameless"
    return f"{_name(its.parent, seen)}/{_own_name(its.words, above.words)}"


def _own_name(words: tuple[str, ...], above: tuple[str, ...]) -> str:
    if words == above:
        return "fork"
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1].rpartition(".")[2]
    return os.path.basename(words[0]) if words else "nameless"


def broken(seen: Look, root: Path, excused: Collection[int] = ()) -> Iterator[Broken]:
    """What is not as it should be in one look. Some of it is right for a moment: `Census` knows for how long.

    `excused`: processes that are kept from collecting their children by a fault under way.
    """
    yield from _copies(seen, root)
    living = {pid: its for pid, its in seen.items() if its.state not in "ZX"}
    for pid, its in living.items():
        if _is_orphan(pid, living):
            yield Broken("orphan", (pid,), f"{_described(its)}, whose parent is {its.parent}")
        if its.state in "Tt":
            yield Broken("stopped", (pid,), _described(its))
    for pid, its in seen.items():
        parent = seen.get(its.parent)
        if its.state == "Z" and parent and its.parent not in excused and parent.state not in "TtZX":
            text = f"a child of {_described(parent)}, pid {its.parent}"
            yield Broken("uncollected", (pid,), text)
            if parent.state == "S":  # it has nothing else to do
                yield Broken("zombie", (pid,), text)


def _copies(seen: Look, root: Path) -> Iterator[Broken]:
    """Processes of ours with the same command line that do not wait for each other. A fork that has run nothing yet,
    or never will, is no copy of its parent."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for pid, its in seen.items():
        above = seen.get(its.parent)
        is_fork = above is not None and above.words == its.words
        if its.state not in "ZX" and not its.waits and not is_fork and _is_ours(its.words, root):
            groups.setdefault(its.words, []).append(pid)
    handovers = _handovers(seen)
    for words, pids in groups.items():
        if len(pids) > 1:
            kind = "handover" if set(pids) in handovers else "copy"
            yield Broken(kind, tuple(sorted(pids)), f"{len(pids)} copies of {_short(words)}")


def _handovers(seen: Look) -> list[set[int]]:
    """Two of a program that outlives supervisord: one whose supervisord is dead, and the new one's."""
    found: dict[tuple[str, ...], set[int]] = {}
    for pid, its in seen.items():
        if _outlives(its) and its.state not in "ZX":
            found.setdefault(its.words, set()).add(pid)
    return [pids for pids in found.values() if sorted(seen[pid].parent in seen for pid in pids) == [False, True]]


def _is_ours(words: tuple[str, ...], root: Path) -> bool:
    return any(
        word.startswith(("procs.", "supervisor.supervisord", f"{root}/run/", f"{root}/scripts/")) for word in words
    )


def _is_orphan(pid: int, living: Look) -> bool:
    """Whether nobody of the suite is above it who may be on top: supervisord, or a keeper, which outlives it."""
    while living[pid].parent in living:
        pid = living[pid].parent
    return not (is_supervisord(living[pid]) or _outlives(living[pid]))


def _outlives(its: Seen) -> bool:
    """Whether it is the one program of supervisord that is to live on without it, and starts it again."""
    return "procs.keeper" in its.words


def _described(its: Seen) -> str:
    return f"{_short(its.words)} ({its.state})"


def _short(words: tuple[str, ...]) -> str:
    text = " ".join(os.path.basename(word) for word in words)
    return text if len(text) < 90 else f"{text[:87]}..."


class Census(threading.Thread):
    """Looks five times a second and keeps what was broken for longer than it may be; each case once.

    For use in a `with` block. `excused` may be changed at any time; `busy`: so many times as long as promised anything
    may last, on a machine that does other things as well.
    """

    def __init__(self, root: Path, busy: float = 1.0) -> None:
        super().__init__(name="census", daemon=True)
        self._root, self._busy = root, busy
        self._over = threading.Event()
        self._since: dict[tuple[str, tuple[int, ...]], float] = {}
        self.excused: set[int] = set()
        self.broken: list[Broken] = []
        self.looks = 0

    def __enter__(self) -> Census:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.take(look(self._root), time.monotonic())

    def take(self, seen: Look, now: float) -> None:
        """One more look, at a moment in seconds."""
        found = {(each.kind, each.pids): each for each in broken(seen, self._root, set(self.excused))}
        before = self._since
        self._since = {key: before.get(key, now) for key in found}
        for key, each in found.items():
            limit_s = self._busy * GRACES_S.get(each.kind, GRACE_S)
            if self._since[key] != float("-inf") and now - self._since[key] > limit_s:
                self._since[key] = float("-inf")  # told
                self.broken.append(each)
        self.looks += 1


def descriptors(pid: int) -> int:
    """How many files a process has open; 0 for one that is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def files(folder: Path) -> set[str]:
    """Everything that lies in a folder, and below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
