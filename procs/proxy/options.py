"""What a proxy is told: who answers requests, and which.

`make up` writes run/proxy.json, out of planaria.yaml and the environment; without it there is go2rtc alone. In both the
grammar of `upstreams` is this, every value as text:

    files:                                      a name for log lines
      url: http://127.0.0.1:8080                http only; user:password@ before the host is sent as Basic
      prefix: /files                            paths below it are the upstream's, which sees them without it
      rules: ["GET,HEAD /**", "POST /count?n", "GET /ws ws"]
      max_upload: 50M                           longest body under rules with the word `upload` (others: 64 KB)

A rule is METHODS PATH[?KEYS] [WORDS]; the first that fits counts. In a path * stands for a part of one segment and **
for anything; keys are divided by & and each may stand once in a query, ?* allows any. Words: ws (a WebSocket), endless
(the answer has no end of its own), live (so are its pictures, of which old ones may be left out), upload, slow (120 s
to the first byte, and not 30).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from procs import kinds, settings
from procs.carrier import trust
from procs.environment import from_environment
from procs.errors import ConfigError
from procs.flags import command_line, parse_flags
from procs.kinds import PATH, SWITCH, Kind, matching, whole
from procs.proxy import go2rtc
from procs.proxy.policy import FLAGS, METHODS, Rule, Upstream, Value
from procs.settings import Layers, option

NAME = "proxy.json"
UPSTREAM_KEYS = ("url", "prefix", "rules", "max_upload")
MAX_UPSTREAMS, MAX_RULES = 32, 200

_RULE = re.compile(r"(?P<methods>[A-Z,]+) (?P<path>/[^\s?#]*)(?:\?(?P<keys>[^\s#]*))?(?P<words>(?: [a-z]+)*)")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_.~-]+)+")
_SIZE = re.compile(r"([0-9]{1,6})([KMG]?)")


class Login(str):
    """user:password, which does not show itself in a repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Origin(NamedTuple):
    """Where an upstream listens."""

    host: str
    port: int
    login: str = ""

    def __str__(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def _parse_origin(text: str) -> Origin:
    parts = urlsplit(text)
    if parts.scheme != "http" or parts.path not in ("", "/") or parts.query or parts.fragment or not parts.hostname:
        raise ValueError
    if not re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}", parts.hostname):
        raise ValueError
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    port = 80 if parts.port is None else parts.port
    if not 1 <= port <= 65535 or not login.isprintable():
        raise ValueError
    return Origin(parts.hostname, port, Login(login))


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


ORIGIN = Kind(_parse_origin, "http://HOST[:PORT] without a path")
SIZE = Kind(_parse_size, "bytes, such as 500K, 50M or 2G")


class Proxy(settings.Settings):
    """Settings of one proxy."""

    instance: int = option(0, whole(0, 63), help="which of several copies this is")
    go2rtc_http: Origin = option(
        Origin("127.0.0.1", 1984), ORIGIN, env=("GO2RTC_HTTP",), help="go2rtc's API and pages", secret=True
    )
    ca: Path | None = option(
        None, PATH, env=("PLANARIA_HUB_CA",), help="certificates that the hub's may be signed by, PEM, beside the usual"
    )
    verbose: bool = option(False, SWITCH, help="log each request")
    upstreams: tuple[Upstream, ...] = ()


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Proxy:
    """Settings of this process. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    parser = command_line("proxy", "Carries requests of the hub to go2rtc.", "  python -m procs.proxy")
    flags = parse_flags(parser, Proxy, sys.argv[1:] if argv is None else argv)
    environment, env_file = from_environment(environ)
    path = settings.run_dir(environ) / NAME
    document = settings.written(path)
    others = upstreams(document.pop("upstreams", {}), f"{path}: upstreams")
    chosen = settings.load(Proxy, Layers(flags, environment, env_file, document, str(path)))
    if chosen.ca:
        trust(chosen.ca)
    at = chosen.go2rtc_http
    return chosen.but(upstreams=(go2rtc.upstream(at.host, at.port, at.login), *others))


def upstreams(section: Any, where: str) -> tuple[Upstream, ...]:
    """The upstreams of a settings file beside go2rtc. Raises ConfigError that names the key."""
    if section in (None, ""):
        return ()
    if not isinstance(section, dict) or len(section) > MAX_UPSTREAMS:
        raise ConfigError(f"{where}: must be at most {MAX_UPSTREAMS} names, each with its keys below it")
    found = tuple(_upstream(str(name), value, f"{where}.{name}") for name, value in section.items())
    for each in found:
        if sum(other.prefix == each.prefix for other in found) > 1:
            raise ConfigError(f"{where}.{each.name}: prefix={each.prefix!r}: another one has it too")
    return found


def _upstream(name: str, section: Any, where: str) -> Upstream:
    if name == "go2rtc":
        raise ConfigError(f"{where}: go2rtc is one already; GO2RTC_HTTP says where it is")
    _value(kinds.NAME, {"name": name}, "name", where)
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: must be 'key: value' lines: {', '.join(UPSTREAM_KEYS)}")
    settings.refuse_unknown_keys(section, UPSTREAM_KEYS, where)
    at: Origin = _value(ORIGIN, section, "url", where, secret=True)
    prefix: str = _value(matching(_PREFIX.pattern, "a path such as /files"), section, "prefix", where)
    if any(segment in (".", "..") for segment in prefix.split("/")) or f"{prefix}/".startswith("/api/"):
        raise ConfigError(f"prefix={prefix!r} ({where}): must be a path of its own, not go2rtc's /api")
    limit = _value(SIZE, section, "max_upload", where) if "max_upload" in section else 1 << 20
    rules = section.get("rules")
    if not isinstance(rules, list) or not 1 <= len(rules) <= MAX_RULES:
        raise ConfigError(f"rules ({where}): must be a list of such as 'GET,HEAD /**'")
    return Upstream(name, at.host, at.port, prefix, tuple(rule(each, where) for each in rules), limit, at.login)


def _value(kind: Kind, section: Mapping[str, Any], key: str, where: str, *, secret: bool = False) -> Any:
    value = section.get(key, "")
    try:
        if not isinstance(value, str):
            raise ValueError
        return kind.parse(value.strip())
    except ValueError:
        shown = "***" if secret and "@" in str(value) else repr(value)
        raise ConfigError(f"{key}={shown} ({where}): must be {kind.allowed}") from None


def rule(text: Any, where: str) -> Rule:
    """One rule as it stands in a settings file. Raises ConfigError."""
    match = _RULE.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise ConfigError(f"rules={text!r} ({where}): must be METHODS /PATH[?KEYS] [WORDS], such as 'GET,HEAD /**'")
    methods, words = frozenset(match["methods"].split(",")), frozenset(match["words"].split())
    if not methods <= METHODS:
        raise ConfigError(f"rules={text!r} ({where}): methods must be of {', '.join(sorted(METHODS))}")
    if not words <= FLAGS or ("ws" in words and methods != {"GET"}):
        raise ConfigError(f"rules={text!r} ({where}): words must be of {', '.join(sorted(FLAGS))}; ws goes with GET")
    keys = None if match["keys"] == "*" else {key: Value() for key in (match["keys"] or "").split("&") if key}
    return Rule(methods, _pattern(match["path"]), keys, words)


def _pattern(path: str) -> re.Pattern[str]:
    """`**` is anything, `*` is anything within a segment, the rest is itself."""
    parts = re.split(r"(\*\*|\*)", path)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts), re.DOTALL)
