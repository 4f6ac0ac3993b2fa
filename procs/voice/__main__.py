"""python -m procs.voice: calls the devices of devices.json and talks through them, until killed."""

import sys

from procs import life
from procs.voice import options

if __name__ == "__main__":
    if {"-h", "--help"} & {*sys.argv}:
        options.load()  # shows it and ends: nothing has to be installed for that

    from procs import brood

    BROOD = brood.hatch("voice", "procs.voice.birth", "live")
    from procs.voice.shell import serve  # now that the zygote is forked: children need no database and no server

    # A leader that stands still must be dead before its leases are over, which others take then.
    life.run("voice", options.load, lambda settings, alive: serve(settings, alive, BROOD), hang_limit_s=3.0)
