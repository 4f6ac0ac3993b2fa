"""Locks of files, which the kernel frees when their holder dies, however it dies. Imports next to nothing."""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False  # not from `typing`, whose import costs as much as all else here
if TYPE_CHECKING:
    from collections.abc import Callable


def hold(
    path: str | os.PathLike[str], *, number: int | None = None, before_words: Callable[[], None] = lambda: None
) -> int:
    """Take the lock of a file for as long as this process lives, waiting for it if need be; returns the descriptor.

    The kernel frees it at death, however we die. It is a record lock (fcntl(2)), not flock(2): that one would be
    shared with every child that inherits the descriptor, and a child that outlives us would keep our successor out.
    With a `number` the descriptor gets that one and is kept across exec. If it has to wait, it logs that, after calling
    `before_words`.
    """
    descriptor = _open_lock(path, number)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        from procs import log  # here: 10 ms, which go2rtc's start need not pay

        before_words()
        why = (
            "another copy is running; waiting for it to end (make down ends a suite's; PLANARIA_RUN_DIR parts the two)"
        )
        log.info(why, lock=str(path))
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
    return descriptor


def try_hold(path: str | os.PathLike[str]) -> int | None:
    """As `hold`, but None if another process has it."""
    descriptor = _open_lock(path, None)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    return descriptor


def _open_lock(path: str | os.PathLike[str], number: int | None) -> int:
    descriptor = open_file(path, os.O_RDWR)
    if number is None:
        return descriptor
    os.dup2(descriptor, number)
    os.close(descriptor)  # now: closing any descriptor of the file later would give up the lock
    return number


def open_file(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file of ours, made if need be, for this process alone. Never as 0, 1 or 2, which may be closed: what is
    written to stdout must not come to stand in it."""
    flags |= os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    if descriptor > 2:
        return descriptor
    above = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)  # before any lock is taken
    return above
