"""The command line between agents, with real processes: pipes, chat, files that go on after kills, clear refusals."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import select
import signal
import subprocess
import tarfile
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from procs import log
from scripts import cli
from tests import hub_rig
from tests.hub_rig import Process
from tests.peer_rig import ALONE, LIMIT_S, Machine, ended
from tests.rig import until


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Where they meet."""
    with hub_rig.process(tmp_path_factory.mktemp("hub"), command=ALONE) as running:
        yield running


@pytest.fixture
def pair(hub: Process, tmp_path: Path) -> tuple[Machine, Machine]:
    """Alice and Bob."""
    return Machine(hub, tmp_path, "alice"), Machine(hub, tmp_path, "bob")


def a_tar(size: int) -> bytes:
    """Something as `tar c .` writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
        about = tarfile.TarInfo("größe 🪱")
        about.size = size
        tar.addfile(about, io.BytesIO(os.urandom(size)))
    return out.getvalue()


def test_a_tar_goes_through_both_ways_while_the_hub_dies(hub: Process, pair: tuple[Machine, Machine]) -> None:
    """With end of file for each direction, and exit codes."""
    alice, bob = pair
    there, back = a_tar(6_000_000), a_tar(500_000)
    with bob.listening("listen", "--mode", "bytes", stdin=subprocess.PIPE) as listener:
        assert listener.stdin and listener.stdout
        with ended(alice.start("connect", "bob", "--mode", "bytes", stdin=subprocess.PIPE)) as caller:
            assert caller.stdin
            said = threading.Thread(target=say, args=(caller.stdin, there))
            said.start()
            heard = listener.stdout.read(1_000_000)
            hub.restart()
            heard += listener.stdout.read(len(there) - len(heard))
            said.join()
            assert hashlib.sha256(heard).digest() == hashlib.sha256(there).digest()
            listener.stdin.write(back)  # the other direction is open still
            listener.stdin.close()
            assert caller.stdout and caller.stdout.read() == back
            assert listener.stdout.read() == b"", "and nothing more"
            assert (caller.wait(LIMIT_S), listener.wait(LIMIT_S)) == (0, 0)


def say(pipe: IO[bytes], data: bytes) -> None:
    """All of it, and that it was all; as fast as it is taken."""
    pipe.write(data)
    pipe.close()


@pytest.mark.long
def test_who_takes_no_more_says_so(pair: tuple[Machine, Machine]) -> None:
    alice, bob = pair
    with bob.listening("listen", "--mode", "bytes") as listener:
        assert listener.stdout
        with ended(alice.start("connect", "bob", "--mode", "bytes", stdin=subprocess.PIPE)) as caller:
            assert caller.stdin
            caller.stdin.write(b"begin")
            caller.stdin.flush()
            assert listener.stdout.read(5) == b"begin"
            listener.stdout.close()  # as `| head` does
            with contextlib.suppress(BrokenPipeError):
                caller.stdin.write(bytes(1_000_000))
                caller.stdin.close()
            assert (listener.wait(LIMIT_S), caller.wait(LIMIT_S)) == (6, 11)
    assert "takes no more: standard output" in alice.said


@pytest.mark.long
def test_lines_of_json(pair: tuple[Machine, Machine]) -> None:
    alice, bob = pair
    with bob.listening("listen", "--mode", "json") as listener:
        code, out = alice.run("connect", "bob", "--mode", "json", data='{"größe": [1, null]}\n\n"last"'.encode())
        assert (code, out) == (0, b"")
        heard, _ = listener.communicate(timeout=LIMIT_S)
        assert [json.loads(line) for line in heard.splitlines()] == [{"größe": [1, None]}, "last"]
        assert listener.returncode == 0
    with bob.listening("listen", "--mode", "json") as listener:
        code, _ = alice.run("connect", "bob", "--mode", "json", data=b"1\nno json\n")
        assert code == 10 and "line 2 is no JSON" in alice.said
        assert listener.wait(LIMIT_S) == 11


def test_chat_and_an_interrupt(pair: tuple[Machine, Machine]) -> None:
    alice, bob = pair
    with bob.listening("listen", stdin=subprocess.PIPE) as listener:
        assert listener.stdin and listener.stdout
        with ended(alice.start("connect", "bob", "--json", stdin=subprocess.PIPE)) as caller:
            assert caller.stdin and caller.stdout
            caller.stdin.write("grüß dich 🪱\x1b[2J\n".encode())
            caller.stdin.flush()
            assert listener.stdout.readline().decode() == "alice: grüß dich 🪱\ufffd[2J\n", "a terminal is safe"
            listener.stdin.write(b"hallo\n")
            listener.stdin.flush()
            assert json.loads(caller.stdout.readline()) == {"from": "bob", "text": "hallo"}
            caller.send_signal(signal.SIGINT)
            assert caller.wait(LIMIT_S) == 130
        until(lambda: "the peer has left" in bob.said)
        code, _ = alice.run("connect", "bob", data=b"again\n")
        assert code == 0 and listener.stdout.readline() == b"alice: again\n"
    assert "Traceback" not in alice.said + bob.said


def test_a_file_goes_on_after_either_side_was_killed(pair: tuple[Machine, Machine], tmp_path: Path) -> None:
    alice, bob = pair
    film = tmp_path / "film.bin"
    film.write_bytes(os.urandom(20_000_000))
    into = tmp_path / "into"

    def arrived() -> int:
        return max((part.stat().st_size for part in into.glob(".*.part")), default=0)

    with ended(alice.start("send-file", str(film), "bob", "--within", "50")) as first:
        with bob.listening("receive", "--into", str(into)) as receiver:
            until(lambda: arrived() > 2_000_000, LIMIT_S)
            receiver.kill()
            receiver.wait()
        before = arrived()
        with bob.listening("receive", "--into", str(into)):
            until(lambda: arrived() > before + 2_000_000, LIMIT_S)
            first.kill()
            first.wait()
            before = arrived()
            assert before < 20_000_000
            code, out = alice.run("send-file", str(film), "bob", "--json")
    sent = json.loads(out)
    assert (
        code == 0 and sent["resumed_at"] >= before and sent["sha256"] == hashlib.sha256(film.read_bytes()).hexdigest()
    )
    assert [each.name for each in into.iterdir()] == ["film.bin"]
    assert (into / "film.bin").read_bytes() == film.read_bytes()


@pytest.mark.parametrize(
    ("words", "name", "code", "said"),
    [
        ("connect bob", "", 2, "AGENT_ID is not set"),
        ("connect alice", "alice", 2, "PEER='alice' (command line): that is you"),
        ("send-file . bob", "alice", 10, "is no file"),
        ("send-file none bob", "alice", 10, "No such file"),
        ("peers --forget bob", "alice", 2, "no peer that is known"),
        ("receive --into /proc/1", "alice", 2, "--into /proc/1 (command line): can't be written to"),
        ("peers --approve bob xx", "alice", 2, "--approve bob KEY='xx' (command line): must be"),
        ("peers --approve bob", "alice", 2, "shows it at its owner's: cli.py peers --approve bob KEY"),
        ("peers --approve bob xx yy", "alice", 2, "--approve bob xx yy (command line): must be a peer and a key"),
        (f"peers --approve b/b {'A' * 43}=", "alice", 2, "--approve PEER='b/b': must be"),
    ],
)
def test_what_can_not_be_is_said_before_anybody_is_asked(
    words: str, name: str, code: int, said: str, run_dir: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("AGENT_ID", name)
    monkeypatch.setenv("SIGNALING_URL", "ws://127.0.0.1:9/ws/signal")
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)  # that is for a whole process
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == code
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("planaria: ") and said in err


def test_nobody_is_there_and_a_forgotten_peer_is_met_anew(pair: tuple[Machine, Machine], tmp_path: Path) -> None:
    alice, bob = pair
    assert alice.run("connect", "nobody", "--within", "1") == (11, b"")
    assert "no connection to 'nobody': peer not connected" in alice.said.splitlines()[-1]
    assert "Traceback" not in alice.said
    with bob.listening("receive", "--into", str(tmp_path / "into")):
        assert alice.run("connect", "bob", "--mode", "json")[0] == 10
        assert "is there for 'receive', not for 'json'" in alice.said
        (tmp_path / "alice/agent/key").unlink()  # alice is another one now
        assert alice.run("ping", "bob", "--count", "1", "--within", "5")[0] == 11
        assert "HAS ANOTHER KEY" in alice.said and "HAS ANOTHER KEY" in bob.said
    assert bob.run("peers", "--forget", "alice")[0] == 0
    with bob.listening("listen"):
        code, out = alice.run("ping", "bob", "--count", "3", "--interval", "0.05", "--json")
        pongs = [json.loads(line) for line in out.splitlines()]
        assert code == 0 and [pong["seq"] for pong in pongs] == [1, 2, 3] and pongs[0]["path"] == "direct"
        assert all(pong["ms"] > 0 for pong in pongs)
        code, out = alice.run("bench", "bob", "--seconds", "0.3", "--json")
        assert code == 0 and json.loads(out)["there_mbit_s"] > 0 < json.loads(out)["back_mbit_s"]


def test_what_becomes_of_a_key_is_said(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)
    key = "A" * 43 + "="
    assert cli.main(["peers", "--approve", "bob", key]) == cli.main(["peers", "--revoke", "bob"]) == 0
    assert capfd.readouterr().err == ""
    assert cli.main(["peers", "--forget", "bob"]) == 0
    assert f"its key stays revoked until it is approved: cli.py peers --approve bob {key}" in capfd.readouterr().err


def test_status_says_that_the_server_will_not_have_us(tmp_path: Path) -> None:
    with hub_rig.process(tmp_path / "hub", SIGNALING_TOKENS="the-token-of-this-room", PLANARIA_HUB_INSECURE="1") as hub:
        alice = Machine(hub, tmp_path, "alice", environ={"SIGNALING_TOKEN": "another-token"})
        code, out = alice.run("status")
        assert code == 11 and b"/ws/signal: invalid token; 0 peers known" in out and b"registered" not in out


@pytest.mark.long
def test_chat_at_a_terminal(pair: tuple[Machine, Machine]) -> None:
    """What comes stands above what is being typed, lines have a history, and the terminal is left as it was."""
    alice, bob = pair
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)[:4]
    shown = b""

    def sees(text: str) -> bool:
        nonlocal shown
        while select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 4096)
        return text.encode() in shown

    with bob.listening("listen", stdin=subprocess.PIPE) as listener:
        assert listener.stdin and listener.stdout
        with ended(alice.start("connect", "bob", stdin=theirs, stdout=theirs)) as caller:
            until(lambda: sees("alice> "), LIMIT_S)
            until(lambda: "connected" in alice.said + bob.said, LIMIT_S)
            os.write(ours, "halb 🪱".encode())
            until(lambda: sees("halb 🪱"), LIMIT_S)
            listener.stdin.write(b"from bob\n")
            listener.stdin.flush()
            until(lambda: sees("\r\x1b[Kbob: from bob\r\nalice> halb 🪱"), LIMIT_S)
            os.write(ours, b" und ganz\n")
            assert listener.stdout.readline().decode() == "alice: halb 🪱 und ganz\n"
            caller.send_signal(signal.SIGINT)
            assert caller.wait(LIMIT_S) == 130
    assert termios.tcgetattr(theirs)[:4] == before
    assert (alice.place / "alice/agent/chat-history").read_text() == "halb 🪱 und ganz\n"
    os.close(ours)
    os.close(theirs)
