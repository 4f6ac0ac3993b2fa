"""python -m tests.again J [what pytest takes]: all tests in J processes beside each other (`make test`).

A busy machine says nothing of the code: what fails beside others is tried again alone, twice at most, and told of at
the end. What fails each time has failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPEATS = 2
FAILED = 1  # pytest's word for it; every other one is about pytest itself, and once more would change nothing
LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")
# By their number of tests, as xdist would order them, some files that take minutes would come last (tests/conftest.py).
BESIDE = ("--dist", "loadfile", "--no-loadscope-reorder")
ALONE = ("--last-failed", "--last-failed-no-failures", "none")


def main(processes: str, *chosen: str) -> int:
    """Run them; the exit code is that of the last run."""
    LAST_FAILED.unlink(missing_ok=True)  # of an earlier run, perhaps of other tests
    with tempfile.TemporaryDirectory(prefix="pl.", dir="/tmp", ignore_cleanup_errors=True) as folder:
        code = _pytest(["-n", processes, *BESIDE, f"--basetemp={folder}/t", *chosen])
        failed = [_last_failed()]
        while code == FAILED and len(failed) <= REPEATS:
            print("once more, alone, what has failed:", flush=True)
            code = _pytest([*ALONE, f"--basetemp={folder}/{len(failed)}", *chosen])
            failed.append(_last_failed())
    if failed[0] and code in (0, FAILED):
        print("\n".join(told(failed)))
    return code


def told(failed: Sequence[set[str]]) -> list[str]:
    """A line for each test that has failed, by those that failed in each run."""
    lines = []
    for name in sorted(failed[0]):
        times = next((at for at, names in enumerate(failed) if name not in names), len(failed))
        passed = "and never passed" if times == len(failed) else "then passed alone"
        lines.append(f"{name} failed {times} {'time' if times == 1 else 'times'}, {passed}")
    return lines


def _pytest(words: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *words], check=False).returncode


def _last_failed() -> set[str]:
    return set(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.exists() else set()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
