"""Why a stream does not play, or a program does not start, in the words of the process that knows: the last error in
its log."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from procs.errors import ConfigError, NotHere
from scripts import suite
from scripts.plan import Plan

TAIL_BYTES = 256 * 1024
AGAIN = 2  # so many failures in a row
COMING = ("STARTING", "BACKOFF")  # supervisord's words for what has not lived for long
_HOPELESS = {f"exit {error.exit_code}": error for error in (ConfigError, NotHere)}


def log_of(root: Path, plan: Plan, stream: str) -> Path:
    """Where the process that makes a stream says what it has to say: go2rtc passes on the words of those it starts."""
    program = f"capture_{stream}" if stream in plan.captures else "go2rtc"
    return root / f"run/log/{program}.log"


def last_error(root: Path, plan: Plan, stream: str, since: str = "") -> str:
    """The last error about a stream since a time (as it stands in the log); '' if there is none."""
    path = log_of(root, plan, stream)
    errors = [entry for entry in _entries(path, since) if entry.get("level") == "error" and _about(entry, plan, stream)]
    return str(errors[-1].get("event", "")) if errors else ""


def refuse_hopeless(root: Path, programs: Collection[str], since: str) -> None:
    """Raise ConfigError or NotHere for one of our programs that ends with such an error again and again: that is mended
    by a person, not by waiting."""
    for row in suite.rows(root):
        error = _HOPELESS.get((row["last"] or {}).get("reason", ""))
        if error and row["name"].partition(":")[0] in programs and row["failures"] >= AGAIN and row["state"] in COMING:
            path = root / f"run/log/{row['name'].rpartition(':')[2]}.log"
            errors = [str(entry.get("event", "")) for entry in _entries(path, since) if entry.get("level") == "error"]
            raise error(f"{row['name']}: {errors[-1] if errors else f'it ends again and again; why: {path}'}")


def has_shown(root: Path, plan: Plan, stream: str, since: str) -> bool:
    """Whether a capture has had its first picture since then."""
    return any(entry.get("event") == "first picture" for entry in _entries(log_of(root, plan, stream), since))


def _about(entry: dict[str, Any], plan: Plan, stream: str) -> bool:
    tag = str(entry.get("tag", ""))
    if stream in plan.producers:
        return tag in (f"headless_agent {stream}", "headless_agent")
    return tag.startswith(("capture", "read_fifo"))


def _entries(path: Path, since: str) -> Iterator[dict[str, Any]]:
    """The log's lines that are ours; go2rtc puts words of its own in front of them."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            entry = json.loads(line[line.index("{") :])
        except ValueError:
            continue
        if isinstance(entry, dict) and str(entry.get("time", "")) >= since:
            yield entry
