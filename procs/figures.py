"""What a program counts, in the text that Prometheus reads. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Kind(NamedTuple):
    """One figure: "counter", "gauge", "histogram" or "summary", what it says, the upper ends of a histogram's buckets,
    and the label by which there are several of it, if there are."""

    kind: str
    help: str
    buckets: Sequence[float] = ()
    label: str = ""


class Figures:
    """All figures of one program; a name that was not declared is a mistake of ours (KeyError)."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds
        self._values: dict[str, dict[str, float]] = {}  # name -> label's value -> counter, gauge, or a histogram's sum
        self._counts: dict[str, dict[str, list[int]]] = {}
        for name, its in kinds.items():
            self._values[name] = {} if its.label else {"": 0.0}
            if its.kind in ("histogram", "summary"):
                self._counts[name] = {} if its.label else {"": [0] * (len(its.buckets) + 1)}

    def add(self, name: str, by: float = 1, *, of: str = "") -> None:
        """Count, or move a gauge; `of`: the value of its label."""
        values = self._values[name]
        values[of] = values.get(of, 0.0) + by

    def set(self, name: str, value: float, *, of: str = "") -> None:
        """A gauge as it is now."""
        self._values[name][of] = value

    def observe(self, name: str, value: float, *, of: str = "") -> None:
        """One more of a histogram or a summary."""
        buckets = self._kinds[name].buckets
        counts = self._counts[name].setdefault(of, [0] * (len(buckets) + 1))
        counts[bisect_left(buckets, value)] += 1
        self.add(name, value, of=of)

    def of(self, name: str, of: str = "") -> float:
        """A counter or gauge as it is."""
        return self._values[name].get(of, 0.0)

    def forget(self, of: str) -> None:
        """Nothing more is said of this value of a label."""
        for values in self._values.values():
            values.pop(of, None)
        for counts in self._counts.values():
            counts.pop(of, None)

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        lines = []
        for name, its in self._kinds.items():
            lines += [f"# HELP {name} {its.help}", f"# TYPE {name} {its.kind}"]
            for of, value in self._values[name].items():
                label = f'{its.label}="{_escaped(of)}"' if its.label else ""
                counts = self._counts.get(name)
                lines += _spread(name, label, its.buckets, counts[of], value) if counts else [_line(name, label, value)]
        return "\n".join([*lines, ""])


def _spread(name: str, label: str, buckets: Sequence[float], counts: Sequence[int], total: float) -> list[str]:
    lines, seen = [], 0
    for end, count in zip([*(f"{each:g}" for each in buckets), "+Inf"], counts, strict=True):
        seen += count
        marks = ",".join(filter(None, (label, f'le="{end}"')))
        if buckets:  # a summary has none
            lines.append(_line(f"{name}_bucket", marks, seen))
    return [*lines, _line(f"{name}_sum", label, total), _line(f"{name}_count", label, seen)]


def _line(name: str, label: str, value: float) -> str:
    return f"{name}{{{label}}} {value:.12g}" if label else f"{name} {value:.12g}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
