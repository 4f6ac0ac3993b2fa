"""Kinds of values that a setting can have: how each is read from text, and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A type of value: how to read it from text, and what is allowed, in words that end "must be ..."."""

    parse: Callable[[str], Any]
    allowed: str


def whole(low: int, high: int, *, even: bool = False) -> Kind:
    """A whole number in [low, high]."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high or (even and value % 2):
            raise ValueError
        return value

    return Kind(parse, f"{'an even' if even else 'a'} whole number from {low} to {high}")


def seconds(low: float, high: float) -> Kind:
    """A finite number of seconds in [low, high]."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # also refuses nan, which compares false
            raise ValueError
        return value

    return Kind(parse, f"seconds from {low:g} to {high:g}")


def one_of(*choices: str) -> Kind:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return Kind(parse, "one of " + ", ".join(choices))


def matching(pattern: str, allowed: str) -> Kind:
    """Text that matches a regular expression as a whole."""
    compiled = re.compile(pattern)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError
        return text

    return Kind(parse, allowed)


def _parse_switch(text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError
    return lowered in ("1", "true", "yes", "on")


_BITRATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([kKmM]?)")


def _parse_bitrate(text: str) -> int:
    match = _BITRATE.fullmatch(text)
    if not match:
        raise ValueError
    value = round(float(match[1]) * {"": 1, "k": 1_000, "m": 1_000_000}[match[2].lower()])
    if not 10_000 <= value <= 200_000_000:
        raise ValueError
    return value


class Address(NamedTuple):
    """A host and a port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host == "::1" or self.host.startswith("127.")


def _parse_address(text: str) -> Address:
    import socket  # here: only programs that listen pay for it

    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not 1 <= int(port) <= 65535:
        raise ValueError
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        return Address(socket.inet_ntop(family, socket.inet_pton(family, bare)), int(port))
    except OSError:
        raise ValueError from None


def _parse_ports(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    found = int(low), int(high if dash else low)
    if not 1024 <= found[0] <= found[1] <= 65535:
        raise ValueError
    return found


SWITCH = Kind(_parse_switch, "1 or 0 (also true, false, yes, no, on, off)")
BITRATE = Kind(_parse_bitrate, "bits per second from 10k to 200M, such as 800k, 2.5M or 6000000")
ADDRESS = Kind(_parse_address, "an IP address and a port, such as 127.0.0.1:1984")
PORTS = Kind(_parse_ports, "two ports from 1024 to 65535, such as 49152-65535")
ALL_PORTS = 49152, 65535  # as long as nobody says which
TEXT = Kind(lambda text: text, "text")
# A stream's name goes into RTSP paths, file names, query strings and a command line, so it is kept plain.
NAME = matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "1 to 64 of A-Z a-z 0-9 _ . -, starting with a letter or digit")
PATH = Kind(lambda text: Path(text).expanduser(), "a path")
