"""Typed settings: defaults < YAML file < .env < environment < flags. A wrong value is one line and exit 2.

A program declares a class of `Settings` whose fields are made by `option`; `load` fills it. Each value keeps
where it came from, so that an error can name key, value, source, and what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar, dataclass_transform

from procs.errors import ConfigError

if TYPE_CHECKING:
    import argparse

S = TypeVar("S", bound="Settings")
VERSION = "0.1.0"  # as pyproject.toml has it
ROOT = Path(__file__).resolve().parent.parent

# Every variable of ours. A PLANARIA_* name that is not here is a typing error, and refused as one.
# tests/test_in_step.py holds this against what the programs declare and against .env.example.
# PLANARIA_SUITE marks every process of one checkout's suite; PLANARIA_PARENT is for life.bind_to_parent;
# PLANARIA_FOREGROUND for the keeper.
OUR_ENV = frozenset({
    "PLANARIA_BUFSIZE", "PLANARIA_CAPTURE_STALL_LIMIT_S", "PLANARIA_COMPAT", "PLANARIA_FFMPEG",
    "PLANARIA_FFMPEG_FPS_MODE",
    "PLANARIA_FFMPEG_LOGLEVEL", "PLANARIA_FIFO_CONTAINER", "PLANARIA_FIRST_FRAME_LIMIT_S", "PLANARIA_FOREGROUND",
    "PLANARIA_GO2RTC_API",
    "PLANARIA_GO2RTC_EXEC_CMD", "PLANARIA_GO2RTC_EXEC_PROFILE", "PLANARIA_GO2RTC_EXEC_WRAP",
    "PLANARIA_GO2RTC_EXEC_WRAPPER", "PLANARIA_GO2RTC_FIFO_DIR", "PLANARIA_GO2RTC_MODE", "PLANARIA_GO2RTC_PASSWORD",
    "PLANARIA_GO2RTC_RTSP", "PLANARIA_GO2RTC_USERNAME", "PLANARIA_GO2RTC_WEBRTC", "PLANARIA_HEADLESS_AUDIO",
    "PLANARIA_HEADLESS_AUDIO_CODEC", "PLANARIA_HEADLESS_BITRATE", "PLANARIA_HEADLESS_CHUNK",
    "PLANARIA_HEADLESS_CONVERT", "PLANARIA_HEADLESS_DEBUG", "PLANARIA_HEADLESS_DEVICE_IDX",
    "PLANARIA_HEADLESS_DURATION", "PLANARIA_HEADLESS_ENCODER", "PLANARIA_HEADLESS_FORCE_SW", "PLANARIA_HEADLESS_FPS",
    "PLANARIA_HEADLESS_GOP", "PLANARIA_HEADLESS_H", "PLANARIA_HEADLESS_OUT", "PLANARIA_HEADLESS_PATTERN",
    "PLANARIA_HEADLESS_RENDERER", "PLANARIA_HEADLESS_W", "PLANARIA_INSTANCE_ID", "PLANARIA_INSTANCE_PREFIX",
    "PLANARIA_LOG", "PLANARIA_MEMORY_MB", "PLANARIA_METRICS", "PLANARIA_NO_UI", "PLANARIA_NVENC_PRESET",
    "PLANARIA_NVENC_RC", "PLANARIA_NVENC_TUNE", "PLANARIA_PARENT", "PLANARIA_REMOTE_RESTART", "PLANARIA_ROLES",
    "PLANARIA_RUN_DIR", "PLANARIA_SETTINGS",
    "PLANARIA_STDOUT_LIMIT_S", "PLANARIA_STREAM_FIFO_DIR", "PLANARIA_SUITE", "PLANARIA_UP_LIMIT_S", "PLANARIA_WORKERS",
    "PLANARIA_X264_PRESET", "PLANARIA_X264_THREADS", "PLANARIA_X264_TUNE",
    "PLANARIA_ADMIN_PASSWORD", "PLANARIA_HUB", "PLANARIA_HUB_CA", "PLANARIA_HUB_CERT", "PLANARIA_HUB_INSECURE",
    "PLANARIA_HUB_KEY", "PLANARIA_HUB_PROXIES", "PLANARIA_HUB_VIEWS", "PLANARIA_OPEN_REGISTRATION",
    "PLANARIA_TOKEN_TTL_S", "PLANARIA_TUN_PORT", "PLANARIA_UDP_RANGE", "PLANARIA_WATCH_STREAM",
    "PLANARIA_ALLOW_UNSIGNED", "PLANARIA_PEER_TRUST",
    "PLANARIA_SPEECH_KEY", "PLANARIA_SPEECH_KEY_FILE", "PLANARIA_SPEECH_LLM", "PLANARIA_SPEECH_PAUSE_S",
    "PLANARIA_SPEECH_SESSIONS", "PLANARIA_SPEECH_STT", "PLANARIA_SPEECH_TTS",
    "PLANARIA_VOICE_BROWSERS", "PLANARIA_VOICE_KEY", "PLANARIA_VOICE_KEY_FILE", "PLANARIA_VOICE_STORE",
    "PLANARIA_VOICE_STORE_FILE",
    "PLANARIA_AUDIO_CERT", "PLANARIA_AUDIO_ECHO", "PLANARIA_AUDIO_GAIN", "PLANARIA_AUDIO_HOST",
    "PLANARIA_AUDIO_INPUT", "PLANARIA_AUDIO_KEY", "PLANARIA_AUDIO_MICROPHONE", "PLANARIA_AUDIO_NAME",
    "PLANARIA_AUDIO_OUTPUT", "PLANARIA_AUDIO_PORT", "PLANARIA_AUDIO_SPEAKER", "PLANARIA_AUDIO_TOKEN",
    "PLANARIA_AUDIO_TOKEN_FILE", "PLANARIA_AUDIO_VOLUME", "PLANARIA_AUDIO_WAKE_WORD", "PLANARIA_NO_AUDIO",
})  # fmt: skip


class Kind(NamedTuple):
    """A type of value: how to read it from text, and what is allowed, in words that end "must be ..."."""

    parse: Callable[[str], Any]
    allowed: str


class Option(NamedTuple):
    """What `option` says of a field."""

    default: Any
    kind: Kind
    env: tuple[str, ...]
    help: str
    secret: bool


def in_file(variable: str, kind: Kind, file: Path) -> Any:
    """What a setting's file holds, for one that is a secret and so has a file instead. Raises ConfigError."""
    try:
        return kind.parse(file.read_text().strip())
    except OSError as error:
        raise ConfigError(f"{variable}={str(file)!r}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{variable}={str(file)!r}: must hold {kind.allowed}") from None


