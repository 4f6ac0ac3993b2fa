"""What a load test found, for people and for programs. Pure."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from scripts.loadtest import figures
from scripts.loadtest.talk import Outcome

COUNTS = (
    *("turns", "barge_in_noticed", "barge_in_unnoticed", "barge_in_too_late"),
    *("cough_went_on", "cough_interrupted", "cough_too_late"),
)
LATE = 0.04  # seconds: one page


def as_json(outcomes: Sequence[Outcome], asked: dict[str, Any]) -> dict[str, Any]:
    """One object: what was asked for, how conversations went, and the figures, in seconds."""
    found = {}
    for name in (*figures.PUBLISHED, *figures.OURS):
        if told := figures.summary([value for outcome in outcomes for value in outcome.seen.get(name, [])]):
            found[name] = {key: round(value, 4) for key, value in dataclasses.asdict(told).items()}
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    fine = sum(not outcome.why for outcome in outcomes)
    return {
        **asked,
        "conversations": len(outcomes),
        "ok": fine,
        "ok_fraction": round(fine / len(outcomes), 4) if outcomes else 0.0,
        "counts": {name: counts[name] for name in COUNTS},
        "failures": dict(Counter(outcome.why for outcome in outcomes if outcome.why).most_common()),
        "figures": found,
    }


def as_text(told: dict[str, Any]) -> str:
    """The same as lines."""
    counts, found = told["counts"], told["figures"]
    lines = [
        f"{told['server_url']}, voice {told['voice']!r}, {told['workers']} at once:"
        f" {told['ok']} of {told['conversations']} conversations were OK ({told['ok_fraction']:.0%}),"
        f" {counts['turns']} turns",
        *(f"  not OK, {count} times: {why}" for why, count in told["failures"].items()),
        "",
        f"{'':24}{'count':>8}{'mean':>10}{'median':>10}{'p90':>10}{'p95':>10}",
    ]
    for name, row in found.items():
        scale, unit = (1, "") if name in figures.WITHOUT_UNIT else (1000, " ms")
        cells = "".join(f"{_number(row[key] * scale)}{unit}".rjust(10) for key in ("mean", "median", "p90", "p95"))
        lines.append(f"{name:24}{row['count']:>8}{cells}")
    lines += ["", *_events(counts)]
    if found.get("late", {}).get("p95", 0) > LATE:
        lines.append("this program sent late: with fewer workers, or on another machine, figures would be better")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _events(counts: dict[str, int]) -> list[str]:
    over = counts["barge_in_noticed"], counts["barge_in_unnoticed"], counts["barge_in_too_late"]
    coughs = counts["cough_went_on"], counts["cough_interrupted"], counts["cough_too_late"]
    lines = []
    if any(over):
        lines.append(f"spoken over: noticed {over[0]}, not noticed {over[1]}, the reply was over before {over[2]}")
    if any(coughs):
        lines.append(f"coughs: the reply went on {coughs[0]}, was broken off {coughs[1]}, was over before {coughs[2]}")
    return lines
