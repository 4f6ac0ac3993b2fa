"""The voice backend's leader, as little of it as its children need: a zygote, their end of the bus, and what they say.

`python -m tests.voice_child RUN_DIR` is the process; each line of its input is an order, each line of its output what
happened, in JSON. `leading` runs one for a test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from procs import brood, bus, line
from procs.messages import encode
from procs.messages.voice import Services, VoiceSpec
from procs.settings import ROOT
from tests.rig import clean_environ, until


class Leader:
    """A running one."""

    def __init__(self, run_dir: Path, log: Path) -> None:
        self.run_dir, self.log = run_dir, log
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.voice_child", str(run_dir)], cwd=ROOT, text=True, bufsize=1,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, env=clean_environ(PYTHONPATH=str(ROOT)),
            )  # fmt: skip
        self.pids: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self.zygote = 0
        self.beats: dict[str, dict[str, Any]] = defaultdict(dict)  # the last of each child
        self.beaten = 0  # how many there were
        self.states: dict[str, list[str]] = defaultdict(list)
        self.lines: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        self.figures: dict[str, list[tuple[str, float]]] = defaultdict(list)
        self.frames: dict[str, list[tuple[dict[str, Any], bytes]]] = defaultdict(list)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def end(self) -> None:
        """It and its children die."""
        assert self.process.stdin
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def start(self, child: str, services: Services, **fields: Any) -> None:
        """Have one born."""
        spec = VoiceSpec(
            id=child, run_dir=str(self.run_dir), services=services,
            **{"instructions": '{"type": "smalltalk", "language": "en"}', **fields},
        )  # fmt: skip
        self._order(fork=child, spec=base64.b64encode(encode(spec)).decode())

    def tell(self, child: str, message: msgspec.Struct, body: bytes = b"") -> None:
        """Say something to a child."""
        told = base64.b64encode(encode(message)).decode()
        self._order(tell=child, message=told, body=base64.b64encode(body).decode())

    def kill(self, child: str) -> None:
        """SIGKILL."""
        os.kill(self.pids[child], signal.SIGKILL)

    def said(self, child: str, role: str) -> str:
        """All that was said by one side, in the last wording of each turn."""
        return " ".join(its["text"] for _, its in sorted(self.lines[child].items()) if its["role"] == role)

    def figure(self, child: str, name: str) -> list[float]:
        """All values of one."""
        return [value for each, value in list(self.figures[child]) if each == name]

    def _order(self, **fields: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(fields) + "\n")

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as said:
            for text in said:
                self._take(json.loads(text))

    def _take(self, its: dict[str, Any]) -> None:
        child, kind = its.get("child", ""), its["kind"]
        if kind == "ready":
            self.zygote = its["zygote"]
        elif kind == "born":
            self.pids[child] = its["pid"]
        elif kind == "ended":
            self.ended[child] = its["status"]
        else:
            self._told(child, kind, its["message"], base64.b64decode(its["body"]))

    def _told(self, child: str, kind: str, message: dict[str, Any], body: bytes) -> None:
        if kind == "voice_beat":
            if not self.states[child] or self.states[child][-1] != message["state"]:
                self.states[child].append(message["state"])
            self.beats[child] = message
            self.beaten += 1
        elif kind == "line":
            self.lines[child][message["number"]] = message
        elif kind == "voice_figures":
            self.figures[child] += [(name, value) for name, value in message["seen"]]
        elif kind == "outgoing":
            self.frames[child].append((message, body))


@contextlib.contextmanager
def leading(folder: Path) -> Iterator[Leader]:
    """Run one until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    leader = Leader(folder / "run", folder / "leader.log")
    try:
        until(lambda: leader.zygote or leader.process.poll() is not None)
        assert leader.process.poll() is None, leader.log.read_text()
        yield leader
    finally:
        leader.end()


def _say(kind: str, **fields: Any) -> None:
    print(json.dumps({"kind": kind, **fields}), flush=True)


def _main(run_dir: Path, family: brood.Brood) -> None:
    async def lead() -> None:
        def take(child: str, message: bytes, body: bytes) -> None:
            told = msgspec.msgpack.decode(message)
            _say(told["type"], child=child, message=told, body=base64.b64encode(body).decode())

        ends = line.binder(run_dir, bus.VOICE_CHILDREN, take)
        rest = b""

        def order() -> None:
            nonlocal rest
            data = os.read(0, 1 << 20)
            if not data:
                os._exit(0)  # the test is gone, and has not ended us
            *lines, rest = (rest + data).split(b"\n")
            for text in lines:
                its = json.loads(text)
                if "fork" in its:
                    family.fork(its["fork"], base64.b64decode(its["spec"]))
                else:
                    ends.send(base64.b64decode(its["message"]), base64.b64decode(its["body"]), to=its["tell"])

        asyncio.get_running_loop().add_reader(0, order)
        await family.watch(
            lambda: _say("ready", zygote=family.zygote),
            lambda child, pid: _say("born", child=child, pid=pid),
            lambda child, status: _say("ended", child=child, status=status),
        )

    asyncio.run(lead())


if __name__ == "__main__":
    _main(Path(sys.argv[1]), brood.hatch("voice", "procs.voice.birth", "live"))
