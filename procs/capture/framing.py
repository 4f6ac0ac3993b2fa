"""Which of the two kinds of stream a command writes, found out from its first bytes. Pure."""

from __future__ import annotations

from typing import Protocol

from procs.capture.h264 import H264
from procs.capture.transport import Transport
from procs.capture.unit import Unit
from procs.errors import EncoderFailed
from procs.media import annexb
from procs.media.tspackets import PACKET, SYNC

_SHOWN = 16
_FIRST_NALS = frozenset({annexb.SEI, annexb.SPS, annexb.PPS, annexb.AUD, annexb.IDR, annexb.SLICE})
_ADVICE = "let it write H.264 or MPEG-TS (ffmpeg: -f mpegts pipe:1)"


class Framing(Protocol):
    """Bytes in, units out."""

    def waiting(self) -> float | None:
        """After how many seconds without a byte `quiet` should be called; None: no need."""

    def push(self, data: bytes, now_ns: int) -> list[Unit]:
        """The units that this data shows to be over. Raises Refused for what is no such stream."""

    def quiet(self, now_ns: int) -> list[Unit]:
        """What a pause shows to be over."""


def kind_of(head: bytes) -> str:
    """ "mpegts" or "h264"; "" while there are too few bytes to tell. Raises EncoderFailed for anything else."""
    if head[:1] == bytes((SYNC,)):
        if len(head) <= PACKET:
            return ""
        if head[PACKET] == SYNC:
            return "mpegts"
    start = head.lstrip(b"\0")
    zeros = len(head) - len(start)
    if head[:1] in (b"", b"\0") and start[:1] in (b"", b"\1") and zeros <= 3 and (zeros >= 2 or not start):
        if len(start) < 2:
            return ""
        if start[1] & 0x1F in _FIRST_NALS and not start[1] & 0x80:
            return "h264"
        raise EncoderFailed(f"the command writes NAL units that are no H.264 (header {start[1]:#04x}); {_ADVICE}")
    shown = bytes(head[:_SHOWN])
    raise EncoderFailed(f"the command writes neither H.264 nor MPEG-TS, it began with {shown!r}; {_ADVICE}")


class Detecting:
    """Keeps the first bytes until they tell what they are, then is that."""

    def __init__(self, kind: str, fps: int) -> None:
        """`kind`: "auto", "h264" or "mpegts"."""
        self._head, self._fps = b"", fps
        self._framing: Framing | None = None if kind == "auto" else self._opened(kind)

    def waiting(self) -> float | None:
        """As Framing."""
        return self._framing.waiting() if self._framing else None

    def push(self, data: bytes, now_ns: int) -> list[Unit]:
        """As Framing; also raises EncoderFailed for what is neither kind."""
        if self._framing is None:
            self._head += data
            kind = kind_of(self._head)
            if not kind:
                return []
            self._framing, data = self._opened(kind), self._head
        return self._framing.push(data, now_ns)

    def quiet(self, now_ns: int) -> list[Unit]:
        """As Framing."""
        return self._framing.quiet(now_ns) if self._framing else []

    def _opened(self, kind: str) -> Framing:
        return Transport() if kind == "mpegts" else H264(self._fps)
