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
captures:                        commands that run as long as the suite does, and write H.264 or MPEG-TS to stdout
  screen: ffmpeg -f x11grab -i :99 -c:v libx264 -tune zerolatency -g 60 -f mpegts pipe:1
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from procs import settings
from procs.audio_io.options import Audio
from procs.environment import from_environment
from procs.errors import ConfigError, NotHere
from procs.headless_agent.options import Producer, check, need_encoder
from procs.kinds import ADDRESS, NAME, PATH, SWITCH, Address, Kind, matching, one_of, seconds, whole
from procs.settings import Layers, option
from procs.speech import options as speech_options
from procs.speech.options import Speech
from procs.voice.options import Voice
from procs.warden.options import CEILINGS
from scripts import roles, settings_file, voice, wall

SETTINGS_FILE = "planaria.yaml"
_SECTIONS = ("producer", "streams", "sources", "captures", *wall.SECTIONS, *voice.SECTIONS)
# Published names of sets of options; the ones in a row are the same.
_EGL, _VPF, _TS = {"renderer": "egl"}, {"renderer": "egl", "encoder": "vpf"}, {"out": "mpegts"}
PROFILES: dict[str, dict[str, str]] = {
    "headless-agent": {}, "headless": {},
    "headless_egl": _EGL,
    "egl-vpf": _VPF, "headless-vpf": _VPF, "headless-egl-vpf": _VPF,
    "headless-agent-mpegts": _TS, "headless-mpegts": _TS,
}  # fmt: skip
# ${NAME} may stand in it; no other { } may, since go2rtc replaces ${...} too.
_SOURCE = re.compile(r"(rtsp|rtsps|rtmp|rtmps|http|https)://([^\s#'\"{}\\]|\$\{\w+\})+")
_LOGIN = matching(r"[!-z|~]*", "printable ASCII without blanks, { or }")


def _parse_template(text: str) -> str:
    if "{instance_id}" not in text or not shlex.split(text):  # ValueError: a quote that is not closed
        raise ValueError
    return text


TEMPLATE = Kind(_parse_template, "a command with {instance_id} in it, quotes closed")


class Suite(settings.Settings):
    """Settings that are not about one stream."""

    roles: frozenset[str] = option(
        roles.DEFAULT,
        roles.ROLES,
        env=("PLANARIA_ROLES",),
        help="what runs here: hub (server), device, streams (go2rtc), tun (a tunnel to peers), audio (a microphone and"
        " a speaker), voice (a backend that talks, and speech)",
    )
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
    mode: str = option(
        "exec",
        one_of("exec", "fifo"),
        env=("PLANARIA_GO2RTC_MODE", "METABONK_GO2RTC_MODE"),
        help="exec: go2rtc starts what makes a stream; fifo: it reads pipes that others fill",
    )
    exec_cmd_template: str = option(
        "",
        TEMPLATE,
        env=("PLANARIA_GO2RTC_EXEC_CMD", "METABONK_GO2RTC_EXEC_CMD"),
        help="what makes the generated streams, in the place of our producer",
    )
    exec_profile: str = option(
        "",
        one_of(*PROFILES),
        env=("PLANARIA_GO2RTC_EXEC_PROFILE", "METABONK_GO2RTC_EXEC_PROFILE"),
        help="options of our producer by the names they were published under",
    )
    exec_wrap: str = option(
        "raw",
        one_of("raw", "mpegts"),
        env=("PLANARIA_GO2RTC_EXEC_WRAP", "METABONK_GO2RTC_EXEC_WRAP"),
        help="raw: the command writes what go2rtc reads; mpegts: its H.264 is packed so that go2rtc adds no delay",
    )
    exec_wrapper: Path | None = option(
        None,
        PATH,
        env=("PLANARIA_GO2RTC_EXEC_WRAPPER", "METABONK_GO2RTC_EXEC_WRAPPER"),
        help="what packs it (default scripts/go2rtc_exec_mpegts.sh)",
    )
    fifo_dir: Path = option(
        Path("temp/streams"),
        PATH,
        env=("PLANARIA_STREAM_FIFO_DIR", "METABONK_STREAM_FIFO_DIR"),
        help="where the pipes of --mode fifo and of captures are",
    )
    fifo_container: str = option(
        "mpegts",
        one_of("mpegts"),
        env=("PLANARIA_FIFO_CONTAINER", "METABONK_FIFO_CONTAINER"),
        help="what goes through them",
    )
    container_fifo_dir: Path | None = option(
        None,
        PATH,
        env=("PLANARIA_GO2RTC_FIFO_DIR", "METABONK_GO2RTC_FIFO_DIR"),
        help="where go2rtc sees them, if it sees them elsewhere",
    )
    metrics: Address = option(
        Address("127.0.0.1", 9464), ADDRESS, env=("PLANARIA_METRICS",), help="the warden's metrics for Prometheus"
    )
    memory_mb: Mapping[str, int] | None = option(
        None, CEILINGS, env=("PLANARIA_MEMORY_MB",), help="who may use how much, such as headless_agent=600,capture=300"
    )
    no_ui: bool = option(False, SWITCH, env=("PLANARIA_NO_UI",), help="go2rtc serves no pages, only streams")
    up_limit_s: float = option(
        60.0, seconds(1, 3600), env=("PLANARIA_UP_LIMIT_S",), help="how long `make up` waits for health"
    )


