"""RTP out, in the place of aiortc's own loop: a header and a cipher for each packet, one system call for many.

aiortc builds three objects and awaits four coroutines for each packet, and makes a system call for it. Here packets of
one size go to the kernel in one buffer, which it cuts (UDP GSO, udp(7)); where that can't be (a relay, an
older kernel) they go one by one. A large picture leaves in portions, so that no queue on the way overflows.
Private names of aiortc 1.16 and aioice 0.13, as in peer.py and ice.py.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from aiortc import RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import HeaderExtensions

from procs import log
from procs.webrtc_peer.track import Track

HISTORY = 1024  # packets that a viewer can ask for again: a keyframe of 1080p takes hundreds
PORTION = 16  # packets at a time: about 120 Mbit/s with the pauses between
PAUSE_S = 0.001
UDP_SEGMENT = 103  # linux/udp.h; not in Python's socket module before 3.12
MAX_BUFFER = 60_000  # of one call with UDP_SEGMENT
_random = functools.partial(secrets.randbits, 32)
_NTP_TO_UNIX_NS = 2_208_988_800 * 1_000_000_000
_TIME = b"\xab\xcd\xef"
_HEADER = struct.Struct(">BBHII")


class Sender:
    """Sends what one track has, over one RTCRtpSender, from the moment that aiortc would."""

    def __init__(self, sender: RTCRtpSender, track: Track) -> None:
        self._sender, self._track = sender, track
        self._sequence = _random() & 0x7FFF  # no wrap-around before the cipher has settled
        self._origin = _random()
        self._rtx_sequence = _random() & 0x7FFF
        self._history: dict[int, tuple[int, bytes]] = {}
        self._head_size = 12
        self._around: tuple[bytes, bytes, bytes] | None = None  # the header extension, cut at the time of sending
        self._can_segment = True
        self._burst, self._sent_at = 0, 0.0  # packets since the last pause, and when
        self.packets = self.octets = self.again = 0
        sender.replaceTrack(track)
        sender._run_rtp = self._run  # type: ignore[method-assign]
        sender._retransmit = self._retransmit  # type: ignore[method-assign, assignment]

    async def _run(self, codec: RTCRtpCodecParameters) -> None:
        self._of("rtp_started").set()
        try:
            while True:
                await self._send_next(codec)
        except (asyncio.CancelledError, ConnectionError):
            pass
        except Exception as error:  # the end of the session, but its end must not wait for us
            log.error(f"unforeseen {type(error).__name__}: {error}", trace=True)
        finally:
            self._of("rtp_exited").set()

    async def _send_next(self, codec: RTCRtpCodecParameters) -> None:
        payloads, ticks = await self._track.next(codec)
        rtp_time = (self._origin + ticks) & 0xFFFFFFFF
        protect = self._srtp().protect
        extension = self._extension()
        self._head_size = 12 + len(extension)
        first = 0x90 if extension else 0x80
        for start in range(0, len(payloads), PORTION):
            await self._paced()
            datagrams = []
            assert codec.payloadType is not None
            for at, payload in enumerate(payloads[start : start + PORTION], start=start + 1):
                kind = codec.payloadType | (0x80 if at == len(payloads) else 0)
                packet = _HEADER.pack(first, kind, self._sequence, rtp_time, self._sender._ssrc) + extension + payload
                self._history[self._sequence % HISTORY] = (self._sequence, packet)
                self._sequence = (self._sequence + 1) & 0xFFFF
                self.packets += 1
                self.octets += len(payload)
                datagrams.append(protect(packet))
            self._out(datagrams)
            self._burst += len(datagrams)
            self._sent_at = time.monotonic()
        self._report(rtp_time)

    async def _paced(self) -> None:
        """Wait if much has just gone out: of a large picture, or of many small ones for a viewer that has joined."""
        if time.monotonic() - self._sent_at > PAUSE_S:
            self._burst = 0
        if self._burst >= PORTION:
            self._burst = 0
            await asyncio.sleep(PAUSE_S)

    def _out(self, datagrams: Sequence[bytes]) -> None:
        """Send these, those of one size together."""
        pair = self._sender.transport.transport._connection._nominated.get(1)
        if pair is None:
            raise ConnectionError("there is no path")
        transport, to = pair.protocol.transport, pair.remote_addr
        sock = transport.get_extra_info("socket") if self._can_segment else None
        if sock is None:
            for datagram in datagrams:
                transport.sendto(datagram, to)
            return
        for run in _runs(datagrams):
            if len(run) == 1 or not self._segmented(sock, run, to):
                for datagram in run:
                    transport.sendto(datagram, to)

    def _segmented(self, sock: Any, run: list[bytes], to: tuple[str, int]) -> bool:
        """Whether the kernel took them all in one buffer."""
        size = struct.pack("H", len(run[0]))
        try:
            sock._sock.sendmsg(run, [(socket.IPPROTO_UDP, UDP_SEGMENT, size)], 0, to)
        except BlockingIOError:
            return False  # its buffer is full: asyncio keeps them until there is room
        except OSError as error:
            log.info("no UDP segmentation here", why=str(error))
            self._can_segment = False
            return False
        return True

    async def _retransmit(self, number: int) -> None:
        """In the place of RTCRtpSender._retransmit."""
        kept, packet = self._history.get(number % HISTORY, (-1, b""))
        if kept != number:
            return
        self.again += 1
        rtx = self._of("rtx_payload_type")
        if rtx is not None:
            first, kind, _, rtp_time, _ = _HEADER.unpack_from(packet)
            head = _HEADER.pack(first, (kind & 0x80) | rtx, self._rtx_sequence, rtp_time, self._sender._rtx_ssrc)
            original = packet[2:4]
            packet = head + packet[12 : self._head_size] + original + packet[self._head_size :]
            self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        self._out([self._srtp().protect(packet)])

    def _srtp(self) -> Any:
        transport = self._sender.transport
        if transport.state != "connected":
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

    def _report(self, rtp_time: int) -> None:
        """What aiortc's sender reports, once a second, and its statistics read."""
        for name, value in (
            ("ntp_timestamp", _ntp()),
            ("rtp_timestamp", rtp_time),
            ("packet_count", self.packets),
            ("octet_count", self.octets),
        ):
            setattr(self._sender, f"_RTCRtpSender__{name}", value)

    def _of(self, name: str) -> Any:
        return getattr(self._sender, f"_RTCRtpSender__{name}")


def _ntp() -> int:
    """Now, as RTCP has it: seconds since 1900 in the upper half."""
    return (time.time_ns() + _NTP_TO_UNIX_NS << 32) // 1_000_000_000


def _runs(datagrams: Sequence[bytes]) -> list[list[bytes]]:
    """Cut into what the kernel can take at once: all of one size but the last, which may be shorter."""
    runs: list[list[bytes]] = []
    size = room = 0
    for datagram in datagrams:
        if len(datagram) > size or len(datagram) > room:
            runs.append([])
            size, room = len(datagram), MAX_BUFFER
        runs[-1].append(datagram)
        room -= len(datagram)
        if len(datagram) < size:
            size = 0  # this one was the last
    return runs
