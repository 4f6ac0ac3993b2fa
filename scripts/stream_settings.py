"""What the settings say of each stream: which command, pipe, URL, file or producer of ours makes it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from procs import settings
from procs.errors import ConfigError, NotHere
from procs.headless_agent.options import Producer, check, need_encoder
from procs.kinds import NAME
from procs.settings import Layers
from scripts import settings_file
from scripts.suite_settings import Suite

# ${NAME} may stand in it; no other { } may, since go2rtc replaces ${...} too.
_SOURCE = re.compile(r"(rtsp|rtsps|rtmp|rtmps|http|https)://([^\s#'\"{}\\]|\$\{\w+\})+")


def template(suite: Suite, name: str) -> list[str]:
    """The command that makes one generated stream."""
    return [word.replace("{instance_id}", name) for word in shlex.split(suite.exec_cmd_template)]


def fifo(root: Path, suite: Suite, name: str) -> Path:
    """The pipe of a stream, as go2rtc sees it."""
    return root / (suite.container_fifo_dir or suite.fifo_dir) / f"{name}.ts"


def capture(value: Any, where: str) -> list[str]:
    """The words of a command that runs as long as the suite does. There is no shell, unless it is named."""
    try:
        words = shlex.split(value) if isinstance(value, str) else []
    except ValueError:
        words = []
    if not words or not words[0] or "\0" in value:
        raise ConfigError(f"{where}: must be a command that writes H.264 or MPEG-TS to stdout, quotes closed")
    return words


def name(value: str, where: str) -> str:
    """A stream's name. Raises ConfigError."""
    try:
        return str(NAME.parse(value))
    except ValueError:
        raise ConfigError(f"{value!r} ({where}): a stream's name must be {NAME.allowed}") from None


def producer(name: str, common: Layers, section: Any, where: str) -> tuple[Producer, dict[str, str]]:
    """Options of one stream: those of its own over the common ones. The name is not an option."""
    own = settings_file.mapping(section, where)
    if "instance_id" in own:
        raise ConfigError(f"instance_id: unknown key in {where}: the stream's name is its instance id")
    base, own_layers = settings.load(Producer, common), Layers(document=own, document_name=where)
    chosen = settings.load(Producer, own_layers)
    own_places = settings.places_set(Producer, own_layers)
    values = {f: getattr(chosen if f in own_places else base, f) for f in settings.options_of(Producer)}
    found = Producer(**{**values, "instance_id": name})
    if found.duration:
        raise ConfigError(f"duration={found.duration:g} ({where}): a stream runs for as long as it is watched")
    places = settings.places_set(Producer, common) | own_places
    places.pop("instance_id", None)
    try:
        check(found)
        need_encoder(found.encoder)
    except NotHere as error:
        raise NotHere(f"{error}{next_step(str(error), places)}") from None
    return found, places


def next_step(said: str, places: Mapping[str, str]) -> str:
    """Where the encoder or renderer that a producer can't have was set, and what to set instead, to be put behind its
    error; '' for another error. `places`: option -> where it was set."""
    named = said.partition(" ")[0]
    if named not in ("encoder", "renderer"):
        return ""
    where = places.get(named) or places.get("encoder")  # an encoder on the GPU makes the renderer egl
    other = "encoder: auto takes the best that works here" if named == "encoder" else "renderer: cpu needs no GPU"
    return f" ({where}); {other}, make gpu-check says what does" if where else ""


def source(value: Any, where: str, variables: Mapping[str, str]) -> str | Path:
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
