"""One session's RTCPeerConnection: answers the viewer's offer at once, finds a way to it, says how it goes.

Promises: it decodes and encodes nothing, and what it sends the leader sends (handover.py). Private names of aiortc 1.16
are used here, in handover.py and in offer.py.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from aioice import Candidate, Connection
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCRtpTransceiver, RTCSessionDescription
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtpPacket,
    unpack_remb_fci,
)

from procs import log
from procs.agent import ice, ice_servers, nomination
from procs.errors import Refused
from procs.messages.watch import Sent
from procs.webrtc_peer import offer
from procs.webrtc_peer.arriving import Arriving
from procs.webrtc_peer.handover import Handover, Nothing
from procs.webrtc_peer.mouth import Piece
from procs.webrtc_peer.rate import Losses, Rate

Json = dict[str, Any]


class Peer:
    """`say(kind, payload)` takes what the viewer is to be told; `wants_keyframe()`, `wants_rate(bits)` its wishes,
    `hears(piece)` what it says."""

    def __init__(
        self,
        servers: Sequence[Json],
        udp_range: tuple[int, int],
        handover: Handover,
        say: Callable[[str, Json], None],
        wants_keyframe: Callable[[], None],
        wants_rate: Callable[[int], None],
        hears: Callable[[Piece], None] = lambda piece: None,
    ) -> None:
        self._servers, self._udp_range, self._handover = servers, udp_range, handover
        self._say, self._wants_keyframe, self._wants_rate = say, wants_keyframe, wants_rate
        self._hears = hears
        self._connection: Connection | None = None  # of ICE
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._kinds = ["video"]
        self._senders: list[RTCRtpSender] = []
        self._offer: offer.Offer | None = None
        self.takes: list[str] = []  # codecs that the answer names
        self.voice = ""  # the one in which the viewer may talk
        self._taken: list[Json] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard_at = time.monotonic()
        self._early: list[Json] = []  # candidates that overtook their offer
        self.refused_candidates = 0
        self.rate, self._losses, self._arriving = Rate(), Losses(), Arriving()

    @property
    def state(self) -> str:
        """new, connecting, connected, failed or closed."""
        return self._pc.connectionState

    @property
    def path(self) -> str:
        """direct, relayed, or "" while there is none."""
        return ice.path_of(self._connection) if self._connection else ""

    @property
    def silent_s(self) -> float:
        """Since anything came from the viewer."""
        return time.monotonic() - self._heard_at

    @property
    def missing_s(self) -> float:
        """For how long nothing of the video has arrived at the viewer, as it says itself."""
        return self._arriving.missing_s

    @property
    def has_offer(self) -> bool:
        """Whether the viewer's offer has been taken."""
        return self._offer is not None

    def on_state(self, changed: Callable[[], None]) -> None:
        """Call this at each change of `state`."""
        self._pc.on("connectionstatechange", changed)

    async def answer(self, sdp: str, codecs: Sequence[str], profile: str, voice: str = "") -> None:
        """Take an offer and say the answer. `codecs`: of the stream; `voice`: in which one can speak to it, "" where
        nobody can. Raises Refused; the session is over then."""
        parsed = offer.read(sdp)
        if self._offer is not None:
            if parsed.sdp != self._offer.sdp:
                raise Refused("a session has one offer; watch again for another")
            self._say_answer()  # the first one was lost on its way
            return
        self._offer = parsed
        video, audio = offer.video_for(parsed), offer.audio_for(parsed, codecs)
        if audio:
            self._kinds.append("audio")
        self.takes = [video, audio] if audio else [video]
        self.voice = voice if voice in parsed.speaks else ""
        offer.limit_codecs(parsed, profile)
        try:
            await self._negotiate(parsed, audio)
        except Exception as error:  # aiortc raises whatever comes to it, and the offer is a stranger's
            raise Refused(f"the offer can't be answered: {type(error).__name__}: {error}") from None
        self._say_answer()
        self._begin(self._gather())
        for line in parsed.candidates:
            self.add_candidate({"candidate": line})
        for candidate in self._early:
            self.add_candidate(candidate)

    def add_candidate(self, candidate: Json | None) -> None:
        """Take one of the viewer's candidates; None, the last, says nothing to us (ice.py)."""
        if not candidate or not candidate.get("candidate"):
            return
        taken = self._taken if self._connection else self._early
        if len(taken) >= offer.MAX_CANDIDATES:
            self.refused_candidates += 1
            return
        taken.append(candidate)
        try:
            if self._connection:
                self._begin(ice.add_remote(self._connection, str(candidate["candidate"])))
        except (ValueError, IndexError):
            self.refused_candidates += 1

    def sent(self, sent: Sent) -> None:
        """What the leader has sent so far."""
        before = self._handover.sent.get(sent.kind)
        self._handover.take(sent)
        if sent.kind == "video" and before:
            self.rate.sent(sent.octets - before.octets, time.monotonic())
            self._arriving.sent(sent.packets)

    async def stats(self) -> dict[str, float]:
        """Figures of the video, for whoever looks after us."""
        sent = self._handover.sent.get("video")
        found: dict[str, float] = {
            "pictures": sent.units if sent else 0,
            "dropped": sent.dropped if sent else 0,
            "candidates_refused": self.refused_candidates,
            "bits_per_s": round(self.rate.sent_bits),
            "asked_bits_per_s": self.rate.limit or 0,
        }
        if sent:
            found["packets_again"] = sent.again
        for sender in self._senders[:1]:
            for each in (await sender.getStats()).values():
                if each.type == "outbound-rtp":
                    found |= {"packets": each.packetsSent, "bytes": each.bytesSent}
                elif each.type == "remote-inbound-rtp":
                    found |= {"packets_lost": each.packetsLost, "loss": self._losses.fraction}
                    found |= {"round_trip_ms": each.roundTripTime * 1000} if each.roundTripTime else {}
        return found

    async def close(self) -> None:
        """Tell the viewer and the TURN server that it is over. Nothing depends on it."""
        await self._pc.close()

    async def _negotiate(self, parsed: offer.Offer, audio: str) -> None:
        for kind in self._kinds:
            sender = self._pc.addTrack(Nothing(kind))
            self._handover.add(sender)
            self._senders.append(sender)
        await self._pc.setRemoteDescription(RTCSessionDescription(parsed.sdp, "offer"))
        if self._pc.sctp:  # it is answered, since a section can't be left out, and then never begun
            self._pc.sctp.start = _never  # type: ignore[method-assign, assignment]
        for transceiver in self._pc.getTransceivers():
            ours = transceiver.sender in self._senders
            transceiver.direction = "sendonly" if ours else "inactive"
            if transceiver.kind == "audio" and ours:
                _limit(transceiver, audio)
            elif self.voice and transceiver.mid == parsed.voice and not ours:
                transceiver.direction = "recvonly"
                _limit(transceiver, self.voice)
                if transceiver._bundled:  # with a transport that is not used any more: so aiortc leaves it
                    transceiver.receiver.setTransport(self._senders[-1].transport)
                    transceiver.sender.setTransport(self._senders[-1].transport)
                transceiver.receiver._handle_rtp_packet = self._spoken  # type: ignore[method-assign]
        self._connection = connection = self._senders[0].transport.transport.iceGatherer._connection
        for transceiver in self._pc.getTransceivers():  # more than one only where the viewer can't bundle
            ice.prepare(transceiver.receiver.transport.transport.iceGatherer._connection, self._udp_range)
        ice.on_sign(connection, self._heard)
        nomination.follow(connection)
        nomination.keep_the_best(connection)
        video = self._senders[0]
        take = video._handle_rtcp_packet
        video._handle_rtcp_packet = functools.partial(self._feedback, take)  # type: ignore[method-assign]
        await self._pc.setLocalDescription()

    async def _spoken(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        """In the place of RTCRtpReceiver._handle_rtp_packet, which would decode it."""
        self._hears(Piece(packet.sequence_number, packet.timestamp, packet.payload))

    def _say_answer(self) -> None:
        # Ours are not all in it: what STUN and TURN add is still to come.
        lines = [line for line in self._pc.localDescription.sdp.splitlines() if line != "a=end-of-candidates"]
        self._say("signal_answer", {"sdp": {"type": "answer", "sdp": "\r\n".join(lines) + "\r\n"}})

    async def _gather(self) -> None:
        assert self._connection and self._offer
        mid = self._offer.mid

        def found(candidate: Candidate) -> None:
            text = f"candidate:{candidate.to_sdp()}"
            self._say("signal_ice", {"candidate": {"candidate": text, "sdpMid": mid, "sdpMLineIndex": 0}})

        await ice_servers.gather_more(self._connection, self._servers, found)
        self._say("signal_ice", {"candidate": None})

    async def _feedback(self, take: Callable[[AnyRtcpPacket], Any], packet: AnyRtcpPacket) -> None:
        """RTCP about the video: aiortc asks its encoder for keyframes and rates, and we have none."""
        now = time.monotonic()
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
            self._wants_keyframe()
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            try:
                bits, _ = unpack_remb_fci(packet.fci)
            except ValueError:
                return
            self._want(self.rate.estimated(bits, now))
        elif isinstance(packet, RtcpRrPacket):
            for report in packet.reports:
                if report.ssrc == self._senders[0]._ssrc:
                    self._arriving.reported(report.highest_sequence, now)
                    lost = self._losses.reported(report.highest_sequence, report.packets_lost, now)
                    self._want(None if lost is None else self.rate.reported(lost, now))
        await take(packet)

    def _want(self, bits_per_s: int | None) -> None:
        if bits_per_s:
            self._wants_rate(bits_per_s)

    def _heard(self) -> None:
        self._heard_at = time.monotonic()

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.warning("ICE", why=f"{type(error).__name__}: {error}")


def _limit(transceiver: RTCRtpTransceiver, codec: str) -> None:
    """Have it answer with this codec alone."""
    transceiver._codecs = [each for each in transceiver._codecs if each.name.lower() == codec]


async def _never(*_: object) -> None:
    """In the place of the start of data channels: what a viewer would send there is for nobody, and has no bounds."""
