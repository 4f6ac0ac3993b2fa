"""agent.signaling"""

from procs.agent.signaling import SignalingClient

__all__ = ["SignalingClient"]
