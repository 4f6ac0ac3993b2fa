"""Processes of ours that are there at once: forked from one that has imported what they need and done nothing else.

A hub takes 0.7 s of a processor to import what it needs, and the tests start a hundred of them; a voice backend and a
recogniser take a second. What is forked here is a process of its own that runs `python -m ...` or `python -c ...` from
its first line on, with its own arguments, environment and descriptors; only the imports are done already. How one
starts from nothing is seen where `make up` does it, and where a test starts Python itself.

python -m tests.warm DESCRIPTOR MODULES: be the one that has imported MODULES, and fork what is asked for over a socket.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Mapping, Sequence
from typing import IO, NoReturn

from procs import proc
from procs.settings import ROOT
from tests import nat

_ORDER_BYTES = 128 * 1024
_ours: dict[tuple[str, bool], socket.socket] = {}
_one_at_a_time = threading.Lock()  # tests start processes beside each other


class Forked:
    """One of them, with as much of subprocess.Popen as tests use."""

    def __init__(self, reports: int) -> None:
        self._reports = reports
        self.returncode: int | None = None
        pid = os.read(reports, 32)
        assert pid, "the one that forks is gone"
        self.pid = int(pid)

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that it died of; None while it lives."""
        if self.returncode is None and select.select([self._reports], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._reports], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(os.read(self._reports, 32) or -signal.SIGKILL)
            os.close(self._reports)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing to one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    words: Sequence[str],
    modules: str,
    environ: Mapping[str, str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes],
) -> Forked:
    """Run Python with these arguments at the repository's root. `modules`: what is to be imported already, with blanks
    between."""
    order = json.dumps({"words": words, "environ": dict(environ)}).encode()
    reports, told = os.pipe()
    with open(os.devnull, "r+b", buffering=0) as nothing, open("/proc/thread-self/ns/net") as network:
        given = nothing.fileno() if stdin == subprocess.DEVNULL else stdin
        descriptors = [given, (stdout or nothing).fileno(), stderr.fileno(), told, network.fileno()]
        socket.send_fds(_zygote(modules, is_marked=proc.MARK in environ), [order], descriptors)
    os.close(told)
    return Forked(reports)


def _zygote(modules: str, *, is_marked: bool) -> socket.socket:
    """The way to the one that has imported them: with the mark of a suite in its environment or without, since some
    look for that while they are imported. It ends when this process does."""
    key = modules, is_marked
    with _one_at_a_time:
        if key not in _ours:
            _ours[key] = _begun(modules, is_marked=is_marked)
        return _ours[key]


def _begun(modules: str, *, is_marked: bool) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PLANARIA_")}
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", str(theirs.fileno()), modules],
        cwd=ROOT,
        env=environ | ({proc.MARK: "test"} if is_marked else {}),
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()
    atexit.register(_end, ours, running)
    return ours


def _end(ours: socket.socket, running: subprocess.Popen[bytes]) -> None:
    ours.close()
    running.wait()


# --- the one that forks ---------------------------------------------------------------------------------


def _serve(orders: socket.socket, modules: str) -> NoReturn:
    for module in modules.split():
        importlib.import_module(module)
    gc.freeze()  # what is there is not written to by each child's garbage collection
    living: dict[int, tuple[int, int]] = {}  # pidfd -> pid, whom to tell of its end
    while True:
        for ready in select.select([orders.fileno(), *living], [], [])[0]:
            if ready in living:
                pid, told = living.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.write(told, str(code).encode())
                os.close(told)
                os.close(ready)
                continue
            order, descriptors, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 5)
            if not order:
                os._exit(0)  # its children end with it, as they do with any parent
            if not (pid := os.fork()):
                _live(order, descriptors)
            told = descriptors.pop(3)
            for descriptor in descriptors:
                os.close(descriptor)
            os.write(told, str(pid).encode())
            living[os.pidfd_open(pid)] = pid, told


def _live(order: bytes, descriptors: list[int]) -> NoReturn:
    """Be a Python that has just been started."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    if os.fstat(descriptors[4]).st_ino != os.stat("/proc/self/ns/net").st_ino:  # a test has entered another one
        nat.enter(descriptors[4])
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    asked = json.loads(order)
    os.environ.clear()
    os.environ.update(asked["environ"])
    kind, what, *flags = asked["words"]
    code: object = 0
    try:
        sys.argv = [kind, *flags]
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.modules["__main__"] = main = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
