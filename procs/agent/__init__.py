"""Peer sessions as a library: what two agents need to meet and to talk (webrtc_peer's children stand on it, too)."""
