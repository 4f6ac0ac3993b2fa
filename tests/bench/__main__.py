"""Run benches: python -m tests.bench NAME [--json] [--quick]; NAME is all, or one of those listed by --help."""

from __future__ import annotations

import importlib
import json
import sys

from procs.errors import NotHere, PlanariaError
from procs.flags import command_line
from procs.settings import ROOT
from scripts import suite
from tests.bench.measure import Result, Size

# Modules beside this one, each with a bench(size). They are imported when they run: a machine need not have the
# packages of all of them.
BENCHES = ("producer", "recovery", "proxy", "hub", "page", "watch", "channel", "tunnel", "voice", "gpu")
MAY_BE_ABSENT = ("gpu",)  # most machines have none
EXAMPLES = """\
  python -m tests.bench producer
  python -m tests.bench producer --quick --json | tail -n 1"""


def run(name: str, size: Size) -> Result:
    """One of them."""
    result: Result = importlib.import_module(f"tests.bench.{name}").bench(size)
    return result


def main() -> int:
    """Run and print; the exit code says only whether it ran, never whether it was fast."""
    parser = command_line("tests.bench", "Measure ours against its peers.", EXAMPLES)
    parser.add_argument("name", choices=["all", *BENCHES], help="which bench")
    parser.add_argument("--json", action="store_true", help="one JSON object a bench, as the last line")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="fewer rounds: within 60 s, rougher")
    size.add_argument("--least", action="store_true", help="once through, which shows that it runs and says no more")
    try:
        arguments = parser.parse_args()
        suite.precompile(ROOT)
        for name in BENCHES if arguments.name == "all" else [arguments.name]:
            try:
                result = run(name, "least" if arguments.least else "quick" if arguments.quick else "full")
            except NotHere as error:
                if arguments.name != "all" or name not in MAY_BE_ABSENT:
                    raise
                print(f"bench {name}: {error}", file=sys.stderr)
                continue
            print(json.dumps(result.as_json()) if arguments.json else result.as_table())
    except PlanariaError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
