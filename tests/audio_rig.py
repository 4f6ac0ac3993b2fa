"""audio_io as a process of its own, by its published name, with files in the place of a sound card. Ended by pid."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from procs.settings import ROOT
from tests.realtime_backend import RATE, Backend, Sound
from tests.rig import clean_environ, free_port, until

HEADER = 44  # bytes of a WAV file's


@dataclass
class Device:
    """One that runs."""

    process: subprocess.Popen[bytes]
    port: int
    run_dir: Path
    log: Path
    output: Path
    scheme: str = "ws"

    @property
    def url(self) -> str:
        """Where it is; any path will do."""
        return f"{self.scheme}://127.0.0.1:{self.port}/realtime"

    @property
    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    def played(self) -> Sound:
        """What came out of its speaker so far."""
        data = self.output.read_bytes()[HEADER:]
        return np.frombuffer(data[: len(data) // 2 * 2], "<i2")


@contextlib.contextmanager
def device(folder: Path, *flags: str, scheme: str = "ws", is_file: bool = True) -> Iterator[Device]:
    """Run one until it says that a backend can call. `is_file`: with files in the place of cards."""
    folder.mkdir(exist_ok=True)
    port, run_dir, output = free_port(), folder / "run", folder / "out.wav"
    command = [sys.executable, "scripts/remote_device_server.py", "--port", str(port)]
    command += ["--no-audio", "--output", str(output)] if is_file else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *flags], stderr=log, env=clean_environ(PLANARIA_RUN_DIR=str(run_dir)), cwd=ROOT
        )
    running = Device(process, port, run_dir, folder / "log", output, scheme)
    try:
        until(lambda: process.poll() is not None or "a backend can call" in running.said)
        assert process.poll() is None, running.said
        yield running
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def is_free(its: Device) -> bool:
    """Whether a backend gets in and is not turned away at once. It leaves again."""
    with Backend(its.url) as backend:
        backend.begin()
        with contextlib.suppress(Exception):
            backend.listen(0.3)
        return bool(backend.ogg)


def wav(path: Path, sound: Sound) -> Path:
    """A file of it."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(sound.tobytes())
    return path
