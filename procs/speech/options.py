"""What the speech services can be told. One class for the three: they are one role, and are set up together."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from procs import settings
from procs.environment import from_environment
from procs.errors import ConfigError
from procs.flags import command_line, parse_flags
from procs.kinds import ADDRESS, PATH, SWITCH, Address, Kind, matching, seconds, whole
from procs.settings import Layers, option

PROGRAMS = ("stt", "tts", "llm")
LONG_KEY = 16
EXAMPLES = """\
  python -m procs.speech stt
  python -m procs.speech tts --tts 127.0.0.1:9089 --sessions 2
  PLANARIA_SPEECH_KEY=... python -m procs.speech llm --llm 0.0.0.0:8091

exit codes: 2 bad option, 3 something is not installed, 15 the zygote of stt died, 1 anything else"""
KEY = matching(r"[!-~]{1,256}", "1 to 256 printable ASCII characters without blanks")
OFF = "off"
_OWN = {"stt": ("stt", "sessions", "pause_s"), "tts": ("tts", "sessions"), "llm": ("llm",)}  # the rest is of all
LISTENS = Kind(
    lambda text: None if text == OFF else ADDRESS.parse(text), f"{ADDRESS.allowed}, or {OFF}: another server is used"
)


class Speech(settings.Settings):
    """Settings of the three."""

    stt: Address | None = option(
        Address("127.0.0.1", 8090), LISTENS, env=("PLANARIA_SPEECH_STT",), help="where stt listens"
    )
    tts: Address | None = option(
        Address("127.0.0.1", 8089), LISTENS, env=("PLANARIA_SPEECH_TTS",), help="where tts listens"
    )
    llm: Address | None = option(
        Address("127.0.0.1", 8091), LISTENS, env=("PLANARIA_SPEECH_LLM",), help="where llm listens"
    )
    key: str = option(
        "",
        KEY,
        env=("PLANARIA_SPEECH_KEY",),
        help="what callers show (kyutai-api-key, or Bearer); default: none is asked for on this machine alone",
        secret=True,
    )
    key_file: Path | None = option(
        None, PATH, env=("PLANARIA_SPEECH_KEY_FILE",), help="a file with what callers show; or PLANARIA_SPEECH_KEY"
    )
    compat: bool = option(
        False, SWITCH, env=("PLANARIA_COMPAT",), help="take the key as ?auth_id= too, and a short one from others"
    )
    sessions: int = option(
        8, whole(1, 256), env=("PLANARIA_SPEECH_SESSIONS",), help="how many at once, of stt and of tts each"
    )
    pause_s: float = option(
        0.48, seconds(0.2, 3.0), env=("PLANARIA_SPEECH_PAUSE_S",), help="silence after which stt takes a turn for over"
    )

    def listen(self, which: str) -> Address:
        """Where one of them listens. Raises ConfigError for one that is off."""
        address: Address | None = getattr(self, which)
        if address is None:
            raise ConfigError(f"PLANARIA_SPEECH_{which.upper()}={OFF}: set an address, and it can be run")
        return address

    @property
    def on(self) -> tuple[str, ...]:
        """Those that are ours to run."""
        return tuple(program for program in PROGRAMS if program not in self.off)

    @property
    def off(self) -> tuple[str, ...]:
        """Those in whose place another server is used."""
        return tuple(program for program in PROGRAMS if getattr(self, program) is None)


def which(argv: Sequence[str]) -> str:
    """The program that a command line asks for; "" for what `load` has something to say about."""
    return argv[0] if argv and argv[0] in PROGRAMS else ""


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Speech:
    """Settings of this process, or of any of the three where the command line names none (`[]`). Raises ConfigError."""
    argv = sys.argv[1:] if argv is None else argv
    program = which(argv)
    examples = [
        line
        for line in EXAMPLES.splitlines()
        if program in line.partition(" -m procs.speech ")[2] or " -m " not in line
    ]
    parser = command_line("python -m procs.speech", "Hears, speaks and answers.", "\n".join(examples))
    parser.usage = f"python -m procs.speech {program or '|'.join(PROGRAMS)} [OPTION ...]"
    parser.add_argument("program", choices=PROGRAMS, help="which of the three; it comes first, and --help after it")
    others = (each for named, its in _OWN.items() if program and named != program for each in its)
    flags = parse_flags(parser, Speech, argv, {*others} - {*_OWN.get(program, ())})
    if flags.pop("program") != program:
        raise ConfigError(f"which of the three has to come first: {parser.usage}")
    environment, env_file = from_environment(os.environ if environ is None else environ)
    return check(settings.load(Speech, Layers(flags, environment, env_file)), program)


def check(chosen: Speech, *programs: str) -> Speech:
    """The settings with their key, once they can be used for these programs. Raises ConfigError."""
    if chosen.key and chosen.key_file:
        raise ConfigError("PLANARIA_SPEECH_KEY and PLANARIA_SPEECH_KEY_FILE: set one of them")
    if chosen.key_file:
        chosen = chosen.but(key=settings.in_file("PLANARIA_SPEECH_KEY_FILE", KEY, chosen.key_file), key_file=None)
    for program in programs:
        address = chosen.listen(program)
        if not address.is_loopback and len(chosen.key) < LONG_KEY and not (chosen.compat and chosen.key):
            raise ConfigError(
                f"PLANARIA_SPEECH_{program.upper()}={address}: others can reach it; set PLANARIA_SPEECH_KEY or"
                f" PLANARIA_SPEECH_KEY_FILE, {LONG_KEY} characters or more"
            )
    return chosen
