"""What an agent is told: who it is, where it meets others, how they find a path to each other.

The names are the published ones. Defaults < the file that AGENT_CONFIG names < .env < environment < what a caller says.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from procs import log, settings
from procs.environment import from_environment
from procs.errors import ConfigError
from procs.kinds import ALL_PORTS, PATH, PORTS, SWITCH, Kind, matching, one_of
from procs.settings import Layers, option

MODES = ("chat", "json", "bytes", "tun")
MAX_URLS = 16  # of ICE servers
_FILE_KEYS = ("agent_id", "signaling_url", "signaling_token", "mode", "data_channel_label")

Json = dict[str, Any]


def _parse_url(text: str) -> str:
    parts = urllib.parse.urlsplit(text)
    odd = parts.fragment or "@" in parts.netloc or parts.port == 0
    if parts.scheme not in ("ws", "wss") or not parts.hostname or odd or not re.fullmatch(r"[!-~]+", text):
        raise ValueError
    return text


def _parse_ice_url(text: str) -> str:
    if not re.fullmatch(r"(stuns?|turns?):[!-~]+", text):
        raise ValueError
    return text


def _parse_ice_urls(text: str) -> tuple[str, ...]:
    found = tuple(_parse_ice_url(each.strip()) for each in text.split(",") if each.strip())
    if len(found) > MAX_URLS:
        raise ValueError
    return found


AGENT_ID = matching(r"(?!\.{1,2}$)[^/\x00-\x20\x7f]{1,128}", "1 to 128 characters without blanks and slashes")
URL = Kind(_parse_url, "a ws:// or wss:// address, such as ws://localhost:8000/ws/signal")
TOKEN = matching(r"[ -~]{1,1024}", "1 to 1024 printable ASCII characters")
LABEL = matching(r"[!-~]{1,64}", "1 to 64 printable ASCII characters")
ICE_URL = Kind(_parse_ice_url, "stun:HOST[:PORT] or turn[s]:HOST[:PORT][?transport=udp|tcp]")
ICE_URLS = Kind(_parse_ice_urls, f"up to {MAX_URLS} of stun:HOST[:PORT] or turn[s]:HOST[:PORT], with commas between")


class AgentSettings(settings.Settings):
    """One agent's settings."""

    agent_id: str = option("", AGENT_ID, env=("AGENT_ID",), help="who it is, to its peers")
    signaling_url: str = option("", URL, env=("SIGNALING_URL",), help="where agents meet")
    signaling_token: str = option(
        "", TOKEN, env=("SIGNALING_TOKEN",), help="lets it in, among those of the same", secret=True
    )
    signaling_token_file: Path | None = option(None, PATH, env=("SIGNALING_TOKEN_FILE",), help="a file with that token")
    mode: str = option("chat", one_of(*MODES), env=("MODE",), help="what the channel carries")
    data_channel_label: str = option("mvp", LABEL, env=("DATA_CHANNEL_LABEL",), help="name of the main channel")
    ice_url: str = option("", ICE_URL, env=("ICE_URL",), help="a STUN or TURN server")
    ice_urls: tuple[str, ...] = option((), ICE_URLS, env=("ICE_URLS",), help="several of them")
    ice_username: str = option("", TOKEN, env=("ICE_USERNAME",), help="for TURN")
    ice_credential: str = option("", TOKEN, env=("ICE_CREDENTIAL",), help="for TURN", secret=True)
    udp_range: tuple[int, int] = option(
        ALL_PORTS, PORTS, env=("PLANARIA_UDP_RANGE",), help="UDP ports that sessions use"
    )
    ca: Path | None = option(
        None, PATH, env=("PLANARIA_HUB_CA",), help="certificates that the server's may be signed by, PEM"
    )
    trust: str = option(
        "first-use",
        one_of("first-use", "approved"),
        env=("PLANARIA_PEER_TRUST",),
        help="whose keys are taken: anybody's at the first meeting, or only those known",
    )
    allow_unsigned: bool = option(
        False, SWITCH, env=("PLANARIA_ALLOW_UNSIGNED",), help="talk to peers that do not sign what they say"
    )
    # In place of the four ice_* options where a file lists them: {"urls", "username"?, "credential"?} each.
    listed_servers: tuple[Json, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        """As published, an option may be set later; ours it must be all the same. Raises ConfigError."""
        if name not in self._options:
            raise AttributeError(f"{name}: no such setting")
        try:
            vars(self)[name] = self._options[name].kind.parse(value) if isinstance(value, str) else value
        except ValueError:
            raise ConfigError(f"{name}={value!r}: must be {self._options[name].kind.allowed}") from None

    @property
    def ice_servers(self) -> list[Json]:
        """STUN and TURN servers, as browsers take them. The environment wins over the file."""
        urls = list(dict.fromkeys([self.ice_url] * bool(self.ice_url) + list(self.ice_urls)))
        if not urls:
            return [dict(each) for each in self.listed_servers]
        login = {"username": self.ice_username, "credential": self.ice_credential}
        return [{"urls": urls} | {name: value for name, value in login.items() if value}]

    @property
    def token(self) -> str:
        """What lets it in. Raises ConfigError where its file can't be read."""
        if self.signaling_token or not self.signaling_token_file:
            return self.signaling_token
        try:
            return str(TOKEN.parse(self.signaling_token_file.read_text().strip()))
        except (OSError, UnicodeDecodeError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else f"must hold {TOKEN.allowed}"
            raise ConfigError(f"SIGNALING_TOKEN_FILE={str(self.signaling_token_file)!r}: {why}") from None


def load_settings(
    environ: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None, *, is_partial: bool = False
) -> AgentSettings:
    """Settings of this agent; `flags` are a caller's, by field, and win. Raises ConfigError, also for an agent without
    a name or a place to meet, unless that `is_partial`."""
    environment, env_file = from_environment(os.environ if environ is None else environ)
    name = environment.get("AGENT_CONFIG") or env_file.get("AGENT_CONFIG") or ""
    document, servers = _read_file(Path(name).expanduser()) if name else ({}, ())
    found = settings.load(AgentSettings, Layers(flags or {}, environment, env_file, document, name))
    found = found.but(listed_servers=servers)
    for field, variable in (("agent_id", "AGENT_ID"), ("signaling_url", "SIGNALING_URL")):
        if not getattr(found, field) and not is_partial:
            allowed = (AGENT_ID if field == "agent_id" else URL).allowed
            raise ConfigError(f"{variable} is not set (environment, .env or AGENT_CONFIG): must be {allowed}")
    return found


def _read_file(path: Path) -> tuple[Json, tuple[Json, ...]]:
    """The plain values of the file, and its ICE servers. The format is the published one, so what we do not know in it
    is told and left alone."""
    import yaml  # here: most agents have no such file

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"AGENT_CONFIG={str(path)!r}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"AGENT_CONFIG={str(path)!r}: must be a YAML or JSON object")
    for key in document.keys() - {*_FILE_KEYS, "ice_servers"}:
        log.warning("a key that says nothing to this agent", key=str(key), file=str(path))
    plain = {key: str(value) for key in _FILE_KEYS if isinstance(value := document.get(key), str | int)}
    return plain, _servers(document.get("ice_servers") or [], path)


def _servers(listed: Any, path: Path) -> tuple[Json, ...]:
    wrong = ConfigError(
        f"ice_servers ({path}): must be a list of {{urls, username, credential}}, urls {ICE_URLS.allowed}"
    )
    if not isinstance(listed, list) or len(listed) > MAX_URLS:
        raise wrong
    found = []
    for each in listed:
        urls = each.get("urls") if isinstance(each, dict) else None
        try:
            checked = [_parse_ice_url(str(url)) for url in ([urls] if isinstance(urls, str) else urls or [])]
        except (ValueError, TypeError):
            raise wrong from None
        if not checked:
            raise wrong
        login = {name: str(each[name]) for name in ("username", "credential") if each.get(name)}
        found.append({"urls": checked, **login})
    return tuple(found)
