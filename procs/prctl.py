"""What the kernel does for a process and its relatives (prctl(2)). Imports next to nothing: it is for first lines."""

from __future__ import annotations

import os

from procs.errors import ParentGone

SIGKILL = 9  # not from `signal`, whose import costs a quick starter 4 ms
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522


def bind_to_parent(parent: int = 0, number: int = SIGKILL) -> bool:
    """Have the kernel send us a signal when our parent dies. To be called on the first line, and again after each fork.

    The signal is armed for a parent that is still there, so one that died before this call must be noticed here:
    by `parent`, the pid that it has, or by PLANARIA_PARENT, the pid that a wrapper saw. Raises ParentGone. Returns
    whether our parent is our suite's supervisord.
    """
    now = os.getppid()
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, number)
    told = os.environ.pop("PLANARIA_PARENT", "")  # popped: our children have another parent
    supervised = os.environ.pop("SUPERVISOR_ENABLED", "") and "PLANARIA_SUITE" in os.environ
    parent = parent or (int(told) if told.isdigit() else now)
    if not os.getppid() == now == parent or (supervised and not _is_supervisord(now)):
        raise ParentGone(f"parent {parent} died while we started")
    return bool(supervised)


def _is_supervisord(pid: int) -> bool:
    """Whether our parent is the one that started us: if it died at once, even a wrapper saw only who came after it."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"supervisord" in file.read()
    except OSError:
        return False


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none escapes. Not inherited by children."""
    _prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)


def drop_privileges() -> None:
    """Have none of root's capabilities any more, nor get them by what is started. Only this thread and those that it
    starts from now on: to be called before there are others. Who it runs as stays the same."""
    import ctypes

    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(name: str, option: int, value: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise ParentGone(f"prctl({name}) failed: {os.strerror(ctypes.get_errno())}")
