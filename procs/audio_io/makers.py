"""Which ears and mouth were asked for."""

from __future__ import annotations

import msgspec

from procs.audio_io import echo, wake
from procs.audio_io.cards import CardSound
from procs.audio_io.ear import Ear
from procs.audio_io.files import FileSound, script_of
from procs.audio_io.sound import Sound


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of sound."""

    no_audio: bool = False  # files in the place of cards
    input: str = ""  # of no_audio: a WAV file, a directory of them, or say:one sentence|another
    output: str = ""  # of no_audio: a WAV file to be made
    patience_s: float = 10.0  # a turn waits for the reply to the one before, at most so long
    loop: bool = False  # begin the input again at its end
    microphone: str = ""  # part of a name; "": the machine's default
    speaker: str = ""
    echo: str = "auto"  # one of echo.CHOICES
    gain: bool = False  # raise a faint voice; raises a little of the noise and echo, too
    wake_word: str = ""  # one of wake.WORDS


def make(wanted: Wanted) -> Sound:
    """Ears and mouth that are not started yet. Raises ConfigError and NotHere for what can never be; a card that is
    missing may come yet, and is told in the state."""
    attention = wake.choose(wanted.wake_word)
    if not wanted.no_audio:
        ear = Ear(echo.choose(wanted.echo, gain=wanted.gain), attention)
        return CardSound(ear, wanted.microphone, wanted.speaker)
    script = script_of(wanted.input, patience_s=wanted.patience_s, loop=wanted.loop)
    return FileSound(Ear(echo.Nothing("cancelled"), attention), script, wanted.output)
