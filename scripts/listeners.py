"""Who listens at an address, read from /proc (source: proc(5), /proc/net/tcp)."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import socket
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from procs.errors import ConfigError
from procs.kinds import Address

LET_GO_S = 3.0
LOOK_EVERY_S = 0.05


class Listener(NamedTuple):
    """One of ours, and how its address is set."""

    key: str  # in planaria.yaml, "" for what has none there
    variable: str
    address: Address
    tcp: bool = True
    udp: bool = False

    def __str__(self) -> str:
        """As an error has it."""
        said = f"{self.key}={self.address} (planaria.yaml, or {self.variable})"
        return said if self.key else f"{self.variable}={self.address}"

    def meets(self, other: Listener) -> bool:
        """Whether only one of the two can listen."""
        hosts, kinds = {self.address.host, other.address.host}, (self.tcp and other.tcp, self.udp and other.udp)
        is_same = len(hosts) == 1 or "::" in hosts or ("0.0.0.0" in hosts and not any(":" in each for each in hosts))
        return self.address.port == other.address.port and any(kinds) and is_same


def refuse_shared(ours: Collection[Listener]) -> None:
    """Raise ConfigError if two of ours are to listen at the same place."""
    for one, other in itertools.combinations(ours, 2):
        if one.meets(other):
            raise ConfigError(
                f"{one} and {other}: only one of them can listen there; choose another port for the other"
            )


def refuse_taken(wanted: Listener, ours: Collection[int] = ()) -> None:
    """Raise ConfigError if somebody listens at an address already, and say who. `ours`: pids that may.

    One at which nobody listens, or a socket of nobody's, is tried again for a moment: the kernel is not yet done with
    connections of before, or with a process that ends: that has given up its descriptors before its sockets close.
    """
    address = wanted.address
    kinds = [socket.SOCK_STREAM] * wanted.tcp + [socket.SOCK_DGRAM] * wanted.udp
    until = time.monotonic() + LET_GO_S
    for kind in kinds:
        while why := _why_not_bound(address, kind):
            holder = listener(address)
            if holder is not None and holder in ours:
                break
            if not holder and time.monotonic() < until:
                time.sleep(LOOK_EVERY_S)
                continue
            raise ConfigError(f"{wanted}: {why}{described(holder)}; choose another port")


def _why_not_bound(address: Address, kind: int) -> str:
    """Why a socket can't have an address; "" if it can."""
    with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or a port in TIME_WAIT would look taken
        try:
            probe.bind(tuple(address))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def listener(address: Address, likely: int = 0) -> int | None:
    """Pid of the process that listens at a TCP address or at all of its host; None if nobody does, 0 if we may not know
    who. `likely` is looked at first: reading every process takes a while on a busy machine."""
    inodes = _listening_inodes(address)
    if not inodes:
        return None
    for pid in [likely, *map(int, filter(str.isdigit, os.listdir("/proc")))]:
        if _holds(pid, inodes):
            return pid
    return 0


def _holds(pid: int, inodes: set[str]) -> bool:
    """Whether a process has one of these sockets open, as far as we may know."""
    with contextlib.suppress(OSError):  # it is gone meanwhile, or somebody else's
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # this one was closed meanwhile
                if os.readlink(f"/proc/{pid}/fd/{number}") in inodes:
                    return True
    return False


def _listening_inodes(address: Address) -> set[str]:
    """The sockets that would answer at an address, as /proc/PID/fd names them (source: proc(5), /proc/net/tcp)."""
    host = ipaddress.ip_address(address.host)
    wanted = {_hexadecimal(host), "0" * 8, "0" * 32}  # itself, and the two wildcards
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(table).read_text().splitlines()[1:] if Path(table).exists() else []:
            local, state, inode = (row.split()[column] for column in (1, 3, 9))
            if state == "0A" and local.split(":") in [[h, f"{address.port:04X}"] for h in wanted]:
                found.add(f"socket:[{inode}]")
    return found


def _hexadecimal(host: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address as the kernel prints it: 32-bit words in the machine's own byte order."""
    words = [host.packed[at : at + 4] for at in range(0, len(host.packed), 4)]
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def described(pid: int | None) -> str:
    """A process in words for an error."""
    try:
        return f" by pid {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})" if pid else ""
    except OSError:
        return ""
