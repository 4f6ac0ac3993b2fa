"""A stranger who floods the port of a tunnel: records that nobody has sealed, and such as somebody has sent before.

`python -m tests.flooding HOST PORT RATE SECONDS` sends the datagrams that it gets on stdin (all of one length, behind
each other, the length first) again and again, and says how many went out. UDP_SEGMENT, so that the flood costs its
receiver and not its sender: whoever measures has both on one machine.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from procs import prctl
from procs.settings import ROOT
from tests.nat import Place

FIRST = b"\xf1"  # of a record (procs/wire/records.py)
KINDS = ("unknown", "forged", "replayed")
HEAD = struct.Struct(">BIQ")  # first byte, index, counter
HERE, THERE = "10.9.1.1", "10.9.1.2"  # the stranger's, and the flooded side's towards it
LIMIT_S = 10.0
MANY, SIZE = 6400, 64  # different datagrams, and the length of the made ones
_UDP_SEGMENT, _AT_ONCE = 103, 64
_SOL_PACKET, _PACKET_VNET_HDR, _VNET = 263, 15, struct.Struct("<BBHHHH")
_ETHERNET, _UDP, _IPV4 = 14, 8, 0x0800


@contextmanager
def stranger(flooded: Place) -> Iterator[Place]:
    """A machine that reaches the flooded one at THERE, and takes no part in anything."""
    place = Place("stranger")
    try:
        words = f"link add wan netns {place.holder.pid} type veth peer name stranger netns {flooded.holder.pid}"
        subprocess.run(["ip", *words.split()], check=True, timeout=LIMIT_S)
        flooded.ip(f"addr add {THERE}/24 dev stranger", "link set stranger up")
        place.ip(f"addr add {HERE}/24 dev wan", "link set wan up")
        yield place
    finally:
        place.end()


def captured(place: Place, port: int, seconds: float, name: str = "wan") -> list[bytes]:
    """Records that come to this port there, as they are on the wire."""
    with place.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    found: list[bytes] = []
    with sock:
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)  # which tells how those that came joined are to be cut
        sock.bind((name, _IPV4))
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            sock.settimeout(left_s)
            try:
                found += _records(sock.recv(1 << 17), port)
            except TimeoutError:
                break
    return found


def _records(frame: bytes, port: int) -> list[bytes]:
    step = _VNET.unpack_from(frame)[3]
    packet = frame[_VNET.size + _ETHERNET :]
    at = (packet[0] & 15) * 4
    if packet[9] != socket.IPPROTO_UDP or struct.unpack_from(">H", packet, at + 2)[0] != port:
        return []
    joined = packet[at + _UDP : at + struct.unpack_from(">H", packet, at + 4)[0]]
    step = step or max(1, len(joined))
    cut = [joined[start : start + step] for start in range(0, len(joined), step)]
    return [each for each in cut if each[:1] == FIRST]


def bogus(kind: str, real: Sequence[bytes]) -> list[bytes]:
    """Records of that kind, all of one length. `real`: some that the flooded side has been sent."""
    size, _ = Counter(map(len, real)).most_common(1)[0]
    if kind == "replayed":
        return [each for each in real if len(each) == size]
    _, index, counter = max(HEAD.unpack_from(each) for each in real)
    index = index if kind == "forged" else index ^ 0x5A5A5A5A
    junk = SIZE - HEAD.size  # under counters that are yet to come: what is old is not even opened
    return [HEAD.pack(FIRST[0], index, counter + (1 << 20) + at) + os.urandom(junk) for at in range(MANY)]


@contextmanager
def flooding(
    place: Place, to: tuple[str, int], datagrams: Sequence[bytes], rate: float, s: float
) -> Iterator[Flooding]:
    """The stranger at work, meanwhile."""
    words = [sys.executable, "-m", "tests.flooding", to[0], str(to[1]), str(rate), str(s)]
    process = subprocess.Popen(place.command(*words), cwd=ROOT, stdin=-1, stdout=-1)
    try:
        assert process.stdin
        process.stdin.write(struct.pack(">H", len(datagrams[0])) + b"".join(datagrams))
        process.stdin.close()
        yield Flooding(process)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


class Flooding:
    """One that goes on."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def sent(self) -> int:
        """How many datagrams that were, once it is over."""
        assert self._process.stdout
        return int(json.loads(self._process.stdout.readline()))


def drops(place: Place, port: int) -> int:
    """How often the socket of that port there had no room, up to now."""
    with place.entered():
        lines = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[-1]) for line in lines if int(line.split()[1].partition(":")[2], 16) == port)


def main() -> None:
    """Send."""
    prctl.bind_to_parent()
    host, port, rate, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    data = sys.stdin.buffer.read()
    (step,) = struct.unpack_from(">H", data)
    runs = _runs(data[2:], step)
    sent, at = 0, 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, port))
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, step)
        since = time.monotonic()
        while (now := time.monotonic() - since) < seconds:
            while sent < rate * now:
                run = runs[at % len(runs)]
                sock.send(run)
                sent, at = sent + len(run) // step, at + 1
            time.sleep(0.001)
    print(json.dumps(sent), flush=True)


def _runs(joined: bytes, step: int) -> list[bytes]:
    size = step * max(1, min(_AT_ONCE, 64_000 // step))
    return [joined[at : at + size] for at in range(0, len(joined), size)]


if __name__ == "__main__":
    main()
