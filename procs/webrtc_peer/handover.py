"""The child's end of its viewer's media: it finds the way and agrees on keys, and hands both to the leader, which sends
(sender.py); what aiortc's RTCRtpSender would know of what it has sent, the leader tells.

Private names of aiortc 1.16 and aioice 0.13, as in peer.py and ice.py.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import functools
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from aiortc import MediaStreamTrack, RTCRtpSender
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RTCP_RTPFB_NACK, AnyRtcpPacket, HeaderExtensions, RtcpRtpfbPacket

from procs import bus, log
from procs.agent.udp import UdpTransport
from procs.messages import encode
from procs.messages.watch import PacketsWanted, Rtp, Sent, Way

MAX_NUMBERS = 4096
MAX_DATAGRAM = 2048
READS_A_WAKE = 64
_TIME = b"\xab\xcd\xef"


class Nothing(MediaStreamTrack):
    """What an RTCRtpSender has to have."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    async def recv(self) -> None:  # type: ignore[override]
        """Nobody asks for frames."""
        raise NotImplementedError


class Handover:
    """Of one session. `wants(PacketsWanted)` is told what its viewer has not got."""

    def __init__(self, run_dir: Path, session_id: str, wants: Callable[[PacketsWanted], None]) -> None:
        self._path = str(bus.path(run_dir, bus.WEBRTC_PEER_WAYS))
        self._session_id, self._wants = session_id, wants
        self._outgoing: list[_Outgoing] = []
        self._handed: list[object] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self.sent: dict[str, Sent] = {}

    def add(self, sender: RTCRtpSender) -> None:
        """The leader is to send in the place of this one."""
        self._outgoing.append(_Outgoing(sender, self._lost, self.look))

    def look(self) -> None:
        """Hand over what has a way now, unless the leader has it. To be called often."""
        ready = [each for each in self._outgoing if each.pair]
        handed: list[object] = [each.pair for each in ready]
        if not ready or (handed == self._handed and len(self.sent) >= len(ready)):
            return
        way = Way(self._session_id, [each.rtp for each in ready])
        try:
            beside = array.array("i", [each.socket() for each in ready])
            self._sock.sendmsg([encode(way)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, beside)], 0, self._path)
        except OSError as error:  # it is said again
            log.warning("the leader takes no way", why=str(error), session=self._session_id)
        else:
            self._handed = handed

    def take(self, sent: Sent) -> None:
        """What the leader has sent so far; the sender reports of it say so."""
        self.sent[sent.kind] = sent
        for each in self._outgoing:
            if each.kind == sent.kind:
                each.take(sent)

    def _lost(self, kind: str, numbers: list[int], round_trip_s: float | None) -> None:
        self._wants(PacketsWanted(self._session_id, cast(Any, kind), numbers[:MAX_NUMBERS], round_trip_s))


class _Outgoing:
    """One RTCRtpSender, which reports and sends nothing else."""

    def __init__(
        self,
        sender: RTCRtpSender,
        lost: Callable[[str, list[int], float | None], None],
        begun: Callable[[], None],
    ) -> None:
        self._sender: Any = sender
        self._lost, self._begun = lost, begun
        self._codec: RTCRtpCodecParameters | None = None  # while there is a path
        self._relay: _Relay | None = None
        self.kind = sender.kind
        take = sender._handle_rtcp_packet
        self._sender._handle_rtcp_packet = functools.partial(self._feedback, take)  # type: ignore[method-assign]
        self._sender._run_rtp = self._run  # type: ignore[method-assign]

    @property
    def pair(self) -> Any:
        """The way, as long as there is one."""
        transport = self._sender.transport
        if self._codec is None or transport._state is not State.CONNECTED:
            return None
        return transport.transport._connection._nominated.get(1)

    @property
    def rtp(self) -> Rtp:
        """How the leader is to send."""
        codec = self._codec
        assert codec and codec.payloadType is not None
        profile, key = _key(self._sender.transport)
        extension = self._extension()
        return Rtp(
            kind=cast(Any, self.kind),
            codec=cast(Any, codec.name.lower()),
            clock=codec.clockRate,
            payload_type=codec.payloadType,
            source=self._sender._ssrc,
            again_type=self._of("rtx_payload_type"),
            again_source=self._sender._rtx_ssrc,
            extension=extension.replace(_TIME, bytes(3)),
            time_at=extension.find(_TIME),
            profile=profile,
            key=key,
            to=self.pair.remote_addr if self._is_direct else None,
        )

    def socket(self) -> int:
        """Into which it is to send."""
        if self._is_direct:
            return cast(int, self.pair.protocol.transport.get_extra_info("socket").fileno())
        if self._relay and self._relay.pair is not self.pair:
            self._relay.close()
            self._relay = None
        self._relay = self._relay or _Relay(self.pair)
        return self._relay.theirs.fileno()

    def take(self, sent: Sent) -> None:
        """What aiortc's sender reports, once a second, and its statistics read."""
        sender = self._sender
        sender._RTCRtpSender__ntp_timestamp, sender._RTCRtpSender__rtp_timestamp = sent.ntp_time, sent.rtp_time
        sender._RTCRtpSender__packet_count, sender._RTCRtpSender__octet_count = sent.packets, sent.octets

    async def _run(self, codec: RTCRtpCodecParameters) -> None:
        """In the place of RTCRtpSender._run_rtp: from the moment that there is a path until there is none."""
        self._of("rtp_started").set()
        self._codec = codec
        self._begun()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            pass
        finally:
            self._codec = None
            self._of("rtp_exited").set()

    async def _feedback(self, take: Callable[[AnyRtcpPacket], Any], packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            self._lost(self.kind, packet.lost, self._of("rtt"))
        else:
            await take(packet)

    def _extension(self) -> bytes:
        values = HeaderExtensions()
        values.mid = self._of("mid")
        values.abs_send_time = int.from_bytes(_TIME, "big")
        profile, value = self._of("rtp_header_extensions_map").set(values)
        return struct.pack(">HH", profile, len(value) >> 2) + value if value else b""

    @property
    def _is_direct(self) -> bool:
        return isinstance(self.pair.protocol.transport, UdpTransport)

    def _of(self, name: str) -> Any:
        return getattr(self._sender, f"_RTCRtpSender__{name}")


class _Relay:
    """What comes from the leader goes to our TURN client."""

    def __init__(self, pair: Any) -> None:
        self.pair = pair
        self.theirs, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        asyncio.get_running_loop().add_reader(self._ours.fileno(), self._read)

    def close(self) -> None:
        """There is another way."""
        asyncio.get_running_loop().remove_reader(self._ours.fileno())
        self._ours.close()
        self.theirs.close()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(READS_A_WAKE):
                self.pair.protocol.transport.sendto(self._ours.recv(MAX_DATAGRAM), self.pair.remote_addr)


def _key(transport: Any) -> tuple[int, bytes]:
    """How we encrypt, and with what (RFC 5764, 4.2)."""
    chosen = transport._ssl.get_selected_srtp_profile()
    profile = next(each for each in transport._srtp_profiles if each.openssl_profile == chosen)
    size = 2 * (profile.key_length + profile.salt_length)
    material = transport._ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", size)
    return profile.libsrtp_profile, profile.get_key_and_salt(material, int(transport._role == "server"))
