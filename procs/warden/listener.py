"""supervisord's event listener protocol, pure: bytes in, events out. One event at a time; each wants an answer."""

from __future__ import annotations

import re
from typing import NamedTuple

from procs.errors import Refused

READY = b"READY\n"
MAX_BYTES = 1_000_000  # of one event; a table of a thousand processes is a third of it


class Event(NamedTuple):
    """One event: its name (REMOTE_COMMUNICATION) and what it says."""

    name: str
    payload: str


class Listener:
    """Puts events together from what comes in.

    Of an event over MAX_BYTES only the name is kept, and its payload is empty: it wants an answer too. supervisord
    would hand one that ended its listener to the next, and so on for ever.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._skipped = 0  # bytes that are still to come, and to be thrown away
        self._large = ""  # the name of the event that they belong to

    def feed(self, data: bytes) -> list[Event]:
        """The events that are whole by now. Raises Refused where there is no sense in it: start anew then."""
        self._buffer += data
        found = []
        while event := self._next():
            found.append(event)
        return found

    def _next(self) -> Event | None:
        if self._large:
            cut = min(self._skipped, len(self._buffer))
            self._skipped, self._buffer = self._skipped - cut, self._buffer[cut:]
            if self._skipped:
                return None
            name, self._large = self._large, ""
            return Event(name, "")
        head, line_break, rest = self._buffer.partition(b"\n")
        if not line_break:
            if len(head) > 1000:
                raise Refused("the head of an event does not end")
            return None
        pairs = dict(word.partition(":")[::2] for word in head.decode(errors="replace").split())
        length = pairs.get("len", "")
        if not re.fullmatch("[0-9]{1,18}", length) or not pairs.get("eventname"):
            raise Refused(f"not the head of an event: {head[:100]!r}")
        if int(length) > MAX_BYTES:
            self._buffer, self._skipped, self._large = rest, int(length), pairs["eventname"]
            return self._next()
        if len(rest) < int(length):
            return None
        self._buffer = rest[int(length) :]
        return Event(pairs["eventname"], rest[: int(length)].decode(errors="replace"))


def answer(body: bytes) -> bytes:
    """What is written back for one event, and that the next may come."""
    return b"RESULT %d\n%b" % (len(body), body) + READY
