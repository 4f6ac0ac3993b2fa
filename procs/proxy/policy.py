"""Which requests may pass, and to whom: default deny, by method, path and query. Pure.

The target is judged as it stands, before anything of it is decoded or matched: a text that two servers might read
differently (dot segments, encoded slashes, double encoding, empty segments, keys given twice) is refused, whatever the
rules say. What is left means the same to everybody, and then needs a rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote_plus, unquote_to_bytes

MAX_TARGET = 8192
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS"})  # sent again without asking: they change nothing
FLAGS = frozenset({"ws", "live", "endless", "upload", "slow"})
FIRST_BYTE_S = 30.0
SLOW_FIRST_BYTE_S = 120.0  # of a rule with the flag `slow`; the request's own deadline still holds
SMALL_UPLOAD = 64 * 1024  # bytes; a rule without the flag `upload` takes no longer body

# What a browser leaves unescaped and every server reads alike: no blank, backslash, fragment or control character.
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9\-._~!$&()*+,;=:@\[\]|^{}']|%[0-9A-Fa-f]{2})*)+")
_QUERY = re.compile(r"(?:[A-Za-z0-9\-._~!$&()*+,=:@/?\[\]|^{}']|%[0-9A-Fa-f]{2})*")
_KEY = re.compile(r"[A-Za-z0-9_.\-\[\]]{1,64}")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_HIDDEN_IN_PATH = re.compile(r"%(?:2[Ff]|5[Cc]|[01][0-9A-Fa-f]|7[Ff])")
_HIDDEN_IN_QUERY = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")


class Value(NamedTuple):
    """What a query key may be set to."""

    pattern: re.Pattern[str] | None = None  # of the whole decoded value; None: anything
    is_stream: bool = False  # it names a stream, which has to be known


class Rule(NamedTuple):
    """Requests of one shape that may pass. `query` None: any key; the flag words are those of FLAGS."""

    methods: frozenset[str]
    path: re.Pattern[str]  # of the whole decoded path below the upstream's prefix
    query: Mapping[str, Value] | None
    flags: frozenset[str] = frozenset()
    answer: str = ""  # what kind of answer it is, for whoever has to change it on its way ("streams", "about", "page")


class Upstream(NamedTuple):
    """Somebody who answers requests, and which."""

    name: str
    host: str
    port: int
    prefix: str  # of the paths that are its own, such as "/files"; "" is everybody else's
    rules: tuple[Rule, ...]
    max_upload: int = 1 << 20  # bytes of a request's body under a rule with the flag `upload`
    login: str = ""  # user:password for Basic
    knows_streams: bool = False  # it is a go2rtc, which can be asked for its streams

    @property
    def authority(self) -> str:
        """What its Host header says."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Allowed(NamedTuple):
    """A request that may pass, provided that its `streams` are known."""

    upstream: Upstream
    method: str
    target: str  # path and query as the upstream shall get them
    rule: Rule
    streams: tuple[str, ...]
    keys: frozenset[str]  # of the query

    @property
    def is_idempotent(self) -> bool:
        """Whether it may be sent again when the answer did not come."""
        return self.method in IDEMPOTENT

    @property
    def is_endless(self) -> bool:
        """Whether the answer has no end of its own."""
        return "endless" in self.rule.flags

    @property
    def is_live(self) -> bool:
        """Whether old pictures may be left out; a copy to keep (a file name, a length) is to be whole."""
        return "live" in self.rule.flags and not self.keys & {"duration", "filename"}

    @property
    def first_byte_s(self) -> float:
        """The longest wait for the first byte of the answer."""
        return SLOW_FIRST_BYTE_S if "slow" in self.rule.flags else FIRST_BYTE_S

    @property
    def max_body(self) -> int:
        """Bytes of a request's body."""
        return self.upstream.max_upload if "upload" in self.rule.flags else SMALL_UPLOAD


class Denied(NamedTuple):
    """A request that may not pass. `reason` can be shown to whoever sent it."""

    status: int
    reason: str


