"""What a backend has to show before it may listen: given, or made once and kept in a file of ours."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import NamedTuple

from procs.audio_io.options import TOKEN, Audio
from procs.settings import in_file

FILE = "audio-token"  # in run/
_SCHEME = "bearer "


class Token(NamedTuple):
    """The one that counts."""

    text: str  # "": none is asked for
    file: Path | None = None  # where it stands, if in a file
    is_new: bool = False  # made just now: nobody has seen it

    def lets_in(self, authorization: str | None) -> bool:
        """Whether a request with this header (RFC 6750) may come in. Takes as long for any wrong one."""
        if not self.text:
            return True
        shown = authorization or ""
        right = shown[: len(_SCHEME)].lower() == _SCHEME
        given = shown[len(_SCHEME) :].strip().encode(errors="surrogateescape")
        return hmac.compare_digest(given, self.text.encode()) and right


def find(chosen: Audio, run_dir: Path) -> Token:
    """The token that is asked for. Beyond this machine there is always one. Raises ConfigError."""
    if chosen.token:
        return Token(chosen.token)
    if chosen.token_file:
        return Token(_read(chosen.token_file), chosen.token_file)
    if not chosen.needs_token:
        return Token("")
    file = run_dir / FILE
    if file.exists():
        return Token(_read(file), file)
    return Token(_make(file), file, is_new=True)


def _read(file: Path) -> str:
    token: str = in_file("PLANARIA_AUDIO_TOKEN_FILE", TOKEN, file)
    return token


def _make(file: Path) -> str:
    """A new one, on disk before anybody is told of it: killed in between, the next start finds none, or all of it."""
    text = secrets.token_urlsafe(32)
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as out:
        out.write(f"{text}\n")
        out.flush()
        os.fsync(descriptor)
    os.replace(beside, file)
    return text