def option(default: Any, kind: Kind, *, env: tuple[str, ...] = (), help: str, secret: bool = False) -> Any:
    """A field that `load` can fill. `env`: variables that set it, the first that is set wins.

    A secret gets no flag: command lines can be read by everybody.
    """
    return Option(default, kind, env, help, secret)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Settings:
    """Base of every settings class: annotated fields with defaults, which never change.

    To a type checker it is a frozen dataclass. It is none: those cost a producer 4 ms of its start, and a capture,
    which needs nothing else that imports `inspect`, 10 ms more.
    """

    _options: ClassVar[dict[str, Option]]
    _defaults: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        declared = {name: getattr(cls, name) for name in cls.__annotations__}
        cls._options = {name: value for name, value in declared.items() if isinstance(value, Option)}
        cls._defaults = declared | {name: option.default for name, option in cls._options.items()}
        for name, default in cls._defaults.items():
            setattr(cls, name, default)

    def __init__(self, **values: Any) -> None:
        if unknown := values.keys() - self._defaults.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        vars(self).update(self._defaults | values)

    def but(self, **changes: Any) -> Self:
        """A copy with other values."""
        return type(self)(**(vars(self) | changes))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name}: settings do not change")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if value != self._defaults[name]}
        secret = {name: "***" for name in shown if name in self._options and self._options[name].secret}
        return f"{type(self).__name__}({shown | secret})"


def whole(low: int, high: int, *, even: bool = False) -> Kind:
    """A whole number in [low, high]."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high or (even and value % 2):
            raise ValueError
        return value

    return Kind(parse, f"{'an even' if even else 'a'} whole number from {low} to {high}")


def seconds(low: float, high: float) -> Kind:
    """A finite number of seconds in [low, high]."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # also refuses nan, which compares false
            raise ValueError
        return value

    return Kind(parse, f"seconds from {low:g} to {high:g}")


def one_of(*choices: str) -> Kind:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return Kind(parse, "one of " + ", ".join(choices))


def matching(pattern: str, allowed: str) -> Kind:
    """Text that matches a regular expression as a whole."""
    compiled = re.compile(pattern)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError
        return text

    return Kind(parse, allowed)


