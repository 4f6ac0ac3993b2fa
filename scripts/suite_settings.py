"""What a person can set about the suite as a whole: planaria.yaml, .env, the environment, in rising strength.

workers: 6                       how many generated streams: omega-0 .. omega-5
instance_prefix: omega
api: 127.0.0.1:1984              listeners of go2rtc (also rtsp, webrtc)
producer: {fps: 30}              options of every generated stream, as `python -m procs.headless_agent --help` lists
streams:                         options of one stream, which is added if it is not among the generated ones
  omega-1: {pattern: testsrc2, width: 640, height: 360}
sources:                         other things to serve under a name
  door: rtsp://user:${DOOR_PASSWORD}@192.0.2.7/stream1      ${NAME} is taken from .env or the environment
  film: {file: /srv/film.mp4}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from procs import settings
from procs.errors import ConfigError, NotHere
from procs.headless_agent.options import Producer, refuse_missing
from procs.settings import ADDRESS, NAME, PATH, TEXT, Address, Layers, option, seconds, whole

SETTINGS_FILE = "planaria.yaml"
_SECTIONS = ("producer", "streams", "sources")
_SOURCE = re.compile(r"(rtsp|rtsps|rtmp|rtmps|http|https)://[^\s#'\"]+")


@dataclass(frozen=True)
class Suite:
    """Settings that are not about one stream."""

    api: Address = option(
        Address("127.0.0.1", 1984), ADDRESS, env=("PLANARIA_GO2RTC_API",), help="go2rtc's API and pages listen here"
    )
    rtsp: Address = option(Address("127.0.0.1", 8554), ADDRESS, env=("PLANARIA_GO2RTC_RTSP",), help="RTSP listens here")
    webrtc: Address = option(
        Address("127.0.0.1", 8555),
        ADDRESS,
        env=("PLANARIA_GO2RTC_WEBRTC",),
        help="WebRTC media listens here (TCP, UDP)",
    )
    username: str = option("", TEXT, env=("PLANARIA_GO2RTC_USERNAME",), help="login of a listener beyond loopback")
    password: str = option(
        "", TEXT, env=("PLANARIA_GO2RTC_PASSWORD",), help="its password; best kept in .env", secret=True
    )
    workers: int = option(
        6, whole(0, 1000), env=("PLANARIA_WORKERS", "METABONK_DEFAULT_WORKERS"), help="how many streams to generate"
    )
    instance_prefix: str = option(
        "omega", NAME, env=("PLANARIA_INSTANCE_PREFIX", "METABONK_INSTANCE_PREFIX"), help="their names: PREFIX-0, ..."
    )
    ffmpeg: Path | None = option(
        None, PATH, env=("PLANARIA_FFMPEG",), help="ffmpeg for snapshots and file sources (default: the one we ship)"
    )
    up_limit_s: float = option(
        60.0, seconds(1, 3600), env=("PLANARIA_UP_LIMIT_S",), help="how long `make up` waits for health"
    )


@dataclass(frozen=True)
class Plan:
    """Everything `make up` needs to know. `producers`: stream -> (its settings, the option names that were set)."""

    suite: Suite
    producers: dict[str, tuple[Producer, frozenset[str]]]
    sources: dict[str, str]
    environment: dict[str, str]  # of the processes: the caller's over .env


def load_plan(root: Path, environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Plan:
    """Read and check everything. Raises ConfigError, or NotHere for what is not built yet."""
    environment, env_file = settings.from_environment(environ, root)
    merged = {**env_file, **environment}
    path = Path(merged.get("PLANARIA_SETTINGS") or root / SETTINGS_FILE)
    document = _read_yaml(path, must_exist="PLANARIA_SETTINGS" in merged)
    settings.refuse_unknown_keys(document, [*settings.options_of(Suite), *_SECTIONS], str(path))
    sections = {name: _mapping(document.pop(name, None), f"{path}: {name}") for name in _SECTIONS}
    suite = settings.load(Suite, Layers(flags or {}, environment, env_file, document, str(path)))
    _refuse_open_doors(suite)
    common = Layers({}, environment, env_file, sections["producer"], f"{path}: producer")
    names = [f"{suite.instance_prefix}-{i}" for i in range(suite.workers)]
    names += [_name(name, f"{path}: streams") for name in sections["streams"] if name not in names]
    producers = {
        name: _producer(name, common, _mapping(sections["streams"].get(name), f"{path}: streams.{name}"), path)
        for name in names
    }
    sources = {
        _name(name, f"{path}: sources"): _source(value, f"{path}: sources.{name}")
        for name, value in sections["sources"].items()
    }
    if both := sources.keys() & producers.keys():
        raise ConfigError(f"{sorted(both)[0]}: is both a stream and a source in {path}: rename one")
    for name in re.findall(r"\$\{(\w*)", " ".join(sources.values())):
        if name not in merged:
            raise ConfigError(f"${{{name}}} ({path}: sources): is set neither in .env nor in the environment")
    return Plan(suite, producers, sources, merged)


def _read_yaml(path: Path, *, must_exist: bool) -> dict[str, Any]:
    if not path.exists() and not must_exist:
        return {}
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{path}: line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    return _mapping(document, str(path))


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: must be 'key: value' lines, not {type(value).__name__}")
    return dict(value)


def _name(value: Any, where: str) -> str:
    try:
        return str(NAME.parse(str(value)))
    except ValueError:
        raise ConfigError(f"{value!r} ({where}): a stream's name must be {NAME.allowed}") from None


def _producer(name: str, common: Layers, own: dict[str, Any], path: Path) -> tuple[Producer, frozenset[str]]:
    """Options of one stream: those of its own over the common ones. The name is not an option."""
    where = f"{path}: streams.{name}"
    if "instance_id" in own:
        raise ConfigError(f"instance_id: unknown key in {where}: the stream's name is its instance id")
    base, own_layers = settings.load(Producer, common), Layers(document=own, document_name=where)
    chosen = settings.load(Producer, own_layers)
    own_names = settings.names_set(Producer, own_layers)
    values = {f: getattr(chosen if f in own_names else base, f) for f in settings.options_of(Producer)}
    producer = Producer(**{**values, "instance_id": name})
    if producer.duration:
        raise ConfigError(f"duration={producer.duration:g} ({where}): a stream runs for as long as it is watched")
    try:
        refuse_missing(producer)
    except NotHere as error:
        raise NotHere(f"{error} ({where})") from None
    return producer, (settings.names_set(Producer, common) | own_names) - {"instance_id"}


def _source(value: Any, where: str) -> str:
    """A go2rtc source. Only what plays something is let through: exec:, echo: and expr: would run programs."""
    if isinstance(value, str) and _SOURCE.fullmatch(value):
        return value
    if isinstance(value, dict) and list(value) == ["file"]:
        path = Path(str(value["file"])).expanduser()
        if re.search(r"[\s#'\"]", str(path)) or not path.is_absolute():
            raise ConfigError(f"file={value['file']!r} ({where}): must be an absolute path without blanks, quotes or #")
        if not path.is_file():
            raise ConfigError(f"file={value['file']!r} ({where}): no such file")
        return f"ffmpeg:{path}#input=file#video=copy#audio=copy"
    raise ConfigError(f"{value!r} ({where}): must be an rtsp, rtmp or http URL without blanks, or {{file: PATH}}")


def _refuse_open_doors(suite: Suite) -> None:
    for key, variable in (
        ("api", "PLANARIA_GO2RTC_API"),
        ("rtsp", "PLANARIA_GO2RTC_RTSP"),
        ("webrtc", "PLANARIA_GO2RTC_WEBRTC"),
    ):
        address: Address = getattr(suite, key)
        if not address.is_loopback and not (suite.username and suite.password):
            raise ConfigError(
                f"{variable}={address}: reachable by others without a login; set PLANARIA_GO2RTC_USERNAME and"
                " PLANARIA_GO2RTC_PASSWORD in .env (a password: openssl rand -base64 24), or listen on 127.0.0.1"
            )
