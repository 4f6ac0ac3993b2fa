"""What an Opus packet says of itself in its first bytes (RFC 6716, section 3). Pure."""

from __future__ import annotations

from procs.errors import Refused

RATE = 24_000  # of all sound of ours
MAX_PACKET = 48 * 1275 + 98  # bytes: 48 frames of 2.5 ms, each as large as one can be
LONGEST = RATE * 120 // 1000  # samples
_FRAMES = (240, 480, 960, 1440) * 3 + (240, 480) * 2 + (60, 120, 240, 480) * 4  # samples: SILK, both, CELT


def packet_samples(packet: bytes) -> int:
    """How many samples at 24 kHz a packet lasts. Raises Refused for what can't be one."""
    if not packet or len(packet) > MAX_PACKET:
        raise Refused(f"Opus packet of {len(packet)} bytes")
    samples = _FRAMES[packet[0] >> 3] * _frames(packet)
    if not 0 < samples <= LONGEST:
        raise Refused(f"Opus packet of {samples} samples")
    return samples


def _frames(packet: bytes) -> int:
    code = packet[0] & 3
    if code < 3:
        return 1 if code == 0 else 2
    return packet[1] & 0x3F if len(packet) > 1 else 0
