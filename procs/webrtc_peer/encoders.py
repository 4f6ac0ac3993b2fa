"""Who encodes what for whom: one encoder for each stream and codec, while anybody needs it. Pure but for what it is
given to fork and kill with.

Each is a lease: one that says nothing any more is killed, and one that has died comes back while it is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

from procs import log
from procs.backoff import crash_pause
from procs.messages import encode
from procs.messages.watch import EncoderSpec, Encoding

MAX_ENCODERS = 8
BORN_S = 15.0  # from the fork to the first sign, as for sessions
SILENT_S = 3.0
STEADY_S = 10.0  # who has lived for so long has not failed at its start
PAUSE_MAX_S = 10.0


class Forks(Protocol):
    """Where children come from."""

    def fork(self, child: str, spec: bytes) -> None:
        """Have a child born."""

    def kill(self, child: str) -> None:
        """Have it ended."""


class Encoder:
    """One that is needed; `name` is that of the process that does it now, "" while there is none."""

    def __init__(self, stream: str, codec: str) -> None:
        self.stream, self.codec = stream, codec
        self.users: set[str] = set()
        self.name = ""
        self.has_begun = False  # it has said something
        self.begun_at = self.heard_at = self.due_at = 0.0
        self.failures = 0


class Encoders:
    """All of them. `is_ready(encoder)` is called at the first sign of each process,
    `is_gone(encoder)` before its name is forgotten. Times are seconds of CLOCK_MONOTONIC."""

    def __init__(
        self,
        run_dir: str,
        brood: Forks,
        is_ready: Callable[[Encoder], None],
        is_gone: Callable[[Encoder], None],
    ) -> None:
        self._run_dir, self._brood = run_dir, brood
        self._is_ready, self._is_gone = is_ready, is_gone
        self._needed: dict[tuple[str, str], Encoder] = {}
        self._numbers = itertools.count(1)

    def needs(self, user: str, stream: str, codecs: Sequence[str], now: float) -> list[str]:
        """A session needs these, and no others. To be said as often as one likes. Gives those for which there are too
        many encoders already."""
        self._leave(user, {(stream, codec) for codec in codecs})
        refused = []
        for codec in codecs:
            found = self._needed.get((stream, codec))
            if not found and len(self._needed) >= MAX_ENCODERS:
                refused.append(codec)
                continue
            if not found:
                found = self._needed[stream, codec] = Encoder(stream, codec)
                self._start(found, now)
            found.users.add(user)
        return refused

    def left(self, user: str) -> None:
        """A session needs nothing any more."""
        self._leave(user, set())

    def _leave(self, user: str, but: set[tuple[str, str]]) -> None:
        for key, encoder in list(self._needed.items()):
            if key not in but:
                encoder.users.discard(user)
            if not encoder.users:
                del self._needed[key]
                self._end(encoder)

    def of(self, stream: str, codec: str) -> Encoder | None:
        """The one that makes this."""
        return self._needed.get((stream, codec))

    def named(self, name: str) -> Encoder | None:
        """The one that is this process now."""
        return next((each for each in self._needed.values() if each.name == name), None) if name else None

    def heard(self, message: Encoding, now: float) -> None:
        """A process says that it is well."""
        encoder = self.named(message.encoder)
        if not encoder:
            return
        encoder.heard_at = now
        if now - encoder.begun_at > STEADY_S:
            encoder.failures = 0
        if not encoder.has_begun:
            encoder.has_begun = True
            log.info("encoder", encoder=encoder.name, stream=encoder.stream, codec=encoder.codec, pid=message.pid)
            self._is_ready(encoder)

    def gone(self, name: str, how: str, now: float) -> None:
        """A process has ended. Whom we have ended ourselves is none of ours by now."""
        encoder = self.named(name)
        if encoder:
            log.warning("encoder died", encoder=name, stream=encoder.stream, codec=encoder.codec, how=how)
            self._failed(encoder, now)

    def tick(self, now: float) -> None:
        """What has become late, and what is due."""
        for encoder in list(self._needed.values()):
            if not encoder.name:
                if now >= encoder.due_at:
                    self._start(encoder, now)
            elif now - encoder.heard_at > (SILENT_S if encoder.has_begun else BORN_S):
                log.warning("encoder stands still", encoder=encoder.name, stream=encoder.stream, codec=encoder.codec)
                self._brood.kill(encoder.name)
                self._failed(encoder, now)

    def _failed(self, encoder: Encoder, now: float) -> None:
        self._forget(encoder)
        encoder.due_at = now + crash_pause(encoder.failures, cap_s=PAUSE_MAX_S)
        encoder.failures += 1
        if encoder.due_at <= now:
            self._start(encoder, now)

    def _start(self, encoder: Encoder, now: float) -> None:
        encoder.name = f"encoder {next(self._numbers)}"
        encoder.has_begun, encoder.begun_at, encoder.heard_at = False, now, now
        spec = EncoderSpec(encoder.name, encoder.stream, encoder.codec, self._run_dir)  # type: ignore[arg-type]
        self._brood.fork(encoder.name, encode(spec))

    def _end(self, encoder: Encoder) -> None:
        if encoder.name:
            log.info("encoder is not needed any more", encoder=encoder.name, stream=encoder.stream)
            self._brood.kill(encoder.name)
            self._forget(encoder)

    def _forget(self, encoder: Encoder) -> None:
        self._is_gone(encoder)
        encoder.name = ""
