"""What supervisord's plugin tells the warden, and what it is answered. Pure.

The plugin is written without msgspec, since every megabyte in supervisord stays there; it sends JSON.
"""

from __future__ import annotations

import msgspec

from procs.errors import Refused


class Ended(msgspec.Struct, frozen=True):
    """How the last run of a program ended."""

    kind: str  # killed, crashed (another signal), exited, not started
    reason: str
    at: float  # CLOCK_MONOTONIC, as all times here


class Row(msgspec.Struct, frozen=True):
    """One program of supervisord's, as it is now."""

    name: str
    state: str
    pid: int
    since: float  # when it was started
    restarts: int
    failures: int  # in a row
    wait_s: float  # until it is started again
    last: Ended | None = None
    begun: bool = True  # at all since supervisord did: one that is off on this machine never does


class Death(msgspec.Struct, frozen=True):
    """An end that the warden has not noted yet."""

    serial: int
    name: str
    pid: int
    kind: str
    reason: str
    at: float


class Table(msgspec.Struct, frozen=True):
    """All of them."""

    supervisord: int
    at: float
    processes: list[Row]
    deaths: list[Death] = []


def decode(payload: str) -> Table | None:
    """The table in a REMOTE_COMMUNICATION event; None for one of somebody else's. Raises Refused for a broken one."""
    kind, _, data = payload.partition("\n")
    if kind != "type:planaria":
        return None
    try:
        return msgspec.json.decode(data, type=Table)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"a table that is none: {error}") from None


def answer(served: list[tuple[str, int]], noted: int) -> bytes:
    """What the plugin is to know: name and pid of those that serve, and the serial of the last death that is noted."""
    return msgspec.json.encode({"served": served, "noted": noted})
