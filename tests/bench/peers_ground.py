"""Where the benches of channels and tunnels run: two network namespaces with a wire between them, pairs of agents, and
wireguard-go."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from procs.errors import NotHere
from procs.settings import ROOT
from tests import emulator, nat
from tests.bench.ends import OFFER
from tests.nat import Place
from tests.rig import until

LIMIT_S = 30.0
ASKED_S = 90.0
NEAR, FAR = "10.9.0.1", "10.9.0.2"
WIREGUARD_PORT = 51820
MORTAL = ("setpriv", "--pdeathsig", "KILL")  # what is not ours dies with us, too


class Wire(NamedTuple):
    """Two places that reach each other at NEAR and FAR."""

    near: Place
    far: Place


def need(*programs: str) -> None:
    """Raises NotHere without these, or what a tunnel needs."""
    for program in ("ip", "nsenter", "setpriv", *programs):
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
def lossy(loss: float, delay_s: float) -> Iterator[tuple[Wire, emulator.Link]]:
    """Joined by a link that loses packets and delays them, each way."""
    with _places() as (near, far), emulator.link(near, far, "wan", NEAR, FAR) as link:
        link.both(loss=loss, delay_s=delay_s)
        yield Wire(near, far), link


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
    """Two connected ends (ends.py), whose words for each other are handed on."""

    def __init__(self, ends: Sequence[subprocess.Popen[str]]) -> None:
        self._ends = ends
        self._answers: list[queue.Queue[Any]] = [queue.Queue(), queue.Queue()]
        for at in range(2):
            threading.Thread(target=self._hear, args=(at,), daemon=True).start()
        for answers in self._answers:
            assert answers.get(timeout=LIMIT_S) == "ready", "an end has died"

    @property
    def pids(self) -> list[int]:
        """Of both."""
        return [end.pid for end in self._ends]

    def asked(self, what: str, much: float = 0, at: int = 0) -> Any:
        """What an end has measured, the offering one if not the other (1)."""
        self._tell(at, json.dumps([what, much]) + "\n")
        return self._answers[at].get(timeout=ASKED_S)

    def _hear(self, at: int) -> None:
        for line in self._ends[at].stdout or ():
            if line.startswith("{"):
                self._tell(1 - at, line)
            else:
                self._answers[at].put(json.loads(line))
        self._answers[at].put(None)

    def _tell(self, at: int, line: str) -> None:
        with contextlib.suppress(OSError):  # it has died, which is said elsewhere
            stdin = self._ends[at].stdin
            assert stdin
            stdin.write(line)
            stdin.flush()


@contextmanager
def pair(
    wire: Wire, program: Sequence[str], tunnel: Sequence[tuple[str, str, int]] = (), far: Sequence[str] = ()
) -> Iterator[Pair]:
    """Two ends of this kind, a module of this folder and its words, or the far one of another. `tunnel`: name, address
    and MTU, at each end."""
    with tempfile.TemporaryDirectory(prefix="planaria-bench-") as folder, ExitStack() as stack:
        environ = {**os.environ, "TMPDIR": folder}  # they are killed, and leave what they have there
        ends: list[subprocess.Popen[str]] = []
        for at, (place, role) in enumerate(((wire.near, OFFER), (wire.far, "answer"))):
            module, *words = (program, far or program)[at]
            name, address, mtu = tunnel[at] if tunnel else ("", "", 0)
            interface = [name, f"{address}/24", str(mtu)] if tunnel else []
            command = place.command(sys.executable, "-m", f"tests.bench.{module}", role, *words, *interface)
            ends.append(subprocess.Popen(command, cwd=ROOT, env=environ, stdin=-1, stdout=-1, text=True))
            stack.callback(_end, ends[-1])
        yield Pair(ends)


def _end(end: subprocess.Popen[str]) -> None:
    end.kill()
    end.wait()
    for pipe in (end.stdin, end.stdout):
        with contextlib.suppress(OSError):  # what was still to be said to it
            assert pipe
            pipe.close()


def _configure(place: Place, name: str, address: str, mtu: int) -> None:
    place.ip(f"link set {name} mtu {mtu} txqueuelen 500", f"addr add {address}/24 dev {name}", f"link set {name} up")


@contextmanager
def wireguard(wire: Wire, tunnel: Sequence[tuple[str, str, int]]) -> Iterator[list[int]]:
    """wireguard-go at both ends, with keys of its own, and their pids. The names have to differ: its control sockets
    lie in one folder."""
    processes: list[subprocess.Popen[bytes]] = []
    keys = [(secret := _said(["wg", "genkey"]), _said(["wg", "pubkey"], secret)) for _ in range(2)]
    try:
        for at, place in enumerate(wire):
            name, address, mtu = tunnel[at]
            command = [*MORTAL, *place.command("wireguard-go", "-f", name)]
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
        yield [process.pid for process in processes]
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
    command = [*MORTAL, *wire.far.command("iperf3", "-s", "-1", "-B", target)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: "LISTEN" in wire.far.run("ss", "-Htln", "sport = 5201"), LIMIT_S)
        said = wire.near.command("iperf3", "-c", target, "-J", "-t", str(max(1, round(seconds))), *more)
        done = subprocess.run(said, capture_output=True, text=True, timeout=seconds + LIMIT_S, check=False)
        report: dict[str, Any] = json.loads(done.stdout)
        assert "error" not in report, report["error"]
        end: dict[str, Any] = report["end"]
        return end
    finally:
        server.kill()
        server.wait()
