"""RTP out, in the leader for all viewers: a header and a cipher for each packet, one system call for many.

A viewer's child has ICE, DTLS and RTCP, and takes whatever strangers send; the leader has the camera's pictures, and
makes of each what each viewer is sent, one right after the other: that is one process to be woken and warm for it, and
not one a viewer. A large picture leaves in portions, so that no queue on the way overflows.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import struct
import time
from collections import deque
from collections.abc import Callable

from pylibsrtp import Session

from procs.errors import Refused
from procs.messages.watch import PacketsWanted, Rtp, Sent, Unit
from procs.webrtc_peer import srtp
from procs.webrtc_peer.again import Again
from procs.webrtc_peer.gate import Gate
from procs.webrtc_peer.track import Track

HISTORY = 1024  # packets that a viewer can ask for again: a keyframe of 1080p takes hundreds
PAUSE_S = 0.001  # after a portion: about 120 Mbit/s
_random = functools.partial(secrets.randbits, 32)
_NTP_TO_UNIX_NS = 2_208_988_800 * 1_000_000_000
_HEADER = struct.Struct(">BBHII")
_ROOM = srtp.Portion()  # what is in it is sent before anything else is put there


class Sender:
    """Sends one kind of one session's media. `broken(why)` is told when it can't any more."""

    def __init__(self, rtp: Rtp, cipher: Session, gate: Gate, broken: Callable[[str], None]) -> None:
        self._rtp, self._srtp, self._gate, self._broken = rtp, cipher, gate, broken
        self._track = Track(rtp.kind, rtp.codec, rtp.clock)
        self._sequence = _random() & 0x7FFF  # no wrap-around before the cipher has settled
        self._origin = _random()
        self._again_sequence = _random() & 0x7FFF
        self._history: dict[int, tuple[int, bytes, bytes]] = {}  # number, header and payload, which all viewers share
        self._left, self._rtp_time = deque[bytes](), 0  # of the unit under way
        self._pause: asyncio.TimerHandle | None = None
        self._burst, self._sent_at, self._ntp_time = 0, 0.0, 0  # packets since the last pause, and when
        self._packets = self._octets = self._again = 0
        self._budget = Again()

    def push(self, unit: Unit, data: bytes) -> bool:
        """Send this, as fast as the path is thought to take it. False when a keyframe is needed."""
        is_taken = self._track.push(unit, data)
        if is_taken and not self._pause:
            self._send()
        self._repay()
        return is_taken

    def send_again(self, wanted: PacketsWanted) -> None:
        """Send those of these packets again that are known, and worth it."""
        now = time.monotonic()
        for number in wanted.numbers:
            if not self._budget.is_on_its_way(number, wanted.round_trip_s, now):
                self._send_once_more(number, now)

    @property
    def key(self) -> bytes:
        """What it encrypts with."""
        return self._rtp.key

    def move(self, gate: Gate) -> None:
        """Go on there."""
        self._gate.close()
        self._gate = gate

    def close(self) -> None:
        """Nobody is there any more."""
        if self._pause:
            self._pause.cancel()
        self._gate.close()

    @property
    def sent(self) -> Sent:
        """What has gone out so far."""
        return Sent(
            kind=self._rtp.kind,
            units=self._track.units,
            dropped=self._track.dropped,
            packets=self._packets,
            octets=self._octets,
            again=self._again,
            ntp_time=self._ntp_time,
            rtp_time=self._rtp_time,
        )

    def _send(self) -> None:
        try:
            while self._left or self._next():
                if self._has_to_pause():
                    self._pause = asyncio.get_running_loop().call_later(PAUSE_S, self._resume)
                    return
                self._send_portion()
        except Refused as reason:
            self._broken(str(reason))

    def _resume(self) -> None:
        self._pause = None
        self._burst = 0
        self._send()

    def _next(self) -> bool:
        """Take the next unit, if there is one."""
        found = self._track.next()
        if found is None:
            return False
        self._left.extend(found.payloads)
        self._rtp_time = (self._origin + found.ticks) & 0xFFFFFFFF
        return True

    def _has_to_pause(self) -> bool:
        """Whether much has just gone out: of a large picture, or of many small ones for a viewer that has joined."""
        if time.monotonic() - self._sent_at > PAUSE_S:
            self._burst = 0
        return self._burst >= srtp.PACKETS

    def _repay(self) -> None:
        """Send what there was no room for when it was asked for, as far as there is now."""
        now = time.monotonic()
        while (number := self._budget.owed(now)) is not None and self._send_once_more(number, now):
            pass

    def _send_once_more(self, number: int, now: float) -> bool:
        """False if there is no room for it now."""
        kept, head, payload = self._history.get(number % HISTORY, (-1, b"", b""))
        if kept != number:
            self._budget.forgive(number)
            return True
        if not self._budget.may(number, len(head) + len(payload), self._octets, now):
            return False
        self._again += 1
        self._gate.send(_ROOM.protect(self._srtp, [self._repeated(head, payload)]))
        return True

    def _send_portion(self) -> None:
        self._ntp_time = _ntp()
        extension = self._extension()
        first, kind, source = 0x90 if extension else 0x80, self._rtp.payload_type, self._rtp.source
        left, history, number, rtp_time = self._left, self._history, self._sequence, self._rtp_time
        payloads: list[bytes] = []
        packets: list[bytes] = []
        while left and len(packets) < srtp.PACKETS:
            payload = left.popleft()
            head = _HEADER.pack(first, kind if left else kind | 0x80, number, rtp_time, source) + extension
            history[number % HISTORY] = (number, head, payload)
            number = (number + 1) & 0xFFFF
            payloads.append(payload)
            packets.append(head + payload)
        taken = self._gate.send(_ROOM.protect(self._srtp, packets))
        left.extendleft(reversed(payloads[taken:]))  # for which there is no room now: they have never been sent
        self._sequence = (self._sequence + taken) & 0xFFFF
        self._packets += taken
        self._octets += sum(map(len, payloads[:taken]))
        self._burst += taken if taken == len(packets) else srtp.PACKETS
        self._sent_at = time.monotonic()

    def _repeated(self, head: bytes, payload: bytes) -> bytes:
        """As it was, or in the stream of those that are sent again."""
        kind = self._rtp.again_type
        if kind is None:
            return head + payload
        first, marker, number, rtp_time, _ = _HEADER.unpack_from(head)
        again = _HEADER.pack(first, marker & 0x80 | kind, self._again_sequence, rtp_time, self._rtp.again_source)
        self._again_sequence = (self._again_sequence + 1) & 0xFFFF
        return b"".join((again, head[12:], number.to_bytes(2, "big"), payload))

    def _extension(self) -> bytes:
        """The header extension of the packets that go out now: but for the time of sending it is always the same."""
        always, at = self._rtp.extension, self._rtp.time_at
        if at < 0:
            return always
        return b"".join((always[:at], (self._ntp_time >> 14 & 0xFFFFFF).to_bytes(3, "big"), always[at + 3 :]))


def _ntp() -> int:
    """Now, as RTCP has it: seconds since 1900 in the upper half."""
    return (time.time_ns() + _NTP_TO_UNIX_NS << 32) // 1_000_000_000
