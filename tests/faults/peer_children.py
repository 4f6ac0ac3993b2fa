"""Stand-ins for the children of webrtc_peer: they answer an offer, and say that they are connected."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import zmq

from procs import bus
from procs.messages import decode, encode
from procs.messages.watch import Beat, Signal, Spec, decode_to_child


def live(spec: bytes) -> None:
    """Be one. Its stream's name says what it does: `silent` never beats, `dies` ends at the offer."""
    mine = decode(spec, Spec)
    sock = bus.work_connector(zmq.Context(), Path(mine.run_dir), mine.session_id, bus.WEBRTC_PEER_CHILDREN)
    state, beat_at, path = "new", 0.0, "direct"
    while True:
        if time.monotonic() - beat_at > 1 and mine.stream != "silent":
            beat_at = time.monotonic()
            sock.send_multipart([encode(Beat(mine.session_id, os.getpid(), state, path)), b""])  # type: ignore[arg-type]
        if not sock.poll(100):
            continue
        data, body = sock.recv_multipart()
        message = decode_to_child(data)
        if isinstance(message, Signal) and message.kind == "signal_offer":
            if mine.stream == "dies":
                os._exit(7)
            state, beat_at = "connected", 0.0
            said = {
                "session_id": mine.session_id,
                "sdp": {"type": "answer", "sdp": f"to {json.loads(body)['sdp']['sdp']}"},
            }
            sock.send_multipart([encode(Signal(0, "signal_answer", mine.session_id)), json.dumps(said).encode()])
