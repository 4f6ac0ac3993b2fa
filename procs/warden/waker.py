"""What ends the sleep of supervisord's main loop: a pipe among the descriptors that it waits for."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any


def start(options: Any, turn: Callable[[], None]) -> Callable[[], None]:
    """Have `turn` called in every turn of the loop; returns what wakes it.

    Each signal that supervisord handles wakes it too: Python would go on with select(2) after one.
    """
    sockets = options.get_socket_map()
    for descriptor in [each for each, old in sockets.items() if isinstance(old, _Waker)]:
        del sockets[descriptor]  # of before a reload, which has closed it
    waker = _Waker(options, turn)
    sockets[waker.read] = waker
    return waker.wake


class _Waker:
    """One descriptor of the loop (the interface is that of supervisord's dispatchers)."""

    def __init__(self, options: Any, turn: Callable[[], None]) -> None:
        self._log, self._turn = options.logger, turn
        self.read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def wake(self) -> None:
        """The next sleep ends at once."""
        with contextlib.suppress(BlockingIOError):  # full: it ends in any case
            os.write(self._write, b"\0")

    def readable(self) -> bool:
        """Asked in every turn, which makes it the place for what is to be done in each."""
        try:
            self._turn()
        except Exception as error:  # or supervisord would end
            self._log.error(f"planaria: {type(error).__name__}: {error}")
        return True

    def writable(self) -> bool:
        """Never: it is only read from."""
        return False

    def handle_read_event(self) -> None:
        """Forget who woke us."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.read, 4096)

    def handle_error(self) -> None:
        """supervisord calls this when reading failed."""
        self._log.error("planaria: the pipe that wakes supervisord failed")
