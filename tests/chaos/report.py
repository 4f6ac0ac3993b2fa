"""What a chaos run found: one line a fault, then what it comes to. For people, and as JSON for programs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.schedule import least_each, least_faults


@dataclass
class Row:
    """One fault and how the suite came back from it. Faults of one round share their round's times but the first."""

    at_s: float
    round: int
    target: str
    kind: str
    new_pid_ms: float | None
    """Until there was another process of that name."""
    healthy_ms: float | None
    """Until everything served again, pictures included."""
    gap_ms: float
    """The longest that a viewer saw nothing new."""
    missing: str = ""
    """What was still wrong when the time to recover was over."""


@dataclass
class Report:
    """A whole run."""

    seed: int
    minutes: float
    targets: tuple[str, ...] = ()
    rows: list[Row] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Invariants that did not hold, and when."""

    def failures(self) -> list[str]:
        """Why this run is no success; empty if it is one."""
        found = [f"broken: {text}" for text in self.broken]
        found += [f"{row.at_s:.1f} s: {row.target} {row.kind}: {row.missing}" for row in self.rows if row.missing]
        if len(self.rows) < (least := least_faults(self.minutes)):
            found.append(f"{len(self.rows)} faults only; it takes {least}")
        hits = Counter(row.target for row in self.rows)
        found += [
            f"{name} was hit {hits[name]} times only; it takes {least_each(self.minutes)}"
            for name in self.targets
            if hits[name] < least_each(self.minutes)
        ]
        return found

    def as_table(self) -> str:
        """For people."""
        head = ("AT", "ROUND", "TARGET", "FAULT", "NEW PID", "ALL WELL", "PICTURE GAP", "")
        lines = [head, *(_cells(row) for row in self.rows)]
        return "\n".join([*_columns(lines), "", *self._summary(), "", *self._verdict()])

    def _summary(self) -> list[str]:
        """Per target and kind, of rounds with one fault: how often, and the times."""
        alone = Counter(row.round for row in self.rows)
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            if alone[row.round] == 1:
                groups.setdefault((row.target, row.kind), []).append(row)
        lines: list[tuple[str, ...]] = [("TARGET", "FAULT", "TIMES", "NEW PID", "WORST", "ALL WELL", "WORST", "GAP")]
        for (target, kind), rows in sorted(groups.items()):
            new, well = [row.new_pid_ms for row in rows], [row.healthy_ms for row in rows]
            gap = statistics.median(row.gap_ms for row in rows)
            lines.append((target, kind, str(len(rows)), *_middle_and_worst(new), *_middle_and_worst(well), _ms(gap)))
        return _columns(lines)

    def _verdict(self) -> list[str]:
        storms = sum(1 for count in Counter(row.round for row in self.rows).values() if count > 1)
        failures = self.failures()
        text = f"{len(self.rows)} faults, {storms} storms, {len(self.broken)} invariants broken; seed {self.seed}"
        return [text, *(f"FAILED: {each}" for each in failures)] if failures else [f"{text}: all recovered"]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "failures": self.failures()}


def _cells(row: Row) -> tuple[str, ...]:
    gap = _ms(row.gap_ms)
    return (
        f"{row.at_s:.1f} s", str(row.round), row.target, row.kind,
        _ms(row.new_pid_ms), _ms(row.healthy_ms), gap, row.missing,
    )  # fmt: skip


def _middle_and_worst(values: Sequence[float | None]) -> tuple[str, str]:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return _ms(statistics.median(known) if known else None), "never"
    return _ms(statistics.median(known)), _ms(max(known))


def _ms(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} ms"


def _columns(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
