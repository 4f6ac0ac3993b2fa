"""python -m procs.keeper.supervisord -c FILE: supervisord, which is told when to begin (procs/keeper/start.py).

Until then it imports, which takes nothing from anybody, and waits: it has read no configuration, holds no file, socket
or lock of the suite, and has no children. One that is not told, since who started it is gone, ends.
"""

import json  # noqa: F401 for our plugin in it
import os
import sys

from supervisor import supervisord

# It would import these while it reads its configuration.
from supervisor import rpcinterface, web  # noqa: F401  # isort: skip


def _wait() -> None:
    """Return when told to begin; exit at the end of file, which the kernel brings about if our starter dies."""
    if not os.read(0, 1):
        sys.exit("nobody told it to begin")
    # By what stdin is, others know on which side of this line it stands.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


if __name__ == "__main__":
    _wait()
    supervisord.main()
