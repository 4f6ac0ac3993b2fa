"""Restarts that somebody asks for: which are taken. A restart is a kill; who dies is started again as ever. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from procs.errors import Refused
from procs.messages.requests import Restart

EVERY_S = 1.0  # between two of one process
REMEMBERED_S = 60.0  # whoever got no answer may ask for the same again for so long


class Restarts:
    """One a warden. `done`: name and pid of those that a former one was asked for lately."""

    def __init__(self, done: Iterable[tuple[str, int]] = (), now: float = 0.0) -> None:
        self._done = dict.fromkeys(done, now)

    def is_due(self, asked: Restart, pids: Iterable[int], now: float) -> bool:
        """Whether to kill now; False for one that was killed already because of this. `pids`: the processes of that
        name now. Raises Refused."""
        self._done = {each: at for each, at in self._done.items() if now - at < REMEMBERED_S}
        if (asked.process, asked.pid) in self._done:
            return False
        pids = sorted(pids)
        if asked.pid not in pids:
            has = f"has pid {pids[-1]} by now" if pids else "does not run, or is none that the warden watches"
            raise Refused(f"{asked.process} {has}")
        if any(name == asked.process and now - at < EVERY_S for (name, _), at in self._done.items()):
            raise Refused(f"{asked.process} was restarted less than {EVERY_S:g} s ago")
        return True

    def note(self, asked: Restart, now: float) -> None:
        """It was killed."""
        self._done[asked.process, asked.pid] = now
