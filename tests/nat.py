"""A small internet of network namespaces: hub, TURN server, and device and viewer each at home behind a NAT.

    device 10.1.0.2 -- 10.1.0.1 NAT 203.0.113.31 --+
    viewer 10.2.0.2 -- 10.2.0.1 NAT 203.0.113.41 --+-- the internet --+-- 203.0.113.11 hub
                                                                      +-- 203.0.113.21 coturn

Each namespace lives as long as its holder, a process that dies with the test (PR_SET_PDEATHSIG) or after an hour; with
it go its interfaces, addresses and rules. Nothing has a name that could stay behind. Needs root, ip, nft, nsenter.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import hmac
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig import until

HUB, TURN = "203.0.113.11", "203.0.113.21"
MIDDLE = "203.0.113.1"  # the other end of each wire to the internet
TURN_PORT = 3478
LIMIT_S = 10.0
HELD_S = "3600"
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

# What a router at home does. Cone: a port of the inside keeps its number outside, whoever it speaks to, so that two can
# punch holes towards each other. Symmetric: another port for each peer, which leaves them only TURN.
# Nobody is told that an unknown packet was dropped, and it leaves no trace: one that came too early would otherwise
# take the very port that the answer to it needs.
_NAT = """
flush ruleset
table ip nat {{
  chain out {{ type nat hook postrouting priority srcnat; oifname "wan" masquerade {how}; }}
  chain in {{ type filter hook input priority filter; iifname "wan" ct state != established drop; }}
  chain through {{
    type filter hook forward priority filter; iifname "wan" ct state new drop;
    udp dport 53 reject; # nobody has a name here; who asks is told at once
  }}
}}
"""
# The hub listens on its loopback alone, and is asked at the same address everywhere: a page is trusted by a browser as
# much as on the machine itself, and nothing of the hub's rules for strangers comes into play.
_HUB_HERE = """
flush ruleset
table ip hub {{
  chain in {{ type nat hook prerouting priority dstnat; iifname "wan" tcp dport {port} dnat to 127.0.0.1:{port}; }}
}}
"""
_HUB_THERE = """
flush ruleset
table ip hub {{
  chain out {{ type nat hook output priority -100; ip daddr 127.0.0.1 tcp dport {port} dnat to {hub}:{port}; }}
  chain masked {{ type nat hook postrouting priority srcnat; ip saddr 127.0.0.1 oifname "wan" masquerade; }}
}}
"""


def why_not() -> str:
    """Why there can be none here; empty if there can."""
    return "" if os.geteuid() == 0 else "network namespaces are made by root"


@dataclass
class Place:
    """A network namespace, with `lo` up. Its way to the others is called `wan`."""

    name: str
    holder: subprocess.Popen[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        words = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", HELD_S]
        self.holder = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        until(self._is_apart, LIMIT_S, 0.002)
        self.ip("link set lo up")

    def _is_apart(self) -> bool:
        """Whether the holder has left our namespace, and is through with what it was started by."""
        with contextlib.suppress(OSError):
            comm = Path(f"/proc/{self.holder.pid}/comm").read_text().strip()
            return comm == "sleep" and os.stat(self._file).st_ino != os.stat("/proc/self/ns/net").st_ino
        return False

    @property
    def _file(self) -> str:
        return f"/proc/{self.holder.pid}/ns/net"

    def command(self, *words: str) -> list[str]:
        """The same command, run here."""
        return ["nsenter", f"--net={self._file}", "--", *words]

    def run(self, *words: str, stdin: str = "") -> str:
        """Run a command here, to its end. Fails the test when it fails; gives what it printed."""
        done = subprocess.run(
            self.command(*words), input=stdin, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, f"{self.name}: {words}: {done.stderr}"
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Commands of ip(8)."""
        self.run("ip", "-batch", "-", stdin="\n".join(lines))

    def rules(self, text: str) -> None:
        """Rules of nft(8)."""
        self.run("nft", "-f", "-", stdin=text)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is here, and so is what it starts: processes, threads, sockets. Those that are, stay where they
        are."""
        with open("/proc/thread-self/ns/net") as before, open(self._file) as here:
            enter(here.fileno())
            try:
                yield
            finally:
                enter(before.fileno())

    def wrapper(self, folder: Path, program: str) -> Path:
        """A program for those who start it by a path alone, which runs it here."""
        path = folder / f"{self.name}-{Path(program).name}"
        path.write_text(f'#!/bin/sh\nexec nsenter --net={self._file} -- {program} "$@"\n')
        path.chmod(0o755)
        return path

    def set(self, name: str) -> None:
        """Switch something of the network on."""
        with self.entered():
            Path("/proc/sys/net/ipv4", name).write_text("1")

    def end(self) -> None:
        """All that is left here has no network any more."""
        self.holder.kill()
        self.holder.wait()


def enter(descriptor: int) -> None:
    """This thread is in that network from now on, and so is what it starts."""
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def join(near: Place, far: Place, far_name: str, near_address: str, far_address: str) -> None:
    """A wire from near, where it is the way out, to far."""
    peers = f"type veth peer name {far_name} netns {far.holder.pid}"
    subprocess.run(
        ["ip", "link", "add", "wan", "netns", str(near.holder.pid), *peers.split()], check=True, timeout=LIMIT_S
    )
    # The far end first: without it there is no carrier, and no route.
    far.ip(f"addr add {far_address} peer {near_address} dev {far_name}", f"link set {far_name} up")
    near.ip(
        f"addr add {near_address} peer {far_address} dev wan", "link set wan up", f"route add default via {far_address}"
    )


class World:
    """All of it. Homes are behind cone NATs until something else is said."""

    def __init__(self) -> None:
        self.internet, self.hub, self.turn = Place("internet"), Place("hub"), Place("turn")
        self.device_nat, self.viewer_nat = Place("device_nat"), Place("viewer_nat")
        self.device, self.viewer = Place("device"), Place("viewer")
        join(self.hub, self.internet, "hub", HUB, MIDDLE)
        join(self.turn, self.internet, "turn", TURN, MIDDLE)
        join(self.device_nat, self.internet, "device", "203.0.113.31", MIDDLE)
        join(self.viewer_nat, self.internet, "viewer", "203.0.113.41", MIDDLE)
        join(self.device, self.device_nat, "home", "10.1.0.2", "10.1.0.1")
        join(self.viewer, self.viewer_nat, "home", "10.2.0.2", "10.2.0.1")
        for router in (self.internet, self.device_nat, self.viewer_nat):
            router.set("ip_forward")
        self.nat()

    @property
    def places(self) -> list[Place]:
        """Each namespace."""
        return [each for each in vars(self).values() if isinstance(each, Place)]

    def nat(self, *, symmetric: bool = False) -> None:
        """What both routers do with connections from now on. Symmetric: nothing but TURN leads through."""
        for router in (self.device_nat, self.viewer_nat):
            router.rules(_NAT.format(how="fully-random" if symmetric else ""))

    def publish(self, port: int, *others: Place) -> None:
        """Have the hub's loopback port answer at 127.0.0.1 of both homes, by way of their NATs, and of these."""
        for place in (self.hub, self.device, self.viewer, *others):
            place.set("conf/wan/route_localnet")
            place.rules((_HUB_HERE if place is self.hub else _HUB_THERE).format(port=port, hub=HUB))


