"""RTP packets of H.264 to access units, each given out with its last packet: nothing waits for the next picture.

Promises: what `push` gives is whole and Annex-B, and every keyframe carries its parameter sets; a unit of which a
packet was lost is left out and counted; memory is bounded whatever comes.
Source: RFC 3550 5.1 (header), RFC 6184 5.6 to 5.8 (single NAL unit, STAP-A, FU-A), packetization-mode 0 and 1.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from procs.errors import Refused
from procs.media import annexb

MAX_UNIT = 2 * 1024 * 1024  # bytes; a picture at 100 Mbit/s and 6 fps
_STAP_A, _FU_A = 24, 28
_USELESS = (annexb.AUD, 12)  # access unit delimiter and filler data: a sender of pictures adds its own or none
_HEADER = struct.Struct(">BBHII")


class Packet(NamedTuple):
    """One RTP packet; `payload` has no padding."""

    payload_type: int
    is_last: bool  # of its picture (marker bit)
    number: int
    time: int
    payload: bytes


class Unit(NamedTuple):
    """One picture; `time` as the packets had it."""

    time: int
    is_keyframe: bool
    data: bytes


def parse(data: bytes) -> Packet:
    """An RTP packet. Raises Refused for anything else."""
    if len(data) < 12 or data[0] >> 6 != 2:
        raise Refused("not an RTP packet")
    first, second, number, time, _source = _HEADER.unpack_from(data)
    start, end = 12 + 4 * (first & 0x0F), len(data)
    if first & 0x10:  # an extension, whose length stands behind its profile
        if end < start + 4:
            raise Refused("an RTP packet cut short")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if first & 0x20:
        end -= data[-1]
    if end < start:
        raise Refused("an RTP packet cut short")
    return Packet(second & 0x7F, second > 0x7F, number, time, data[start:end])


class H264:
    """Puts the packets of one stream together. `lost` counts packets that never came, `refused` those not understood
    and units left out for their size."""

    def __init__(self, sets: tuple[bytes, ...] = ()) -> None:
        """`sets`: parameter sets that the stream's description has, for streams that do not repeat them."""
        self._sets: dict[int, bytes] = {}  # the newest SPS and PPS
        for nal in sets:
            self._keep_set(nal)
        self._nals: list[bytes] = []
        self._bytes = 0
        self._fragments: list[bytes] = []  # of the NAL unit that is under way
        self._is_broken = False  # a packet of this unit is missing
        self._time = -1
        self._number = -1
        self.lost = self.refused = 0

    def push(self, packet: Packet) -> list[Unit]:
        """What is whole now: mostly nothing or one unit; two when a sender forgot a marker."""
        units = []
        if self._time not in (-1, packet.time):  # the last packet of the one before had no marker, or never came
            units += self._finish()
        self._time = packet.time
        if self._number >= 0 and packet.number != self._number:
            self.lost += (packet.number - self._number) & 0xFFFF
            self._is_broken, self._fragments = True, []
        self._number = (packet.number + 1) & 0xFFFF
        try:
            self._take(packet.payload)
        except Refused:
            self.refused += 1
            self._is_broken, self._fragments = True, []
        if packet.is_last:
            units += self._finish()
        return units

    def _take(self, payload: bytes) -> None:
        kind = annexb.nal_type(payload)
        if 0 < kind < _STAP_A:
            self._add(payload)
        elif kind == _STAP_A:
            for nal in _aggregated(payload):
                self._add(nal)
        elif kind == _FU_A:
            self._take_fragment(payload)
        else:
            raise Refused(f"packets of type {kind} are not for packetization-mode 1")

    def _take_fragment(self, payload: bytes) -> None:
        if len(payload) < 3:
            raise Refused("an empty fragment")
        head = payload[1]
        if head & 0x80:  # start
            self._fragments = [bytes((payload[0] & 0xE0 | head & 0x1F,))]
        elif not self._fragments:
            self._is_broken = True  # its start never came
            return
        self._fragments.append(payload[2:])
        self._bytes += len(payload)
        if self._bytes > MAX_UNIT:
            raise Refused("a picture that is too large")
        if head & 0x40:  # end
            nal, self._fragments = b"".join(self._fragments), []
            self._bytes -= len(nal)  # `_add` counts it again
            self._add(nal)

    def _add(self, nal: bytes) -> None:
        kind = annexb.nal_type(nal)
        if kind in (annexb.SPS, annexb.PPS):
            self._keep_set(nal)
        self._bytes += len(nal)
        if self._bytes > MAX_UNIT:
            raise Refused("a picture that is too large")
        if kind not in _USELESS:
            self._nals.append(nal)

    def _keep_set(self, nal: bytes) -> None:
        if nal:
            self._sets[annexb.nal_type(nal)] = nal

    def _finish(self) -> list[Unit]:
        nals, broken = self._nals, self._is_broken or bool(self._fragments)
        self._nals, self._fragments, self._is_broken, self._bytes = [], [], False, 0
        kinds = {annexb.nal_type(nal) for nal in nals}
        if broken or not any(annexb.SLICE <= kind <= annexb.IDR for kind in kinds):
            return []  # parameter sets that came alone are kept, and go with the next keyframe
        is_keyframe = annexb.IDR in kinds
        if is_keyframe and not {annexb.SPS, annexb.PPS} <= kinds:
            nals = [self._sets[kind] for kind in self._sets.keys() - kinds] + nals
            # SPS, then PPS, then all else in its order.
            nals.sort(key=lambda nal: (annexb.SPS, annexb.PPS, annexb.nal_type(nal)).index(annexb.nal_type(nal)))
        return [Unit(self._time, is_keyframe, annexb.join(nals))]


def _aggregated(payload: bytes) -> list[bytes]:
    nals, at = [], 1
    while at < len(payload):
        end = at + 2 + int.from_bytes(payload[at : at + 2], "big")
        if end > len(payload) or end == at + 2:
            raise Refused("an aggregation packet cut short")
        nals.append(payload[at + 2 : end])
        at = end
    return nals
