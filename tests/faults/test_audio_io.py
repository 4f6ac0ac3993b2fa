"""A device's ears and mouth that are killed under a backend, and a backend that sends what it should not."""

from __future__ import annotations

import base64
import functools
import json
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from procs.wire import realtime as wire
from procs.wire.audio_frame import AudioFrame, pack_audio
from scripts import suite
from tests.audio_rig import Device, device, is_free, wav
from tests.clone import Clone
from tests.realtime_backend import RATE, Backend, is_in, pieces, tone
from tests.rig import free_port, until


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A device that hears silence."""
    with device(tmp_path_factory.mktemp("device")) as its:
        yield its


def rubbish() -> Iterator[str | bytes]:
    """What a backend may send by mistake, or a stranger on purpose."""
    page = next(pieces(tone(0.1)))
    some = random.Random(9)
    for sound in ("%%%", "AAA", base64.b64encode(page[:40]).decode(), base64.b64encode(some.randbytes(500)).decode()):
        yield json.dumps({"type": "response.audio.delta", "delta": sound})
    yield from ("", "{", "[]", "null", '{"type": 7}', '{"type": "response.cancel"}', "[" * 5000, '{"type": "\\ud800"}')
    yield json.dumps({"type": "response.text.delta", "delta": "x" * 100_000})
    yield json.dumps({"type": "planaria.volume", "percent": 1000})
    for size in (0, 1, 7, 8, 9, 40, 2000):
        yield b"\x01" + some.randbytes(size)
        yield pack_audio(AudioFrame(some.randbytes(size) or b"\x00", size, size))


@pytest.mark.parametrize("subprotocol", ["realtime", wire.OURS])
def test_what_it_should_not_send_costs_a_backend_nothing_but_that(running: Device, subprotocol: str) -> None:
    before = len(running.played())
    with Backend(running.url, subprotocols=(subprotocol,)) as backend:
        for frame in rubbish():
            backend.ws.send(frame)
        backend.say(tone(1.0))
        until(lambda: is_in(running.played()[before:][-RATE:]))
        backend.ws.ping().wait(5)
        backend.ws.send("x" * (10 * 1024 * 1024))
        with pytest.raises(ConnectionClosed) as closed:
            all(backend.ws.recv(10) for _ in range(10_000))
    assert closed.value.rcvd and closed.value.rcvd.code == 1009, "too big"
    until(lambda: is_free(running))
    assert running.process.poll() is None


@pytest.fixture(scope="module")
def suite_of_ears(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A suite that is ears and mouth and nothing else."""
    clone = Clone(tmp_path_factory.mktemp("ears"))
    heard = wav(clone.root / "heard.wav", tone(1.0, 1000))
    clone.settings = {"roles": "audio", "audio": {"port": str(free_port()), "no_audio": "1", "input": str(heard)}}
    clone.write_settings()
    clone.install("requirements-voice.txt")
    yield clone
    suite.kill_all(clone.root)


def test_killed_under_a_backend_it_is_back_and_hears_again(suite_of_ears: Clone) -> None:
    clone = suite_of_ears
    port = clone.settings["audio"]["port"]  # type: ignore[index]
    up = clone.cli("up")
    assert up.returncode == 0, up.stderr
    assert f"audio   ws://127.0.0.1:{port}" in up.stdout
    url = f"ws://127.0.0.1:{port}"
    for _ in range(2):
        with Backend(url) as backend:
            until(functools.partial(backend.heard_after, 0.1))
            pid = pid_of(clone)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(ConnectionClosed):
                backend.listen(5)
        with until(lambda: called(url)) as again:
            until(functools.partial(again.heard_after, 0.1))
            row = clone.cli("status", "--json")
            told = json.loads(row.stdout)["audio"]
            assert (row.returncode, told["protocol"], told["microphone"]) == (0, "realtime", "ok"), row.stderr
        assert pid_of(clone) != pid
    assert "AUDIO" in clone.cli("status").stdout
    names = [process.name for process in suite.processes(clone.root) if process.pid]
    assert sorted(names) == ["audio_io", "keeper", "warden"]


def pid_of(clone: Clone) -> int:
    """Of its audio_io; 0 while it has none."""
    return next(process.pid for process in suite.processes(clone.root) if process.name == "audio_io")


def called(url: str) -> Backend | None:
    """A connection, if it is there already."""
    try:
        return Backend(url)
    except (OSError, InvalidHandshake, ConnectionClosed):
        time.sleep(0.02)
        return None


def test_who_makes_it_say_more_than_is_read_is_left(running: Device) -> None:
    small = socket.socket()  # or the kernel would keep megabytes of it, and it be given up for something else before
    for each in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        small.setsockopt(socket.SOL_SOCKET, each, 4096)
    small.connect(("127.0.0.1", running.port))
    ours = connect(running.url, sock=small, subprotocols=[Subprotocol(wire.OURS)], max_queue=1)
    with ours as ws, suppress(ConnectionClosed):
        for number in range(1_000_000):
            ws.send(json.dumps({"type": "planaria.mute", "muted": bool(number % 2)}))
    until(lambda: "it does not read what it makes us say" in running.said)
    with Backend(running.url) as backend:
        backend.begin()
        backend.send("planaria.mute", muted=False)