def decide(upstreams: Sequence[Upstream], method: str, target: str, *, websocket: bool = False) -> Allowed | Denied:
    """Judge one request: its method, and path and query as they stand in the request line."""
    if problem := _malformed(target):
        return Denied(400, problem)
    if method not in METHODS:
        return Denied(403, "method not allowed")
    raw_path, mark, raw_query = target.partition("?")
    pairs = _pairs(raw_query) if mark else {}
    if isinstance(pairs, Denied):
        return pairs
    upstream = _whose(upstreams, raw_path)
    if upstream is None:
        return Denied(403, "no rule allows this path")
    below = raw_path[len(upstream.prefix) :]
    found = _rule(upstream.rules, method, _decoded(below), pairs, websocket)
    if isinstance(found, Denied):
        return found
    streams = tuple(pairs[key] for key, value in (found.query or {}).items() if value.is_stream and key in pairs)
    if any(not _is_plain_name(name) for name in streams):
        return Denied(403, "src must be the name of a stream")
    onward = below if found.answer == "page" else below + mark + raw_query
    return Allowed(upstream, method, onward, found, streams, frozenset(pairs))


def _malformed(target: str) -> str:
    """Why servers might read this target differently; "" if they won't."""
    path, _, query = target.partition("?")
    if len(target) > MAX_TARGET:
        return "target too long"
    if not target.startswith("/"):
        return "target must be a path"
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query):
        return "target holds characters that have no place there"
    if "%" in target and _ESCAPE.search(_decoded(target)):
        return "target is encoded twice"
    if _HIDDEN_IN_PATH.search(path) or _HIDDEN_IN_QUERY.search(query):
        return "target hides a slash or a control character"
    segments = _decoded(path).split("/")[1:]
    if any(segment.partition(";")[0] in (".", "..") for segment in segments):
        return "path holds a dot segment"
    if "" in segments[:-1]:
        return "path holds an empty segment"
    return ""


def _decoded(path: str) -> str:
    return unquote_to_bytes(path).decode("utf-8", "surrogateescape") if "%" in path else path


def _pairs(query: str) -> dict[str, str] | Denied:
    """Keys and decoded values. A key stands plainly and once: servers differ in which of two they take."""
    pairs: dict[str, str] = {}
    for piece in query.split("&") if query else ():
        key, _, value = piece.partition("=")
        if not _KEY.fullmatch(key):
            return Denied(400, "query holds a key that is not plain")
        if key in pairs:
            return Denied(400, "query holds a key twice")
        pairs[key] = unquote_plus(value, errors="surrogateescape")
    return pairs


def _whose(upstreams: Iterable[Upstream], path: str) -> Upstream | None:
    """The upstream with the longest prefix of the path."""
    owners = [each for each in upstreams if path.startswith(f"{each.prefix}/")]
    return max(owners, key=lambda each: len(each.prefix), default=None)


def _rule(rules: Iterable[Rule], method: str, path: str, pairs: Mapping[str, str], websocket: bool) -> Rule | Denied:
    """The first rule that takes all of it, or what was wrong about the nearest."""
    problem = "no rule allows this path"
    for rule in rules:
        if not rule.path.fullmatch(path):
            continue
        if method not in rule.methods or websocket != ("ws" in rule.flags):
            problem = "no rule allows this method here"
            continue
        wrong = _wrong_key(rule, pairs)
        if not wrong:
            return rule
        problem = f"no rule allows query key {wrong} here, or not this value"
    return Denied(403, problem)


def _wrong_key(rule: Rule, pairs: Mapping[str, str]) -> str:
    if rule.query is None:
        return ""
    for key, value in pairs.items():
        allowed = rule.query.get(key)
        if allowed is None or (allowed.pattern and not allowed.pattern.fullmatch(value)):
            return key
    return ""


_SOURCE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")


def _is_plain_name(name: str) -> bool:
    """Whether it can be a stream's name only: go2rtc makes a stream of what looks like a source, such as exec:..."""
    return bool(name) and not _SOURCE.match(name) and name.isprintable() and "#" not in name
