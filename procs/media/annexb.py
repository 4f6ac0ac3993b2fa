"""H.264 byte streams: cut an access unit into NAL units, add one, and write units so that go2rtc emits them at once.

Promises: bytes in, bytes out; what is no Annex-B raises Refused; cost linear in the unit, the scanning done in C.
Source: ITU-T H.264 7.3.1 and 7.4.1 (NAL unit, emulation prevention), table 7-1 (types), Annex B (start codes).
"""

from __future__ import annotations

from procs.errors import Refused

SLICE = 1
IDR = 5
SEI = 6
SPS = 7
PPS = 8
AUD = 9

START_3 = b"\0\0\1"
START_4 = b"\0\0\0\1"

_TYPE_MASK = 0x1F  # below forbidden_zero_bit and nal_ref_idc


def nal_type(nal: bytes) -> int:
    """`nal_unit_type`, 0 to 31. Refused when `nal` is empty."""
    if not nal:
        raise Refused("a NAL unit has at least its header byte")
    return nal[0] & _TYPE_MASK


def split(access_unit: bytes) -> list[bytes]:
    """The NAL units in order, without start codes and without the zero bytes that may trail each one; at least one.

    Refused when there is no start code, when anything but zeros stands before the first, or when a NAL unit is empty.
    """
    lead, *parts = access_unit.split(START_3)
    # No NAL unit ends in a zero byte (7.4.1), so this takes only padding and the first byte of a 4-byte code.
    nals = [part.rstrip(b"\0") for part in parts]
    if not nals or not all(nals) or lead.strip(b"\0"):
        raise Refused("not an Annex-B access unit")
    return nals


def join(nals: list[bytes]) -> bytes:
    """One Annex-B access unit: 4-byte start codes where B.1.2 asks for them (first unit, SPS, PPS), else 3-byte ones.

    Refused when `nals` or one of them is empty. The inverse of `split`.
    """
    if not nals:
        raise Refused("an access unit has at least one NAL unit")
    coded = [(START_4 if nal_type(nal) in (SPS, PPS) else START_3) + nal for nal in nals]
    return (b"" if coded[0].startswith(START_4) else b"\0") + b"".join(coded)


def escape(rbsp: bytes) -> bytes:
    """EBSP of an RBSP: 03 goes between two zero bytes and a byte of 0 to 3, so that no start code can appear inside.

    Refused when `rbsp` ends in a zero byte: an RBSP ends in its stop bit, and we write no cabac_zero_words.
    """
    if rbsp.endswith(b"\0"):
        raise Refused("an RBSP does not end in a zero byte")
    head, *tail = rbsp.split(b"\0\0")
    # What follows a pair of zeros: an empty part is the next pair, and compares as a small byte too.
    return b"\0\0".join([head, *[b"\3" + part if part[:1] <= b"\3" else part for part in tail]])


def unescape(ebsp: bytes) -> bytes:
    """RBSP of an EBSP: the inverse of `escape`. Takes any bytes."""
    return ebsp.replace(b"\0\0\3", b"\0\0")


def before_slice(access_unit: bytes) -> list[bytes]:
    """The NAL units in front of the first slice, or all when there is no slice; may be empty.

    Does not read the slice, which is nearly all of the bytes. Refused as `split`.
    """
    end = _slice_at(access_unit)
    head = access_unit if end < 0 else access_unit[:end]
    return split(head) if end < 0 or head.strip(b"\0") else []


def insert_before_slice(access_unit: bytes, nal: bytes) -> bytes:
    """The unit with `nal`, behind a 4-byte start code, in front of its first slice. Does not read the slice.

    Refused when there is no slice (types 1 to 5) or `nal` is empty.
    """
    at = _slice_at(access_unit)
    if at < 0:
        raise Refused("an access unit without a slice has no place for a NAL unit")
    if not nal:
        raise Refused("a NAL unit has at least its header byte")
    if access_unit[at - 1 : at] == b"\0":
        at -= 1  # the slice keeps its 4-byte code
    return b"".join((access_unit[:at], START_4, nal, access_unit[at:]))