@dataclass(frozen=True)
class Plan:
    """Everything `make up` needs to know. Each stream stands in one of the first four; those of `captures` stand in
    `fifos` too."""

    suite: Suite
    producers: dict[str, tuple[Producer, dict[str, str]]]  # stream -> its settings, and where those set were set
    commands: dict[str, list[str]]  # stream -> what makes it in our producer's place
    fifos: dict[str, Path]  # stream -> the pipe it is read from
    sources: dict[str, str | Path]  # stream -> a URL or a file
    captures: dict[str, list[str]]  # stream -> the command that we keep running, and whose output goes into its pipe
    wall: wall.Wall  # hub, device and proxies
    speech: Speech
    audio: Audio
    voice: Voice
    told: dict[str, str]  # the variables that say what the settings file says of hub, device, audio and voice
    environment: dict[str, str]  # of the processes: the caller's over .env, and what the file says of the wall

    @property
    def streams(self) -> list[str]:
        """Every name, in the order of the settings."""
        return [*self.producers, *self.commands, *self.fifos, *self.sources]

    @property
    def without(self) -> frozenset[str]:
        """Programs of roles that are on which do not run here all the same."""
        return frozenset(f"speech_{program}" for program in self.speech.off)

    def is_off(self, process: str) -> bool:
        """Whether a process, as supervisorctl names it, is not to run here."""
        return roles.is_off(process, self.suite.roles, self.without)

    def for_warden(self) -> str:
        """What run/warden.json is to hold."""
        suite = self.suite
        ceilings = ",".join(f"{name}={of // 1_000_000}" for name, of in (suite.memory_mb or {}).items())
        login = {"username": suite.username, "password": suite.password}
        stall = {"stall_limit_s": self.environment.get("PLANARIA_CAPTURE_STALL_LIMIT_S", "")}
        return json.dumps({"metrics": str(suite.metrics), "api": str(suite.api), **login, **stall, "memory": ceilings})


