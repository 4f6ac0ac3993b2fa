"""A clause into sound, by flite or espeak-ng: programs of the machine's, one process a clause, which are not linked.

They read text from stdin, which, as against a command line, nobody else can read, and write their sound into a file in
memory, as flite wants one that it can go back in. They die with us, and by their limits of processor time and size.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import shutil
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import soxr

from procs import log, prctl
from procs.errors import NotHere, PlanariaError, Refused
from procs.speech.tts import timing
from procs.speech.tts.clauses import spoken
from procs.speech.tts.timing import Span
from procs.speech.tts.voices import Voice

RATE = 24_000
LIMIT_S = 10.0  # for one clause; about 60 ms is usual
CPU_LIMIT_S = 10
LONGEST_BYTES = 8 * 1024 * 1024  # of sound: over two minutes
_FILE_LIMIT = 128 * 1024 * 1024  # espeak-ng makes one of 64 MiB, which stays empty, for a sound server
TRIES = 2
LEAD_S = 0.03  # kept of the silence before the first sound
TAIL_S = 0.03
QUIET = 300  # of 32768: espeak-ng's silence has none of it
PACKAGES = {"flite": "flite", "espeak-ng": "espeak-ng"}
_NO_VOICE = "voice does not exist"  # in what espeak-ng says
_WORDS_VOICE = "kal"  # the smallest: only asked how words sound, which all of flite's voices agree on

MOST_WORDS = 10_000
# How words sound alone: most have been said before, and each process that need not be started is 10 ms.
_sounds: dict[str, list[str]] = {}
_known_variants: set[str] = set()

Sound = np.ndarray[tuple[int], np.dtype[np.int16]]


class SynthesisFailed(PlanariaError):
    """A synthesiser made no sound of a clause; the text says what it said."""


class Speech(NamedTuple):
    """A clause, spoken: 24 kHz mono, without the silence around it, and when each of its words is."""

    pcm: Sound
    words: list[Span]


class _Ended(NamedTuple):
    wave: bytes
    printed: str


async def speak(voice: Voice, words: Sequence[str]) -> Speech:
    """The sound of these words. Raises NotHere, SynthesisFailed; Refused for a voice that espeak-ng does not have."""
    given = [spoken(word, ascii_only=voice.program == "flite") for word in words]
    if not any(given):
        return Speech(np.zeros(0, np.int16), [Span(0.0, 0.0)] * len(words))
    for left in reversed(range(TRIES)):
        try:
            async with asyncio.timeout(LIMIT_S):
                return await (_flite(voice, given) if voice.program == "flite" else _espeak(voice, given))
        except (SynthesisFailed, TimeoutError) as error:
            why = str(error) or f"{voice.program}: not done within {LIMIT_S:g} s"
            if not left:
                raise SynthesisFailed(why) from None
            log.warning("a synthesiser failed; once more", why=why)
    raise AssertionError


def program(name: str) -> str:
    """Where a synthesiser is. Raises NotHere."""
    if found := shutil.which(name):
        return found
    raise NotHere(f"{name} is not installed: apt-get install {PACKAGES[name]}")


async def _flite(voice: Voice, given: Sequence[str]) -> Speech:
    flite = program("flite")
    heard, alone = await asyncio.gather(
        _run([flite, "-voice", voice.name, "-psdur"], " ".join(filter(None, given)), "-f", "-o"),
        _alone(flite, given),
    )
    rate, sound = _sound("flite", heard.wave)
    try:
        phones = timing.phones(heard.printed)
    except ValueError as error:
        raise SynthesisFailed(f"flite: {error}") from None
    sounding = [phone for phone in phones if phone.name != timing.SILENCE]
    if not sounding:
        return Speech(np.zeros(0, np.int16), [Span(0.0, 0.0)] * len(given))
    start_s, stop_s = sounding[0].start_s, sounding[-1].end_s
    spans = timing.spans(phones, alone) if alone else timing.by_length(given, start_s, stop_s)
    return _trimmed(rate, sound, spans, start_s, stop_s)


async def _alone(flite: str, given: Sequence[str]) -> list[list[str]]:
    """How each word sounds alone; [] where flite makes two of one, or none."""
    known = {word: _sounds[word] for word in given if word in _sounds} | {"": []}
    if new := [word for word in dict.fromkeys(given) if word not in known]:
        ended = await _run([flite, "-voice", _WORDS_VOICE, "-ps"], "\n\n".join(new), "-f", "")
        lines = timing.words_alone(ended.printed)
        if len(lines) != len(new):
            return []
        known |= zip(new, lines, strict=True)
        if len(_sounds) < MOST_WORDS:
            _sounds.update(known)
    return [known[word] for word in given]


async def _espeak(voice: Voice, given: Sequence[str]) -> Speech:
    espeak = program("espeak-ng")
    variant = voice.name.partition("+")[2]
    if variant and variant not in await _variants(espeak):  # it would speak without it, and not say so
        raise Refused(
            f"variant {variant!r}: espeak-ng does not have it (espeak-ng --voices=variant lists those it has)"
        )
    arguments = [espeak, "-b", "1", "-v", voice.name, "-z", "--stdin"]
    ended = await _run(arguments, " ".join(filter(None, given)), "", "-w")
    rate, sound = _sound("espeak-ng", ended.wave)
    loud = np.flatnonzero(np.abs(sound.astype(np.int32)) > QUIET)
    if not loud.size:
        return Speech(np.zeros(0, np.int16), [Span(0.0, 0.0)] * len(given))
    start_s, stop_s = float(loud[0]) / rate, float(loud[-1] + 1) / rate
    return _trimmed(rate, sound, timing.by_length(given, start_s, stop_s), start_s, stop_s)


async def _variants(espeak: str) -> set[str]:
    """The names that may stand after a +. Asked once. Raises SynthesisFailed."""
    if not _known_variants:
        process = await asyncio.create_subprocess_exec(
            espeak,
            "--voices=variant",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=_Limits(os.getpid()),
        )
        printed, _ = await process.communicate()
        if process.returncode:
            raise SynthesisFailed(f"espeak-ng --voices=variant: exit status {process.returncode}")
        _known_variants.update(re.findall(r" !v/(\w+)", printed.decode(errors="replace")))
    return _known_variants


def _trimmed(rate: int, sound: Sound, spans: list[Span], start_s: float, stop_s: float) -> Speech:
    """Without the silence around it, of which synthesisers make half a second a clause, at our rate."""
    begin_s = max(0.0, start_s - LEAD_S)
    kept = sound[int(begin_s * rate) : int((stop_s + TAIL_S) * rate)]
    pcm = soxr.resample(kept, rate, RATE) if rate != RATE else kept
    ends_s = len(pcm) / RATE
    return Speech(
        np.ascontiguousarray(pcm, np.int16),
        [Span(min(each.start_s - begin_s, ends_s), min(each.stop_s - begin_s, ends_s)) for each in spans],
    )


async def _run(command: list[str], text: str, reads: str, writes: str) -> _Ended:
    """Run a synthesiser on a text; `reads` and `writes` are its flags for files. Raises SynthesisFailed, Refused."""
    memory = os.memfd_create("speech")
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            *([reads, "/dev/stdin"] if reads else []),
            *([writes, f"/proc/self/fd/{memory}"] if writes else ["-o", "none"]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[memory],
            preexec_fn=_Limits(os.getpid()),
        )
        try:
            printed, complained = await process.communicate(text.encode() + b"\n\n")  # flite needs an end
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended, as it should
                process.kill()
        if process.returncode or (writes and not os.fstat(memory).st_size):
            said = complained.decode(errors="replace").strip().splitlines()[-1:] or [
                f"exit status {process.returncode}"
            ]
            if _NO_VOICE in said[0]:
                raise Refused(f"{said[0][:200]} (espeak-ng --voices lists those there are)")
            raise SynthesisFailed(f"{os.path.basename(command[0])}: {said[0][:200]}")
        wave = os.pread(memory, LONGEST_BYTES, 0)
    finally:
        os.close(memory)
    return _Ended(wave, printed.decode(errors="replace"))


class _Limits:
    """What is done in a synthesiser's process before it is one."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def __call__(self) -> None:
        prctl.bind_to_parent(self._parent)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_LIMIT, _FILE_LIMIT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _sound(name: str, wave: bytes) -> tuple[int, Sound]:
    """Rate and samples of a RIFF file of 16 bit mono. Raises SynthesisFailed."""
    at = wave.find(b"data", 36)
    if wave[:4] != b"RIFF" or at < 0:
        raise SynthesisFailed(f"{name}: what it wrote is no sound")
    channels, rate = struct.unpack_from("<HI", wave, 22)
    if channels != 1 or not 4000 <= rate <= 192_000:
        raise SynthesisFailed(f"{name}: what it wrote has {channels} channels at {rate} Hz")
    body = wave[at + 8 :]
    return rate, np.frombuffer(body[: len(body) // 2 * 2], "<i2")


async def warm() -> None:
    """Have a synthesiser's pages read before somebody waits for them."""
    with contextlib.suppress(PlanariaError):
        await speak(Voice("flite", "slt"), ["ready"])
