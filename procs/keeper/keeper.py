"""Watches the supervisord that started it, and starts it again when it dies. Then it is done: the new one has a keeper.

    supervisord 1 --starts--> keeper 1 --sees it die, ends what is left, starts--> supervisord 2 --starts--> keeper 2

There is no moment without a keeper. Keeper 1 holds the lock of keepers, so keeper 2 waits, but has opened a pidfd of
its supervisord first; keeper 1 goes only when supervisord 2 has answered, has lived for WATCH_S and has started keeper
2, and if supervisord 2 dies just then, keeper 2 sees it as soon as it has the lock. A keeper 1 that is stuck or frozen,
whom no warden knows of as its parent is gone, is ended by keeper 2. One that is started by a supervisord that dies in
that very instant finds another parent than it should have, and takes that for the death it is.

The new one imports while keeper 1 ends what is left of the old one, and does nothing else before keeper 1 has told it
to begin (procs/keeper/start.py). If keeper 1 dies before that, so does the new one.

run/suite.lock, which `make up` and `make down` hold too, is held only while something is ended and started: a
`make down` then finds either a supervisord or a keeper to end, and both of them die of it.

Where whoever started supervisord starts it again (container, systemd, scripts/start.py) it is idle: it dies with
supervisord as everything does, and only ends one that is frozen.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

from procs import journal, life, locks, log, prctl, proc, settings
from procs.errors import ConfigError, Unhealthy
from procs.flags import command_line
from procs.keeper import ending, start
from procs.keeper.pace import Row
from procs.keeper.watch import Death, Watch

WATCH_S = 2.0
BLAMED_S = 10.0  # between the warden's verdict and the death
HANDOVER_LIMIT_S = 30.0  # above what a former keeper takes to see that a new supervisord never answers
STOPPED_LIMIT_S = 2.0
MAX_LOG_BYTES = 5_000_000
_LOCK_EVERY_S = 0.01
_WAIT_TURN_S = 0.1


class Parent(NamedTuple):
    """The supervisord that started us: `handle` is its pidfd, -1 if it was dead by then."""

    pid: int
    handle: int
    is_foreground: bool


def load() -> Parent:
    """Look at our parent before anything else. Raises ConfigError for a keeper that supervisord did not start."""
    if sys.argv[1:]:
        command_line("keeper", "Starts supervisord again.", "  supervisord starts it: make up").parse_args()
    if "SUPERVISOR_ENABLED" not in os.environ or proc.MARK not in os.environ:
        raise ConfigError("the keeper is started by supervisord: make up")
    pid = os.getppid()
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        words = proc.words(pid)
        if os.getppid() == pid and start.is_supervisord(words):
            return _told(Parent(pid, handle, start.FOREGROUND in os.environ or start.is_foreground(words)))
        os.close(handle)
    return _told(Parent(0, -1, start.FOREGROUND in os.environ))


def _told(parent: Parent) -> Parent:
    """Bind to a supervisord in the foreground, as everybody does; else write to a log of our own: what supervisord
    reads for us nobody reads once it is dead."""
    if parent.is_foreground:
        prctl.bind_to_parent(parent.pid)
        return parent
    path = settings.run_dir() / "log/keeper.log"
    with contextlib.suppress(OSError):
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            os.replace(path, path.with_suffix(".log.1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    return parent


def keep(parent: Parent, alive: life.Alive) -> None:
    """Watch until supervisord dies; return when a new one lives and has a keeper of its own."""
    alive.serving()
    keeper = Keeper(settings.ROOT, alive)
    keeper.wait_for_former()
    if parent.is_foreground:
        log.info("idle: supervisord runs in the foreground, and whoever started it starts it again", pid=parent.pid)
    else:
        log.info("watching supervisord", pid=parent.pid)
    keeper.run(parent)


class Keeper:
    """What a keeper knows while it works."""

    def __init__(self, root: Path, alive: life.Alive) -> None:
        self._root, self._alive = root, alive
        self._run_dir = alive.run_dir
        self._row = Row(self._run_dir / "supervisord.starts")

    def wait_for_former(self) -> None:
        """Return as the only keeper: the kernel frees the lock of one that is gone, and one that is stuck we end."""
        began = looked_at = well_at = time.monotonic()
        while locks.try_hold(self._run_dir / "keeper.lock") is None:
            self._alive.beat()
            time.sleep(_LOCK_EVERY_S)
            now = time.monotonic()
            if now - looked_at < _WAIT_TURN_S:
                continue
            looked_at = now
            stopped = [pid for pid in self._others() if (its := proc.stat(pid)) and its.state in "Tt"]
            well_at = well_at if stopped else now
            if now - well_at > STOPPED_LIMIT_S or now - began > HANDOVER_LIMIT_S:
                for pid in stopped or self._others():
                    log.warning("ending a former keeper that does not hand over", pid=pid)
                    proc.kill(pid, signal.SIGKILL)

    def _others(self) -> list[int]:
        return [pid for pid in proc.marked(self._root) if "procs.keeper" in proc.words(pid)]

    def run(self, parent: Parent) -> None:
        """Watch the parent; then start another one until it stays."""
        death: Death | None = Death(0, time.monotonic(), "killed", "it died while its keeper started")
        if parent.handle >= 0:
            death = self._watch(parent.pid, parent.handle).until_death()
        while death and not parent.is_foreground:
            self._note_down(death)
            pid = self._revived()
            if not pid:
                log.info("another supervisord runs, with a keeper of its own")
                return
            death = self._stays(pid, death.at_s)

    def _watch(self, pid: int, handle: int, dead_since_s: float | None = None) -> Watch:
        def answered() -> None:
            self._row.answered()
            if dead_since_s is not None:
                ms = 1000 * (time.monotonic() - dead_since_s)
                log.info("supervisord answers", pid=pid, ms=round(ms, 1))
                journal.append(self._run_dir, process="supervisord", event="up", pid=pid, ms=ms)

        return Watch(pid, handle, self._run_dir / "supervisor.sock", answered, self._alive.beat)

    def _note_down(self, death: Death) -> None:
        log.warning("supervisord is dead", pid=death.pid, kind=death.kind, reason=death.reason)
        lately = journal.read(self._run_dir, time.time() - BLAMED_S)
        if any(
            (line["process"], line.get("pid")) == ("supervisord", death.pid)
            for line in lately
            if line["event"] == "down"
        ):
            return  # by the warden, which has ended it and knows why
        journal.append(
            self._run_dir,
            process="supervisord",
            event="down",
            kind=death.kind,
            reason=death.reason,
            pid=death.pid,
            at=death.at_s,
        )

    def _revived(self) -> int:
        """Start supervisord, for as long as it takes; returns its pid, or 0 if somebody else has started one."""
        while True:
            self._wait(self._row.next_start())
            lock = self._suite_lock()
            try:
                with start.Waiting(self._root, os.environ) as successor:  # it imports while we end what is left
                    if start.running(self._root):
                        return 0
                    self._end_the_rest(successor.pid)
                    successor.begin(self._alive.beat)
                if pid := start.running(self._root):
                    return pid
                log.error("supervisord died as soon as it had started")
            except Unhealthy as error:
                log.error(str(error))
            finally:
                if lock is not None:
                    os.close(lock)

    def _end_the_rest(self, successor: int) -> None:
        try:
            ending.end_all(self._root, self._alive.beat, spare=successor)
        except Unhealthy as error:  # what SIGKILL does not end serves nobody, and its own lock keeps a second out
            log.error(f"starting nevertheless: {error}")

    def _stays(self, pid: int, dead_since_s: float) -> Death | None:
        """None once a new supervisord has answered, lived for a while and has a keeper; else how it ended."""
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return Death(pid, time.monotonic(), "killed", "it died as soon as it had started")
        try:
            watch = self._watch(pid, handle, dead_since_s)
            while not (death := watch.until_death(WATCH_S)):
                if any("procs.keeper" in proc.words(child) for child in proc.children(pid)):
                    return None
            return death
        finally:
            os.close(handle)

    def _suite_lock(self) -> int | None:
        """The lock against a `make up` or `make down` at the same time; None on a disk that gives none."""
        while True:
            self._alive.beat()
            try:
                lock = locks.try_hold(self._run_dir / "suite.lock")
            except OSError as error:
                log.error(f"no lock against a make up at the same time: {error}")
                return None
            if lock is not None:
                return lock
            time.sleep(_LOCK_EVERY_S)

    def _wait(self, pause_s: float) -> None:
        if pause_s:
            log.warning("supervisord is in a crash loop: waiting before this start", wait_s=round(pause_s, 2))
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0:
            self._alive.beat()
            time.sleep(min(left_s, _WAIT_TURN_S))
