"""Ears and mouth without a card: the microphone is files or generated speech, the speaker a file; all in real time.

Nothing is said before somebody listens. Turns (a directory's files in the order of their names, or sentences) wait
until the reply to the one before has ended, or for so long.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np

from procs import log
from procs.audio_io.board import Board, Pace
from procs.audio_io.ear import Ear
from procs.audio_io.options import BETWEEN, SAY
from procs.audio_io.sound import BLOCK, BLOCK_S, RATE, Cursor, Pcm
from procs.errors import ConfigError, NotHere, PlanariaError

LONGEST_OUTPUT_S = 3600  # 170 MB
_AFTER_REPLY_S = 0.5
_SYNTHESIS_S = 20.0
_HEAD = struct.Struct("<4sI8sIHHIIHH4sI")
_HEADER_EVERY = 50  # blocks: whoever is killed leaves a file that can be read but for its last second

Turn = Callable[[], Pcm]


class FileSound(Board):
    """Sound from files and into one."""

    def __init__(self, ear: Ear, script: Script, output: str) -> None:
        super().__init__(ear)
        self._script = script
        self._output = WavFile(Path(output)) if output else None

    def _run(self) -> None:
        self.ear.prepare()
        self._script.prepare()
        pace = Pace()
        while True:
            pace.wait()
            spoken = self.player.pull()
            self.ear.spoken(spoken)
            self._write(spoken)
            self._deliver(self.ear.hear(self._script.block(self.cursor, self._listening)))

    def _write(self, spoken: Pcm) -> None:
        """A disk that is full costs the file, not the conversation."""
        if self._output is None:
            return
        try:
            self._output.write(spoken)
        except OSError as error:
            self._output, self.speaker = None, f"missing: the output cannot be written: {error.strerror}"
            log.error("output-left-out", error=str(error))


class Script:
    """Which turn is said when. Whatever cannot be made is told in the log and left out."""

    def __init__(self, turns: list[Turn], *, patience_s: float, loop: bool = False, at_once: bool = False) -> None:
        self._turns, self._patience_s, self._loop = turns, patience_s, loop
        self._next = 0
        self._saying: Pcm | None = None
        self._ready: Pcm | None = None
        self._answered = 0  # the response that was the last when this side fell silent
        self._quiet_s = patience_s if at_once else 0.0

    def prepare(self) -> None:
        """Have the next turn ready."""
        while self._ready is None and self._next < len(self._turns):
            try:
                self._ready = self._turns[self._next]()
            except (PlanariaError, OSError) as error:
                log.error("turn-left-out", turn=self._next, error=str(error))
            self._next += 1
            if self._loop and self._ready is not None:
                self._next %= len(self._turns)

    def block(self, cursor: Cursor, listening: bool) -> Pcm:
        """What the microphone hears next."""
        if self._saying is None and listening and self._may_begin(cursor):
            self._saying, self._ready = self._ready, None
        if self._saying is None:
            return np.zeros(BLOCK, np.int16)
        block, self._saying = self._saying[:BLOCK], self._saying[BLOCK:]
        if not len(self._saying):
            self._saying, self._quiet_s = None, 0.0
            self._answered = cursor.response
            self.prepare()
        return np.pad(block, (0, BLOCK - len(block)))

    def _may_begin(self, cursor: Cursor) -> bool:
        if self._ready is None:
            return False
        self._quiet_s = self._quiet_s + BLOCK_S if cursor.state in ("done", "flushed") else 0.0
        replied = cursor.response > self._answered and self._quiet_s >= _AFTER_REPLY_S
        return replied or self._quiet_s > self._patience_s


def script_of(chosen: str, *, patience_s: float, loop: bool) -> Script:
    """What `--input` names: nothing, a file, a directory of files, or `say:` sentences with | between them."""
    if not chosen:
        return Script([], patience_s=patience_s)
    if chosen.startswith(SAY):
        if shutil.which("flite") is None:
            raise NotHere(f"input={chosen!r}: there is no flite here: apt-get install flite")
        sentences = [part.strip() for part in chosen.removeprefix(SAY).split(BETWEEN)]
        return Script([partial(speech, text) for text in sentences if text], patience_s=patience_s, loop=loop)
    path = Path(chosen).expanduser()
    if path.is_dir():
        paths = sorted(found for found in path.iterdir() if found.suffix.lower() == ".wav")
        if not paths:
            raise ConfigError(f"input={chosen!r}: there is no .wav file in it")
        return Script([partial(read, found) for found in paths], patience_s=patience_s, loop=loop)
    sound = read(path)
    return Script([lambda: sound], patience_s=patience_s, loop=loop, at_once=True)


def read(path: Path) -> Pcm:
    """A file's sound. Raises ConfigError where there is none."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise ConfigError(f"{path}: has no sound in it")
            ours = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            parts = [
                part.to_ndarray()[0]
                for frame in [*container.decode(container.streams.audio[0]), None]
                for part in ours.resample(frame)
            ]
    except (av.FFmpegError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def speech(text: str, voice: str = "slt") -> Pcm:
    """Generated by flite. Raises NotHere where it can't be."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as made:
        command = ["flite", "-voice", voice, "-f", "/dev/stdin", "-o", made.name]
        try:
            subprocess.run(command, input=text.encode() + b"\n", timeout=_SYNTHESIS_S, check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotHere(f"flite cannot speak: {error}") from None
        return read(Path(made.name))


class WavFile:
    """A file of sound that grows. It can be read at any time, also after a death."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path.expanduser(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"output={str(path)!r}: cannot be written: {error.strerror}") from None
        self._blocks = 0
        self._head()

    def write(self, pcm: Pcm) -> None:
        """One block more, up to an hour of them."""
        if self._blocks * BLOCK_S >= LONGEST_OUTPUT_S:
            return
        os.pwrite(self._file, pcm.astype("<i2").tobytes(), _HEAD.size + self._blocks * BLOCK * 2)
        self._blocks += 1
        if self._blocks % _HEADER_EVERY == 0:
            self._head()

    def _head(self) -> None:
        size = self._blocks * BLOCK * 2
        parts = (b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 1, RATE, RATE * 2, 2, 16, b"data", size)
        os.pwrite(self._file, _HEAD.pack(*parts), 0)
