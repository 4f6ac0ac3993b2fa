"""supervisord's event listener protocol, pure: bytes in, events out. One event at a time; each wants an answer."""

from __future__ import annotations

from typing import NamedTuple

from procs.errors import Refused

READY = b"READY\n"
MAX_BYTES = 1_000_000  # of one event; a table of a thousand processes is a third of it


class Event(NamedTuple):
    """One event: its name (REMOTE_COMMUNICATION) and what it says."""

    name: str
    payload: str


class Listener:
    """Puts events together from what comes in."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that are whole by now. Raises Refused where there is no sense in it: start anew then."""
        self._buffer += data
        found = []
        while event := self._next():
            found.append(event)
        return found

    def _next(self) -> Event | None:
        head, line_break, rest = self._buffer.partition(b"\n")
        if not line_break:
            if len(head) > 1000:
                raise Refused("the head of an event does not end")
            return None
        pairs = dict(word.partition(":")[::2] for word in head.decode(errors="replace").split())
        length = pairs.get("len", "")
        if not length.isdecimal() or int(length) > MAX_BYTES or "eventname" not in pairs:
            raise Refused(f"not the head of an event: {head[:100]!r}")
        if len(rest) < int(length):
            return None
        self._buffer = rest[int(length) :]
        return Event(pairs["eventname"], rest[: int(length)].decode(errors="replace"))


def answer(body: bytes) -> bytes:
    """What is written back for one event, and that the next may come."""
    return b"RESULT %d\n%b" % (len(body), body) + READY
