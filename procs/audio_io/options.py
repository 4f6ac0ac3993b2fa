"""What a device's ears and mouth can be told."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from procs import log, settings
from procs.environment import from_environment
from procs.errors import ConfigError
from procs.flags import command_line, parse_flags
from procs.kinds import PATH, SWITCH, TEXT, Address, Kind, matching, one_of, seconds, whole
from procs.settings import Layers, option

EXAMPLES = """\
  python -m procs.audio_io
  python -m procs.audio_io --list-devices
  python -m procs.audio_io --host 0.0.0.0 --microphone USB --speaker MAX98357A --wake-word okay_nabu
  python -m procs.audio_io --no-audio --input turns/ --output heard.wav

exit codes: 2 bad option, 3 a library is missing, 1 anything else"""


def _parse_host(text: str) -> str:
    bare = "127.0.0.1" if text == "localhost" else text.removeprefix("[").removesuffix("]")
    try:
        return socket.inet_ntop(family_of(bare), socket.inet_pton(family_of(bare), bare))
    except OSError:
        raise ValueError from None


def family_of(host: str) -> socket.AddressFamily:
    """IPv6 or IPv4, by how an address is written."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


HOST = Kind(_parse_host, "an IP address of this machine, such as 127.0.0.1; 0.0.0.0 is all of them")
TOKEN = matching(r"[!-~]{16,256}", "16 to 256 printable ASCII characters without blanks")
SAY, BETWEEN = "say:", "|"  # in `input`: before sentences, and between them
NAMED = matching(r"[^\x00-\x1f\x7f]{1,64}", "1 to 64 characters")


class Audio(settings.Settings):
    """Where it listens, who may, and what it hears and speaks with."""

    host: str = option("127.0.0.1", HOST, env=("PLANARIA_AUDIO_HOST",), help="where it listens for a backend")
    port: int = option(8765, whole(1, 65535), env=("PLANARIA_AUDIO_PORT",), help="and at which port")
    token: str = option(
        "", TOKEN, env=("PLANARIA_AUDIO_TOKEN",), secret=True, help="what a backend has to show (Authorization: Bearer)"
    )
    token_file: Path | None = option(
        None,
        PATH,
        env=("PLANARIA_AUDIO_TOKEN_FILE",),
        help="a file with what a backend has to show; default beyond this machine: made, in run/audio-token",
    )
    cert: Path | None = option(None, PATH, env=("PLANARIA_AUDIO_CERT",), help="certificate chain for TLS, PEM")
    key: Path | None = option(None, PATH, env=("PLANARIA_AUDIO_KEY",), help="its private key, PEM")
    name: str = option(
        "", NAMED, env=("PLANARIA_AUDIO_NAME",), help="what the device calls itself; default: the machine's name"
    )
    microphone: str = option(
        "", NAMED, env=("PLANARIA_AUDIO_MICROPHONE",), help="a part of its name; default: the system's choice"
    )
    speaker: str = option("", NAMED, env=("PLANARIA_AUDIO_SPEAKER",), help="the same of the speaker")
    volume: int = option(100, whole(0, 100), env=("PLANARIA_AUDIO_VOLUME",), help="of the speaker, in percent")
    echo: str = option(
        "auto",
        one_of("auto", "half-duplex", "none"),
        env=("PLANARIA_AUDIO_ECHO",),
        help="how it keeps from hearing itself: auto cancels the echo; half-duplex hears little while it speaks; none,"
        " for a headset",
    )
    gain: bool = option(
        False, SWITCH, env=("PLANARIA_AUDIO_GAIN",), help="raise a faint voice, and some of the noise and the echo, too"
    )
    wake_word: str = option(
        "",
        one_of("okay_nabu", "hey_jarvis", "alexa", "hey_mycroft"),
        env=("PLANARIA_AUDIO_WAKE_WORD",),
        help="it hears silence until this was said",
    )
    no_audio: bool = option(
        False, SWITCH, env=("PLANARIA_NO_AUDIO",), help="files instead of a microphone and a speaker"
    )
    input: str = option(
        "",
        TEXT,
        env=("PLANARIA_AUDIO_INPUT",),
        help="with --no-audio: a WAV file, a folder of turns, or say:ONE SENTENCE|ANOTHER; default: silence",
    )
    output: str = option(
        "", TEXT, env=("PLANARIA_AUDIO_OUTPUT",), help="with --no-audio: the WAV file that gets what was to be heard"
    )
    patience_s: float = option(
        10.0, seconds(0, 3600), help="with --no-audio: a turn waits for the reply to the one before, at most so long"
    )
    loop: bool = option(False, SWITCH, help="with --no-audio: begin the input again at its end")

    @property
    def listens(self) -> Address:
        """Where."""
        return Address(self.host, self.port)

    @property
    def needs_token(self) -> bool:
        """Whether one is asked for: others can reach it, or a person wants it so."""
        return not self.listens.is_loopback or bool(self.token) or self.token_file is not None

    @property
    def called(self) -> str:
        """The name that backends are told."""
        return self.name or socket.gethostname()[:64] or "device"


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Audio:
    """Settings of this process. Raises ConfigError, and SystemExit once it has listed what there is."""
    parser = command_line("audio_io", "This machine's microphone and speaker, for a voice backend.", EXAMPLES)
    parser.usage = "python -m procs.audio_io [OPTION ...]"
    listed = "show microphones and speakers, and end"
    parser.add_argument("--list-devices", action="store_const", const="1", help=listed)
    parser.add_argument("--json", action="store_const", const="1", help="that list for programs")
    flags = parse_flags(parser, Audio, list(sys.argv[1:] if argv is None else argv))
    environment, env_file = from_environment(os.environ if environ is None else environ)
    chosen = settings.load(Audio, Layers(flags, environment, env_file))
    if "list_devices" in flags:
        from procs.audio_io import devices  # here: it needs what only this role has installed

        print(devices.listing(as_json="json" in flags))
        raise SystemExit(0)
    check(chosen)
    return chosen


