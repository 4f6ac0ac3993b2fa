"""Ping: ICMP echo from where the calling thread is. There is no ping(8) everywhere."""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import NamedTuple

from tests.bench.measure import stolen_s

_ECHO = struct.Struct("!BBHHH")
LOST_S = 1.0


class Ping(NamedTuple):
    """One that was answered. `was_stolen`: the hypervisor gave a processor of ours to others meanwhile."""

    ms: float
    was_stolen: bool


def pings_ms(target: str, count: int, interval_s: float, size: int = 56) -> list[float]:
    """The times of those that were answered within a second, in milliseconds. Needs CAP_NET_RAW."""
    return [ping.ms for ping in pings(target, count, interval_s, size)]


def pings(target: str, count: int, interval_s: float, size: int = 56) -> list[Ping]:
    """The same, and which of them say something about us."""
    found: list[Ping] = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.connect((target, 0))
        for at in range(count):
            before = stolen_s()
            if (took := _one(sock, os.getpid() & 0xFFFF, at, interval_s, size)) is not None:
                found.append(Ping(took, stolen_s() > before))
    return found


def _one(sock: socket.socket, number: int, at: int, interval_s: float, size: int) -> float | None:
    sent_at = time.perf_counter()
    sock.send(_request(number, at, size))
    took = None
    while (left_s := (LOST_S if took is None else interval_s) - (time.perf_counter() - sent_at)) > 0:
        sock.settimeout(left_s)
        try:
            packet = sock.recv(65535)
        except TimeoutError:
            break
        head = (packet[0] & 15) * 4
        if _ECHO.unpack_from(packet, head)[:1] + _ECHO.unpack_from(packet, head)[3:] == (0, number, at):
            took = took or (time.perf_counter() - sent_at) * 1000
    return took


def _request(number: int, at: int, size: int) -> bytes:
    body = bytes(size)
    words = struct.unpack(f"!{4 + size // 2}H", _ECHO.pack(8, 0, 0, number, at) + body)
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    return _ECHO.pack(8, 0, ~(total + (total >> 16)) & 0xFFFF, number, at) + body
