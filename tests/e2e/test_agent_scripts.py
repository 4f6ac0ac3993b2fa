"""Programs of the published Python API as processes, at our hub: our examples, and one written as others write them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from procs.settings import ROOT
from tests import hub_rig
from tests.rig import clean_environ, until

SCRIPTS = ROOT / "scripts"
# From the documentation of the published agent: its names, its flow, its callbacks.
PUBLISHED = """
    import asyncio
    from agent import AgentCore, AgentSettings, SignalingClient, Transport, create_transport, load_settings
    from agent.tun import TunDevice, check_tun_support, create_tun

    class Shouting(Transport):
        def send_text(self, text):
            return self.send(text.upper().encode())

    async def main():
        settings = load_settings()
        settings.mode = "chat"
        core = AgentCore(settings, SignalingClient(settings))
        await core.start()
        await core.connect_to("alice")
        while not ((session := core.get_session("alice")) and session.is_connected() and core.get_channel("alice")):
            await asyncio.sleep(0.05)
        heard = asyncio.Event()
        session.transport.on_message(lambda data: (print(data.decode("utf-8"), flush=True), heard.set()))
        own = Shouting()
        own.attach_channel(core.get_channel("alice"))
        own.send_text("from afar")
        await heard.wait()
        assert list(core.get_all_sessions()) == ["alice"] and session.pc.connectionState == "connected"
        await core.stop()

    asyncio.run(main())
"""


@contextmanager
def agent(name: str, folder: Path, port: int, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A program of this agent's, at that hub."""
    environ = clean_environ(
        AGENT_ID=name,
        SIGNALING_URL=f"ws://127.0.0.1:{port}/ws/signal",
        PLANARIA_RUN_DIR=str(folder / name),
        PLANARIA_SUITE="test",
        PYTHONPATH=str(SCRIPTS),
    )
    pipe = subprocess.PIPE
    running = subprocess.Popen(
        [sys.executable, *command], env=environ, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()
        for pipe_end in (running.stdin, running.stdout):
            if pipe_end:
                pipe_end.close()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a hub that does nothing but signalling."""
    with hub_rig.process(tmp_path_factory.mktemp("hub"), command=(*hub_rig.HUB, "--only", "signal")) as hub:
        yield hub.port


def line(of: IO[str] | None, start: str) -> str:
    """The first line that begins so."""
    assert of
    for text in of:
        if text.startswith(start):
            return text.strip()
    raise AssertionError(f"it ended before it said {start!r}")


def test_the_examples_talk_to_each_other_and_to_a_program_of_the_published_api(tmp_path: Path, port: int) -> None:
    program = tmp_path / "published.py"
    program.write_text(textwrap.dedent(PUBLISHED))
    with agent("alice", tmp_path, port, str(SCRIPTS / "chat_answer.py")) as alice:
        line(alice.stdout, "listening as alice")
        with agent("bob", tmp_path, port, str(SCRIPTS / "chat_offer.py"), "alice") as bob:
            line(bob.stdout, "connected to alice")
            assert bob.stdin
            bob.stdin.write("grüß dich\n")
            bob.stdin.flush()
            assert line(bob.stdout, "<") == "< you said: grüß dich"
            bob.stdin.close()
            until(lambda: bob.poll() == 0)
        with agent("carol", tmp_path, port, str(program)) as carol:
            assert line(carol.stdout, "you") == "you said: FROM AFAR"
            until(lambda: carol.poll() == 0)