def load_plan(root: Path, environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Plan:
    """Read and check everything. Raises ConfigError, or NotHere for what is not built yet."""
    environment, env_file = from_environment(environ, root)
    # One that is set but empty is as good as not set; processes of the suite read no .env themselves.
    merged = {**env_file, **{name: value for name, value in environment.items() if value or name not in env_file}}
    path = Path(merged.get("PLANARIA_SETTINGS") or root / SETTINGS_FILE)
    document = settings_file.read(path, must_exist=bool(merged.get("PLANARIA_SETTINGS")))
    settings.refuse_unknown_keys(document, [*settings.options_of(Suite), *_SECTIONS], str(path))
    sections = {name: settings_file.mapping(document.pop(name, None), f"{path}: {name}") for name in _SECTIONS}
    suite = settings.load(Suite, Layers(flags or {}, environment, env_file, document, str(path)))
    if bool(suite.username) != bool(suite.password):
        raise ConfigError("PLANARIA_GO2RTC_USERNAME and PLANARIA_GO2RTC_PASSWORD: set both or neither")
    _refuse_open_doors(suite)
    _refuse_wrong_wrapper(root, suite)
    login = {"username": suite.username, "password": suite.password} if suite.username else {}
    through = wall.load(sections, str(path), environment, env_file, suite.roles, suite.api, suite.rtsp, login)
    by = f", exec_profile {suite.exec_profile}" if suite.exec_profile else ""
    speech = settings.load(Speech, Layers({}, environment, env_file))
    audio, of_voice, told_voice = voice.load(sections, str(path), environment, env_file, suite.roles)
    told = through.variables | told_voice
    profile = PROFILES.get(suite.exec_profile, {})
    common = Layers({}, environment, env_file, {**profile, **sections["producer"]}, f"{path}: producer{by}")
    generated = [f"{suite.instance_prefix}-{i}" for i in range(suite.workers)]
    own = [_name(name, f"{path}: streams") for name in sections["streams"]]
    ours = generated if suite.mode == "exec" and not suite.exec_cmd_template else []
    producers = {
        name: _producer(name, common, sections["streams"].get(name), f"{path}: streams.{name}")
        for name in dict.fromkeys(ours + own)
    }
    rest = [name for name in generated if name not in producers]
    captures = {
        _name(name, f"{path}: captures"): _capture(value, f"{path}: captures.{name}")
        for name, value in sections["captures"].items()
    }
    fifos = [*(rest if suite.mode == "fifo" else []), *captures]
    sources = {
        _name(name, f"{path}: sources"): _source(value, f"{path}: sources.{name}", merged)
        for name, value in sections["sources"].items()
    }
    plan = Plan(
        suite,
        producers,
        {name: template(suite, name) for name in rest} if suite.mode == "exec" else {},
        {name: fifo(root, suite, name) for name in dict.fromkeys(fifos)},
        sources,
        captures,
        through,
        speech_options.check(speech, *(speech.on if "voice" in suite.roles else ())),
        audio,
        of_voice,
        told,
        merged | told,
    )
    twice = sorted(name for name in set(plan.streams) if plan.streams.count(name) > 1)
    if twice:
        raise ConfigError(f"{twice[0]}: is named as two kinds of stream in {path}: rename one, or set workers or mode")
    return plan


def template(suite: Suite, name: str) -> list[str]:
    """The command that makes one generated stream."""
    return [word.replace("{instance_id}", name) for word in shlex.split(suite.exec_cmd_template)]


def fifo(root: Path, suite: Suite, name: str) -> Path:
    """The pipe of a stream, as go2rtc sees it."""
    return root / (suite.container_fifo_dir or suite.fifo_dir) / f"{name}.ts"


def _refuse_wrong_wrapper(root: Path, suite: Suite) -> None:
    wrapper = root / suite.exec_wrapper if suite.exec_wrapper else None
    if wrapper and not (wrapper.is_file() and os.access(wrapper, os.X_OK)):
        raise ConfigError(f"exec_wrapper={str(suite.exec_wrapper)!r}: is no program")
    if suite.exec_cmd_template and suite.exec_profile:
        raise ConfigError(
            f"exec_profile={suite.exec_profile}: is about our producer, and exec_cmd_template takes its place: set one"
        )


def _capture(value: Any, where: str) -> list[str]:
    """The words of a command that runs as long as the suite does. There is no shell, unless it is named."""
    try:
        words = shlex.split(value) if isinstance(value, str) else []
    except ValueError:
        words = []
    if not words or not words[0] or "\0" in value:
        raise ConfigError(f"{where}: must be a command that writes H.264 or MPEG-TS to stdout, quotes closed")
    return words


def _name(value: str, where: str) -> str:
    try:
        return str(NAME.parse(value))
    except ValueError:
        raise ConfigError(f"{value!r} ({where}): a stream's name must be {NAME.allowed}") from None


def _producer(name: str, common: Layers, section: Any, where: str) -> tuple[Producer, dict[str, str]]:
    """Options of one stream: those of its own over the common ones. The name is not an option."""
    own = settings_file.mapping(section, where)
    if "instance_id" in own:
        raise ConfigError(f"instance_id: unknown key in {where}: the stream's name is its instance id")
    base, own_layers = settings.load(Producer, common), Layers(document=own, document_name=where)
    chosen = settings.load(Producer, own_layers)
    own_places = settings.places_set(Producer, own_layers)
    values = {f: getattr(chosen if f in own_places else base, f) for f in settings.options_of(Producer)}
    producer = Producer(**{**values, "instance_id": name})
    if producer.duration:
        raise ConfigError(f"duration={producer.duration:g} ({where}): a stream runs for as long as it is watched")
    places = settings.places_set(Producer, common) | own_places
    places.pop("instance_id", None)
    try:
        check(producer)
        need_encoder(producer.encoder)
    except NotHere as error:
        raise NotHere(f"{error}{next_step(str(error), places)}") from None
    return producer, places


def next_step(said: str, places: Mapping[str, str]) -> str:
    """Where the encoder or renderer that a producer can't have was set, and what to set instead, to be put behind its
    error; '' for another error. `places`: option -> where it was set."""
    named = said.partition(" ")[0]
    if named not in ("encoder", "renderer"):
        return ""
    where = places.get(named) or places.get("encoder")  # an encoder on the GPU makes the renderer egl
    other = "encoder: auto takes the best that works here" if named == "encoder" else "renderer: cpu needs no GPU"
    return f" ({where}); {other}, make gpu-check says what does" if where else ""


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
    if len({suite.api, suite.rtsp, suite.webrtc, suite.metrics}) < 4:
        where = f"api={suite.api}, rtsp={suite.rtsp}, webrtc={suite.webrtc}, metrics={suite.metrics}"
        raise ConfigError(f"{where}: must be four different ones")
    if not suite.metrics.is_loopback:
        raise ConfigError(f"PLANARIA_METRICS={suite.metrics}: has no login, so it must be on 127.0.0.1 or ::1")
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
