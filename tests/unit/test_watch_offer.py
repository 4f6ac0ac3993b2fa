"""What counts of a viewer's offer, and reasons that a person understands for those that can't be answered."""

from __future__ import annotations

import pytest
from aiortc import codecs
from hypothesis import given
from hypothesis import strategies as st

from procs.errors import Refused
from procs.webrtc_peer import offer

HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
ICE = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA:BB\r\na=setup:actpass\r\n"


def video(*formats: str, direction: str = "recvonly") -> str:
    """A section with these H.264 parameters, or with VP8 where one is "VP8"."""
    text = f"m=video 9 UDP/TLS/RTP/SAVPF {' '.join(str(100 + at) for at in range(len(formats)))}\r\n"
    text += f"c=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtcp-mux\r\na={direction}\r\n{ICE}"
    for at, each in enumerate(formats, start=100):
        text += f"a=rtpmap:{at} {'VP8' if each == 'VP8' else 'H264'}/90000\r\n"
        text += "" if each == "VP8" else f"a=fmtp:{at} {each}\r\n"
    return text


BASELINE = "packetization-mode=1;profile-level-id=42e01f"
MAIN = "packetization-mode=1;profile-level-id=4d001f"
HIGH = "packetization-mode=1;profile-level-id=640c1f"
AUDIO = (
    f"m=audio 9 UDP/TLS/RTP/SAVPF 111 8\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=rtcp-mux\r\na=recvonly\r\n{ICE}"
    "a=rtpmap:111 opus/48000/2\r\na=rtpmap:8 PCMA/8000\r\n"
)


@pytest.mark.parametrize(
    ("sdp", "why"),
    [
        ("", "no video"),
        (HEAD, "no video"),
        (HEAD + AUDIO, "no video"),
        (HEAD + video(BASELINE, direction="sendonly"), "no video"),
        (HEAD + video("packetization-mode=0;profile-level-id=42e01f"), "packetization-mode=1 nor VP8"),
        (HEAD + "m=video x\r\n", "no SDP"),
        ("a" * (offer.MAX_SDP + 1), "too long"),
    ],
)
def test_what_can_not_be_answered_is_refused_in_words(sdp: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        offer.read(sdp)


def test_candidates_come_out_of_it_and_their_number_is_bounded() -> None:
    line = "a=candidate:1 1 udp 1 192.0.2.9 {} typ host\r\n"
    many = "".join(line.format(1000 + at) for at in range(200))
    read = offer.read(HEAD + video(BASELINE) + many + "a=end-of-candidates\r\n")
    assert len(read.candidates) == offer.MAX_CANDIDATES
    assert "candidate" not in read.sdp and read.mid == "0"


def test_the_first_choice_is_what_every_browser_decodes_or_the_streams_own() -> None:
    read = offer.read(HEAD + video(HIGH, MAIN, "VP8", BASELINE) + AUDIO)
    assert read.profiles == ["42e01f", "4d001f", "640c1f"]
    for stream, chosen in (("", "42e01f"), ("42c020", "42e01f"), ("4d0029", "4d001f"), ("64001f", "42e01f")):
        offer.limit_codecs(read, stream)
        assert codecs.CODECS["video"][0].parameters["profile-level-id"] == chosen


def test_who_takes_no_h264_gets_vp8() -> None:
    read = offer.read(HEAD + video("VP8"))
    assert offer.video_for(read) == "vp8"
    offer.limit_codecs(read, "42e01f")
    assert [codec.mimeType for codec in codecs.CODECS["video"]] == ["video/VP8", "video/rtx"]
    assert offer.video_for(offer.read(HEAD + video("VP8", BASELINE))) == "h264", "which nobody has to make"


def test_sound_is_the_streams_own_or_else_made_of_it() -> None:
    read = offer.read(HEAD + video(BASELINE) + AUDIO)
    assert offer.audio_for(read, ["h264", "pcma"]) == "pcma"
    assert offer.audio_for(read, ["h264", "pcmu"]) == offer.audio_for(read, ["h264", "aac"]) == "opus"
    assert offer.audio_for(read, []) == "opus", "nobody knows yet"
    assert offer.audio_for(read, ["h264"]) == "" and offer.audio_for(offer.read(HEAD + video(BASELINE)), ["aac"]) == ""


@given(st.text(max_size=300))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    with pytest.raises(Refused):
        offer.read(HEAD + text)


@pytest.fixture(autouse=True)
def _table() -> object:
    """aiortc's table is of the whole process."""
    before = dict(codecs.CODECS)
    yield
    codecs.CODECS.update(before)
