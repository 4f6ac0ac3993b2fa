"""H.264 out of FLV: the one container of ffmpeg's that states a picture's length in front of it, whatever its size.

Promises: bytes in, access units out as soon as their last byte is there; what is no FLV raises Refused; what is kept is
at most one tag (16 MiB). Source: Adobe Flash Video File Format 10.1, annex E; ISO/IEC 14496-15 5.3.3 (the record that
holds SPS and PPS).
"""

from __future__ import annotations

from procs.errors import Refused
from procs.media import annexb

_FILE_HEADER = b"FLV\1"
_FILE_HEADER_BYTES = 9 + 4  # with the size of the tag before the first, which is 0
_TAG_HEADER_BYTES, _AFTER_TAG_BYTES = 11, 4
_VIDEO, _KEYFRAME, _AVC = 9, 1, 7
_PICTURE_AT = 5  # frame type and codec, packet type, 3 bytes of composition time
_RECORD, _PICTURE = 0, 1


class Demuxer:
    """Takes FLV in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._began = False
        self._parameter_sets: list[bytes] = []

    def push(self, data: bytes) -> list[tuple[bytes, bool]]:
        """(access unit in Annex-B, whether it is a keyframe) of every picture that is whole now. Keyframes carry SPS
        and PPS. Refused for anything but FLV with H.264."""
        self._buffer += data
        if not self._began:
            if not self._buffer.startswith(_FILE_HEADER[: len(self._buffer)]):
                raise Refused("not FLV")
            if len(self._buffer) < _FILE_HEADER_BYTES:
                return []
            del self._buffer[:_FILE_HEADER_BYTES]
            self._began = True
        found = []
        while (tag := self._next_tag()) is not None:
            kind, body = tag
            if kind == _VIDEO and (unit := self._video(body)):
                found.append(unit)
        return found

    def _next_tag(self) -> tuple[int, bytes] | None:
        size = int.from_bytes(self._buffer[1:4], "big")
        end = _TAG_HEADER_BYTES + size
        if len(self._buffer) < end + _AFTER_TAG_BYTES:
            return None
        kind, body = self._buffer[0] & 0x1F, bytes(self._buffer[_TAG_HEADER_BYTES:end])
        del self._buffer[: end + _AFTER_TAG_BYTES]
        return kind, body

    def _video(self, body: bytes) -> tuple[bytes, bool] | None:
        if len(body) < _PICTURE_AT or body[0] & 0x0F != _AVC:
            raise Refused("FLV whose video is not H.264")
        if body[1] == _RECORD:
            self._parameter_sets = parameter_sets(body[_PICTURE_AT:])
        if body[1] != _PICTURE:
            return None
        is_keyframe = body[0] >> 4 == _KEYFRAME
        nals = _units(body[_PICTURE_AT:], 4)
        return annexb.join([*(self._parameter_sets if is_keyframe else []), *nals]), is_keyframe


def parameter_sets(record: bytes) -> list[bytes]:
    """The SPS and PPS of an AVCDecoderConfigurationRecord. Refused when it is cut short or has lengths of other sizes
    than 4 bytes."""
    if len(record) < 7 or record[4] & 3 != 3:
        raise Refused("no AVCDecoderConfigurationRecord with lengths of 4 bytes")
    found, at = [], 5
    for mask in (0x1F, 0xFF):  # the count of SPS has three reserved bits
        if at >= len(record):
            raise Refused("an AVCDecoderConfigurationRecord that is cut short")
        count, at = record[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(record[at : at + 2], "big")
            found += _units(record[at : at + 2 + size], 2)
            at += 2 + size
    return found


def _units(data: bytes, length_bytes: int) -> list[bytes]:
    """NAL units that each have their length in front."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        if not size or at + size > len(data):
            raise Refused("a NAL unit that is longer than its picture")
        found.append(data[at : at + size])
        at += size
    if not found:
        raise Refused("a picture without NAL units")
    return found
