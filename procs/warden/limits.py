"""What is allowed to whom, and what happens beyond it. All of the warden's numbers stand here.

| level       | who brings it back                 | when that does not help                                           |
|-------------|------------------------------------|-------------------------------------------------------------------|
| a producer  | go2rtc, at once                    | watched for FORGOTTEN_S without a process: go2rtc is ended        |
| a program   | supervisord; crash loops are paced | go2rtc failed HOPELESS_STARTS times running: supervisord is ended |
| supervisord | keeper, systemd, or a container    | never given up; a pause of at most 30 s                           |

Each level ends the next one at most once in its ..._EVERY_S: what a restart does not cure, many don't either.
"""

from __future__ import annotations

import math
from typing import NamedTuple

STOPPED_S = 1.5  # in state T (SIGSTOP); nothing of ours is ever stopped for long
SUPERVISORD_S = 5.0  # without an event from supervisord, which sends one a second
DOUBTFUL_S = 2.0  # after so long without one nobody else is ended: it might not come back
AWAY_S = 2.0  # between two decisions: the warden itself stood still, and nobody else is to blame
STACK_S = 0.5  # from SIGABRT, by which a hanging process shows where, to SIGKILL
STREAM_S = 5.0  # a watched stream of ours without a byte; others may pause for as long as a capture's command may
FIRST_BYTE_S = 30.0  # the same for a new producer: ours give up before that by themselves
FORGOTTEN_S = 180.0  # watched, and nobody makes it, nor any other: go2rtc tries again every 60 s at least
GO2RTC_EVERY_S = 600.0
HOPELESS_STARTS = 12
SUPERVISORD_EVERY_S = 3600.0


class Limits(NamedTuple):
    """Of one kind of process."""

    start_s: float  # from its start to its first sign of life (a heartbeat; of go2rtc: an answer of its API)
    silence_s: float  # between two signs
    memory_mb: int  # ceiling of its own memory (PSS, 10^6 bytes), without its children


LIMITS = {
    # These two see to it themselves that their first picture comes in time; a capture may wait for its FIFO's writer.
    "headless_agent": Limits(math.inf, 4.0, 1000),
    "capture": Limits(math.inf, 4.0, 400),
    "go2rtc": Limits(15.0, 4.0, 1000),
    "hub": Limits(30.0, 4.0, 1000),
    "ws_link": Limits(20.0, 4.0, 200),
    "proxy": Limits(20.0, 4.0, 300),
    "webrtc_peer": Limits(40.0, 4.0, 300),  # its zygote imports 60 MB of code first
    "tun_pump": Limits(20.0, 4.0, 200),
    "voice": Limits(40.0, 4.0, 400),  # its zygote imports what children need first
    "speech_stt": Limits(40.0, 4.0, 300),  # its zygote loads a model of 100 MB first; so does no child
    "speech_tts": Limits(20.0, 4.0, 300),
    "speech_llm": Limits(20.0, 4.0, 200),
    "audio_io": Limits(30.0, 4.0, 300),
    "keeper": Limits(20.0, 4.0, 100),
    "warden": Limits(20.0, 4.0, 100),
    "supervisord": Limits(20.0, SUPERVISORD_S, 200),
}
OTHER = Limits(60.0, 4.0, 1000)


def kind_of(name: str) -> str:
    """The program of a process's name, by which LIMITS are kept: capture_door and "headless_agent omega-0" are of the
    program before the first mark."""
    first = name.partition(" ")[0].partition(":")[0]
    return first if first in LIMITS else next((known for known in LIMITS if first.startswith(f"{known}_")), first)
