"""Which UDP port is ours. One that nobody has named is picked once and kept: peers go on sending to it while a new life
of ours begins, and a firewall may have been told of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from procs import log
from procs.agent.network import Tunnel
from procs.errors import ConfigError

KEPT = "tun_pump.port"  # in run/
BUSY_S = 1.0  # for the kernel to let go of what a killed process had


class Numbered(Protocol):
    """A port."""

    @property
    def number(self) -> int:
        """Its number."""


T = TypeVar("T", bound=Numbered)


def bound(tunnel: Tunnel, run_dir: Path, make: Callable[[int], T]) -> T:
    """The port that is to be had; `make` gives that of a number, for 0 any that is free in the range. Raises
    ConfigError, as `make` does."""
    if tunnel.port:
        return _patient(tunnel.port, make)
    kept, (low, high) = run_dir / KEPT, tunnel.udp_range
    number = _read(kept)
    if low <= number <= high:
        try:
            return _patient(number, make)
        except ConfigError as error:
            log.warning("the tunnel has another UDP port now: the old one is not to be had", why=str(error))
    port = make(0)
    _keep(kept, port.number)
    return port


def _patient(number: int, make: Callable[[int], T]) -> T:
    until = time.monotonic() + BUSY_S
    while True:
        try:
            return make(number)
        except ConfigError:
            if time.monotonic() > until:
                raise
        time.sleep(0.01)


def _read(kept: Path) -> int:
    try:
        return int(kept.read_text())
    except (OSError, ValueError):  # there is none yet
        return 0


def _keep(kept: Path, number: int) -> None:
    """Whole or not at all. Lost with the machine's power, it is picked again; so it is where the disk is full."""
    beside = kept.with_suffix(".new")
    try:
        beside.write_text(str(number))
        os.replace(beside, kept)
    except OSError as error:
        log.warning("the tunnel's UDP port can't be kept: it is another after the next start", why=str(error))
