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
TOLD = "procs.keeper.supervisord"  # the same, that waits until it is told to begin
FOREGROUND = "PLANARIA_FOREGROUND"  # set where whoever started supervisord starts it again, so that a keeper must not
START_LIMIT_S = 30.0
_LOOK_EVERY_S = 0.5


def start(root: Path, environment: Mapping[str, str], beat: Callable[[], None] = lambda: None) -> None:
    """Start supervisord; returns once it is in the background. Raises Unhealthy with its own words if it refuses.

    `beat` is called while it waits.
    """
    with Waiting(root, environment) as waiting:
        waiting.begin(beat)


class Waiting:
    """A supervisord that imports what it needs, and does nothing else before it is told to `begin`: its 150 ms of
    imports can pass while what is left of the one before is ended. One that is not told has ended when the block has,
    or when we have, however we die: the pipe over which it is told is held by nobody else.

    Raises Unhealthy if there is no such program.
    """

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._root = root
        reader, self._writer = os.pipe()
        try:
            self._starter = subprocess.Popen(
                [TOLD if word == "supervisor.supervisord" else word for word in SUPERVISORD],
                cwd=root,
                env=suite_environment(root, environment),
                stdin=reader,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except (OSError, ValueError) as error:
            os.close(self._writer)
            raise Unhealthy(f"supervisord did not start: {error}") from None
        finally:
            os.close(reader)
        self.pid = self._starter.pid

    def begin(self, beat: Callable[[], None] = lambda: None) -> None:
        """Let it go on; returns once it is in the background. Raises Unhealthy with its own words if it refuses."""
        clear_socket(self._root)
        with contextlib.suppress(BrokenPipeError):  # it has died: it says why
            os.write(self._writer, b".")
        out, err = self._words(beat)
        if self._starter.returncode:
            words = (err.strip() or out.strip()).splitlines()
            raise Unhealthy(f"supervisord did not start: {words[-1] if words else f'exit {self._starter.returncode}'}")

    def _words(self, beat: Callable[[], None]) -> tuple[str, str]:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            beat()
            try:
                return self._starter.communicate(timeout=_LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise Unhealthy(f"supervisord did not start within {START_LIMIT_S:g} s") from None

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self._starter.kill()  # nothing to one that has put itself into the background: that is no child of ours
        self._starter.wait()
        os.close(self._writer)
        for pipe in (self._starter.stdout, self._starter.stderr):
            if pipe:
                pipe.close()


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
    return any(word in ("supervisor.supervisord", TOLD) or os.path.basename(word) == "supervisord" for word in words)


def is_foreground(words: list[str]) -> bool:
    """Whether a supervisord of this command line stays with whoever started it."""
    return "--nodaemon" in words or "-n" in words


def running(root: Path) -> int:
    """The living supervisord of a checkout, or 0: by its pid file, or where that could not be written, by its mark.

    One that waits to be told is none: it ends with its keeper, and a keeper that finds it comes after a dead one.
    """
    return proc.supervisord(root) or next((pid for pid in proc.marked(root) if _has_begun(pid)), 0)


def _has_begun(pid: int) -> bool:
    try:
        stdin = os.readlink(f"/proc/{pid}/fd/0")
    except OSError:  # a daemon has none for an instant; one that is dying has no words either
        stdin = ""
    words = proc.words(pid)
    return is_supervisord(words) and not (TOLD in words and stdin.startswith("pipe:"))