def check(chosen: Audio) -> None:
    """Raise ConfigError for settings that do not go together."""
    if (chosen.cert is None) != (chosen.key is None):
        raise ConfigError("PLANARIA_AUDIO_CERT and PLANARIA_AUDIO_KEY: must both be set, or neither")
    if chosen.token and chosen.token_file:
        raise ConfigError("set PLANARIA_AUDIO_TOKEN or PLANARIA_AUDIO_TOKEN_FILE, not both")
    if (chosen.input or chosen.output) and not chosen.no_audio:
        raise ConfigError("--input and --output: are for --no-audio (PLANARIA_NO_AUDIO=1)")
    _check_input(chosen.input)
    tls(chosen)


def _check_input(named: str) -> None:
    """Whether there is what `input` names, before anything is started or waited for."""
    if named.startswith(SAY):
        if not named.removeprefix(SAY).replace(BETWEEN, "").strip():
            raise ConfigError(f"input={named!r}: no sentence; as in say:what time is it|goodbye")
    elif named and not Path(named).expanduser().exists():
        raise ConfigError(f"input={named!r}: no such file or folder (and no {SAY}SENTENCE)")


class _Told(ssl.SSLObject):
    """TLS that tells of a caller who does not speak it, of whom nobody would learn else."""

    def do_handshake(self) -> None:
        """Go on with it."""
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                log.warning("a connection without TLS was turned away: wss:// is spoken here")
            raise


def tls(chosen: Audio) -> ssl.SSLContext | None:
    """What it speaks TLS with; None without. Raises ConfigError for files that can't be used."""
    if chosen.cert is None or chosen.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Told
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    named = f"PLANARIA_AUDIO_CERT={str(chosen.cert)!r}, PLANARIA_AUDIO_KEY={str(chosen.key)!r}"
    try:
        context.load_cert_chain(chosen.cert, chosen.key)
    except ssl.SSLError as error:
        raise ConfigError(f"{named}: must be a certificate and the key that belongs to it, in PEM ({error})") from None
    except OSError as error:
        which = next((each for each in (chosen.cert, chosen.key) if not os.access(each, os.R_OK)), chosen.cert)
        raise ConfigError(f"{named}: {which} cannot be read: {error.strerror}") from None
    return context
