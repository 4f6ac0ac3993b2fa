"""The cheapest HTTP clients there are, one for each question, and the same for all who are measured.

python -m tests.bench.http_clients drain PORT TARGET TOKEN     downloads it again and again until killed
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from procs import life
from procs.settings import ROOT
from tests import rig

LIMIT_S = 30.0
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class Address(NamedTuple):
    """Something to GET, of somebody on loopback, and the token that goes with it (sent to all, so that all read it)."""

    port: int
    target: str
    token: str

    def request(self) -> bytes:
        """It, as it goes over the wire."""
        return (
            f"GET {self.target} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        ).encode()

    def connect(self) -> socket.socket:
        """A connection, which the caller closes."""
        sock = socket.create_connection(("127.0.0.1", self.port), LIMIT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


class Failed(AssertionError):
    """What came is not what was asked for: no figure can be made of that."""


def _head(sock: socket.socket) -> tuple[bytes, bytes]:
    """(head, what came of the body with it) of a good answer."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        piece = sock.recv(65536)
        if not piece:
            raise Failed("closed before an answer")
        data += piece
    if not data.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        raise Failed(data[:300].decode(errors="replace"))
    return data[:end], data[end + 4 :]


def _length(head: bytes) -> int:
    found = _LENGTH.search(head)
    if found is None:
        raise Failed("an answer without a length")
    return int(found[1])


def gets_ms(address: Address, *, count: int = 0, seconds: float = 0.0) -> list[float]:
    """Milliseconds of each GET on one kept connection: `count` of them, or as many as go into so long."""
    request = address.request()
    times: list[float] = []
    with contextlib.closing(address.connect()) as sock:
        until = time.monotonic() + (seconds or LIMIT_S)
        while (len(times) < count) if count else (time.monotonic() < until):
            began = time.perf_counter()
            sock.sendall(request)
            head, body = _head(sock)
            missing = _length(head) - len(body)
            while missing > 0:
                if not (piece := sock.recv(65536)):
                    raise Failed(f"broke off {missing} bytes before the end")
                missing -= len(piece)
            times.append(1000 * (time.perf_counter() - began))
    return times


def bulk_mb_s(address: Address) -> float:
    """10^6 bytes a second of one download."""
    room = bytearray(1 << 20)
    with contextlib.closing(address.connect()) as sock:
        began = time.perf_counter()
        sock.sendall(address.request())
        head, body = _head(sock)
        size = _length(head)
        missing = size - len(body)
        while missing > 0:
            got = sock.recv_into(room)
            if not got:
                raise Failed(f"broke off {missing} bytes before the end")
            missing -= got
        return size / 1e6 / (time.perf_counter() - began)


def first_bytes_s(addresses: list[Address]) -> list[float]:
    """Seconds to the first byte of the body from each of these, all asked at the same instant."""
    socks = [address.connect() for address in addresses]
    try:
        began = time.perf_counter()
        for sock, address in zip(socks, addresses, strict=True):
            sock.sendall(address.request())
        found: dict[int, float] = {}
        data = dict.fromkeys(range(len(socks)), b"")
        while len(found) < len(socks):
            ready, _, _ = select.select(socks, [], [], LIMIT_S)
            if not ready:
                raise Failed("no first byte")
            for sock in ready:
                at, number = time.perf_counter() - began, socks.index(sock)
                piece = sock.recv(1 << 20)
                data[number] += piece
                if number not in found and data[number].partition(b"\r\n\r\n")[2]:
                    found[number] = at
                if not piece or not data[number].startswith(b"HTTP/1.1 200"[: len(data[number])]):
                    raise Failed(data[number][:300].decode(errors="replace"))
        return [found[number] for number in range(len(socks))]
    finally:
        for sock in socks:
            sock.close()


def rate(address: Address, connections: int, seconds: int) -> float:
    """Answers a second, by wrk."""
    url = f"http://127.0.0.1:{address.port}{address.target}"
    header = f"Authorization: Bearer {address.token}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", header, url]
    said = subprocess.run(command, capture_output=True, text=True, timeout=seconds + LIMIT_S, check=True).stdout
    found = re.search(r"Requests/sec: *([0-9.]+)", said)
    if found is None or re.search(r"Non-2xx|Socket errors", said):
        raise Failed(said)
    return float(found[1])


@contextlib.contextmanager
def draining(address: Address) -> Iterator[None]:
    """Have another process download this, again and again."""
    command = [sys.executable, "-m", "tests.bench.http_clients", "drain", *map(str, address)]
    running = subprocess.Popen(command, cwd=ROOT, env=rig.clean_environ(), stdout=subprocess.PIPE)
    try:
        assert running.stdout and running.stdout.readline(), "no download"
        yield
        assert running.poll() is None, "the download broke off"
    finally:
        running.kill()
        running.communicate()


def main() -> None:
    """Download until killed; a line once the first one is on its way."""
    life.bind_to_parent()
    port, target, token = sys.argv[2:]
    address = Address(int(port), target, token)
    with contextlib.closing(address.connect()) as sock:
        sock.sendall(address.request())
        _head(sock)
        print("downloading", flush=True)
    while True:
        bulk_mb_s(address)


if __name__ == "__main__":
    main()
