"""The processes of one checkout: start them, find them, end them. They are known by a mark in their environment."""

from __future__ import annotations

import compileall
import contextlib
import hashlib
import http.client
import os
import signal
import socket
import subprocess
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from procs import life
from procs.capture.options import Capture
from procs.errors import ConfigError, Unhealthy
from scripts.suite_settings import Plan

MARK = "PLANARIA_SUITE"
RPC_LIMIT_S = 3.0
DIE_LIMIT_S = 10.0
START_LIMIT_S = 30.0
SUPERVISORD = (".venv/bin/python", "-m", "supervisor.supervisord", "-c", "supervisord.conf")


class Process(NamedTuple):
    """A supervised process as supervisord sees it."""

    name: str
    state: str
    pid: int
    uptime_s: int
    said: str


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, with a deadline: a frozen supervisord must not freeze us too."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=RPC_LIMIT_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(RPC_LIMIT_S)
        self.sock.connect(self._path)


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path)
        self._connection = host, connection  # where the base class looks for what it has to close
        return connection


def processes(root: Path) -> list[Process]:
    """What supervisord knows, asked over its socket. Raises Unhealthy when it does not answer."""
    transport = _UnixTransport(root / "run/supervisor.sock")
    try:
        with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
            answer: Any = proxy.supervisor.getAllProcessInfo()
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        raise Unhealthy(f"supervisord does not answer ({error}); run make up") from None
    return [
        Process(
            info["name"] if info["name"] == info["group"] else f"{info['group']}:{info['name']}",
            info["statename"],
            info["pid"],
            max(0, info["now"] - info["start"]) if info["pid"] else 0,
            info["spawnerr"] or info["description"],
        )
        for info in answer
    ]


def producers(root: Path) -> list[Process]:
    """The living producers, which go2rtc starts and supervisord knows nothing of."""
    found = []
    for pid in marked(root):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            started_ticks = int(_stat(pid)[19])
        except (OSError, IndexError):  # gone meanwhile
            continue
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
        if "procs.headless_agent" in words and "--instance-id" in words:
            name = words[words.index("--instance-id") + 1]
            found.append(Process(f"headless_agent {name}", "RUNNING", pid, int(age_s), ""))
    return sorted(found)


def failing_captures(root: Path, plan: Plan) -> dict[str, int]:
    """Capture -> how many of its last starts in a row gave no picture, for those that fail. supervisord calls such a
    one running: it counts as started at once, so that it is never given up."""
    found = {}
    for name in plan.captures:
        instance = Capture(fifo=root / plan.suite.fifo_dir / f"{name}.ts").instance()
        with contextlib.suppress(OSError, ValueError):
            found[name] = int((root / f"run/capture-{instance}.crashes").read_text())
    return {name: count for name, count in found.items() if count > 1}


def marked(root: Path) -> list[int]:
    """Pids of every living process of this checkout's suite, whoever its parent is now."""
    mark = f"{MARK}={root}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):  # empty for a zombie
                found.append(int(entry))
        except OSError:  # gone meanwhile, or somebody else's
            continue
    return sorted(found)


def supervisord_pid(root: Path) -> int:
    """The running supervisord of this checkout, however it was started, or 0."""
    try:
        pid = int((root / "run/supervisord.pid").read_text())
        is_ours = b"supervisord" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return pid if is_ours and os.readlink(f"/proc/{pid}/cwd") == str(root) else 0
    except (OSError, ValueError):
        return 0


def environment(root: Path) -> dict[str, str]:
    """What the running supervisord was started with; {} when there is none, or one that we may not look at."""
    try:
        entries = Path(f"/proc/{supervisord_pid(root)}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def precompile(root: Path) -> None:
    """Write the bytecode of procs/ where it is missing or old. A producer that has to compile us starts 20 ms later,
    and many environments tell Python not to keep what it compiles."""
    compileall.compile_dir(root / "procs", quiet=2)


def start(root: Path, environment: Mapping[str, str]) -> None:
    """Start supervisord in the background. Raises Unhealthy with its own words if it refuses."""
    try:
        done = subprocess.run(
            SUPERVISORD,
            cwd=root,
            env=_marked_environment(root, environment),
            capture_output=True,
            text=True,
            timeout=START_LIMIT_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Unhealthy(f"supervisord did not start: {error}") from None
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Unhealthy(f"supervisord did not start: {words[-1] if words else f'exit {done.returncode}'}")


def become(root: Path, environment: Mapping[str, str]) -> NoReturn:
    """Go on as supervisord, in the foreground. At its level `debug` it passes on what the processes say, so that all
    of it is on stdout as well as in run/log."""
    os.chdir(root)
    command = [*SUPERVISORD, "--nodaemon", "--loglevel=debug"]
    os.execve(command[0], command, _marked_environment(root, environment))


def _marked_environment(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != "PLANARIA_PARENT"} | {MARK: str(root)}


def kill_all(root: Path) -> int:
    """End every process of the suite; returns how many there were. supervisord first, or it would restart the rest.

    Raises Unhealthy if one is still there after DIE_LIMIT_S.
    """
    first = supervisord_pid(root)
    ended: set[int] = descendants(first) if first else set()
    deadline = time.monotonic() + DIE_LIMIT_S
    while living := {*marked(root), *filter(_is_alive, ended), supervisord_pid(root)} - {0}:
        if time.monotonic() > deadline:
            raise Unhealthy(f"still alive after SIGKILL: pids {sorted(living)}")
        ended |= living
        for pid in {first} & living or living:
            _kill(pid)
        time.sleep(0.01)
    return len(ended)


def descendants(ancestor: int) -> set[int]:
    """Pids of all that a process has started, and of what they have started."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(entry)] = int(_stat(int(entry))[1])
        except OSError:
            continue
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: [0] state, [1] parent, [19] start in ticks (source: proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _is_alive(pid: int) -> bool:
    """Whether it still holds anything: a process that is dying has lost its environment before its sockets."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def _kill(pid: int) -> None:
    try:
        # The first process of a container can't be killed from inside; supervisord, which it then is, ends on SIGTERM.
        os.kill(pid, signal.SIGTERM if pid == 1 else signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise Unhealthy(f"pid {pid} belongs to another user; run make down as that user") from None


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """One `up` or `down` of a checkout at a time; the second waits."""
    prepare_run_dir(root)
    lock = life.hold(root / "run/suite.lock")
    yield
    os.close(lock)


def prepare_run_dir(root: Path) -> None:
    """Make run/ and its folders, for us alone. Raises ConfigError where that can't be."""
    for directory in (root / "run", root / "run/log"):
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            directory.chmod(0o700)  # it may have been made by somebody less careful
            (directory / ".writable").touch()
        except OSError as error:
            raise ConfigError(
                f"{directory}: cannot be written to ({error.strerror}); our state is kept there"
            ) from None


def fingerprint(*texts: str) -> str:
    """One word for everything that the running processes were started with."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
