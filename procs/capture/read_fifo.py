"""python -S -m procs.capture.read_fifo PATH: what a FIFO is fed, on stdout, for go2rtc's exec: source.

PATH is made if there is nothing. A writer may die and be started again: the reader stays, and with it all viewers.
Starts with a whole packet, and leaves out half ones. Standard library only, and little of that, to start quickly.

exit codes: 2 PATH is no FIFO, 4 nobody writes, 5 reader blocked, 6 reader gone, 9 parent gone
"""

from __future__ import annotations

import os
import select
import sys
import time
from typing import NoReturn

from procs import prctl
from procs.capture import place
from procs.errors import ConfigError, NoFirstFrame, OutputClosed, PlanariaError
from procs.media.tspackets import PACKET, Aligner
from procs.pipes import Stdout

FIRST_FRAME_LIMIT_S = 15.0
STDOUT_LIMIT_S = 10.0
READ_BYTES = 1024 * PACKET


def main(argv: list[str]) -> None:
    """Read for ever. Raises what ends it."""
    prctl.bind_to_parent()
    if len(argv) != 1 or argv[0].startswith("-"):
        raise ConfigError(f"one argument, the path of a FIFO; got {len(argv)}: {' '.join(argv)[:200]}")
    limits = _limits()
    fifo = _open(argv[0])
    _copy(fifo, Stdout(limits[1], READ_BYTES, lambda: None), argv[0], limits[0])


def _limits() -> tuple[float, float]:
    """How long to wait for a first byte, and for our reader, in seconds."""
    names = ("PLANARIA_FIRST_FRAME_LIMIT_S", "PLANARIA_STDOUT_LIMIT_S")
    if not any(os.environ.get(name) for name in names):
        return FIRST_FRAME_LIMIT_S, STDOUT_LIMIT_S
    from procs.capture.options import Capture  # here: 40 ms, to refuse what is wrong as every program does
    from procs.settings import Layers, load

    chosen = load(Capture, Layers(environ=os.environ))
    return chosen.first_frame_limit_s, chosen.stdout_limit_s


def _open(path: str) -> int:
    """The FIFO, made if need be. Opened for writing too: then the death of a writer is no end of file (fifo(7))."""
    place.make(path)
    try:
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"FIFO {path!r}: {error.strerror}") from None


def _copy(fifo: int, stdout: Stdout, path: str, limit_s: float) -> NoReturn:
    aligner, has_begun = Aligner(), False
    watch = select.poll()
    watch.register(fifo, select.POLLIN)
    watch.register(stdout.descriptor, 0)  # an error is reported in any case: go2rtc may leave while nothing comes
    deadline = time.monotonic() + limit_s
    while True:
        ready = dict(watch.poll(None if has_begun else max(0.0, deadline - time.monotonic()) * 1000))
        if stdout.descriptor in ready:
            raise OutputClosed("stdout: the reader has closed it")
        if not ready:
            raise NoFirstFrame(f"no writer feeds {path} within {limit_s:g} s: is its writer running?")
        packets = aligner.push(os.read(fifo, READ_BYTES))
        has_begun = has_begun or bool(packets)
        stdout.write(packets)


def _say(error: PlanariaError) -> None:
    from procs import log  # here: 35 ms, more than all else; and the line is the last thing that we do

    log.configure("read_fifo")
    log.error(str(error))


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0)
    try:
        main(sys.argv[1:])
    except PlanariaError as error:
        _say(error)
        os._exit(error.exit_code)
