"""Become go2rtc, bound to supervisord: it dies with it, and there is one at a time.

    python scripts/exec_go2rtc.py       what supervisord.conf starts; needs what `make up` laid out in run/

The kernel keeps both the parent-death signal and the lock across exec. go2rtc gets its configuration as a sealed
memory file: its API would write changes back into a plain one, and a restart would then bring them back instead of
healing them. Next to nothing is imported, so that a killed go2rtc is back soon: no pathlib, no logging unless there is
something to say.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, ROOT)

from procs import locks, prctl  # noqa: E402
from procs.errors import ConfigError, PlanariaError  # noqa: E402

# Kept across exec, under numbers that the wrappers of our exec: sources know and close.
LOCK, CONFIG = 8, 9


def whole(config: str | os.PathLike[str]) -> bytes:
    """The content of go2rtc's configuration, if it is what was written. A go2rtc that cannot read its configuration
    starts with its defaults, which are open to the world: better none."""
    with open(config, "rb") as file:
        head, _, content = file.read().partition(b"\n")
    if head.split()[2:3] != [hashlib.sha256(content).hexdigest().encode()]:
        raise ConfigError(f"{os.fspath(config)} is not as it was written")
    return content


def sealed(content: bytes) -> int:
    """A descriptor of a memory file that nobody can change any more, not even root."""
    descriptor = os.memfd_create("go2rtc.yaml", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, content)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def prepare_log() -> None:
    """To be called before the first line is logged."""
    from procs import log

    log.configure("go2rtc")


def main() -> None:
    """Bind, lock, exec. Exits 1 with a line when there is nothing to exec."""
    if sys.argv[1:]:
        print(__doc__)
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 2)
    binary = f"{ROOT}/run/go2rtc"
    try:
        prctl.bind_to_parent()
        locks.hold(f"{binary}.lock", number=LOCK, before_words=prepare_log)
        os.dup2(sealed(whole(f"{binary}.yaml")), CONFIG)
        os.execv(binary, [binary, "-config", f"/proc/self/fd/{CONFIG}"])
    except (PlanariaError, OSError) as error:
        from procs import log

        prepare_log()
        log.error(f"go2rtc does not start: {error}; run make up")
        sys.exit(1)


if __name__ == "__main__":
    main()
