"""A viewer's offer: what of it counts for us, and which codecs it gets. Pure but for aiortc's parser and codec table.

Promises: an offer that can't be answered is Refused in words that a person understands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aiortc import codecs, sdp
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters

from procs.errors import Refused
from procs.webrtc_peer.codecs import KINDS

MAX_SDP = 64 * 1024
MAX_CANDIDATES = 64
RECEIVES = ("recvonly", "sendrecv")
# Unless it offers the stream's own profile: first what every browser decodes. A higher profile under a lower name plays
# in all that were tried, since decoders read the parameter sets.
ORDER = ("42e0", "4200", "4d00", "6400", "640c")
AUDIO = {"opus": ("audio/opus", 48000, 2, 96), "pcma": ("audio/PCMA", 8000, 1, 8), "pcmu": ("audio/PCMU", 8000, 1, 0)}


class Offer(NamedTuple):
    """An offer without its candidates, which come one by one as those do that are sent later."""

    sdp: str
    candidates: list[str]  # a=candidate lines, whole
    mid: str  # of the first section, at which our own candidates are told
    profiles: list[str]  # of H.264 that the viewer takes, best first; none where it takes VP8 alone
    audio: set[str]  # of AUDIO, that it takes
    voice: str  # mid of the section by which it can speak; "" for none
    speaks: set[str]  # of AUDIO, there


def read(text: str) -> Offer:
    """Raises Refused."""
    if len(text) > MAX_SDP:
        raise Refused(f"an offer of {len(text)} characters is too long")
    lines = text.splitlines()
    candidates = [line for line in lines if line.startswith("a=candidate:")]
    kept = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
    cleaned = "\r\n".join(kept) + "\r\n"
    try:
        parsed = sdp.SessionDescription.parse(cleaned)
        sections = [each for each in parsed.media if each.direction in RECEIVES]
    except Exception as error:  # aiortc's parser raises whatever comes to it
        raise Refused(f"the offer is no SDP that we understand: {type(error).__name__}: {error}") from None
    videos = [each for each in sections if each.kind == "video"]
    if not videos:
        raise Refused("the offer has no video that we could send: it needs a video section, recvonly or sendrecv")
    profiles = _profiles(videos[0].rtp.codecs)
    if not profiles and not any(codec.name.lower() == "vp8" for codec in videos[0].rtp.codecs):
        raise Refused("the viewer takes neither H.264 with packetization-mode=1 nor VP8")
    heard = {c.name.lower() for each in sections if each.kind == "audio" for c in each.rtp.codecs}
    voice = next((each for each in parsed.media if each.kind == "audio" and each.direction == "sendonly"), None)
    return Offer(
        cleaned,
        candidates[:MAX_CANDIDATES],
        parsed.media[0].rtp.muxId,
        profiles,
        heard & set(AUDIO),
        voice.rtp.muxId if voice else "",
        {c.name.lower() for c in voice.rtp.codecs} & set(AUDIO) if voice else set(),
    )


def limit_codecs(offer: Offer, video: str) -> None:
    """Have aiortc's table, which is of this whole process, hold what this session sends: H.264 named as the viewer
    named it (`video`: the stream's own profile, "" if unknown), or VP8; and of sound whatever may be agreed on."""
    feedback = [RTCRtcpFeedback("nack"), RTCRtcpFeedback("nack", "pli"), RTCRtcpFeedback("goog-remb")]
    name, named = "video/VP8", {}
    if offer.profiles:
        profile = next((each for each in offer.profiles if each[:4] == video[:4]), offer.profiles[0])
        named = {"level-asymmetry-allowed": "1", "packetization-mode": "1", "profile-level-id": profile}
        name = "video/H264"
    codecs.CODECS["video"] = [
        RTCRtpCodecParameters(name, 90000, payloadType=97, rtcpFeedback=feedback, parameters=dict(named)),
        RTCRtpCodecParameters("video/rtx", 90000, payloadType=98, parameters={"apt": 97}),
    ]
    codecs.CODECS["audio"] = [RTCRtpCodecParameters(*each) for each in AUDIO.values()]


def video_for(offer: Offer) -> str:
    """The video codec that the viewer gets: the stream's own wherever it takes that."""
    return "h264" if offer.profiles else "vp8"


def audio_for(offer: Offer, stream: Sequence[str]) -> str:
    """The audio codec that the viewer gets: the stream's own, or else one that is made of it; "" for none. A stream of
    which nothing is known yet may have sound."""
    sounds = [each for each in stream if KINDS.get(each) == "audio"]
    return next((each for each in [*sounds, *AUDIO] if each in offer.audio), "") if sounds or not stream else ""


def _profiles(offered: list[RTCRtpCodecParameters]) -> list[str]:
    found = []
    for codec in offered:
        named = str(codec.parameters.get("profile-level-id", "42e01f")).lower()
        if codec.name.lower() != "h264" or str(codec.parameters.get("packetization-mode", "0")) != "1":
            continue
        try:
            sdp.parse_h264_profile_level_id(named)
        except ValueError:
            continue
        found.append(named)
    return sorted(found, key=lambda each: ORDER.index(each[:4]) if each[:4] in ORDER else len(ORDER))
