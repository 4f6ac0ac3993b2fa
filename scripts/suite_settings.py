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

from procs import settings
from procs.errors import ConfigError, NotHere
from procs.headless_agent.options import Producer, check
from procs.settings import ADDRESS, NAME, PATH, Address, Layers, option, seconds, whole
from scripts import settings_file

SETTINGS_FILE = "planaria.yaml"
_SECTIONS = ("producer", "streams", "sources")
# ${NAME} may stand in it; no other { } may, since go2rtc replaces ${...} too.
_SOURCE = re.compile(r"(rtsp|rtsps|rtmp|rtmps|http|https)://([^\s#'\"{}\\]|\$\{\w+\})+")
_LOGIN = settings.matching(r"[!-z|~]*", "printable ASCII without blanks, { or }")


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
    username: str = option("", _LOGIN, env=("PLANARIA_GO2RTC_USERNAME",), help="login of a listener beyond loopback")
    password: str = option(
        "", _LOGIN, env=("PLANARIA_GO2RTC_PASSWORD",), help="its password; best kept in .env", secret=True
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
    """Everything `make up` needs to know. `producers`: stream -> (its settings, the option names that were set);
    `sources`: name -> a URL or a file."""

    suite: Suite
    producers: dict[str, tuple[Producer, frozenset[str]]]
    sources: dict[str, str | Path]
    environment: dict[str, str]  # of the processes: the caller's over .env


def load_plan(root: Path, environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Plan:
    """Read and check everything. Raises ConfigError, or NotHere for what is not built yet."""
    environment, env_file = settings.from_environment(environ, root)
    merged = {**env_file, **environment}
    path = Path(merged.get("PLANARIA_SETTINGS") or root / SETTINGS_FILE)
    document = settings_file.read(path, must_exist=bool(merged.get("PLANARIA_SETTINGS")))
    settings.refuse_unknown_keys(document, [*settings.options_of(Suite), *_SECTIONS], str(path))
    sections = {name: settings_file.mapping(document.pop(name, None), f"{path}: {name}") for name in _SECTIONS}
    suite = settings.load(Suite, Layers(flags or {}, environment, env_file, document, str(path)))
    _refuse_open_doors(suite)
    common = Layers({}, environment, env_file, sections["producer"], f"{path}: producer")
    generated = [f"{suite.instance_prefix}-{i}" for i in range(suite.workers)]
    added = [_name(name, f"{path}: streams") for name in sections["streams"]]
    producers = {
        name: _producer(name, common, sections["streams"].get(name), f"{path}: streams.{name}")
        for name in dict.fromkeys(generated + added)
    }
    sources = {
        _name(name, f"{path}: sources"): _source(value, f"{path}: sources.{name}", merged)
        for name, value in sections["sources"].items()
    }
    if both := sources.keys() & producers.keys():
        raise ConfigError(f"{min(both)}: is both a stream and a source in {path}: rename one")
    return Plan(suite, producers, sources, merged)


def _name(value: str, where: str) -> str:
    try:
        return str(NAME.parse(value))
    except ValueError:
        raise ConfigError(f"{value!r} ({where}): a stream's name must be {NAME.allowed}") from None


def _producer(name: str, common: Layers, section: Any, where: str) -> tuple[Producer, frozenset[str]]:
    """Options of one stream: those of its own over the common ones. The name is not an option."""
    own = settings_file.mapping(section, where)
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
        check(producer)
    except NotHere as error:
        raise NotHere(f"{error} ({where})") from None
    return producer, (settings.names_set(Producer, common) | own_names) - {"instance_id"}


def _source(value: Any, where: str, variables: Mapping[str, str]) -> str | Path:
    """The URL or the file of a source. Only what plays something is let through: exec:, echo: and expr: would run
    programs. No error shows the value: it may hold a password."""
    if isinstance(value, str) and _SOURCE.fullmatch(value):
        return _filled_in(value, where, variables)
    if isinstance(value, dict) and list(value) == ["file"] and isinstance(value["file"], str):
        path = Path(value["file"]).expanduser()
        if not path.is_absolute() or not path.is_file():
            raise ConfigError(f"file={value['file']!r} ({where}): no such file; it must be an absolute path")
        return path
    raise ConfigError(f"{where}: must be an rtsp, rtmp or http URL without blanks, quotes or #, or {{file: PATH}}")


def _filled_in(url: str, where: str, variables: Mapping[str, str]) -> str:
    """A URL with its ${NAME}s replaced. Done here, since go2rtc would do it in the text of its YAML, where a value
    with a colon or a quote changes what the text means."""
    for name in re.findall(r"\$\{(.*?)\}", url):
        if name not in variables:
            raise ConfigError(f"${{{name}}} ({where}): is set neither in .env nor in the environment")
        if not re.fullmatch(r"[^\s#'\"@/?{}\\]*", variables[name]) or not variables[name].isprintable():
            raise ConfigError(f"${{{name}}} ({where}): holds a character that a URL cannot have; write it as %XX")
        url = url.replace(f"${{{name}}}", variables[name])
    return url


def _refuse_open_doors(suite: Suite) -> None:
    if len({suite.api, suite.rtsp, suite.webrtc}) < 3:
        raise ConfigError(f"api={suite.api}, rtsp={suite.rtsp}, webrtc={suite.webrtc}: must be three different ones")
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
