"""What the zygote imports: all that children need, and how the life of one begins."""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's other threads would not be in a child: fork leaves them behind

from procs import log
from procs.messages import decode
from procs.messages.voice import VoiceSpec
from procs.voice import voices
from procs.voice.child import child

voices.known()  # read once, for all


def live(spec: bytes) -> None:
    """Be the child of this spec."""
    its = decode(spec, VoiceSpec)
    log.configure("voice", always={"device": its.name} if its.name else {"conversation": its.id})
    child.live(its)
