"""What is carried from one network namespace to another while something happens to what carries it: TCP by iperf3 and
a session of ssh, neither of which knows of us."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from procs import proc
from tests.nat import Place
from tests.rig import clean_environ, free_port, until

LIMIT_S = 40.0
LOOK_S = 0.1  # the least that iperf3 can do
_INTERVAL = re.compile(rb"([\d.]+) +Kbits/sec")
SSHD = """
ListenAddress {address}:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
"""


class Flow:
    """Something that goes on until it is ended. `passed` grows while it does."""

    def __init__(self, name: str, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self.name, self._processes = name, processes
        self.passed, self._gap_s, self._last = 0.0, 0.0, time.monotonic()

    def began(self) -> None:
        """Have `stall_s` be the longest pause from now on."""
        self._gap_s, self._last = 0.0, time.monotonic()

    @property
    def stall_s(self) -> float:
        """The longest pause, also the one that is not over."""
        return max(self._gap_s, time.monotonic() - self._last)

    @property
    def is_alive(self) -> bool:
        """Whether neither end has given up."""
        return all(process.poll() is None for process in self._processes)

    def _came(self, much: float) -> None:
        now = time.monotonic()
        self._gap_s, self._last = max(self._gap_s, now - self._last), now
        self.passed += much


class Iperf(Flow):
    """One TCP connection of iperf3, as the receiving end sees it, in tenths of a second. `passed` in bytes."""

    def __init__(self, server: subprocess.Popen[bytes], client: subprocess.Popen[bytes]) -> None:
        super().__init__("iperf3", (server, client))
        threading.Thread(target=self._read, args=(server,), daemon=True).start()

    def _read(self, server: subprocess.Popen[bytes]) -> None:
        for line in server.stdout or ():
            if (found := _INTERVAL.search(line)) and (kbit_s := float(found[1])):
                self._came(kbit_s * 1000 / 8 * LOOK_S)


class Ssh(Flow):
    """A session of ssh in which somebody types, and sees it come back. `passed` in lines."""

    def __init__(self, server: subprocess.Popen[bytes], client: subprocess.Popen[bytes]) -> None:
        super().__init__("ssh", (server, client))
        self._client = client
        for work in (self._type, self._see):
            threading.Thread(target=work, daemon=True).start()

    def _type(self) -> None:
        assert self._client.stdin
        number = 0
        with contextlib.suppress(OSError, ValueError):  # it is over
            while True:
                self._client.stdin.write(b"%d\n" % number)
                self._client.stdin.flush()
                number += 1
                time.sleep(0.05)

    def _see(self) -> None:
        for number, line in enumerate(self._client.stdout or ()):
            assert int(line) == number, "something is missing"
            self._came(1)


@contextmanager
def iperf(near: Place, far: Place, address: str, rate: str = "20M") -> Iterator[Iperf]:
    """From near to this address of far, no faster than that: it is for seeing pauses."""
    port = free_port()
    words: tuple[str, ...] = ("iperf3", "-s", "-1", "-B", address, "-p", str(port))
    words += ("-i", str(LOOK_S), "-f", "k", "--forceflush")
    with _started(far.command(*words)) as server:
        until(lambda: _listens(far, port), LIMIT_S, 0.1)
        words = ("iperf3", "-c", address, "-p", str(port), "-t", "86400", "-b", rate, "-i", "0")
        with _started(near.command(*words)) as client:
            flow = Iperf(server, client)
            until(lambda: flow.passed, LIMIT_S)
            yield flow


@contextmanager
def ssh(near: Place, far: Place, address: str, folder: Path) -> Iterator[Ssh]:
    """From near to an sshd of our own at this address of far."""
    port = free_port()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    listens = f"[{address}]" if ":" in address else address
    (folder / "sshd.conf").write_text(SSHD.format(address=listens, port=port, folder=folder))
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it
    log = folder / "sshd.log"
    words = (shutil.which("sshd") or "sshd", "-D", "-E", str(log), "-f", str(folder / "sshd.conf"))
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "BatchMode=yes")
    client = ["ssh", "-F", "/dev/null", "-q", "-p", str(port), "-i", str(folder / "user")]
    client += [word for each in options for word in ("-o", each)]
    with _started(far.command(*words)) as server, _ended_with_children(server):
        until(lambda: _listens(far, port) or server.poll() is not None, LIMIT_S, 0.1)
        with _started(near.command(*client, f"{getpass.getuser()}@{address}", "cat")) as typing:
            flow = Ssh(server, typing)
            until(lambda: flow.passed or not flow.is_alive, LIMIT_S)
            assert flow.is_alive, log.read_text()
            yield flow


def _listens(place: Place, port: int) -> bool:
    return "LISTEN" in place.run("ss", "-Htln", f"sport = {port}")


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    both, nowhere = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=both, stdout=both, stderr=nowhere, env=clean_environ())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not written yet
                assert pipe
                pipe.close()


@contextmanager
def _ended_with_children(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """sshd's sessions outlive it, and wait for a client that has gone without a word."""
    try:
        yield
    finally:
        for pid in proc.descendants(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def stalls(flows: Sequence[Flow], fault: Callable[[], object], within_s: float = LIMIT_S) -> dict[str, float]:
    """Do that, see that each goes on, and say for how long it had not."""
    for flow in flows:
        flow.began()
    fault()
    time.sleep(0.5)
    for flow in flows:
        before, steady = flow.passed, 10 * LOOK_S
        began = time.monotonic()
        # A pause is counted when it is over; a first packet may have been on its way before it began.
        until(lambda: time.monotonic() - began > steady and flow.passed > before and _flows(flow), within_s)  # noqa: B023
    assert all(flow.is_alive for flow in flows)
    return {flow.name: round(flow.stall_s, 2) for flow in flows}


def _flows(flow: Flow) -> bool:
    """Whether something came in the last moment."""
    return time.monotonic() - flow._last < 3 * LOOK_S
