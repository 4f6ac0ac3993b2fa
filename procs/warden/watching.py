"""What webrtc_peer says of those who watch, and what of it is for Prometheus. Sessions have no names there: each would
be a series of its own for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from procs.messages.warden import Watching, WatchSession
from procs.warden.metrics import Sample, family

FRESH_S = 3.0
NOBODY = Watching(1, [], [])


class Watched:
    """What was said last."""

    def __init__(self) -> None:
        self._said, self._at = NOBODY, float("-inf")

    def take(self, said: Watching, now: float) -> None:
        """It has come."""
        self._said, self._at = said, now

    def sessions(self, now: float) -> list[WatchSession] | None:
        """All of them; None if that is not known."""
        return self._said.sessions if now - self._at <= FRESH_S else None

    def text(self, now: float) -> str:
        """The families of these figures. Sums stay as they are while there is no webrtc_peer."""
        sessions = self.sessions(now) or []
        paths = Counter((each.stream, each.path or "none") for each in sessions)
        by_path = [({"stream": stream, "path": path}, count) for (stream, path), count in paths.items()]
        return "".join((
            family("watch_sessions", "gauge", "Watch sessions by stream and path.", by_path),
            family("watch_bits_per_second", "gauge", "Pictures sent, all sessions of a stream.",
                   _of(sessions, lambda its: its.bits_per_s, sum)),
            family("watch_loss_ratio", "gauge", "Packets lost lately, of the session that loses most.",
                   _of(sessions, lambda its: its.loss, max)),
            family("watch_round_trip_seconds", "gauge", "To the viewer who is furthest away and back.",
                   _of(sessions, lambda its: (its.round_trip_ms or 0) / 1000, max)),
            *(family(f"watch_{name}_total", "counter", words,
                     [({"stream": each.stream}, getattr(each, name)) for each in self._said.totals])
              for name, words in _TOTALS.items()),
        ))  # fmt: skip


_TOTALS = {
    "sessions": "Watch sessions that have had pictures.",
    "packets": "RTP packets sent to viewers.",
    "octets": "Bytes of them.",
    "packets_lost": "Those that viewers have missed.",
    "packets_again": "Those that were sent once more.",
    "dropped": "Pictures left out until the next keyframe, for viewers who were too slow.",
}


def _of(
    sessions: Iterable[WatchSession],
    value: Callable[[WatchSession], float],
    merged: Callable[[list[float]], float],
) -> list[Sample]:
    """One figure a stream."""
    found: dict[str, list[float]] = {}
    for each in sessions:
        found.setdefault(each.stream, []).append(value(each))
    return [({"stream": stream}, merged(values)) for stream, values in found.items()]
