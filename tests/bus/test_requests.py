"""Requests over real sockets: answers, refusals, deadlines, and a server that dies in between."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
import zmq

from procs import bus, rpc
from procs.errors import ConfigError, DeadlineExceeded, Refused
from procs.messages import MAX_BYTES, encode
from procs.messages.requests import Bitrate, Command, Describe, Keyframe, Look, Reply, Request, SuiteState
from tests.rig import until

SERVER = """
import sys, zmq
from pathlib import Path
from procs import rpc
responder = rpc.Responder(zmq.Context.instance(), Path(sys.argv[1]), "test.control")
print("bound", flush=True)
while True:
    responder.serve(lambda command: None, wait_s=10)
"""


def serve(run_dir: Path) -> subprocess.Popen[bytes]:
    """A server process that answers everything with ok; returns once it is bound."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(run_dir)], stdout=subprocess.PIPE)
    assert server.stdout and server.stdout.readline() == b"bound\n"
    return server


def end(server: subprocess.Popen[bytes]) -> None:
    """kill -9 it."""
    server.kill()
    server.communicate()


class Local:
    """A responder in a thread of this process, for tests that look inside it."""

    def __init__(self, run_dir: Path) -> None:
        self.got: list[Command] = []
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.responder = rpc.Responder(self.context, run_dir, "test.control")
        self.ended = False
        self.troubles: list[str] = []
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while not self.ended:
            self.responder.serve(self._handle, wait_s=0.02)

    def _handle(self, command: Command) -> Reply | None:
        self.got.append(command)
        if isinstance(command, Bitrate):
            raise Refused("no such rate today")
        return Reply(id=0, ok=True, body=SuiteState([], self.troubles)) if isinstance(command, Look) else None

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *exc: object) -> None:
        self.ended = True
        self.thread.join()
        self.context.destroy()


def test_a_command_is_answered(run_dir: Path) -> None:
    with Local(run_dir) as local, rpc.Requester(run_dir, "test.control") as requester:
        assert requester.ask(Keyframe()).ok
        assert requester.ask(Describe()).ok
        assert local.got == [Keyframe(), Describe()]


def test_a_refusal_brings_its_reason_and_the_link_lives(run_dir: Path) -> None:
    with Local(run_dir) as local, rpc.Requester(run_dir, "test.control") as requester:
        with pytest.raises(Refused, match="no such rate today"):
            requester.ask(Bitrate(bits_per_s=64_000))
        assert requester.ask(Keyframe()).ok
        assert local.responder.refused == 1


@pytest.mark.parametrize("frames", [[b"garbage"], [b""], [b"a", b"b"], [msgspec.msgpack.encode({"type": "request"})]])
def test_garbage_is_refused_and_counted_and_the_server_lives(run_dir: Path, frames: list[bytes]) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with Local(run_dir) as local, rpc.Requester(run_dir, "test.control") as requester:
        attacker = bus.connector(context, zmq.DEALER, run_dir, "test.control")
        assert attacker.poll(2000, zmq.POLLOUT)
        attacker.send_multipart(frames)
        until(lambda: local.responder.refused == 1)
        assert requester.ask(Keyframe()).ok
    context.destroy()


def test_an_answer_over_the_limit_is_a_refusal_and_the_server_lives(run_dir: Path) -> None:
    with Local(run_dir) as local, rpc.Requester(run_dir, "test.control") as requester:
        local.troubles = ["x" * 1000] * 100
        with pytest.raises(Refused, match="over the limit"):
            requester.ask(Look())
        local.troubles = []
        assert requester.ask(Look()).ok


def test_a_message_over_the_limit_is_not_even_taken_in(run_dir: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with Local(run_dir) as local, rpc.Requester(run_dir, "test.control") as requester:
        attacker = bus.connector(context, zmq.DEALER, run_dir, "test.control")
        assert attacker.poll(2000, zmq.POLLOUT)
        attacker.send(bytes(10 * MAX_BYTES))
        assert not attacker.poll(300), "an answer came: it was read"
        assert requester.ask(Keyframe()).ok
        assert local.responder.refused == 0
    context.destroy()


def test_a_stale_command_does_not_act(run_dir: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with Local(run_dir) as local:
        late = bus.connector(context, zmq.DEALER, run_dir, "test.control")
        assert late.poll(2000, zmq.POLLOUT)
        late.send(encode(Request(id=1, deadline_ms=bus.now_ms() - 1, idempotent=True, body=Keyframe())))
        until(lambda: local.responder.expired == 1)
        assert local.got == []
    context.destroy()


def test_nobody_there_is_said_in_time_and_may_be_retried(run_dir: Path) -> None:
    with rpc.Requester(run_dir, "test.control") as requester:
        before = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"nobody there within 0.3 s") as caught:
            requester.ask(Keyframe(), within_s=0.3, idempotent=False)
        assert caught.value.retry and time.monotonic() - before < 5


def test_an_idempotent_request_survives_the_death_of_the_server(run_dir: Path) -> None:
    first = serve(run_dir)
    with rpc.Requester(run_dir, "test.control") as requester:
        assert requester.ask(Keyframe()).ok
        for _ in range(3):
            end(first)
            restarted: list[subprocess.Popen[bytes]] = []
            later = threading.Timer(0.3, lambda kept=restarted: kept.append(serve(run_dir)))
            later.start()
            assert requester.ask(Keyframe(), within_s=20).ok, "asked while nobody was there"
            later.join()
            first = restarted[0]
    end(first)


def test_a_frozen_server_is_a_deadline_and_the_request_says_whether_to_retry(run_dir: Path) -> None:
    server = serve(run_dir)
    with rpc.Requester(run_dir, "test.control") as requester:
        assert requester.ask(Keyframe()).ok
        subprocess.run(["kill", "-STOP", str(server.pid)], check=True)
        with pytest.raises(DeadlineExceeded, match="no answer within") as caught:
            requester.ask(Keyframe(), within_s=0.5, idempotent=False)
        assert not caught.value.retry
        with pytest.raises(DeadlineExceeded) as caught:
            requester.ask(Keyframe(), within_s=0.5)
        assert caught.value.retry
        subprocess.run(["kill", "-CONT", str(server.pid)], check=True)
        assert requester.ask(Keyframe(), within_s=5).ok, "late answers to the others are not taken for this one's"
    end(server)


def test_sockets_lie_in_a_directory_of_ours(run_dir: Path) -> None:
    assert bus.address(run_dir, "a.b") == f"ipc://{run_dir}/bus/a.b"
    assert (run_dir / "bus").stat().st_mode & 0o777 == 0o700


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    with pytest.raises(ConfigError, match=r"PLANARIA_RUN_DIR=.*too long for a socket"):
        bus.address(deep, "a.control")


def test_a_queue_to_a_frozen_reader_is_bounded(run_dir: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    reader = bus.binder(context, zmq.PULL, run_dir, "test.beats")
    writer = bus.connector(context, zmq.PUSH, run_dir, "test.beats")
    assert writer.poll(2000, zmq.POLLOUT)
    sent = 0
    while sent < 100_000 and writer.poll(200, zmq.POLLOUT):
        writer.send(b"x" * 1000, flags=zmq.DONTWAIT)
        sent += 1
    assert sent <= 500, "both queues hold HIGH_WATER, and the kernel a hundred; one with the default of 1000 shows"
    reader.close()
    context.destroy()
