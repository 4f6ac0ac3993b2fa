"""A network of its own for what a test starts: Chromium has an address for WebRTC only where there is a default route.

The calling thread moves into a new network namespace and back; threads and processes that it starts in between stay
there. The namespace is gone with the last of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator

ADDRESS = "10.77.0.1"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def lone_network() -> Iterator[str]:
    """Yields the address of this end of its one link."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        _ip("link set lo up")
        _ip("link add near type veth peer name far")
        _ip(f"address add {ADDRESS}/24 dev near")
        _ip("link set near up")
        _ip("link set far up")
        _ip("route add default dev near")
        yield ADDRESS
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET))
        os.close(home)


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, timeout=10)


def _check(result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
