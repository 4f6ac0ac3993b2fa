"""The running command as the capture sees it: its output, what it says on stderr, and how it ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import time

from procs import log
from procs.capture import guard
from procs.errors import EncoderFailed, NotHere, PlanariaError

READ_BYTES = 256 * 1024
PIPE_BYTES = 1 << 20  # holds a keyframe, so that a picture which is written in one go arrives in one go
LISTEN_BYTES = 16 * 1024  # at a time: a command that talks a lot must not keep us from its pictures
LINE_BYTES_MAX = 4096
LINES_A_SECOND = 20
END_LIMIT_S = 5.0  # the guard looks twice through all processes before it ends, which takes a while on a busy machine
_NOT_RUN = (126, guard.NOT_RUN)
_KILLED = 128 + signal.SIGKILL


class Command:
    """A command under its guard."""

    def __init__(self, arguments: tuple[str, ...], stdout: int | None = None) -> None:
        """`stdout`: where its output goes, if not to us."""
        self.stderr, stderr = _pipe()
        self.stdout, output = _pipe() if stdout is None else (-1, stdout)
        self.pid = guard.start(arguments, output, stderr)
        os.close(stderr)
        if stdout is None:
            os.close(output)
        self.death = os.pidfd_open(self.pid)
        self.last_words = ""
        self._line = b""
        self._second = self._said = 0
        self._code: int | None = None

    def read(self) -> bytes | None:
        """What there is of its output: b"" at the end, None when there is nothing right now."""
        try:
            return os.read(self.stdout, READ_BYTES)
        except BlockingIOError:
            return None

    def listen(self) -> bool:
        """Log some of what it says on stderr; False once that is closed."""
        try:
            said = os.read(self.stderr, LISTEN_BYTES)
        except BlockingIOError:
            return True
        *lines, self._line = (self._line + said.replace(b"\r", b"\n")).split(b"\n")
        self._line = self._line[:LINE_BYTES_MAX]
        for line in lines:
            self._say(line)
        return bool(said)

    def _say(self, line: bytes) -> None:
        text = line[:LINE_BYTES_MAX].decode(errors="replace").strip()
        if not text:
            return
        self.last_words = text
        if int(time.monotonic()) != self._second:
            if self._said > LINES_A_SECOND:
                log.warning("the command says too much: lines left out", lines=self._said - LINES_A_SECOND)
            self._second, self._said = int(time.monotonic()), 0
        self._said += 1
        if self._said <= LINES_A_SECOND:
            log.info(text)

    def failure(self, what: str, kind: type[PlanariaError] = EncoderFailed) -> PlanariaError:
        """An error that says what went wrong and what the command said last."""
        until = time.monotonic() + END_LIMIT_S
        while select.select([self.stderr], [], [], 0)[0] and self.listen() and time.monotonic() < until:
            pass
        self._say(self._line)
        return kind(f"{what}; its last words: {self.last_words}" if self.last_words else what)

    def end(self) -> PlanariaError:
        """How it ended, as an error; waits a moment for it, since its output ends before itself."""
        deadline = time.monotonic() + END_LIMIT_S
        while not self.is_over():
            if time.monotonic() > deadline:
                return self.failure("the command has closed its output, but runs on")
            time.sleep(0.002)
        failure = self.failure(
            f"the command exited with {self._code}", NotHere if self._code in _NOT_RUN else EncoderFailed
        )
        if self._code == _KILLED:
            # We end as it did: a kill is no fault of the program's, and slows no restart.
            log.error(str(failure))
            os.kill(os.getpid(), signal.SIGKILL)
        return failure

    def is_over(self) -> bool:
        """Whether the command has ended, and all that it started."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if not pid:
                return False
            if os.WIFSIGNALED(status):  # the guard itself: what it guarded is ours now
                guard.end_descendants()
            self._code = guard.exit_code(status)
        return True


def _pipe() -> tuple[int, int]:
    """Both ends of a pipe that reads without blocking."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with contextlib.suppress(PermissionError):  # the user's quota of pipe memory is used up
        fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return read_end, write_end
