"""What the voice backend can be told, under the names by which it was published."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from procs import settings
from procs.environment import from_environment
from procs.errors import ConfigError
from procs.flags import command_line, parse_flags
from procs.kinds import ADDRESS, PATH, SWITCH, TEXT, Address, Kind, matching, one_of, whole
from procs.settings import Layers, option

if TYPE_CHECKING:
    from procs.messages.voice import Services

LONG_KEY = 16
MAX_INSTANCES = 16
EXAMPLES = """\
  python -m procs.voice
  REMOTE_DEVICES_CONFIG=/etc/planaria/devices.json python -m procs.voice --port 8000
  KYUTAI_STT_URL=ws://10.0.0.5:8090,ws://10.0.0.6:8090 KYUTAI_LLM_URL=https://llm.example.org python -m procs.voice
  HOST=0.0.0.0 PLANARIA_VOICE_KEY_FILE=voice-key python -m procs.voice

exit codes: 2 bad option, 3 something is not installed, 14 the store is down, 15 its zygote died, 1 anything else"""


def _parse_host(text: str) -> str:
    bare = "127.0.0.1" if text == "localhost" else text.removeprefix("[").removesuffix("]")
    try:
        family = socket.AF_INET6 if ":" in bare else socket.AF_INET
        return socket.inet_ntop(family, socket.inet_pton(family, bare))
    except OSError:
        raise ValueError from None


def _url(text: str, schemes: Mapping[str, str]) -> str:
    parts = urlsplit(text)
    bare = parts.hostname and not (parts.username or parts.query or parts.fragment) and parts.path in ("", "/")
    if parts.scheme not in schemes or not bare or parts.port == 0 or len(text) > 2000:
        raise ValueError
    return f"{schemes[parts.scheme]}://{parts.netloc}"


_WS = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def _parse_instances(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(_url(each.strip(), _WS) for each in text.split(",")))
    if len(found) > MAX_INSTANCES:
        raise ValueError
    return found


def _parse_llm(text: str) -> str:
    return _url(text.rstrip("/").removesuffix("/v1"), {"http": "http", "https": "https"})


HOST = Kind(_parse_host, "an IP address of this machine, such as 127.0.0.1; 0.0.0.0 is all of them")
INSTANCES = Kind(
    _parse_instances,
    f"ws://HOST:PORT or wss://HOST:PORT without a path, at most {MAX_INSTANCES} with commas between; as published, http://"
    " and https:// are taken for these",
)
HTTP = Kind(_parse_llm, "http://HOST:PORT or https://HOST:PORT, without a path but for /v1")
KEY = matching(r"[!-~]{1,500}", "1 to 500 printable ASCII characters without blanks")
STORE = matching(r"\S{1,2000}", "sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME")


def _place(port: int) -> Kind:
    """Where one of the suite's speech services is. One that is off has another in its place."""
    usual = Address("127.0.0.1", port)
    return Kind(lambda text: usual if text == "off" else ADDRESS.parse(text), f"{ADDRESS.allowed}, or off")


