"""Become go2rtc, bound to supervisord: it dies with it, and there is one at a time.

    python scripts/exec_go2rtc.py       what supervisord.conf starts; needs what `make up` laid out in run/

The kernel keeps both the parent-death signal and the lock across exec. Only the standard library is imported, so
that a killed go2rtc is back soon.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from procs import life, log  # noqa: E402
from procs.errors import PlanariaError  # noqa: E402


def main() -> None:
    """Bind, lock, exec. Exits 1 with a line when there is nothing to exec."""
    if sys.argv[1:]:
        print(__doc__)
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 2)
    log.configure("go2rtc")
    run_dir = ROOT / "run"
    binary, config = run_dir / "go2rtc", run_dir / "go2rtc.yaml"
    try:
        life.bind_to_parent()
        os.set_inheritable(life.hold(run_dir / "go2rtc.lock"), True)
        os.execv(binary, [str(binary), "-config", str(config)])
    except (PlanariaError, OSError) as error:
        log.error(f"go2rtc does not start: {error}; run make up")
        sys.exit(1)


if __name__ == "__main__":
    main()
