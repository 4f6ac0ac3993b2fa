"""What benches share: CPU of other processes, medians with their spread, and a word about the machine."""

from __future__ import annotations

import operator
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Size = Literal["full", "quick", "least"]  # "least": once through all of it, which shows that it runs, and no more
NOISY = 0.35  # quartiles of a paired ratio further apart than this part of its median: too noisy to tell


def say(text: str) -> None:
    """Progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process with all its threads has used (its CPU-time clock, clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def stolen_s() -> float:
    """Seconds of all processors in which the hypervisor gave them to others although we had work (proc_stat(5))."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process, in 10^6 bytes."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def machine() -> dict[str, object]:
    """What it ran on."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": model[0].partition(": ")[2] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


_HOLDS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def is_missed(aim: str, value: float) -> bool:
    """Whether it is an aim in figures, and not met."""
    word, _, rest = aim.partition("aim: ")
    sign, _, bound = rest.partition(" ")
    return not word and sign in _HOLDS and not _HOLDS[sign](value, float(bound))


@dataclass
class Result:
    """What one bench found. `ratios` are ours / theirs unless the name says otherwise."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    peers: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    noisy: list[str] = field(default_factory=list)
    # Figure or ratio -> what was aimed at, in words, or as `aim: >= 4`.
    targets: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
        """The median of pairwise ratios; noted as noisy when the pairs disagree."""
        pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
        self.ratios[name] = round(median(pairs), 3)
        if len(pairs) >= 3 and percentile(pairs, 0.75) - percentile(pairs, 0.25) > NOISY * median(pairs):
            self.noisy.append(name)

    def as_json(self) -> dict[str, object]:
        """The object that programs compare over time."""
        shared = {"name": self.name, "figures": self.figures, "peers": self.peers, "ratios": self.ratios}
        return {**shared, "machine": {**machine(), "too_noisy": self.noisy}}

    def as_table(self) -> str:
        """The same for people."""
        lines = [f"{self.name}"]
        for name, value in {**self.figures, **self.ratios}.items():
            aim = self.targets.get(name, "")
            note = "  too noisy to tell" if name in self.noisy else "  missed" if is_missed(aim, value) else ""
            lines.append(f"  {name:34} {value:>10g}  {aim:24}{note}".rstrip())
        lines += [f"  peer {name}: {text}" for name, text in self.peers.items()]
        lines.append("  machine " + ", ".join(f"{k} {v}" for k, v in machine().items()))
        return "\n".join(lines)
