"""Chaos: python -m tests.chaos --minutes 10 [--seed N] [--json]; exit 1 if anything stayed down or was broken."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from procs.errors import PlanariaError
from procs.flags import command_line
from scripts import suite
from tests.chaos.report import Report
from tests.chaos.runner import Runner
from tests.clone import EVERY_ROLE, Clone
from tests.faults import far_end, faults
from tests.faults.far_end import FarEnd
from tests.faults.invariants import Census
from tests.faults.subject import CAPTURE, SETTINGS, watched
from tests.tunnelled import section

EXAMPLES = """\
  python -m tests.chaos --minutes 10
  python -m tests.chaos --minutes 10 --seed 4711 --json | tail -n 1"""


def say(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def chaos(report: Report, folder: Path) -> None:
    """A run in a clone of its own, with a viewer on a stream of ours and one on a capture, and a peer of its tunnel."""
    clone = Clone(folder)
    clone.write_settings(**SETTINGS)
    try:
        installed = clone.run("sh", "-c", "sh scripts/bootstrap.sh && .venv/bin/python -m scripts.go2rtc_binary")
        if installed.returncode:
            raise PlanariaError(installed.stderr)
        with faults.hooks(clone.root), _tunnel(clone) as far:
            _bring_up(clone)
            with watched(clone, "omega-0", CAPTURE, far=far) as subject, Census(clone.root) as census:
                Runner(subject, report, census, say, lambda: _bring_up(clone)).run()
    finally:
        suite.kill_all(clone.root)


@contextmanager
def _tunnel(clone: Clone) -> Iterator[FarEnd | None]:
    """The other end of the clone's tunnel, where there can be one. From here on all is in a network of its own: what
    had to be fetched is there."""
    if why := far_end.why_not():
        say(f"without a tunnel: {why}")
        yield None
        return
    url = f"ws://{clone.hub}/ws/signal"
    clone.write_settings(**SETTINGS | {"roles": f"{EVERY_ROLE} tun", "tunnel": section(far_end.ME)})
    (clone.root / ".env").write_text(f"AGENT_ID={far_end.ME}\nSIGNALING_URL={url}\n")
    with far_end.apart(), far_end.far_end(clone.root / "far", url) as far:
        yield far


def _bring_up(clone: Clone) -> None:
    suite.kill_all(clone.root)
    done = clone.make("up")
    if done.returncode:
        raise PlanariaError(done.stderr)


def main() -> int:
    """Run, and print what was found."""
    parser = command_line("tests.chaos", "Kill, freeze and hang every process, again and again.", EXAMPLES)
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long (10)")
    parser.add_argument("--seed", type=int, default=None, help="the same faults as a former run; default: new ones")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line, in place of the table")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    report = Report(seed, arguments.minutes)
    say(f"seed {seed}: `make chaos MINUTES={arguments.minutes:g} SEED={seed}` does the same faults again")
    folder = Path(tempfile.mkdtemp(prefix="planaria chaos "))
    try:
        chaos(report, folder)
    except PlanariaError as error:
        say(f"chaos: {error}")
        return error.exit_code
    print(json.dumps(report.as_json()) if arguments.json else report.as_table())
    if report.failures():
        say(f"the logs are in {folder}/run/log")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
