#!/usr/bin/env python3
"""End every process of this checkout, whatever state it is in: needs no .venv, no settings, no supervisord.

scripts/down.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from procs import log
from procs.errors import ConfigError, NotHere, PlanariaError, Unhealthy
from procs.settings import ROOT
from procs.tun_pump import interface
from scripts import service, suite


def _end_all() -> int:
    try:
        with suite.exclusive(ROOT):
            return suite.kill_all(ROOT)
    except (ConfigError, OSError) as error:  # a disk that went read-only must not keep anything alive
        print(f"  no lock against a make up at the same time: {error}", file=sys.stderr)
        return suite.kill_all(ROOT)


def _release() -> None:
    """The tunnel's interface, and what goes with it, is made to outlive everything; this is where it is taken away."""
    try:
        for name in interface.release(ROOT / "run"):
            print(f"  removed the interface {name}", file=sys.stderr)
    except (OSError, NotHere) as error:
        raise Unhealthy(f"what the tunnel has made stays: {error}; as root: make down") from None


def main() -> int:
    """End them and say how many there were."""
    if sys.argv[1:]:
        print((__doc__ or "").strip())
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    log.configure("make", style="text")
    try:
        warning = service.stop(ROOT)
        ended = _end_all()
        _release()
        if warning:
            raise Unhealthy(warning)
    except PlanariaError as error:
        print(f"planaria: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    print(f"  ended {ended} processes" if ended else "  nothing was running", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
