"""What went down and came up again, in run/events.jsonl: it outlives every process, so that "restarts in the last hour"
is known whoever was killed in between. Durable against kills, not against a power cut: a line is written, never synced.

| field   | meaning                                                                                         |
|---------|-------------------------------------------------------------------------------------------------|
| time    | when it ended, or served again, as in our logs; a line may be written a second later            |
| process | as `make status` names it                                                                       |
| event   | "down": it ended, or was ended; "up": it serves again                                           |
| kind    | of a "down": why, in one word; those that the warden ended itself: stopped, silent, memory, ... |
| reason  | the same in words                                                                               |
| pid     | of the process that went down or came up                                                        |
| ms      | of an "up": from its death, of some in a row the first, until it served                         |
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from procs import log

NAME = "events.jsonl"
MAX_BYTES = 1_000_000  # then the file becomes events.jsonl.1, and what that held is forgotten


def append(
    run_dir: Path,
    *,
    process: str,
    event: str,
    pid: int,
    kind: str = "",
    reason: str = "",
    ms: float | None = None,
    at: float | None = None,
) -> None:
    """Add a line about what was `at` that time of the monotonic clock (default: now). Never raises: supervision goes on
    where a disk is full."""
    ago_s = 0.0 if at is None else time.monotonic() - at
    line: dict[str, Any] = {"time": log.timestamp(time.time() - ago_s), "process": process, "event": event, "pid": pid}
    line |= {"kind": kind, "reason": reason[:500]} if event == "down" else {}
    line |= {"ms": round(ms, 1)} if ms is not None else {}
    path = run_dir / NAME
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            # A line that a full disk has cut must not cost the next one too. One write: lines of two don't mix.
            is_cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, b"\n" * is_cut + json.dumps(line).encode() + b"\n")
            if size > MAX_BYTES:
                os.replace(path, path.with_suffix(".jsonl.1"))
        finally:
            os.close(descriptor)


def read(run_dir: Path, since_s: float) -> list[dict[str, Any]]:
    """The lines from a time since the Unix epoch on, oldest first. What is no line of ours is left out."""
    first = log.timestamp(since_s)
    path = run_dir / NAME
    lines = [*_lines(path.with_suffix(".jsonl.1")), *_lines(path)]
    return [line for line in lines if line["time"] >= first]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    yield from _parsed(text)


def _parsed(text: str) -> Iterator[dict[str, Any]]:
    for each in text.splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(each)
            if isinstance(found, dict) and all(isinstance(found.get(key), str) for key in ("time", "process", "event")):
                yield found


class Follower:
    """Reads on where somebody had stopped reading. `position`: as `Follower.position` had it; "": at the end."""

    def __init__(self, run_dir: Path, position: str = "") -> None:
        self._path = run_dir / NAME
        self._file, self._offset = _end(self._path)
        with contextlib.suppress(ValueError):
            file, _, offset = position.partition(" ")
            self._file, self._offset = int(file), int(offset)

    @property
    def position(self) -> str:
        """Up to where it has read."""
        return f"{self._file} {self._offset}"

    def past(self) -> list[dict[str, Any]]:
        """What it has read before, as far as that file goes."""
        path = self._path if _end(self._path)[0] == self._file else self._path.with_suffix(".jsonl.1")
        return _lines_from(path, 0, self._offset)[0]

    def more(self) -> list[dict[str, Any]]:
        """The lines since, which costs nothing but a look where there are none."""
        file, size = _end(self._path)
        if (file, size) == (self._file, self._offset):
            return []
        lines: list[dict[str, Any]] = []
        if file != self._file:
            former = self._path.with_suffix(".jsonl.1")
            if _end(former)[0] == self._file:
                lines, _ = _lines_from(former, self._offset)
            self._file, self._offset = file, 0
        elif size < self._offset:  # somebody has emptied it
            self._offset = 0
        more, self._offset = _lines_from(self._path, self._offset)
        return lines + more


def _end(path: Path) -> tuple[int, int]:
    try:
        its = os.stat(path)
    except OSError:
        return 0, 0
    return its.st_ino, its.st_size


def _lines_from(path: Path, offset: int, size: int = 2 * MAX_BYTES) -> tuple[list[dict[str, Any]], int]:
    """The whole lines from an offset on, and where the next one begins."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            whole = file.read(size).rpartition(b"\n")[0]
    except OSError:
        return [], offset
    return list(_parsed(whole.decode(errors="replace"))), offset + len(whole) + bool(whole)