def _parse_switch(text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError
    return lowered in ("1", "true", "yes", "on")


_BITRATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([kKmM]?)")


def _parse_bitrate(text: str) -> int:
    match = _BITRATE.fullmatch(text)
    if not match:
        raise ValueError
    value = round(float(match[1]) * {"": 1, "k": 1_000, "m": 1_000_000}[match[2].lower()])
    if not 10_000 <= value <= 200_000_000:
        raise ValueError
    return value


class Address(NamedTuple):
    """A host and a port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host == "::1" or self.host.startswith("127.")


def _parse_address(text: str) -> Address:
    import socket  # here: only programs that listen pay for it

    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not 1 <= int(port) <= 65535:
        raise ValueError
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        return Address(socket.inet_ntop(family, socket.inet_pton(family, bare)), int(port))
    except OSError:
        raise ValueError from None


def _parse_ports(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    found = int(low), int(high if dash else low)
    if not 1024 <= found[0] <= found[1] <= 65535:
        raise ValueError
    return found


SWITCH = Kind(_parse_switch, "1 or 0 (also true, false, yes, no, on, off)")
BITRATE = Kind(_parse_bitrate, "bits per second from 10k to 200M, such as 800k, 2.5M or 6000000")
ADDRESS = Kind(_parse_address, "an IP address and a port, such as 127.0.0.1:1984")
PORTS = Kind(_parse_ports, "two ports from 1024 to 65535, such as 49152-65535")
ALL_PORTS = 49152, 65535  # as long as nobody says which
TEXT = Kind(lambda text: text, "text")
# A stream's name goes into RTSP paths, file names, query strings and a command line, so it is kept plain.
NAME = matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "1 to 64 of A-Z a-z 0-9 _ . -, starting with a letter or digit")
PATH = Kind(lambda text: Path(text).expanduser(), "a path")


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Layers(NamedTuple):
    """Where values come from, strongest first. `flags` and `document` are keyed by field, the others by variable.
    All values are text; a section of `document` where a value should be is refused."""

    flags: Mapping[str, str] = _NOTHING
    environ: Mapping[str, str] = _NOTHING
    env_file: Mapping[str, str] = _NOTHING
    document: Mapping[str, Any] = _NOTHING
    document_name: str = "settings file"


def options_of(cls: type[Settings]) -> dict[str, Option]:
    """Field name -> option of a settings class, in the order written."""
    return cls._options


def load(cls: type[S], layers: Layers) -> S:
    """Fill a settings class. Raises ConfigError for the first wrong value or unknown key."""
    known = options_of(cls)
    refuse_unknown_keys(layers.document, known, layers.document_name)
    values = {}
    for name, opt in known.items():
        found = _find(name, opt, layers)
        if found:
            values[name] = _parse(opt, *found)
    return cls(**values)


def places_set(cls: type[Settings], layers: Layers) -> dict[str, str]:
    """The options that some layer sets, as against those left at their default: {option: where, for people}."""
    found = ((name, _find(name, opt, layers)) for name, opt in options_of(cls).items())
    return {name: its[2] if its[0] == name else f"{its[0]}, {its[2]}" for name, its in found if its}


def variables(
    cls: type[Settings], document: Mapping[str, Any], environ: Mapping[str, str], env_file: Mapping[str, str]
) -> dict[str, str]:
    """What a settings file says of a class, as the variables that tell a process of it; not what others say louder."""
    return {
        opt.env[0]: str(document[name])
        for name, opt in options_of(cls).items()
        if opt.env and name in document and not any(environ.get(each) or env_file.get(each) for each in opt.env)
    }


def _find(name: str, opt: Option, layers: Layers) -> tuple[str, Any, str] | None:
    """(key as the person wrote it, raw value, where), of the strongest layer that sets the option."""
    if name in layers.flags:
        return f"--{name.replace('_', '-')}", layers.flags[name], "command line"
    for variables, where in ((layers.environ, "environment"), (layers.env_file, ".env")):
        for variable in opt.env:
            if variables.get(variable, "") != "":
                return variable, variables[variable], where
    if layers.document.get(name, "") != "":
        return name, layers.document[name], layers.document_name
    return None


def _parse(opt: Option, key: str, value: Any, where: str) -> Any:
    try:
        if not isinstance(value, str):  # a section where a value should be
            raise ValueError
        return opt.kind.parse(value.strip())
    except ValueError:
        shown = "***" if opt.secret else re.sub(r"(://)\S*@", r"\1***@", repr(value))
        raise ConfigError(f"{key}={shown} ({where}): must be {opt.kind.allowed}") from None


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known keys: {', '.join(sorted(known))}"


def refuse_unknown_keys(document: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    """Raise ConfigError if a file has a key that is none of the known ones."""
    for key in document:
        if key not in known:
            raise ConfigError(f"{key!r}: unknown key in {where}{_nearest(str(key), known)}")


def refuse_unknown_variables(variables: Mapping[str, str], where: str) -> None:
    """Raise ConfigError if a PLANARIA_* variable is none of ours. Other people's variables are left alone."""
    for name in variables:
        if name.startswith("PLANARIA_") and name not in OUR_ENV:
            raise ConfigError(f"{name}: unknown variable ({where}){_nearest(name, OUR_ENV)}")


def read_env_file(path: Path) -> dict[str, str]:
    """Variables of a .env file; {} when there is none. Raises ConfigError that names the broken line."""
    if not path.exists():
        return {}
    import io

    from dotenv.parser import parse_stream  # here: 15 ms, and most starts have no file to read

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None) or "\0" in binding.original.string:
            # The line is not shown: what should have been a value may be a secret.
            raise ConfigError(f"{path}: line {binding.original.line}: must be NAME=value, with quotes closed")
        if binding.key is not None:
            values[binding.key] = binding.value or ""
    refuse_unknown_variables(values, str(path))
    return values


