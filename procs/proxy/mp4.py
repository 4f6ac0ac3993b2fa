"""Fragmented MP4, as far as one must know it to leave fragments out: where they end, and which begin a picture. Pure.

Boxes: ISO/IEC 14496-12. An initialisation segment (ftyp, moov) says which tracks are video; each fragment is a moof and
its mdat, and the sample flags of its first sample say whether a viewer can begin there.
"""

from __future__ import annotations

import struct

from procs.errors import Refused
from procs.proxy.unit import MAX_UNIT, Cutter, Unit

_BOX = struct.Struct(">I4s")
_U32 = struct.Struct(">I")
_NOT_SYNC = 0x10000  # sample_is_non_sync_sample


class Tracks:
    """What an initialisation segment says about where a viewer can begin."""

    def __init__(self) -> None:
        self._video: set[int] = set()
        self._defaults: dict[int, int] = {}  # track -> sample flags, unless a fragment says otherwise
        self.is_known = False

    def learn(self, moov: memoryview) -> None:
        """Read a `moov` box's contents. Raises Refused."""
        self._video, self._defaults, self.is_known = set(), {}, True
        for kind, body in _boxes(moov):
            if kind == b"trak":
                self._learn_track(body)
            elif kind == b"mvex":
                for name, trex in _boxes(body):
                    if name == b"trex":
                        self._defaults[_u32(trex, 4)] = _u32(trex, 20)

    def _learn_track(self, trak: memoryview) -> None:
        number, is_video = 0, False
        for kind, body in _boxes(trak):
            if kind == b"tkhd":
                number = _u32(body, 20 if _u32(body, 0) >> 24 else 12)
            elif kind == b"mdia":
                is_video = any(name == b"hdlr" and bytes(body[8:12]) == b"vide" for name, body in _boxes(body))
        if is_video:
            self._video.add(number)

    def is_key(self, moof: memoryview) -> bool:
        """Whether a viewer can begin with the fragment of this `moof` box's contents. Raises Refused."""
        if not self._video:
            return True
        return any(kind == b"traf" and self._is_key_of_video(body) for kind, body in _boxes(moof))

    def _is_key_of_video(self, traf: memoryview) -> bool:
        flags = 0
        for kind, body in _boxes(traf):
            if kind == b"tfhd":
                track = _u32(body, 4)
                if track not in self._video:
                    return False
                flags = _default_of_fragment(body, self._defaults.get(track, 0))
            elif kind == b"trun":
                return not _flags_of_first(body, flags) & _NOT_SYNC
        return False


def _default_of_fragment(tfhd: memoryview, default: int) -> int:
    bits, at = _u32(tfhd, 0) & 0xFFFFFF, 8
    for bit, size in ((0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4)):
        at += size if bits & bit else 0
    return _u32(tfhd, at) if bits & 0x20 else default


def _flags_of_first(trun: memoryview, default: int) -> int:
    bits, at = _u32(trun, 0) & 0xFFFFFF, 8 + (4 if _u32(trun, 0) & 0x1 else 0)
    if bits & 0x4:
        return _u32(trun, at)
    if bits & 0x400:
        return _u32(trun, at + sum(4 for bit in (0x100, 0x200) if bits & bit))
    return default


def _u32(data: memoryview, at: int) -> int:
    if len(data) < at + 4:
        raise Refused("a box is too short")
    return int(_U32.unpack_from(data, at)[0])


def _boxes(data: memoryview) -> list[tuple[bytes, memoryview]]:
    """(type, contents) of each box. Raises Refused."""
    found, at = [], 0
    while at < len(data):
        size = _u32(data, at)
        if size < 8 or at + size > len(data):
            raise Refused("a box is cut off")
        found.append((bytes(data[at + 4 : at + 8]), data[at + 8 : at + size]))
        at += size
    return found


class Mp4(Cutter):
    """Fragmented MP4: the beginning (ftyp, moov), then fragments, each up to the end of its mdat."""

    def __init__(self) -> None:
        super().__init__()
        self._tracks = Tracks()

    def message(self, data: bytes) -> Unit:
        """A unit that has come as a message of its own."""
        try:
            return self._unit(data)
        except Refused:
            return Unit(data, False, False)

    def _end_of_unit(self) -> int:
        at = 0
        while at + 8 <= len(self._buffer):
            size, kind = _BOX.unpack_from(self._buffer, at)
            if not 8 <= size <= MAX_UNIT or at + size > MAX_UNIT:
                raise Refused("no box")
            at += size
            if at > len(self._buffer):
                return 0
            if kind in (b"mdat", b"moov"):
                return int(at)
        return 0

    def _unit(self, piece: bytes) -> Unit:
        for kind, body in _boxes(memoryview(piece)):
            if kind == b"moov":
                self._tracks.learn(body)
                return Unit(piece, False, False)
            if kind == b"moof" and self._tracks.is_known:
                return Unit(piece, self._tracks.is_key(body), True)
        return Unit(piece, False, False)
