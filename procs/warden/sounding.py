"""What audio_io says of how the sound does, for Prometheus."""

from __future__ import annotations

from procs.messages.warden import Sounding
from procs.warden.metrics import family
from procs.warden.watching import FRESH_S

_NOW = {"depth": "Sound that waits to be played.", "target": "The same, as it is aimed at."}
_LENGTHS = {
    "concealed": "Sound made up in the place of what was missing.",
    "lost": "Sound that never came.",
    "late": "Sound that came when its time was over.",
    "dropped": "The oldest sound, left out where more came than is kept.",
    "unheard": "Sound of the microphone that nobody took in time.",
}
_COUNTS = {
    "underruns": "Times that there was nothing to be played.",
    "glitches": "Times that a card got or gave nothing in time.",
}


class Sounded:
    """What was said last."""

    def __init__(self) -> None:
        self._said: Sounding | None = None
        self._at = float("-inf")

    def take(self, said: Sounding, now: float) -> None:
        """It has come."""
        self._said, self._at = said, now

    def text(self, now: float) -> str:
        """The families of these figures; none where there is no audio_io. Without labels: there is one device."""
        said = self._said
        if said is None or now - self._at > FRESH_S:
            return ""
        away = [({"reason": reason}, count) for reason, count in said.turned_away.items()]
        refused = [({"reason": reason}, count) for reason, count in said.refused.items()]
        of = said.figures.get
        return "".join((
            family("audio_held", "gauge", "1: a backend holds the device.", [({}, said.is_held)]),
            family("audio_connections_total", "counter", "Backends that have held it.", [({}, said.connections)]),
            family("audio_turned_away_total", "counter", "Connections that were not let in.", away),
            family("audio_refused_total", "counter", "Events and packets that made no sense.", refused),
            *(family(f"audio_{name}_total", "counter", words, [({}, of(name, 0))]) for name, words in _COUNTS.items()),
            *(family(f"audio_{name}_seconds_total", "counter", words, [({}, of(f"{name}_ms", 0) / 1000)])
              for name, words in _LENGTHS.items()),
            *(family(f"audio_{name}_seconds", "gauge", words, [({}, of(f"{name}_ms", 0) / 1000)])
              for name, words in _NOW.items()),
        ))  # fmt: skip
