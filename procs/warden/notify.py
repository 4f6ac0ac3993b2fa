"""What systemd wants to hear (sd_notify(3)): that the suite is ready, and that supervisord lives."""

from __future__ import annotations

import contextlib
import socket


class Notifier:
    """Speaks to NOTIFY_SOCKET where there is one."""

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def ready(self) -> None:
        """go2rtc serves."""
        self._say(b"READY=1")

    def watchdog(self) -> None:
        """supervisord has given a sign. systemd restarts everything when none comes for the unit's WatchdogSec."""
        self._say(b"WATCHDOG=1")

    def _say(self, text: bytes) -> None:
        if self._address:
            # An error is nobody there, or nobody who listens: systemd draws its own conclusions.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
                sock.setblocking(False)
                sock.sendto(text, self._address)
