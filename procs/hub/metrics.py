"""What the hub counts, and the text in which Prometheus reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from procs import log

TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_REASONS = 200  # they are ours, but may carry a peer's words

_COUNTERS = {
    "requests": "answers to HTTP requests, by their first digit",
    "refused": "what was not taken, by reason",
    "hellos": "devices that were let in",
    "replaced": "connections that another of the same device replaced",
    "frames": "text frames of devices and viewers, by type",
    "throttled_frames": "frames after which a connection was read more slowly",
    "logins": "people who logged in",
    "paired": "devices that got an owner by a code",
    "sent_again": "requests that were sent again, since the connection to the device was lost",
    "resumed": "answers that went on where they had broken off",
    "unknown": "requests of which nobody knows whether they were carried out",
    "broken": "answers that broke off for good",
    "thumbnails": "pictures that were asked of devices, by outcome",
    "watches": "watch sessions that were begun",
    "watches_resumed": "watch sessions whose viewer came back on another connection",
    "signals_repeated": "what a device said again in a watch session, and the viewer had been told",
    "signals": "frames from one agent to another",
    "signals_to_nobody": "frames to an agent that was not there",
    "agents_replaced": "agents' connections that another of the same id replaced",
    "events_lost": "events of devices that the store could not take in time",
}
_LABELS = {"requests": "class", "refused": "reason", "frames": "type", "thumbnails": "outcome"}
_LABELS |= {"agents_by_room": "agents"}


class Counts:
    """Counters since the start."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, label: str = "", by: int = 1) -> None:
        """Count something of `_COUNTERS`."""
        self._counts[name, label] += by

    def refuse(self, reason: str, **fields: object) -> None:
        """Count and log something that was not taken."""
        known = ("refused", reason) in self._counts or len(self._counts) < MAX_REASONS
        self.add("refused", reason if known else "other")
        log.warning(f"refused: {reason}", **fields)

    def of(self, name: str, label: str = "") -> int:
        """How often so far."""
        return self._counts[name, label]

    def text(self) -> str:
        """All of them, as Prometheus reads them."""
        return "".join(
            _family(name, "counter", text, [(label, n) for (of, label), n in self._counts.items() if of == name])
            for name, text in _COUNTERS.items()
        )


def gauge(name: str, text: str, value: float) -> str:
    """One gauge."""
    return _family(name, "gauge", text, [("", value)])


def gauges(name: str, text: str, values: Mapping[str, float]) -> str:
    """One gauge with a label of `_LABELS`."""
    return _family(name, "gauge", text, values.items())


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> str:
    full = f"planaria_hub_{name}" + ("_total" if kind == "counter" else "")
    lines = [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
    label = _LABELS.get(name, "")
    for value, count in samples or [("", 0)]:
        marks = f'{{{label}="{_escaped(value)}"}}' if label and value else ""
        lines.append(f"{full}{marks} {count:.12g}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
