"""What viewers may ask of go2rtc, and what of its answers they may see. Pure.

go2rtc exempts loopback from its own login, so this table is the guard. Left out are: everything that changes streams or
settings, tells secrets (config, log, stack, streams.dot) or reaches elsewhere (dst=, ffmpeg, discovery).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from procs.errors import Refused
from procs.proxy.policy import Rule, Upstream, Value

_GET = frozenset({"GET"})
_GET_HEAD = frozenset({"GET", "HEAD"})
_GET_OPTIONS = frozenset({"GET", "OPTIONS"})


def _value(pattern: str) -> Value:
    return Value(re.compile(pattern))


_SRC = {"src": Value(is_stream=True)}
_CODECS = _value(r"[A-Za-z0-9,/_.-]{0,128}")
_TRACKS = {"video": _CODECS, "audio": _CODECS}
_MP4 = {"mp4": _value(r"flac|all|")}
_WHOLE = _value(r"[0-9]{1,6}")
_FILE = {"duration": _WHOLE, "filename": _value(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")}
# These four go into a filter expression of ffmpeg: nothing but a number.
_SIZE = {"w": _WHOLE, "width": _WHOLE, "h": _WHOLE, "height": _WHOLE}
_SNAPSHOT = {
    **_SIZE,
    "rotate": _value(r"-?(?:0|90|180|270)"),
    "hw": _value(r"[a-z0-9]{0,16}"),
    "hardware": _value(r"[a-z0-9]{0,16}"),
    "cache": _value(r"[0-9]{1,6}(?:ms|s|m|h)"),
}
_SESSION = {"id": _value(r"[A-Za-z0-9]{1,64}"), "n": _value(r"[0-9]{0,12}")}
_MEDIA = {"media": _value(r"[a-z0-9+ ,]{0,64}"), "microphone": _value(r"[a-z0-9,]{0,64}")}
_TEXT_ART = {"color": _value(r"[a-z0-9]{0,16}"), "back": _value(r"[a-z0-9]{0,16}")}


def _rule(methods: frozenset[str], path: str, query: dict[str, Value], flags: str = "", answer: str = "") -> Rule:
    return Rule(methods, re.compile(path), query, frozenset(flags.split()), answer)


RULES = (
    # Pages need no query of ours: their scripts read it in the browser.
    Rule(_GET_HEAD, re.compile(r"/(?:[A-Za-z0-9_-]+\.(?:html|js|css|ico|png|svg|json))?"), None, answer="page"),
    _rule(_GET, r"/api", {}, answer="about"),
    _rule(_GET, r"/api/streams", {**_SRC, **_TRACKS, **_MEDIA}, "slow", answer="streams"),
    _rule(_GET, r"/api/ws", {**_SRC, **_TRACKS, **_MP4, **_MEDIA}, "ws live endless"),
    _rule(_GET, r"/api/stream\.mp4", {**_SRC, **_TRACKS, **_MP4, **_FILE}, "live endless slow", answer="mp4"),
    _rule(_GET, r"/api/stream\.mjpeg", _SRC, "live endless slow", answer="mjpeg"),
    _rule(_GET, r"/api/stream\.ascii", {**_SRC, **_TEXT_ART}, "endless slow"),
    _rule(_GET, r"/api/stream\.(?:ts|flv|aac|y4m)", {**_SRC, **_TRACKS}, "endless slow"),
    _rule(_GET_OPTIONS, r"/api/stream\.m3u8", {**_SRC, **_TRACKS, **_MP4}, "slow"),
    _rule(_GET_OPTIONS, r"/api/hls/(?:playlist\.m3u8|init\.mp4|segment\.(?:ts|m4s))", _SESSION),
    _rule(_GET, r"/api/frame\.jpeg", {**_SRC, **_SNAPSHOT}, "slow"),
    _rule(_GET, r"/api/frame\.mp4", {**_SRC, **_TRACKS, **_MP4, **_FILE}, "slow"),
    _rule(frozenset({"POST", "OPTIONS"}), r"/api/webrtc", {**_SRC, **_MEDIA}, "slow"),
    _rule(frozenset({"DELETE"}), r"/api/webrtc", {"id": _SESSION["id"]}),
)


def upstream(host: str, port: int, login: str = "") -> Upstream:
    """go2rtc under the rules for viewers, at the root of the device."""
    return Upstream("go2rtc", host, port, "", RULES, login=login, knows_streams=True)


_ANSWER_KEYS = frozenset({
    "producers", "consumers", "senders", "receivers", "id", "format_name", "protocol", "medias", "codec", "codec_name",
    "codec_type", "channels", "sample_rate", "level", "profile", "bytes", "bytes_recv", "bytes_send", "packets",
    "drops", "parent", "childs",
})  # fmt: skip


def stream_names(body: bytes) -> frozenset[str]:
    """The streams of an answer of /api/streams. Raises Refused."""
    try:
        return frozenset(msgspec.json.decode(body, type=dict[str, Any]))
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"whoever answers there is no go2rtc: {error}"[:200]) from None


def shown(kind: str, body: bytes, *, one: bool = False) -> bytes:
    """An answer as viewers may see it: of "streams" names, codecs and counts, but no sources, addresses or programs;
    of "about" no path. `one`: it is about one stream. Raises Refused for what is not go2rtc's."""
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
        if kind == "about":
            seen = {key: answer[key] for key in ("version", "revision", "host", "rtsp") if key in answer}
            return msgspec.json.encode({**seen, "config_path": ""})
        return msgspec.json.encode(
            _harmless(answer) if one else {name: _harmless(stream) for name, stream in answer.items()}
        )
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"whoever answers there is no go2rtc: {error}"[:200]) from None


def _harmless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _harmless(each) for key, each in value.items() if key in _ANSWER_KEYS}
    if isinstance(value, list):
        return [_harmless(each) for each in value]
    return value
