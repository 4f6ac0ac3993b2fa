"""A FIFO that is fed for ever: readers come and go, and each begins with a keyframe.

Promises: nothing blocks; every write is whole packets and atomic (pipe(7), PIPE_BUF), so that a kill of the writer
never leaves half a packet; a reader that is too slow loses whole pictures, up to a keyframe.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import time
from collections import deque
from pathlib import Path

from procs import log
from procs.capture import place
from procs.capture.replay import hurried
from procs.capture.unit import Unit
from procs.errors import ConfigError
from procs.media.gop import GopCache
from procs.media.tspackets import PACKET
from procs.pipes import PIPE_BYTES

ATOMIC = select.PIPE_BUF // PACKET * PACKET
LATE_S = 0.5  # a reader that is so far behind is too slow
REPORT_S = 5.0
UNITS_MAX = 2000  # pictures and pieces of sound from keyframe to keyframe


class Fifo:
    """The writing end. What it can't write at once it keeps, for as long as the reader is not late."""

    def __init__(self, path: Path) -> None:
        place.make(path)
        self._path = path
        self._descriptor = -1
        self._gop = GopCache(units_max=UNITS_MAX)
        self._pending: deque[memoryview] = deque()
        self._behind_since = 0.0
        self._needs_keyframe = True
        self._dropped, self._reported_at = 0, -REPORT_S

    def put(self, unit: Unit) -> None:
        """The next unit: written, kept for readers to come, or dropped."""
        if unit.picture:  # sound that is over helps nobody who comes later
            self._gop.push(unit.data, unit.keyframe)
        if self._descriptor < 0:
            self.look()  # sends what is in the cache, this unit included
            return
        self._drop_when_late()
        if self._needs_keyframe and not unit.keyframe:
            self._dropped += unit.picture
            self._report()
            return
        self._needs_keyframe = False
        self._queue(unit.data)

    def look(self) -> None:
        """If there is no reader yet, see whether one has come; if there is, go on writing what it was too slow for."""
        if self._descriptor < 0 and len(self._gop) and self._open():
            log.info("a reader has come", fifo=str(self._path))
            self._behind_since = time.monotonic()
            self._pending.extend(map(memoryview, hurried(self._gop.units())))
            self._needs_keyframe = not self._pending
            self._write()
        elif self._descriptor >= 0:
            self._write()

    def watched(self) -> list[tuple[int, int]]:
        """The descriptor and the events for which to call `look`; an error on it means that the reader is gone."""
        return [(self._descriptor, select.POLLOUT if self._pending else 0)] if self._descriptor >= 0 else []

    def gone(self) -> None:
        """The reader has closed its end. The next one will begin anew."""
        log.info("the reader is gone", fifo=str(self._path))
        os.close(self._descriptor)
        self._descriptor = -1
        self._pending.clear()

    def _open(self) -> bool:
        """Open the FIFO if somebody reads it."""
        try:
            own = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            place.make(self._path)
            return False
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
            raise ConfigError(f"FIFO {str(self._path)!r}: {error.strerror}") from None
        if not stat.S_ISFIFO(os.fstat(own).st_mode):
            place.make(self._path)  # says what it is
        with contextlib.suppress(PermissionError):  # the user's quota of pipe memory is used up; 64 KiB work too
            fcntl.fcntl(own, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._descriptor = own
        return True

    def _queue(self, data: bytes) -> None:
        if not self._pending:
            self._behind_since = time.monotonic()
        self._pending.append(memoryview(data))
        if len(self._pending) == 1:
            self._write()

    def _write(self) -> None:
        while self._pending:
            head = self._pending[0]
            try:
                written = os.write(self._descriptor, head[:ATOMIC])
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.gone()
                return
            if written < len(head):
                self._pending[0] = head[written:]
            else:
                self._pending.popleft()

    def _drop_when_late(self) -> None:
        """If the reader is late, drop all that waits but the rest of a unit that it has begun to read."""
        if self._pending and time.monotonic() - self._behind_since > LATE_S and not self._needs_keyframe:
            self._dropped += len(self._pending) - 1
            while len(self._pending) > 1:
                self._pending.pop()
            self._needs_keyframe = True

    def _report(self) -> None:
        """Say at most every few seconds how many pictures were dropped."""
        now = time.monotonic()
        if self._dropped and now - self._reported_at >= REPORT_S:
            log.warning("the reader is too slow: pictures dropped", dropped=self._dropped)
            self._dropped, self._reported_at = 0, now
