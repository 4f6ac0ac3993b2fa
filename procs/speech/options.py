"""What the speech services can be told. One class for the three: they are one role, and are set up together."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from procs import settings
from procs.errors import ConfigError
from procs.settings import ADDRESS, PATH, SWITCH, Address, Layers, matching, option, seconds, whole

PROGRAMS = ("stt", "tts", "llm")
LONG_KEY = 16
EXAMPLES = """\
  python -m procs.speech stt
  python -m procs.speech tts --tts 127.0.0.1:9089 --sessions 2
  PLANARIA_SPEECH_KEY=... python -m procs.speech llm --llm 0.0.0.0:8091

exit codes: 2 bad option, 3 something is not installed, 15 the zygote of stt died, 1 anything else"""
KEY = matching(r"[!-~]{1,256}", "1 to 256 printable ASCII characters without blanks")


class Speech(settings.Settings):
    """Settings of the three."""

    stt: Address = option(Address("127.0.0.1", 8090), ADDRESS, env=("PLANARIA_SPEECH_STT",), help="where stt listens")
    tts: Address = option(Address("127.0.0.1", 8089), ADDRESS, env=("PLANARIA_SPEECH_TTS",), help="where tts listens")
    llm: Address = option(Address("127.0.0.1", 8091), ADDRESS, env=("PLANARIA_SPEECH_LLM",), help="where llm listens")
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
        """Where one of them listens."""
        address: Address = getattr(self, which)
        return address


def which(argv: Sequence[str]) -> str:
    """The program that a command line asks for; "" for what `load` has something to say about."""
    return argv[0] if argv and argv[0] in PROGRAMS else ""


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Speech:
    """Settings of this process, or of any of the three where the command line names none (`[]`). Raises ConfigError."""
    argv = sys.argv[1:] if argv is None else argv
    parser = settings.command_line("python -m procs.speech", "Hears, speaks and answers.", EXAMPLES)
    parser.add_argument("program", choices=PROGRAMS, help="which of the three")
    flags = settings.parse_flags(parser, Speech, argv)
    program = flags.pop("program")
    environment, env_file = settings.from_environment(os.environ if environ is None else environ)
    return check(settings.load(Speech, Layers(flags, environment, env_file)), program)


def check(chosen: Speech, *programs: str) -> Speech:
    """The settings with their key, once they can be used for these programs. Raises ConfigError."""
    if chosen.key and chosen.key_file:
        raise ConfigError("PLANARIA_SPEECH_KEY and PLANARIA_SPEECH_KEY_FILE: set one of them")
    if chosen.key_file:
        chosen = chosen.but(key=_key_in(chosen.key_file), key_file=None)
    for program in programs:
        address = chosen.listen(program)
        if not address.is_loopback and len(chosen.key) < LONG_KEY and not (chosen.compat and chosen.key):
            raise ConfigError(
                f"PLANARIA_SPEECH_{program.upper()}={address}: others can reach it; set PLANARIA_SPEECH_KEY or"
                f" PLANARIA_SPEECH_KEY_FILE, {LONG_KEY} characters or more"
            )
    return chosen


def _key_in(file: Path) -> str:
    try:
        key: str = KEY.parse(file.read_text().strip())
    except OSError as error:
        raise ConfigError(f"PLANARIA_SPEECH_KEY_FILE={str(file)!r}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"PLANARIA_SPEECH_KEY_FILE={str(file)!r}: must hold {KEY.allowed}") from None
    return key
