"""Every exception of ours, and the exit code each one ends a process with.

PlanariaError                    1  anything of ours that has no better name
├── ConfigError                  2  a setting is wrong: one line says key, value, where, what is allowed
├── NotHere                      3  this machine lacks what was asked for (an encoder, a library, a program)
├── NoFirstFrame                 4  a producer made no picture in time
├── OutputBlocked                5  whoever reads our output stopped reading
├── OutputClosed                 6  whoever read our output is gone
├── EncoderFailed                7  the encoder refused to open or to encode
├── Unhealthy                    8  the suite did not come up; the text says which process and why
├── ParentGone                   9  whoever started us died before we were bound to it
├── LinkLost                    11  the connection to the other side is gone
├── StreamReset                 12  the other side ended one stream; `code` says why
├── UpstreamFailed              13  whoever should answer a proxied request did not; `code` says what is known
├── StoreDown                   14  the database does not answer
├── ZygoteLost                  15  the zygote that forks our children is gone, or stands still
├── GpuLost                     16  the GPU failed in the middle of a stream: only a new process gets it back
└── BusError                    10  the bus could not do what was asked
    ├── Refused                 10  a message is malformed, too large, or of a kind nobody takes here
    └── DeadlineExceeded        10  no answer in time; `retry` says whether the request may be sent again
"""

from __future__ import annotations


class PlanariaError(Exception):
    """Base of all our errors. The text is one line that a person can act on."""

    exit_code = 1


class ConfigError(PlanariaError):
    """A setting that cannot be used."""

    exit_code = 2


class NotHere(PlanariaError):
    """This machine, or this version of ours, lacks what was asked for."""

    exit_code = 3


class NoFirstFrame(PlanariaError):
    """No picture within the limit."""

    exit_code = 4


class OutputBlocked(PlanariaError):
    """The reader of our output did not read for longer than the limit."""

    exit_code = 5


class OutputClosed(PlanariaError):
    """The reader of our output has gone."""

    exit_code = 6


class EncoderFailed(PlanariaError):
    """The encoder cannot be opened or cannot encode."""

    exit_code = 7


class Unhealthy(PlanariaError):
    """Something of the suite is not serving."""

    exit_code = 8


class ParentGone(PlanariaError):
    """The process that started us is no longer our parent."""

    exit_code = 9


class LinkLost(PlanariaError):
    """The connection that something needed is gone."""

    exit_code = 11


class StreamReset(PlanariaError):
    """One stream of a connection was ended, by a RESET of the other side."""

    exit_code = 12

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason or f"reset with code {code}")
        self.code, self.reason = code, reason


class UpstreamFailed(PlanariaError):
    """A proxied request has no answer, or only half of one. `code` is the RESET that tells the hub (mux1.Code),
    `status` what a viewer gets to see, `may_repeat` whether nothing of an answer had come."""

    exit_code = 13

    def __init__(self, code: int, reason: str, *, status: int = 502, may_repeat: bool = False) -> None:
        super().__init__(reason)
        self.code, self.reason, self.status, self.may_repeat = code, reason, status, may_repeat


class StoreDown(PlanariaError):
    """The database cannot be asked; a write may have happened or not."""

    exit_code = 14


class ZygoteLost(PlanariaError):
    """Nobody forks our children any more."""

    exit_code = 15


class GpuLost(PlanariaError):
    """The GPU, its driver or our context on it failed after it had served. A new process has to open it anew."""

    exit_code = 16


class BusError(PlanariaError):
    """The bus could not do what was asked."""

    exit_code = 10


class Refused(BusError):
    """A message that is not taken; the text is the reason sent back."""


class DeadlineExceeded(BusError):
    """A request got no answer in time."""

    def __init__(self, text: str, *, retry: bool) -> None:
        super().__init__(text)
        self.retry = retry
