"""The processes of one checkout: start them, find them, end them. They are known by a mark in their environment."""

from __future__ import annotations

import compileall
import contextlib
import http.client
import json
import os
import socket
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from procs import locks, proc
from procs.errors import ConfigError, Unhealthy
from procs.keeper import ending, start

if TYPE_CHECKING:
    from procs.messages.requests import SuiteState

RPC_LIMIT_S = 3.0
WARDEN_LIMIT_S = 1.5


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
    answer = _asked(root, lambda proxy: proxy.supervisor.getAllProcessInfo())
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


def rows(root: Path) -> list[dict[str, Any]]:
    """The same as our plugin of supervisord's has it (procs/warden/plugin.py): how often each has failed in a row, and
    how it ended last. Raises Unhealthy when it does not answer."""
    found: list[dict[str, Any]] = json.loads(_asked(root, lambda proxy: proxy.planaria.look()))["processes"]
    return found


def _asked(root: Path, what: Callable[[Any], Any]) -> Any:
    transport = _UnixTransport(root / "run/supervisor.sock")
    try:
        with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
            return what(proxy)
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        raise Unhealthy(f"supervisord does not answer ({error}); run make up") from None


def producers(root: Path) -> list[Process]:
    """The living producers, which go2rtc starts and supervisord knows nothing of."""
    found = []
    for pid in proc.marked(root):
        words, its = proc.words(pid), proc.stat(pid)
        if its and "procs.headless_agent" in words and "--instance-id" in words:
            name = words[words.index("--instance-id") + 1]
            found.append(Process(f"headless_agent {name}", "RUNNING", pid, int(its.age_s), ""))
    return sorted(found)


def ask_warden(root: Path) -> SuiteState | None:
    """What the warden says of the suite; None while it does not answer."""
    # Imported here: scripts/down.py, which needs nothing that was installed, uses the rest of this file.
    from procs import bus, rpc
    from procs.errors import BusError
    from procs.messages.requests import Look, SuiteState

    with rpc.Requester(root / "run", bus.WARDEN_STATE) as requester:
        try:
            body = requester.ask(Look(), within_s=WARDEN_LIMIT_S).body
        except BusError:
            return None
    return body if isinstance(body, SuiteState) else None


def environment(root: Path) -> dict[str, str]:
    """What the running supervisord was started with; {} when there is none, or one that we may not look at."""
    return proc.environment(proc.supervisord(root))


def precompile(root: Path) -> None:
    """Write the bytecode of procs/ where it is missing or old. A producer that has to compile us starts 20 ms later,
    and many environments tell Python not to keep what it compiles."""
    compileall.compile_dir(root / "procs", quiet=2)


def become(root: Path, environment: Mapping[str, str]) -> NoReturn:
    """Go on as supervisord, in the foreground. At its level `debug` it passes on what the processes say, so that all
    of it is on stdout as well as in run/log."""
    os.chdir(root)
    start.clear_socket(root)
    command = [*start.SUPERVISORD, "--nodaemon", "--loglevel=debug"]
    os.execve(command[0], command, start.suite_environment(root, environment) | {start.FOREGROUND: "1"})


def kill_all(root: Path) -> int:
    """End every process of the suite; returns how many there were. Raises Unhealthy if one can't be ended."""
    return ending.end_all(root)


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """One `up` or `down` of a checkout at a time; the second waits."""
    prepare_run_dir(root)
    lock = locks.hold(root / "run/suite.lock")
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
