"""The first that the process does: it listens, so that a backend which calls again at once need only wait.

Nothing is imported here that takes long: numpy, codecs and sound are a third of a second.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Protocol

from procs import log
from procs.audio_io import token
from procs.audio_io.options import Audio, family_of
from procs.audio_io.token import Token
from procs.errors import ConfigError

BACKLOG = 16
_NOWHERE = "192.0.2.1", 9  # of RFC 5737: nothing is sent there


class Alive(Protocol):
    """What life.run gives a process."""

    run_dir: Path

    def beat(self) -> None:
        """The main loop turns."""

    def serving(self) -> None:
        """The work is there to be had."""


def serve(chosen: Audio, alive: Alive) -> None:
    """Lend ears and mouth, for ever."""
    asked = token.find(chosen, alive.run_dir)
    listening = _listen(chosen)
    _announce(chosen, asked)

    from procs.audio_io import shell

    shell.serve(chosen, asked, listening, alive)


def _listen(chosen: Audio) -> socket.socket:
    sock = socket.socket(family_of(chosen.host), socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((chosen.host, chosen.port))
        sock.listen(BACKLOG)
    except OSError as error:
        raise ConfigError(f"PLANARIA_AUDIO_HOST, _PORT={chosen.listens}: {error.strerror}; choose another") from None
    return sock


def _announce(chosen: Audio, asked: Token) -> None:
    """Say where it listens. A token that nobody has seen is shown to a person, never to a log."""
    if not chosen.listens.is_loopback and not chosen.cert:
        log.warning("everybody on the way can hear what is said; --cert and --key hide it", at=str(chosen.listens))
    if asked.file:
        log.info("a backend has to show what stands in this file", file=str(asked.file))
    if not chosen.listens.is_loopback and sys.stderr.isatty():
        shown = asked.text if asked.is_new else f"(what stands in {asked.file})" if asked.file else "(as you have set)"
        print(f"for the backend's devices.json:\n  {entry(chosen, shown)}", file=sys.stderr, flush=True)


def entry(chosen: Audio, shown: str) -> str:
    """The line by which a backend finds this device."""
    host = _reached_at() if chosen.host in ("0.0.0.0", "::") else chosen.host
    fields = {"name": chosen.called, "host": host, "port": chosen.port, "token": shown, "tls": bool(chosen.cert)}
    return json.dumps(fields, ensure_ascii=False)


def _reached_at() -> str:
    """Which of this machine's addresses others are likely to reach; its name where it has no network."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_NOWHERE)
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
