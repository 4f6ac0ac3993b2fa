"""Log lines on stderr: one JSON object each for programs, tagged text for a terminal.

Secrets are cut out by field name and inside URLs; a line that repeats is held back and counted.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

REPEATS_ALLOWED = 5
REPEAT_WINDOW_S = 10.0
MAX_TEXT = 2000  # of one value, so that no peer can flood the disk through our log

# Compiled when a line is written: a process that has just been killed has none to write before it serves.
_SECRET_NAME = (
    r"(?i)secret|token|passw|passphrase|pwd|credential|authorization|cookie|api[-_]?key|private|signature|^pass$"
)
# Each is linear in the length of the text, whatever the text: it may come from a peer.
_USERINFO = r"(://)\S{0,300}@"
_SCHEME = r"(?i)\b(bearer|basic|digest)[ \t]{1,9}[^\s,;\"']+"
_IN_QUERY = r"(?i)([?&](?:key|sig|auth|code)=)[^&\s\"']+"
_NAME = r"""(?<![\w-])([\w-]{1,64})["']?[ \t]{0,9}[=:][ \t]{0,9}"""
_VALUE = r"""b?"(?:\\.|[^"\\])*"?|b?'(?:\\.|[^'\\])*'?|(?<=[:] )[^\r\n]+|[^\s&,;}\]]*"""
# What names a file is no secret, but where somebody has put the secret itself there by mistake.
_FILE_NAME = r"(?i)[-_]file$"
_PATH = r"""b?"(?:~|\.{0,2}/)[^"]{0,500}"|b?'(?:~|\.{0,2}/)[^']{0,500}'|(?:~|\.{0,2}/)[^\s&,;}\]]*"""
_logger = logging.getLogger("planaria")


def timestamp(seconds: float | None = None) -> str:
    """A time since the Unix epoch (default: now) as it stands in log lines: such texts sort as their times do."""
    seconds = time.time() if seconds is None else seconds
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def redact(name: str, value: object) -> object:
    """The value as it may be logged: numbers as they are, text shortened and without secrets."""
    if re.search(_SECRET_NAME, name):
        is_path = re.search(_FILE_NAME, name) and re.fullmatch(_PATH, str(value))
        return str(value)[:MAX_TEXT] if is_path else "***"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)[: 4 * MAX_TEXT]
    text = re.sub(_USERINFO, r"\1***@", text)
    text = re.sub(_SCHEME, r"\1 ***", text)
    text = re.sub(_IN_QUERY, r"\1***", text)
    return _without_named(text)[:MAX_TEXT]  # cut last: half of a secret would not be known as one


def _without_named(text: str) -> str:
    """The text with the values after secret names (name=value, name: value, "name": "value") replaced."""
    kept, at = [], 0
    while found := re.compile(_NAME).search(text, at):
        kept.append(text[at : found.end()])
        at = found.end()
        if not re.search(_SECRET_NAME, found[1]):
            continue
        if re.search(_FILE_NAME, found[1]) and (path := re.compile(_PATH).match(text, at)):
            kept.append(path[0])
            at = path.end()
        elif value := re.compile(_VALUE).match(text, at):
            kept.append("***")
            at = value.end()
    return "".join([*kept, text[at:]])


class _Repeats(logging.Filter):
    """Lets REPEATS_ALLOWED equal lines through per window, then says once how many were held back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = (record.levelno, record.getMessage()), self._clock()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= REPEAT_WINDOW_S:
            if count > REPEATS_ALLOWED:
                record.held_back = count - REPEATS_ALLOWED
            since, count = now, 0
        if len(self._seen) > 1000:  # a bound, for events that carry changing text
            self._seen.clear()
        self._seen[key] = (since, count + 1)
        return count < REPEATS_ALLOWED


def _fields(record: logging.LogRecord, always: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {**getattr(record, "fields", {}), **always}
    held_back = getattr(record, "held_back", 0)
    if held_back:
        found["held_back"] = held_back
    if record.exc_info:
        found["trace"] = logging.Formatter().formatException(record.exc_info)
    return {name: redact(name, value) for name, value in found.items()}


class _Json(logging.Formatter):
    def __init__(self, tag: str, always: Mapping[str, object]) -> None:
        super().__init__()
        self._tag, self._always = tag, always

    def format(self, record: logging.LogRecord) -> str:
        import json  # here: a producer's first line comes after its first frame

        line = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "tag": self._tag,
            "event": redact("", record.getMessage()),
            **_fields(record, self._always),
        }
        return json.dumps(line, ensure_ascii=True)


class _Text(logging.Formatter):
    def __init__(self, tag: str, always: Mapping[str, object]) -> None:
        super().__init__()
        self._tag, self._always = tag, always

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        extra = " ".join(f"{name}={value}" for name, value in _fields(record, self._always).items())
        # A terminal obeys control characters, and the text may come from a peer.
        text = "".join(
            c if c.isprintable() or c == "\n" else "?" for c in f"{redact('', record.getMessage())}  {extra}"
        )
        return f"{time.strftime('%H:%M:%S')} {self._tag} | {level}{text.rstrip()}"


def configure(
    tag: str,
    *,
    debug: bool = False,
    style: str = "",
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    always: Mapping[str, object] | None = None,
) -> None:
    """Send all logging of this process to one stream, as "json" or "text"; else as PLANARIA_LOG says, else text on a
    terminal. `always`: fields of each line, such as whom it is about."""
    out = stream or sys.stderr
    style = style or os.environ.get("PLANARIA_LOG") or ("text" if out.isatty() else "json")
    handler = logging.StreamHandler(out)
    handler.setFormatter(_Text(tag, always or {}) if style == "text" else _Json(tag, always or {}))
    handler.addFilter(_Repeats(clock))
    logging.raiseExceptions = False  # a log whose reader is gone must not change what a process does
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries speak when something is wrong
    _logger.setLevel(logging.DEBUG if debug else logging.INFO)


def debug(event: str, /, **fields: object) -> None:
    """A line for whoever debugs."""
    _logger.debug(event, extra={"fields": fields})


def info(event: str, /, **fields: object) -> None:
    """A line about something that is as it should be."""
    _logger.info(event, extra={"fields": fields})


def warning(event: str, /, **fields: object) -> None:
    """A line about something that was put up with."""
    _logger.warning(event, extra={"fields": fields})


def error(event: str, /, *, trace: bool = False, **fields: object) -> None:
    """A line about something that ended or refused; `trace` adds the stack of the exception in hand."""
    _logger.error(event, extra={"fields": fields}, exc_info=trace)
