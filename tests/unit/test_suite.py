"""Who listens where, and who descends from whom: read from /proc of real sockets and processes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from procs import proc
from procs.kinds import Address
from scripts import listeners
from tests.rig import until


def listening(host: str) -> socket.socket:
    """A socket that listens at a free port of a host."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.bind((host, 0))
    server.listen()
    return server


@pytest.mark.parametrize(
    ("host", "asked", "found"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.1.2.3", "127.1.2.3", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
    ],
)
def test_a_listener_is_found_by_its_whole_address(host: str, asked: str, found: bool) -> None:
    with listening(host) as server:
        port = server.getsockname()[1]
        assert listeners.listener(Address(asked, port)) == (os.getpid() if found else None)
    assert listeners.listener(Address(asked, port)) is None


def test_all_descendants_are_found() -> None:
    shell = subprocess.Popen(["sh", "-c", "sh -c 'sleep 20; true' & wait"])
    until(lambda: len(proc.descendants(shell.pid)) == 2)
    for pid in proc.descendants(shell.pid) | {shell.pid}:
        with contextlib.suppress(ProcessLookupError):  # each may end with the one before
            os.kill(pid, 9)
    shell.wait()


def test_a_stale_pid_file_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run/supervisord.pid"
    for content in ("", "x", "999999999", str(os.getpid()), "1"):
        path.write_text(content)
        assert proc.supervisord(tmp_path) == 0
    stranger = subprocess.Popen(["sleep", "20"], cwd=tmp_path)  # got the pid, and even stands in the right place
    path.write_text(str(stranger.pid))
    assert proc.supervisord(tmp_path) == 0
    stranger.kill()
    stranger.wait()
