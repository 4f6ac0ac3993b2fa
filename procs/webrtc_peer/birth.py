"""What the zygote imports: all that children need, and how the life of one begins."""

from __future__ import annotations

from procs import log
from procs.messages import decode
from procs.messages.tunnel import TunnelSpec
from procs.messages.watch import EncoderSpec, Spec
from procs.webrtc_peer import encoder, spared

with spared.libav():
    from procs.webrtc_peer import child, tunnel_child


def live(spec: bytes) -> None:
    """Be the child of this spec."""
    log.configure("webrtc_peer")
    told: Spec | EncoderSpec | TunnelSpec = decode(spec, Spec | EncoderSpec | TunnelSpec)  # type: ignore[arg-type]
    if isinstance(told, EncoderSpec):
        encoder.live(told)
    if isinstance(told, TunnelSpec):
        tunnel_child.live(told)
    child.live(told)