@contextmanager
def world() -> Iterator[World]:
    """A world, until the end of the test."""
    made = World()
    try:
        yield made
    finally:
        for place in made.places:
            place.end()


@dataclass
class Turn:
    """A running coturn, for STUN and TURN."""

    process: subprocess.Popen[bytes]
    log: Path
    secret: str

    stun_url = f"stun:{TURN}:{TURN_PORT}"
    url = f"turn:{TURN}:{TURN_PORT}?transport=udp"

    def credentials(self, name: str = "test", ttl_s: int = 3600) -> tuple[str, str]:
        """What the hub is to make of the secret (coturn's REST API)."""
        username = f"{int(time.time()) + ttl_s}:{name}"
        digest = hmac.digest(self.secret.encode(), username.encode(), hashlib.sha1)
        return username, base64.b64encode(digest).decode()

    @property
    def allocations(self) -> int:
        """How many have been made."""
        return self.log.read_text().count("new, realm")


@contextmanager
def turn(where: Place, folder: Path, secret: str = "the secret of TURN") -> Iterator[Turn]:
    """coturn as it is set up beside a hub."""
    log = folder / "coturn.log"
    words = [
        "turnserver", "-n", "--log-file=stdout", "--simple-log", "--verbose", f"--pidfile={folder}/coturn.pid",
        f"--userdb={folder}/turndb", f"--listening-ip={TURN}", f"--relay-ip={TURN}", f"--listening-port={TURN_PORT}",
        "--no-tls", "--no-dtls", "--no-cli", "--realm=planaria", "--use-auth-secret", f"--static-auth-secret={secret}",
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(where.command(*words), stdout=out, stderr=out)
    try:
        with where.entered():
            until(_answers, LIMIT_S)
        yield Turn(process, log, secret)
    finally:
        process.kill()
        process.wait()


def _answers() -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((TURN, TURN_PORT), timeout=1).close()
        return True
    return False
