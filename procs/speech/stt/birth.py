"""What the zygote imports: all that children need, and how the life of one begins."""

from __future__ import annotations


def live(spec: bytes) -> None:
    """Be the child of this spec."""
