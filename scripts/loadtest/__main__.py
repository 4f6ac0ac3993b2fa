"""python -m scripts.loadtest: what scripts/loadtest_voice.py goes on as."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from procs.errors import PlanariaError
from scripts.loadtest.options import options


def main(argv: Sequence[str]) -> int:
    """Test, or say in one line why not."""
    try:
        chosen = options(argv)
        from scripts.loadtest.trial import test  # here: --help needs nothing installed

        return test(chosen)
    except PlanariaError as error:
        print(f"loadtest_voice: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, BrokenPipeError):
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
