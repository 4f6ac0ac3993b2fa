"""Sources that go2rtc starts as a process: exec: lines. Each begins with one of our wrappers, and only those that some
stream needs may be started at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from procs import settings
from procs.errors import ConfigError
from procs.headless_agent.options import Producer
from scripts.plan import Plan
from scripts.suite_settings import Suite

PRODUCER = "scripts/go2rtc_exec_headless_agent.sh"
FILE = "scripts/go2rtc_exec_file.sh"
FIFO = "scripts/go2rtc_exec_fifo.sh"
RAW = "scripts/go2rtc_exec_raw.sh"
MPEGTS = "scripts/go2rtc_exec_mpegts.sh"
KILL = "#killsignal=9#killtimeout=1"  # our one way to stop; go2rtc would wait for ever without the timeout
GOP_CACHE = "#gop=1"  # a viewer who joins sees a picture at once instead of at the next keyframe


def sources(root: Path, plan: Plan, ffmpeg: Path, *, gop_cache: bool) -> dict[str, str]:
    """Stream name -> go2rtc source, of all streams of the plan."""
    live = {name: _wrapped(root, plan.suite, producer_words(root, name, *p)) for name, p in plan.producers.items()}
    live |= {name: command_words(root, plan.suite, words) for name, words in plan.commands.items()}
    live |= {name: [str(root / FIFO), str(path)] for name, path in plan.fifos.items()}
    more = GOP_CACHE if gop_cache else ""
    found = {name: exec_line(words) + more for name, words in live.items()}
    for name, source in plan.sources.items():
        is_file = isinstance(source, Path)
        found[name] = exec_line([str(root / FILE), str(ffmpeg), str(source)]) if is_file else str(source)
    return found


def wrappers(lines: Sequence[str]) -> list[str]:
    """The programs that exec: lines start, for exec.allow_paths; never nothing, which would allow everything."""
    found = {_first_word(line.removeprefix("exec:")) for line in lines if line.startswith("exec:")}
    return sorted(found) or ["/nonexistent"]


def _first_word(command: str) -> str:
    return command[1:].partition("'")[0] if command.startswith("'") else command.partition(" ")[0].partition("#")[0]


def producer_words(root: Path, name: str, chosen: Producer, places: Mapping[str, str]) -> list[str]:
    """The command line of one producer: only what was set."""
    words = [str(root / PRODUCER), name]
    for field in settings.options_of(Producer):
        if field in places:
            value = getattr(chosen, field)
            flag = "--" + field.replace("_", "-")
            words += ([flag] if value else []) if isinstance(value, bool) else [flag, str(value)]
    return words


def command_words(root: Path, suite: Suite, words: Sequence[str]) -> list[str]:
    """The command line of a person's own command, behind the wrapper that was chosen."""
    wrapper = root / RAW if suite.exec_wrap == "raw" else _wrapper(root, suite)
    return [str(wrapper), "--", *words]


def _wrapped(root: Path, suite: Suite, words: list[str]) -> list[str]:
    """A producer writes MPEG-TS itself; only a wrapper of the person's own goes around it."""
    return [str(_wrapper(root, suite)), "--", *words] if suite.exec_wrapper and suite.exec_wrap == "mpegts" else words


def _wrapper(root: Path, suite: Suite) -> Path:
    return root / (suite.exec_wrapper or MPEGTS)


def exec_line(words: Sequence[str]) -> str:
    """One exec: source. go2rtc splits it at blanks, knows quotes but no escapes, and cuts it at #."""
    return f"exec:{' '.join(map(_quoted, words))}{KILL}"


def _quoted(text: str) -> str:
    if any(character in text for character in "'\"#%$\\") or not text.isprintable():
        raise ConfigError(
            f"{text!r}: go2rtc can start nothing whose command line has quotes, #, %, $ or \\ in it:"
            " choose a plainer path, or put the command into a script"
        )
    return f"'{text}'" if " " in text or not text else text