class Voice(settings.Settings):
    """Settings of the voice backend."""

    host: str = option("127.0.0.1", HOST, env=("HOST",), help="where its REST and its browsers' door listen")
    port: int = option(8010, whole(1, 65535), env=("PORT",), help="and at which port")
    log_level: str = option(
        "info", one_of("debug", "info", "warning", "error", "critical"), env=("LOG_LEVEL",), help="debug logs more"
    )
    devices: Path = option(
        Path("devices.json"), PATH, env=("REMOTE_DEVICES_CONFIG",), help="the file that names the devices to call"
    )
    stt: tuple[str, ...] = option(
        (), INSTANCES, env=("KYUTAI_STT_URL",), help="who recognises speech; default: speech_stt of this suite"
    )
    tts: tuple[str, ...] = option(
        (), INSTANCES, env=("KYUTAI_TTS_URL",), help="who speaks; default: speech_tts of this suite"
    )
    llm: str = option("", HTTP, env=("KYUTAI_LLM_URL",), help="who answers; default: speech_llm of this suite")
    model: str = option("", TEXT, env=("KYUTAI_LLM_MODEL",), help="its model; default: the only one that it has")
    llm_key: str = option("", KEY, env=("KYUTAI_LLM_API_KEY",), help="what it is shown (Bearer)", secret=True)
    llm_key_file: Path | None = option(
        None, PATH, env=("KYUTAI_LLM_API_KEY_FILE",), help="a file with what it is shown; or KYUTAI_LLM_API_KEY"
    )
    hugging_face: str = option(
        "",
        TEXT,
        env=("HUGGING_FACE_HUB_TOKEN",),
        help="taken as published, and not used: nothing is downloaded",
        secret=True,
    )
    news_key: str = option("", KEY, env=("NEWSAPI_API_KEY",), help="of newsapi.org, for headlines", secret=True)
    key: str = option("", KEY, env=("PLANARIA_VOICE_KEY",), help="what callers show (Bearer)", secret=True)
    key_file: Path | None = option(
        None, PATH, env=("PLANARIA_VOICE_KEY_FILE",), help="a file with what callers show; or PLANARIA_VOICE_KEY"
    )
    compat: bool = option(False, SWITCH, env=("PLANARIA_COMPAT",), help="take the key as ?auth_id= too")
    store: str = option(
        "",
        TEXT,
        env=("PLANARIA_VOICE_STORE",),
        help="leases and history: sqlite:///FILE, or postgresql:// for several backends; default run/voice.sqlite",
        secret=True,
    )
    store_file: Path | None = option(
        None,
        PATH,
        env=("PLANARIA_VOICE_STORE_FILE",),
        help="a file that says where leases and history are, such as postgresql://USER:PASSWORD@HOST/NAME; or"
        " PLANARIA_VOICE_STORE",
    )
    browsers: int = option(
        16, whole(0, 64), env=("PLANARIA_VOICE_BROWSERS",), help="how many talk to it at once over /v1/realtime"
    )
    # Where the speech services of the same suite are, as they are told themselves.
    near_stt: Address = option(Address("127.0.0.1", 8090), _place(8090), env=("PLANARIA_SPEECH_STT",), help="")
    near_tts: Address = option(Address("127.0.0.1", 8089), _place(8089), env=("PLANARIA_SPEECH_TTS",), help="")
    near_llm: Address = option(Address("127.0.0.1", 8091), _place(8091), env=("PLANARIA_SPEECH_LLM",), help="")
    speech_key: str = option("", KEY, env=("PLANARIA_SPEECH_KEY",), help="", secret=True)
    speech_key_file: Path | None = option(None, PATH, env=("PLANARIA_SPEECH_KEY_FILE",), help="")

    @property
    def listens(self) -> Address:
        """Where."""
        return Address(self.host, self.port)

    @property
    def services(self) -> Services:
        """Where conversations hear, speak and think."""
        from procs.messages.voice import Services  # here: --help needs nothing installed

        llm_key = self.llm_key or ("" if self.llm else self.speech_key)
        return Services(
            stt=list(self.stt) or [_near("ws", self.near_stt)],
            tts=list(self.tts) or [_near("ws", self.near_tts)],
            llm=self.llm or _near("http", self.near_llm),
            model=self.model,
            speech_key=self.speech_key,
            llm_key=llm_key,
            news_key=self.news_key,
        )


# Secrets that may stand in a file instead: the field, its variable, and what the file must hold.
_IN_FILES = (
    ("key", "PLANARIA_VOICE_KEY", KEY),
    ("speech_key", "PLANARIA_SPEECH_KEY", KEY),
    ("llm_key", "KYUTAI_LLM_API_KEY", KEY),
    ("store", "PLANARIA_VOICE_STORE", STORE),
)
_HIDDEN = ("near_stt", "near_tts", "near_llm", "speech_key_file")


def _near(scheme: str, listens: Address) -> str:
    """Where this machine finds what listens there."""
    return f"{scheme}://{Address({'0.0.0.0': '127.0.0.1', '::': '::1'}.get(listens.host, listens.host), listens.port)}"


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Voice:
    """Settings of this process. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    about = "Calls devices, listens, thinks and speaks. HUGGING_FACE_HUB_TOKEN is taken, and not used."
    parser = command_line("python -m procs.voice", about, EXAMPLES)
    parser.usage = "python -m procs.voice [OPTION ...]"
    flags = parse_flags(parser, Voice, sys.argv[1:] if argv is None else argv, _HIDDEN)
    environment, env_file = from_environment(environ)
    chosen = check(settings.load(Voice, Layers(flags, environment, env_file)))
    return chosen if chosen.store else chosen.but(store=f"sqlite:///{settings.run_dir(environ) / 'voice.sqlite'}")


def check(chosen: Voice) -> Voice:
    """The settings with their secrets, once they can be used. Raises ConfigError."""
    for name, variable, kind in _IN_FILES:
        file = getattr(chosen, f"{name}_file")
        if getattr(chosen, name) and file:
            raise ConfigError(f"{variable} and {variable}_FILE: set one of them")
        if file:
            chosen = chosen.but(**{name: settings.in_file(f"{variable}_FILE", kind, file), f"{name}_file": None})
    if not chosen.listens.is_loopback and len(chosen.key) < LONG_KEY:
        named = "PLANARIA_VOICE_KEY or PLANARIA_VOICE_KEY_FILE"
        wrong = f"the key of {named} is too short, it needs" if chosen.key else f"set {named},"
        raise ConfigError(
            f"host={chosen.host} (HOST, --host): others can reach it; {wrong} {LONG_KEY} characters or more"
            " (openssl rand -hex 24 makes one)"
        )
    return chosen