# An option of every program, which each reads where it needs it (procs/log.py).
_LOG = Option("", one_of("json", "text"), ("PLANARIA_LOG",), "how log lines look", secret=False)


def from_environment(environ: Mapping[str, str], root: Path = ROOT) -> tuple[dict[str, str], dict[str, str]]:
    """(environment, .env) as `Layers` wants them, both checked for unknown names.

    Inside a suite `make up` has already merged .env into the environment, so the file is not read again.
    """
    refuse_unknown_variables(environ, "environment")
    if style := environ.get("PLANARIA_LOG"):
        _parse(_LOG, "PLANARIA_LOG", style, "environment")
    env_file = {} if "PLANARIA_SUITE" in environ else read_env_file(root / ".env")
    return dict(environ), env_file


def run_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Directory of locks and sockets, made 0700. Raises ConfigError if it can't be."""
    path = ROOT / (environ.get("PLANARIA_RUN_DIR") or "run")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"PLANARIA_RUN_DIR={str(path)!r}: cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"PLANARIA_RUN_DIR={str(path)!r}: must be a directory we can write to")
    return path


def written(path: Path, *, is_needed: bool = False) -> dict[str, Any]:
    """What `make up` has left in run/ for a process; {} without one that is not needed. Raises ConfigError."""
    import msgspec  # here: scripts/down.py, which needs nothing that was installed, comes by this file

    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        if isinstance(error, FileNotFoundError) and not is_needed:
            return {}
        raise ConfigError(f"{path}: cannot be read ({error}); make up writes it") from None


def command_line(prog: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose mistakes are one line (ConfigError), and whose --help ends with examples."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise ConfigError(f"{message}; {self.prog} --help lists what there is")

    return Parser(
        prog=prog,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def plain_flags(cls: type[Settings], argv: Sequence[str]) -> dict[str, str] | None:
    """What `parse_flags` returns, for a command line that is nothing but `--name value` pairs, as programs write it;
    None for any other. argparse costs 9 ms, in which a viewer waits."""
    known = {
        f"--{name.replace('_', '-')}": name
        for name, opt in options_of(cls).items()
        if not opt.secret and opt.kind is not SWITCH
    }
    pairs = list(zip(argv[::2], argv[1::2], strict=False))
    if len(argv) % 2 or any(flag not in known or value.startswith("-") for flag, value in pairs):
        return None
    return {known[flag]: value for flag, value in pairs}


def parse_flags(
    parser: argparse.ArgumentParser, cls: type[Settings], argv: Sequence[str], without: Iterable[str] = ()
) -> dict[str, str]:
    """Give the parser a flag for each option of a settings class but those `without`; return those that a command line
    sets."""
    for name, opt in options_of(cls).items():
        if opt.secret or name in without:
            continue
        shown = "" if opt.default in (None, "", False, ()) else f" (default {opt.default})"
        allowed = "" if opt.kind in (SWITCH, TEXT, PATH) else f"; {opt.kind.allowed}"
        text = f"{opt.help}{allowed}{shown}{'; ' + ', '.join(opt.env) if opt.env else ''}".replace("%", "%%")
        flag = "--" + name.replace("_", "-")
        if opt.kind is SWITCH:
            parser.add_argument(flag, dest=name, action="store_const", const="1", help=text)
        else:
            parser.add_argument(flag, dest=name, metavar=name.rpartition("_")[2].upper(), help=text)
    return {name: value for name, value in vars(parser.parse_args(list(argv))).items() if value is not None}
