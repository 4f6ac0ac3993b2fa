"""audio_io as a process of its own, by its published name, with files in the place of a sound card. Ended by pid."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from procs.settings import ROOT
from tests.realtime_backend import RATE, Backend, Sound
from tests.rig import clean_environ, free_port, until

HEADER = 44  # bytes of a WAV file's
PUBLISHED = ("scripts/remote_device_server.py",)


@dataclass
class Device:
    """One that runs."""

    command: Sequence[str]
    port: int
    folder: Path
    scheme: str = "ws"
    process: subprocess.Popen[bytes] = field(init=False)
    _from: int = field(init=False)  # where in the log this run begins

    def start(self) -> None:
        """Start it. Its output begins anew."""
        with self.log.open("ab") as log:
            self._from = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                stderr=log,
                env=clean_environ(PLANARIA_RUN_DIR=str(self.run_dir)),
                cwd=ROOT,
            )

    def wait(self) -> None:
        """Until it says that a backend can call."""
        until(lambda: self.process.poll() is not None or "a backend can call" in self.said[self._from :])
        assert self.process.poll() is None, self.said

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def run_dir(self) -> Path:
        """Its own."""
        return self.folder / "run"

    @property
    def log(self) -> Path:
        """Where it logs."""
        return self.folder / "log"

    @property
    def output(self) -> Path:
        """What came out of its speaker."""
        return self.folder / "out.wav"

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
def device(
    folder: Path, *flags: str, scheme: str = "ws", is_file: bool = True, program: Sequence[str] = PUBLISHED
) -> Iterator[Device]:
    """Run one until the end of the block, from when a backend can call. `is_file`: with files in the place of cards."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    command = [*program, "--port", str(port)]
    command += ["--no-audio", "--output", str(folder / "out.wav")] if is_file else []
    running = Device([*command, *flags], port, folder, scheme)
    running.start()
    try:
        running.wait()
        yield running
    finally:
        running.kill()


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
