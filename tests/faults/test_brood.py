"""A leader, its zygote and their children, as processes: who dies with whom, and who is told of it."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from procs import proc
from procs.brood import Brood
from procs.errors import ZygoteLost
from procs.settings import ROOT
from tests.rig import clean_environ, until

LEADER = """
import asyncio, os, sys
from procs import brood
from procs.errors import PlanariaError

async def main(family):
    def order():
        for line in os.read(0, 65536).decode().splitlines():
            word, child, rest = (line + "  ").split(" ", 2)
            family.fork(child, rest.strip().encode()) if word == "fork" else family.kill(child)
    asyncio.get_running_loop().add_reader(0, order)
    say = lambda *words: print(*words, flush=True)
    say("zygote", family.zygote)
    await family.watch(lambda: say("ready"), lambda *of: say("born", *of), lambda *of: say("ended", *of))

try:
    asyncio.run(main(brood.hatch("test", "tests.faults.brood_children", "live")))
except PlanariaError as error:
    sys.exit(error.exit_code)
"""


class Leader:
    """A brood in a process of its own, and what it has said."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            cwd=ROOT, env=clean_environ(PYTHONPATH=str(ROOT)),
        )  # fmt: skip
        self._said: queue.Queue[list[str]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.zygote = int(self.hear()[1])

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                self._said.put(line.split())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdin
        self.process.stdin.close()

    def say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")

    def hear(self) -> list[str]:
        return self._said.get(timeout=30)


@contextmanager
def leading() -> Iterator[Leader]:
    leader = Leader()
    try:
        yield leader
    finally:
        leader.end()


def staying(leader: Leader, child: str, path: Path) -> tuple[int, int, str]:
    """A child that lives on: its pid, its parent's, and what it has open."""
    leader.say(f"fork {child} stay {path}")
    words = leader.hear()
    while words[0] != "born":
        words = leader.hear()
    assert words[1] == child
    until(path.exists)
    pid, parent, opened = path.read_text().split()
    assert int(pid) == int(words[2])
    return int(pid), int(parent), opened


def test_a_zygote_that_had_not_read_its_last_orders_is_gone_like_any() -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    family = Brood(ours, 0)
    family.kill("child")
    its.close()  # unread, so that we are told of a reset
    with ours, pytest.raises(ZygoteLost, match="is gone"):
        asyncio.run(family.watch(lambda: None, lambda *_: None, lambda *_: None))


def test_children_are_of_the_zygote_and_inherit_nothing(tmp_path: Path) -> None:
    with leading() as leader:
        assert leader.hear() == ["ready"]
        first = staying(leader, "a", tmp_path / "a")
        second = staying(leader, "b", tmp_path / "b")
        assert first[1:] == second[1:] == (leader.zygote, "0,1,2")


@pytest.mark.parametrize(("spec", "status"), [("exit 0", "0"), ("exit 3", "3"), ("raise", "1"), ("", "0")])
def test_the_end_of_a_child_is_told(spec: str, status: str) -> None:
    with leading() as leader:
        assert leader.hear() == ["ready"]
        leader.say(f"fork a {spec}")
        assert leader.hear()[:2] == ["born", "a"]
        assert leader.hear() == ["ended", "a", status]


def test_forks_that_were_wanted_before_it_was_ready_are_made(tmp_path: Path) -> None:
    with leading() as leader:
        for number in range(5):
            leader.say(f"fork {number} raise")
        said = [leader.hear() for _ in range(11)]
        assert [words[1] for words in said if words[0] == "born"] == list("01234")
        assert sorted(words[1] for words in said if words[0] == "ended") == list("01234")


def test_a_child_is_killed_by_its_id_and_another_may_have_it_then(tmp_path: Path) -> None:
    with leading() as leader:
        for path in (tmp_path / "a", tmp_path / "b"):
            staying(leader, "x", path)
            leader.say("kill x")
            assert leader.hear() == ["ended", "x", "-9"]
        leader.say("kill nobody")
        staying(leader, "y", tmp_path / "y")


def test_all_die_with_the_leader(tmp_path: Path) -> None:
    with leading() as leader:
        child, zygote, _ = staying(leader, "a", tmp_path / "a")
        leader.process.kill()
        until(lambda: not proc.is_alive(zygote) and not proc.is_alive(child))


def test_the_leader_dies_with_the_zygote_and_so_do_its_children(tmp_path: Path) -> None:
    with leading() as leader:
        child, zygote, _ = staying(leader, "a", tmp_path / "a")
        os.kill(zygote, signal.SIGKILL)
        assert leader.process.wait(10) == ZygoteLost.exit_code
        until(lambda: not proc.is_alive(child))


def test_a_zygote_that_stands_still_ends_the_leader(tmp_path: Path) -> None:
    with leading() as leader:
        child, zygote, _ = staying(leader, "a", tmp_path / "a")
        began = time.monotonic()
        os.kill(zygote, signal.SIGSTOP)
        assert leader.process.wait(30) == ZygoteLost.exit_code
        assert time.monotonic() - began > 2, "at once: a busy machine would end it too"
        until(lambda: not proc.is_alive(zygote) and not proc.is_alive(child))


@pytest.mark.parametrize("then", ["zygote._obey()", "zygote._report(brood._Pong())"])
def test_a_leader_that_ends_before_it_has_read_is_no_fault(then: str) -> None:
    """As one that is asked for --help alone."""
    code = (
        "import socket\nfrom procs import brood\n"
        "ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"zygote = brood._Zygote(theirs, 0)\nzygote._report(brood._Pong())\nours.close()\n{then}\nraise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean_environ(), capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, b"")
