"""What a service counts, in the text that Prometheus reads. Pure. The names are moshi-server's where there is one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Kind(NamedTuple):
    """One figure: "counter", "gauge" or "histogram", what it says, the upper ends of a histogram's buckets."""

    kind: str
    help: str
    buckets: Sequence[float] = ()


class Figures:
    """All figures of one program; a name that was not declared is a mistake of ours (KeyError)."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds
        self._values = {name: 0.0 for name, its in kinds.items() if its.kind != "histogram"}
        self._counts = {name: [0] * (len(its.buckets) + 1) for name, its in kinds.items() if its.kind == "histogram"}
        self._sums = dict.fromkeys(self._counts, 0.0)

    def add(self, name: str, by: float = 1) -> None:
        """Count, or move a gauge."""
        self._values[name] += by

    def observe(self, name: str, value: float) -> None:
        """One more of a histogram."""
        self._counts[name][bisect_left(self._kinds[name].buckets, value)] += 1
        self._sums[name] += value

    def of(self, name: str) -> float:
        """A counter or gauge as it is."""
        return self._values[name]

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        lines = []
        for name, its in self._kinds.items():
            lines += [f"# HELP {name} {its.help}", f"# TYPE {name} {its.kind}"]
            lines += self._histogram(name, its) if its.kind == "histogram" else [f"{name} {self._values[name]:g}"]
        return "\n".join([*lines, ""])

    def _histogram(self, name: str, its: Kind) -> list[str]:
        lines, total = [], 0
        for end, count in zip([*(f"{each:g}" for each in its.buckets), "+Inf"], self._counts[name], strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{end}"}} {total}')
        return [*lines, f"{name}_sum {self._sums[name]:g}", f"{name}_count {total}"]
