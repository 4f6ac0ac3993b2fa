"""supervisord, started in the background: by `make up`, and by the keeper when it has died. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from procs import proc
from procs.errors import Unhealthy

SUPERVISORD = (".venv/bin/python", "-m", "supervisor.supervisord", "-c", "supervisord.conf")
FOREGROUND = "PLANARIA_FOREGROUND"  # set where whoever started supervisord starts it again, so that a keeper must not
START_LIMIT_S = 30.0
_LOOK_EVERY_S = 0.5


def start(root: Path, environment: Mapping[str, str], beat: Callable[[], None] = lambda: None) -> None:
    """Start supervisord; returns once it is in the background. Raises Unhealthy with its own words if it refuses.

    `beat` is called while it waits.
    """
    clear_socket(root)
    try:
        starter = subprocess.Popen(
            SUPERVISORD,
            cwd=root,
            env=suite_environment(root, environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except (OSError, ValueError) as error:
        raise Unhealthy(f"supervisord did not start: {error}") from None
    out, err = _words(starter, beat)
    if starter.returncode:
        words = (err.strip() or out.strip()).splitlines()
        raise Unhealthy(f"supervisord did not start: {words[-1] if words else f'exit {starter.returncode}'}")


def _words(starter: subprocess.Popen[str], beat: Callable[[], None]) -> tuple[str, str]:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        beat()
        try:
            return starter.communicate(timeout=_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                starter.kill()
                starter.wait()
                for pipe in (starter.stdout, starter.stderr):
                    if pipe:
                        pipe.close()
                raise Unhealthy(f"supervisord did not start within {START_LIMIT_S:g} s") from None


def clear_socket(root: Path) -> None:
    """Remove the socket of a dead supervisord. One that finds it does so too, and sleeps 0.3 s over it; and it leaves
    the name under which it makes a socket, if it is killed meanwhile."""
    for path in (root / "run").glob("supervisor.sock*"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # a frozen one with a full queue is none of the dead
            if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink()


def suite_environment(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What supervisord is to be started with: marked, and without what it says to its own children, whom the keeper
    is one of."""
    kept = {name: value for name, value in environment.items() if not name.startswith("SUPERVISOR_")}
    return {name: value for name, value in kept.items() if name not in ("PLANARIA_PARENT", FOREGROUND)} | {
        proc.MARK: str(root)
    }


def is_supervisord(words: list[str]) -> bool:
    """Whether a command line is supervisord's, however it was started."""
    return any(word == "supervisor.supervisord" or os.path.basename(word) == "supervisord" for word in words)


def is_foreground(words: list[str]) -> bool:
    """Whether a supervisord of this command line stays with whoever started it."""
    return "--nodaemon" in words or "-n" in words


def running(root: Path) -> int:
    """The living supervisord of a checkout, or 0: by its pid file, or where that could not be written, by its mark."""
    return proc.supervisord(root) or next((p for p in proc.marked(root) if is_supervisord(proc.words(p))), 0)
