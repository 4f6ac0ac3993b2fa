"""RTP packets of AAC to ADTS frames, which say by themselves what a decoder has to know.

Source: RFC 3640 3.2 (AU headers), 3.3.6 (AAC-hbr); ISO/IEC 14496-3 1.6.2.1 (AudioSpecificConfig), 1.A.2 (ADTS).
"""

from __future__ import annotations

from collections.abc import Iterator

from procs.errors import Refused

SAMPLES = 1024  # of one frame, at the rate that its header names
_HEADER = 7
_AU_HEADER_BITS = 16  # AAC-hbr: 13 of size, 3 of index
_EXPLICIT_RATE = 15
_SPECTRAL_BAND = (5, 29)  # HE-AAC: what it says first is of the extension, and a decoder finds that by itself


class Framer:
    """Of one stream. `config`: the AudioSpecificConfig of its description. Raises Refused for one that has no ADTS."""

    def __init__(self, config: bytes) -> None:
        if len(config) < 2:
            raise Refused("AAC without its configuration")
        bits = int.from_bytes(config[:8].ljust(8, b"\0"), "big")
        kind, rate, channels = bits >> 59, bits >> 55 & 15, bits >> 51 & 15
        if kind in _SPECTRAL_BAND:
            kind = bits >> 42 & 31
        if not 1 <= kind <= 4 or rate == _EXPLICIT_RATE or not 1 <= channels <= 7:
            raise Refused(f"AAC of kind {kind}, rate {rate} and channels {channels} has no ADTS")
        # Sync word, MPEG-4, no checksum; the length comes for each; "as many bits as I like".
        self._head = 0xFFF1 << 40 | (kind - 1) << 38 | rate << 34 | channels << 30 | 0x7FF << 2

    def frames(self, payload: bytes) -> Iterator[bytes]:
        """Those in one packet. Raises Refused for what is none, or only a part of one."""
        end = 2 + int.from_bytes(payload[:2], "big") // 8
        at = end
        for header in range(2, end, _AU_HEADER_BITS // 8):
            size = int.from_bytes(payload[header : header + 2], "big") >> 3
            if not size or at + size > len(payload) or size + _HEADER >= 1 << 13:
                raise Refused("AAC cut short")
            frame = payload[at : at + size]
            # go2rtc leaves the header of what it got as MPEG-TS; no frame begins like one.
            yield frame if _is_adts(frame) else (self._head | (size + _HEADER) << 13).to_bytes(_HEADER, "big") + frame
            at += size


def _is_adts(frame: bytes) -> bool:
    return len(frame) > _HEADER and frame[0] == 0xFF and frame[1] & 0xF6 == 0xF0
