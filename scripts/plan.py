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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from procs import settings
from procs.audio_io.options import Audio
from procs.environment import from_environment
from procs.errors import ConfigError
from procs.headless_agent.options import Producer
from procs.settings import Layers
from procs.speech import options as speech_options
from procs.speech.options import Speech
from procs.voice.options import Voice
from scripts import listeners, roles, settings_file, stream_settings, voice, wall
from scripts.listeners import Listener
from scripts.suite_settings import PROFILES, Suite, check

SETTINGS_FILE = "planaria.yaml"
_SECTIONS = ("producer", "streams", "sources", "captures", *wall.SECTIONS, *voice.SECTIONS)


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

    @property
    def listeners(self) -> list[Listener]:
        """What of the roles that are on listens."""
        its, speech = self.suite, self.speech
        of_role = {
            "hub": [Listener("hub: listen", "PLANARIA_HUB", self.wall.hub.listen)],
            "streams": [
                Listener("api", "PLANARIA_GO2RTC_API", its.api),
                Listener("rtsp", "PLANARIA_GO2RTC_RTSP", its.rtsp),
                Listener("webrtc", "PLANARIA_GO2RTC_WEBRTC", its.webrtc, udp=True),
            ],
            "voice": [
                *(Listener("", f"PLANARIA_SPEECH_{one.upper()}", speech.listen(one)) for one in speech.on),
                Listener("voice: port", "PORT", self.voice.listens),
            ],
            "audio": [Listener("audio: port", "PLANARIA_AUDIO_PORT", self.audio.listens)],
            "tun": [Listener("tunnel: port", "PLANARIA_TUN_PORT", self.wall.tunnel_at, tcp=False, udp=True)],
        }
        found = [each for role, many in of_role.items() if role in its.roles for each in many if each.address.port]
        return [*found, Listener("metrics", "PLANARIA_METRICS", its.metrics)]

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
    check(root, suite)
    login = {"username": suite.username, "password": suite.password} if suite.username else {}
    through = wall.load(sections, str(path), environment, env_file, suite.roles, suite.api, suite.rtsp, login)
    by = f", exec_profile {suite.exec_profile}" if suite.exec_profile else ""
    speech = settings.load(Speech, Layers({}, environment, env_file))
    audio, of_voice, told_voice = voice.load(sections, str(path), environment, env_file, suite.roles)
    told = through.variables | told_voice
    profile = PROFILES.get(suite.exec_profile, {})
    common = Layers({}, environment, env_file, {**profile, **sections["producer"]}, f"{path}: producer{by}")
    generated = [f"{suite.instance_prefix}-{i}" for i in range(suite.workers)]
    own = [stream_settings.name(name, f"{path}: streams") for name in sections["streams"]]
    ours = generated if suite.mode == "exec" and not suite.exec_cmd_template else []
    producers = {
        name: stream_settings.producer(name, common, sections["streams"].get(name), f"{path}: streams.{name}")
        for name in dict.fromkeys(ours + own)
    }
    rest = [name for name in generated if name not in producers]
    captures = {
        stream_settings.name(name, f"{path}: captures"): stream_settings.capture(value, f"{path}: captures.{name}")
        for name, value in sections["captures"].items()
    }
    fifos = [*(rest if suite.mode == "fifo" else []), *captures]
    sources = {
        stream_settings.name(name, f"{path}: sources"): stream_settings.source(value, f"{path}: sources.{name}", merged)
        for name, value in sections["sources"].items()
    }
    plan = Plan(
        suite,
        producers,
        {name: stream_settings.template(suite, name) for name in rest} if suite.mode == "exec" else {},
        {name: stream_settings.fifo(root, suite, name) for name in dict.fromkeys(fifos)},
        sources,
        captures,
        through,
        speech_options.check(speech, *(speech.on if "voice" in suite.roles else ())),
        audio,
        of_voice,
        told,
        merged | told,
    )
    _refuse_conflicts(plan, path)
    return plan


def _refuse_conflicts(plan: Plan, path: Path) -> None:
    """Raise ConfigError for what is right by itself, and wrong beside the rest."""
    twice = sorted(name for name in set(plan.streams) if plan.streams.count(name) > 1)
    if twice:
        raise ConfigError(f"{twice[0]}: is named as two kinds of stream in {path}: rename one, or set workers or mode")
    listeners.refuse_shared(plan.listeners)
    if {"device", "streams"} <= plan.suite.roles:
        wall.refuse_unknown_stream(plan.wall, plan.suite.api, plan.streams)
