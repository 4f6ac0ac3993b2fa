"""scripts/agent.py and scripts/pair.py as people run them: published flags, real proxies, a real go2rtc."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import segno

from procs.settings import ROOT
from scripts import hidden_secret
from scripts.agent import tagged
from scripts.pair import large
from tests.json_hub import JsonHub
from tests.linked import state_of
from tests.rig import Go2rtc, children, clean_environ, command_line, free_port, go2rtc, until

SECRET = "hunter2-and-more"


class Agent:
    """A running scripts/agent.py."""

    def __init__(self, run_dir: Path, *flags: str, **environ: str) -> None:
        self.run_dir, self.log = run_dir, run_dir / "agent.log"
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "scripts/agent.py", *flags],
                env=clean_environ(PLANARIA_RUN_DIR=str(run_dir), **environ),
                stdout=out,
                stderr=out,
            )

    def child(self, *words: str) -> int:
        """The pid of the child with these words, once there is one."""
        return until(lambda: next((p for p in children(self.process.pid) if set(words) <= set(command_line(p))), 0), 15)

    def logged(self) -> str:
        return self.log.read_text()


@contextmanager
def agent(run_dir: Path, *flags: str, **environ: str) -> Iterator[Agent]:
    """One, ended at the end; nothing of it may stay."""
    made = Agent(run_dir, *flags, **environ)
    try:
        yield made
    except BaseException:
        print(made.logged())  # for whoever reads why a test failed
        raise
    finally:
        own = children(made.process.pid)
        made.process.kill()
        made.process.wait()
        until(lambda: not [pid for pid in own if "procs." in " ".join(command_line(pid))], 30)


@pytest.fixture(scope="module")
def camera() -> Iterator[Go2rtc]:
    with go2rtc({"workers": 1, "producer": {"width": 320, "height": 180, "fps": 30}}) as running:
        yield running


@pytest.fixture(scope="module")
def serving(camera: Go2rtc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[JsonHub, Agent]]:
    """One with its hub, for all who leave it as it is."""
    run_dir = tmp_path_factory.mktemp("serving") / "run"
    run_dir.mkdir(mode=0o700)
    with JsonHub() as hub, agent(run_dir, "--device-id", "pi-cam-001", *flags(hub, camera)) as running:
        assert hub.connected(30)
        yield hub, running


def flags(hub: JsonHub, camera: Go2rtc) -> list[str]:
    return ["--backend", hub.backend, "--go2rtc-http", camera.url("").rstrip("/")]


def test_the_published_command_serves_go2rtc_through_a_published_hub(serving: tuple[JsonHub, Agent]) -> None:
    hub, running = serving
    status, _, body = hub.ask("/api/streams")
    assert status == 200 and "omega-0" in json.loads(body)
    assert hub.ask("/api/config")[0] == 403
    assert hub.ask("/api/exit", "POST")[0] == 403
    assert "[ws] connected to the hub" in running.logged() and "[go2rtc] go2rtc answers" in running.logged()


def test_whatever_dies_is_back_and_a_get_does_not_notice(run_dir: Path, camera: Go2rtc) -> None:
    with JsonHub() as hub, agent(run_dir, "--device-id", "pi-cam-001", *flags(hub, camera)) as running:
        assert hub.ask("/api/streams")[0] == 200
        for number in ("0", "1"):
            old = running.child("procs.proxy", number)
            os.kill(old, signal.SIGKILL)
            assert [hub.ask("/api/streams")[0] for _ in range(5)] == [200] * 5
            until(lambda old=old, number=number: running.child("procs.proxy", number) != old)  # type: ignore[misc]
        connection = hub.device
        os.kill(running.child("procs.ws_link"), signal.SIGKILL)
        until(lambda: hub.device not in (None, connection), 10)
        assert hub.ask("/api/streams")[0] == 200
        assert "ended (SIGKILL)" in running.logged()


def test_everything_dies_with_it(run_dir: Path, camera: Go2rtc) -> None:
    with JsonHub() as hub, agent(run_dir, "--device-id", "pi-cam-001", *flags(hub, camera)) as running:
        own = [running.child("procs.ws_link"), running.child("procs.proxy", "0"), running.child("procs.proxy", "1")]
        until(lambda: (state := state_of(run_dir)) and state.workers == 2, 30)
        running.process.kill()
        running.process.wait()
        until(lambda: not any("procs." in " ".join(command_line(pid)) for pid in own))


def test_a_secret_on_the_command_line_is_taken_and_hidden(run_dir: Path, camera: Go2rtc) -> None:
    with (
        JsonHub(secret=SECRET) as hub,
        agent(run_dir, "--device-id", "pi-cam-001", f"--device-secret={SECRET}", *flags(hub, camera)) as running,
    ):
        assert hub.connected(30)
        everything = [running.process.pid, *children(running.process.pid)]
        assert len(everything) == 5
        assert not any(SECRET in " ".join(command_line(pid)) for pid in everything)
        assert "can be read by every user" in running.logged() and SECRET not in running.logged()


def test_without_an_id_a_camera_makes_and_keeps_one(run_dir: Path, camera: Go2rtc) -> None:
    with JsonHub() as hub, agent(run_dir, "--camera", *flags(hub, camera)):
        first = hub.got("hello", within_s=30)["payload"]["device_id"]
    with JsonHub() as hub, agent(run_dir, "--camera", *flags(hub, camera)):
        assert hub.got("hello", within_s=30)["payload"]["device_id"] == first
    assert first.startswith("planaria-")


def test_wrong_settings_are_one_line_and_exit_2(run_dir: Path) -> None:
    for words, said in (
        ([], "--device-id (or DEVICE_ID): must be given"),
        (["--device-id", "a/b"], "--device-id='a/b' (command line): must be"),
        (["--device-id", "a", "--backend", "http://x"], "--backend='http://x' (command line): must be"),
        (["--device-id", "a", "--colour", "red"], "unrecognized arguments"),
    ):
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/agent.py", *words],
            env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)), capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode == 2 and done.stderr.startswith(f"agent: {said}") and done.stderr.count("\n") == 1


def test_a_setting_that_only_a_child_finds_wrong_ends_it_too(run_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/agent.py", "--camera", "--go2rtc-http", "http://127.0.0.1:1/below"],
        env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2 and re.search(r"\[(proxy|webrtc)\] error: GO2RTC_HTTP=", done.stderr)


def test_lines_get_the_published_tags() -> None:
    line = json.dumps(
        {"time": "t", "level": "warning", "tag": "ws_link", "event": "go2rtc does not answer", "why": "x"}
    )
    assert tagged("ws", line) == ("go2rtc", "warning: go2rtc does not answer  why=x")
    assert tagged("ws", json.dumps({"level": "info", "event": "connected"})) == ("ws", "connected")
    for odd in ("Traceback", "7", "[]", "{}", ""):
        assert tagged("proxy", odd) == ("proxy", odd)


def test_a_secret_is_found_in_both_forms() -> None:
    for words in (["a", "--s", "x", "b"], ["a", "--s=x", "b"]):
        assert hidden_secret.parted(words, "--s") == (["a", "b"], "x")
    assert hidden_secret.parted(["a", "--s"], "--s") == (["a"], "")


# ---- pairing


def pair(run_dir: Path, *flags: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts/pair.py", *flags],
        env=clean_environ(PLANARIA_RUN_DIR=str(run_dir), PYTHONIOENCODING="utf-8"),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_code_is_shown_until_somebody_has_used_it(serving: tuple[JsonHub, Agent]) -> None:
    hub, running = serving
    shown, machine = pair(running.run_dir), pair(running.run_dir, "--json")
    assert machine.stdout
    told = json.loads(machine.stdout.readline())
    url = f"http{hub.backend.removeprefix('ws').removesuffix('/ws/device')}/#/pair/123456"
    assert told == hub.pairing_code | {"hub": hub.backend, "device_id": "pi-cam-001", "url": url}
    time.sleep(1)
    assert machine.poll() is None, "it waits"
    hub.send("paired", {"code": "123456"})
    rest, _ = machine.communicate(timeout=10)
    assert (machine.returncode, json.loads(rest)["paired"]) == (0, True)
    text, _ = shown.communicate(timeout=10)
    assert shown.returncode == 0 and "pi-cam-001 is paired" in text
    assert large("123456") in text and url in text and "5:00" in text and "\x1b" not in text


def test_a_terminal_shows_a_qr_code_of_where_to_use_it(serving: tuple[JsonHub, Agent]) -> None:
    hub, running = serving
    ours, terminal = pty.openpty()
    asked = pair(running.run_dir, stdout=terminal)
    os.close(terminal)
    said = b""
    while b"good for" not in said:
        said += os.read(ours, 65536)
    asked.kill()
    asked.communicate()
    os.close(ours)
    url = f"http{hub.backend.removeprefix('ws').removesuffix('/ws/device')}/#/pair/123456"
    text = said.decode().replace("\r\n", "\n")
    assert large("123456") in text and url in text
    drawn = re.findall(r"\x1b\[97;40m([ ▀▄█]+)\x1b\[0m", text)
    rows = [[c in dark for c in line] for line in drawn for dark in (" ▄", " ▀")]
    wanted = [[bool(dot) for dot in row] for row in segno.make(url, error="l", micro=False).matrix_iter(border=4)]
    assert rows[: len(wanted)] == wanted and len(rows) - len(wanted) in (0, 1)


def test_a_code_that_nobody_uses_expires(serving: tuple[JsonHub, Agent], monkeypatch: pytest.MonkeyPatch) -> None:
    hub, running = serving
    monkeypatch.setattr(hub, "pairing_code", hub.pairing_code | {"code": "654321", "ttl": 2})  # the other was used
    text, _ = (asked := pair(running.run_dir)).communicate(timeout=15)
    assert asked.returncode == 1 and "expired" in text


@pytest.mark.long
def test_without_a_link_it_says_what_is_missing(run_dir: Path) -> None:
    nobody = pair(run_dir)
    with JsonHub() as hub:
        other = run_dir / "other"
        other.mkdir(mode=0o700)
        hub.refuse_http = 503, {}
        with agent(other, "--camera", "--backend", hub.backend, "--go2rtc-http", f"http://127.0.0.1:{free_port()}"):
            _, said = (asked := pair(other)).communicate(timeout=40)
            assert asked.returncode == 8 and said == f"pair: no connection to {hub.backend}: the hub answers 503\n"
    _, said = nobody.communicate(timeout=40)
    assert nobody.returncode == 8 and said.startswith("pair: ws_link does not run") and said.count("\n") == 1