def is_keyframe(access_unit: bytes) -> bool:
    """Whether the picture is an IDR: decoding can begin here. False when there is no slice. Does not read the slice."""
    at = _slice_at(access_unit)
    return at >= 0 and access_unit[at + 3] & _TYPE_MASK == IDR


def _slice_at(access_unit: bytes) -> int:
    """Index of the 3-byte start code of the first VCL NAL unit (types 1 to 5), -1 when there is none."""
    at = access_unit.find(START_3)
    while at >= 0:
        if SLICE <= (access_unit[at + 3 : at + 4] or b"\0")[0] & _TYPE_MASK <= IDR:
            return at
        at = access_unit.find(START_3, at + 3)
    return -1


class LookAhead:
    """Rewrites access units so that a reader which cuts at the NEXT unit's start code has each unit at once.

    go2rtc ends a unit of a raw H.264 pipe only at a 4-byte start code with type 1 or 7: a plain pipe is one frame late
    (33 ms at 30 fps). So every unit begins with a 4-byte-coded SPS, all else has 3-byte codes, and the start code and
    header byte of the next SPS are written behind each unit. About 40 bytes a frame; a decoder takes it as it is.
    """

    __slots__ = ("_ahead", "_sets")

    def __init__(self) -> None:
        self._ahead = b""  # what already went out of the next unit
        self._sets: list[bytes] = []  # SPS, then PPS, of the last unit that had them

    def push(self, access_unit: bytes) -> bytes:
        """What to write, in one go, for this unit.

        Refused, with the state unchanged, when it is not Annex-B, has no slice, has one of SPS and PPS without the
        other, or is the first and has neither.
        """
        sets, rest = _parted(split(access_unit))
        if not rest or not any(SLICE <= nal[0] & _TYPE_MASK <= IDR for nal in rest):
            raise Refused("an access unit without a slice is no picture")
        self._sets = sets or self._sets
        if not self._sets:
            raise Refused("the first access unit must carry SPS and PPS")
        first, *others = self._sets
        # The header byte stays that of the very first SPS, as promised ahead; only nal_ref_idc could ever differ.
        opening = b"" if self._ahead else START_4 + first[:1]
        self._ahead = self._ahead or opening
        return opening + START_3.join([first[1:], *others, *rest]) + self._ahead


class SetsFirst:
    """Rewrites access units so that none begins with an SEI message: the last PPS, if there was one, goes in front.

    go2rtc cuts an SEI message that comes first off the one packet that all viewers share, for each of them and all at
    once. When two meet there it dies, and everybody's stream with it: six viewers of a stream that is stamped saw that
    every ten seconds. A PPS may be repeated before any picture (7.4.1.2.1), and costs some ten bytes.
    """

    __slots__ = ("_pps",)

    def __init__(self) -> None:
        self._pps = b""

    def push(self, access_unit: bytes) -> bytes:
        """The unit as it is to be written; a delimiter may be missing. Refused when it is not Annex-B."""
        head = before_slice(access_unit)
        self._pps = next((nal for nal in head if nal_type(nal) == PPS), self._pps)
        first = next((kind for nal in head if (kind := nal_type(nal)) != AUD), None)
        if first != SEI or not self._pps:
            return access_unit
        at = access_unit.find(START_3)
        if nal_type(head[0]) == AUD:  # it would have to stand first; who writes the container adds one
            at = access_unit.find(START_3, at + 3)
        return START_4 + self._pps + b"\0" + access_unit[at:]


def _parted(nals: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Parameter sets (SPS first; empty when there are none), and the rest without access unit delimiters."""
    sps: list[bytes] = []
    pps: list[bytes] = []
    rest: list[bytes] = []
    places = {SPS: sps, PPS: pps, AUD: []}
    for nal in nals:
        places.get(nal[0] & _TYPE_MASK, rest).append(nal)
    if bool(sps) != bool(pps):
        # Repeating the older one of the two in front of later pictures could contradict the newer.
        raise Refused("SPS and PPS must come together")
    return sps + pps, rest
