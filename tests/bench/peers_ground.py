"""Where the benches of channels and tunnels run: two network namespaces with a wire between them, pairs of agents, and
wireguard-go."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from procs.errors import NotHere
from procs.settings import ROOT
from tests import emulator, nat
from tests.nat import Place
from tests.rig import until

LIMIT_S = 30.0
NEAR, FAR = "10.9.0.1", "10.9.0.2"
WIREGUARD_PORT = 51820


class Wire(NamedTuple):
    """Two places that reach each other at NEAR and FAR."""

    near: Place
    far: Place


def need(*programs: str) -> None:
    """Raises NotHere without these, or what a tunnel needs."""
    for program in ("ip", "nsenter", *programs):
        if not shutil.which(program):
            raise NotHere(f"{program} is missing; sh scripts/setup_tests.sh says how to get it")
    if nat.why_not():
        raise NotHere(nat.why_not())
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise NotHere("/dev/net/tun is missing, or not ours to open")


@contextmanager
def straight() -> Iterator[Wire]:
    """Joined by a veth pair: nothing is in between."""
    with _places() as (near, far):
        words = f"link add wan netns {near.holder.pid} type veth peer name wan netns {far.holder.pid}"
        subprocess.run(["ip", *words.split()], check=True, timeout=LIMIT_S)
        for place, address in ((far, FAR), (near, NEAR)):
            place.ip(f"addr add {address}/24 dev wan", "link set wan up")
        yield Wire(near, far)


@contextmanager
def lossy(loss: float, delay_s: float) -> Iterator[Wire]:
    """Joined by a link that loses packets and delays them, each way."""
    with _places() as (near, far), emulator.link(near, far, "wan", NEAR, FAR) as link:
        link.both(loss=loss, delay_s=delay_s)
        yield Wire(near, far)


@contextmanager
def _places() -> Iterator[tuple[Place, Place]]:
    with ExitStack() as stack:
        places = []
        for name in ("near", "far"):
            place = Place(name)
            stack.callback(place.end)
            places.append(place)
        yield places[0], places[1]


class Pair:
    """Two connected ends (peer_end.py)."""

    def __init__(self, offering: subprocess.Popen[str], answering: subprocess.Popen[str]) -> None:
        self.ends = (offering, answering)
        for giver, taker in (self.ends, self.ends[::-1]):
            _tell(taker, _line(giver))
        for end in self.ends:
            assert _line(end) == "ready"

    def asked(self, what: str, much: float) -> Any:
        """What the offering end has measured."""
        _tell(self.ends[0], [what, much])
        return _line(self.ends[0])


def _line(end: subprocess.Popen[str]) -> Any:
    assert end.stdout
    line = end.stdout.readline()
    assert line, "an end has died"
    return json.loads(line)


def _tell(end: subprocess.Popen[str], what: Any) -> None:
    assert end.stdin
    end.stdin.write(json.dumps(what) + "\n")
    end.stdin.flush()


@contextmanager
def pair(wire: Wire, kind: str, tunnel: Sequence[tuple[str, str, int]] = ()) -> Iterator[Pair]:
    """Two ends of this kind. `tunnel`: name, address and MTU of the interface of each."""
    ends: list[subprocess.Popen[str]] = []
    try:
        for at, (place, role) in enumerate(((wire.near, "offer"), (wire.far, "answer"))):
            words = [sys.executable, "-m", "tests.bench.peer_end", kind, role]
            with _interface(place, *tunnel[at]) if tunnel else contextlib.nullcontext() as tun:
                words += [] if tun is None else [str(tun)]
                passed = [] if tun is None else [tun]
                end = subprocess.Popen(place.command(*words), cwd=ROOT, stdin=-1, stdout=-1, text=True, pass_fds=passed)
            ends.append(end)
        yield Pair(ends[0], ends[1])
    finally:
        for end in ends:
            end.kill()
            end.communicate()


@contextmanager
def _interface(place: Place, name: str, address: str, mtu: int) -> Iterator[int]:
    """A TUN, which whoever has taken over its descriptor keeps."""
    descriptor = emulator._tun(place, name)
    try:
        _configure(place, name, address, mtu)
        yield descriptor
    finally:
        os.close(descriptor)


def _configure(place: Place, name: str, address: str, mtu: int) -> None:
    place.ip(f"link set {name} mtu {mtu} txqueuelen 500", f"addr add {address}/24 dev {name}", f"link set {name} up")


@contextmanager
def wireguard(wire: Wire, tunnel: Sequence[tuple[str, str, int]]) -> Iterator[None]:
    """wireguard-go, with keys of its own. The names have to differ: its control sockets lie in one folder."""
    processes: list[subprocess.Popen[bytes]] = []
    keys = [(secret := _said(["wg", "genkey"]), _said(["wg", "pubkey"], secret)) for _ in range(2)]
    try:
        for at, place in enumerate(wire):
            name, address, mtu = tunnel[at]
            command = place.command("wireguard-go", "-f", name)
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            until(Path(f"/var/run/wireguard/{name}.sock").exists, LIMIT_S)
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(keys[at][0])
                file.flush()
                place.run(
                    *("wg", "set", name, "listen-port", str(WIREGUARD_PORT), "private-key", file.name),
                    *("peer", keys[1 - at][1], "allowed-ips", "0.0.0.0/0"),
                    *("endpoint", f"{(NEAR, FAR)[1 - at]}:{WIREGUARD_PORT}"),
                )
            _configure(place, name, address, mtu)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for name, _, _ in tunnel:
            Path(f"/var/run/wireguard/{name}.sock").unlink(missing_ok=True)


def _said(words: list[str], stdin: str = "") -> str:
    return subprocess.run(
        words, input=stdin, capture_output=True, text=True, check=True, timeout=LIMIT_S
    ).stdout.strip()


def iperf(wire: Wire, target: str, seconds: float, *more: str) -> dict[str, Any]:
    """What iperf3 says of a run from near to an address of far: of whole seconds, which are all that it knows."""
    server = subprocess.Popen(wire.far.command("iperf3", "-s", "-1", "-B", target), stdout=subprocess.DEVNULL)
    try:
        until(lambda: "LISTEN" in wire.far.run("ss", "-Htln", f"src = {target}"), LIMIT_S)
        said = wire.near.command("iperf3", "-c", target, "-J", "-t", str(max(1, round(seconds))), *more)
        done = subprocess.run(said, capture_output=True, text=True, timeout=seconds + LIMIT_S, check=False)
        report: dict[str, Any] = json.loads(done.stdout)
        assert "error" not in report, report["error"]
        end: dict[str, Any] = report["end"]
        return end
    finally:
        server.kill()
        server.wait()
