"""Where a process's CPU goes: system calls, AEAD, Python itself; by samples of the line of Python that is at work.

The interpreter runs a signal's handler after the call that it came in, so the time of a call into C, and of the kernel
below it, counts for the line that makes the call. What a line does is told by its words.
"""

from __future__ import annotations

import linecache
import re
import resource
import signal
from collections import Counter
from types import FrameType

EVERY_S = 0.001  # of CPU time; the kernel makes of it what its clock allows
PARTS = {
    "aead": re.compile(r"crypt"),
    "calls": re.compile(r"\b(recvmsg|recvmsg_into|recv|recvfrom|sendmsg|sendto|send|read|readv|write|writev)\("),
}
SHOWN = 12  # lines


class Attribution:
    """Since it was made. In the main thread only."""

    def __init__(self) -> None:
        self._lines: Counter[tuple[str, int]] = Counter()
        self._before = resource.getrusage(resource.RUSAGE_SELF)
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        if frame:
            self._lines[frame.f_code.co_filename, frame.f_lineno or 0] += 1

    def end(self) -> tuple[dict[str, float], list[str]]:
        """Percent of this process's CPU that each part had, `kernel` (by the kernel's clock) among them another cut of
        the same; and the lines that had most."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        after = resource.getrusage(resource.RUSAGE_SELF)
        kernel_s, user_s = after.ru_stime - self._before.ru_stime, after.ru_utime - self._before.ru_utime
        found: Counter[str] = Counter()
        for at, count in self._lines.items():
            found[_part(linecache.getline(*at))] += count
        whole = max(1, sum(found.values()))
        parts = {part: round(100 * found[part] / whole, 1) for part in (*PARTS, "python")}
        parts["kernel"] = round(100 * kernel_s / max(kernel_s + user_s, 0.001), 1)
        return parts, [_shown(at, count / whole) for at, count in self._lines.most_common(SHOWN)]


def _part(text: str) -> str:
    return next((part for part, words in PARTS.items() if words.search(text)), "python")


def _shown(at: tuple[str, int], part: float) -> str:
    file, line = at
    return f"{part:5.1%} {'/'.join(file.rsplit('/', 2)[-2:])}:{line} {linecache.getline(*at).strip()}"
