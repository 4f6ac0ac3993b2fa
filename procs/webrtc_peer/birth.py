"""What the zygote imports: all that children need, and how the life of one begins."""

from __future__ import annotations

from procs import log
from procs.messages import Spec, decode
from procs.webrtc_peer import spared

with spared.libav():
    from procs.webrtc_peer import child


def live(spec: bytes) -> None:
    """Be the child of this spec."""
    log.configure("webrtc_peer")
    child.live(decode(spec, Spec))
