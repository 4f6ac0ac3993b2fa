"""RTP out, in the place of aiortc's own loop: a header and a cipher for each packet, one system call for many.

aiortc builds three objects and awaits four coroutines for each packet, and makes a system call for it. Here a unit
leaves while it is being taken, without a task that has to be woken for it, and packets of one size go to the kernel in
one call, which it cuts; through a relay they go one by one. A large picture leaves in portions, so that no queue on the
way overflows.
Private names of aiortc 1.16 and aioice 0.13, as in peer.py and ice.py.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import struct
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from aiortc import RTCRtpSender
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import HeaderExtensions

from procs import log
from procs.agent.udp import UdpTransport
from procs.webrtc_peer import srtp
from procs.webrtc_peer.again import Again
from procs.webrtc_peer.track import Track

HISTORY = 1024  # packets that a viewer can ask for again: a keyframe of 1080p takes hundreds
PAUSE_S = 0.001  # after a portion: about 120 Mbit/s
_random = functools.partial(secrets.randbits, 32)
_NTP_TO_UNIX_NS = 2_208_988_800 * 1_000_000_000
_TIME = b"\xab\xcd\xef"
_HEADER = struct.Struct(">BBHII")


class Sender:
    """Sends what one track has, over one RTCRtpSender, from the moment that aiortc would."""

    def __init__(self, sender: RTCRtpSender, track: Track) -> None:
        self._sender: Any = sender
        self._track = track
        self._sequence = _random() & 0x7FFF  # no wrap-around before the cipher has settled
        self._origin = _random()
        self._rtx_sequence = _random() & 0x7FFF
        self._history: dict[int, tuple[int, bytes]] = {}
        self._head_size = 12
        self._around: tuple[bytes, bytes, bytes] | None = None  # the header extension, cut at the time of sending
        self._room = srtp.Portion()
        self._codec: RTCRtpCodecParameters | None = None  # while we may send
        self._left, self._rtp_time = deque[bytes](), 0  # of the unit under way
        self._pause: asyncio.TimerHandle | None = None
        self._burst, self._sent_at = 0, 0.0  # packets since the last pause, and when
        self.packets = self.octets = self.again = 0
        self._budget = Again()
        sender.replaceTrack(track)
        sender._run_rtp = self._run  # type: ignore[method-assign]
        sender._retransmit = self._retransmit  # type: ignore[method-assign, assignment]

    async def _run(self, codec: RTCRtpCodecParameters) -> None:
        """From the moment that there is a path until there is none; what is sent in between, `send` sends."""
        self._of("rtp_started").set()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._codec = codec
        self.send()
        try:
            await self._over
        except (asyncio.CancelledError, ConnectionError):
            pass
        except Exception as error:  # the end of the session, but its end must not wait for us
            log.error(f"unforeseen {type(error).__name__}: {error}", trace=True)
        finally:
            self._codec = None
            self._of("rtp_exited").set()

    def send(self) -> None:
        """Send what the track has, as fast as the path is thought to take it."""
        if self._codec is None or self._pause or self._over.done():
            return
        try:
            while self._left or self._next(self._codec):
                if self._has_to_pause():
                    self._pause = asyncio.get_running_loop().call_later(PAUSE_S, self._resume)
                    return
                self._send_portion()
        except Exception as error:  # for `_run`
            self._over.set_exception(error)

    def _resume(self) -> None:
        self._pause = None
        self._burst = 0
        self.send()

    def _next(self, codec: RTCRtpCodecParameters) -> bool:
        """Take the next unit, if there is one."""
        found = self._track.next(codec.name.lower(), codec.clockRate)
        if found is None:
            return False
        self._left = deque(found.payloads)
        self._rtp_time = (self._origin + found.ticks) & 0xFFFFFFFF
        return True

    def _has_to_pause(self) -> bool:
        """Whether much has just gone out: of a large picture, or of many small ones for a viewer that has joined."""
        if time.monotonic() - self._sent_at > PAUSE_S:
            self._burst = 0
        return self._burst >= srtp.PACKETS

    def _send_portion(self) -> None:
        assert self._codec and self._codec.payloadType is not None
        extension = self._extension()
        self._head_size = 12 + len(extension)
        first, kind, source = 0x90 if extension else 0x80, self._codec.payloadType, self._sender._ssrc
        left, history = self._left, self._history
        packets: list[bytes] = []
        while left and len(packets) < srtp.PACKETS:
            payload = left.popleft()
            number = self._sequence
            marker = kind if left else kind | 0x80
            packet = _HEADER.pack(first, marker, number, self._rtp_time, source) + extension + payload
            history[number % HISTORY] = (number, packet)
            self._sequence = (number + 1) & 0xFFFF
            self.octets += len(payload)
            packets.append(packet)
        self.packets += len(packets)
        self._out(self._room.protect(self._srtp(), packets))
        self._burst += len(packets)
        self._sent_at = time.monotonic()
        if not left:
            self._report()

    def _out(self, datagrams: Sequence[memoryview]) -> None:
        """Send these, those of one size together."""
        pair = self._sender.transport.transport._connection._nominated.get(1)
        if pair is None:
            raise ConnectionError("there is no path")
        transport, to = pair.protocol.transport, pair.remote_addr
        for run in _runs(datagrams):
            if isinstance(transport, UdpTransport):
                transport.send_cut(b"".join(run), len(run[0]), to)
            else:  # a relay's
                for datagram in run:
                    transport.sendto(bytes(datagram), to)

    async def _retransmit(self, number: int) -> None:
        """In the place of RTCRtpSender._retransmit."""
        kept, packet = self._history.get(number % HISTORY, (-1, b""))
        if kept != number:
            return
        if not self._budget.may(number, len(packet), self.octets, self._of("rtt"), time.monotonic()):
            return
        self.again += 1
        rtx = self._of("rtx_payload_type")
        if rtx is not None:
            first, kind, _, rtp_time, _ = _HEADER.unpack_from(packet)
            head = _HEADER.pack(first, (kind & 0x80) | rtx, self._rtx_sequence, rtp_time, self._sender._rtx_ssrc)
            original = packet[2:4]
            packet = head + packet[12 : self._head_size] + original + packet[self._head_size :]
            self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        self._out(self._room.protect(self._srtp(), [packet]))

    def _srtp(self) -> Any:
        transport = self._sender.transport
        if transport._state is not State.CONNECTED:
            raise ConnectionError("no DTLS any more")
        return transport._tx_srtp

    def _extension(self) -> bytes:
        """The header extension of the packets that go out now: but for the time of sending it is always the same."""
        if self._around is None:
            values = HeaderExtensions()
            values.mid = self._of("mid")
            values.abs_send_time = int.from_bytes(_TIME, "big")
            profile, value = self._of("rtp_header_extensions_map").set(values)
            whole = struct.pack(">HH", profile, len(value) >> 2) + value if value else b""
            self._around = whole.partition(_TIME)
        before, time_of_sending, after = self._around
        if not time_of_sending:
            return before
        return before + ((_ntp() >> 14) & 0x00FFFFFF).to_bytes(3, "big") + after

    def _report(self) -> None:
        """What aiortc's sender reports, once a second, and its statistics read."""
        sender = self._sender
        sender._RTCRtpSender__ntp_timestamp, sender._RTCRtpSender__rtp_timestamp = _ntp(), self._rtp_time
        sender._RTCRtpSender__packet_count, sender._RTCRtpSender__octet_count = self.packets, self.octets

    def _of(self, name: str) -> Any:
        return getattr(self._sender, f"_RTCRtpSender__{name}")


def _ntp() -> int:
    """Now, as RTCP has it: seconds since 1900 in the upper half."""
    return (time.time_ns() + _NTP_TO_UNIX_NS << 32) // 1_000_000_000


def _runs(datagrams: Sequence[memoryview]) -> list[list[memoryview]]:
    """Cut into what the kernel can take at once: all of one size but the last, which may be shorter."""
    runs: list[list[memoryview]] = []
    size = 0
    for datagram in datagrams:
        if len(datagram) > size:
            runs.append([])
            size = len(datagram)
        runs[-1].append(datagram)
        if len(datagram) < size:
            size = 0  # this one was the last
    return runs
