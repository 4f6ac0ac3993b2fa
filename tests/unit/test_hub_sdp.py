"""What the hub reads and writes of SDP, for players that speak WHEP."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs.errors import Refused
from procs.hub.viewers import sdp
from procs.webrtc_peer import offer as device
from procs.wire.webrtc import Candidate

HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
AUDIO = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:abcd\r\na=mid:0\r\na=recvonly\r\n"
VIDEO = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=ice-ufrag:abcd\r\na=mid:1\r\na=recvonly\r\n"
HOST = "candidate:1 1 udp 2130706431 192.168.1.7 49152 typ host"
RELAY = "candidate:2 1 udp 1 203.0.113.9 50000 typ relay raddr 0.0.0.0 rport 0"


def test_who_may_only_look_is_not_heard() -> None:
    voice = AUDIO.replace("recvonly", "sendonly")
    assert sdp.silenced(HEAD + VIDEO + AUDIO + voice) == HEAD + VIDEO + AUDIO + AUDIO.replace("recvonly", "inactive")
    both = VIDEO.replace("recvonly", "sendrecv") + AUDIO.replace("a=recvonly\r\n", "").replace("\r\n", "\n")
    muted = sdp.silenced(HEAD + both)
    assert muted.count("a=recvonly") == 2 and "sendrecv" not in muted
    assert [line for line in muted.split("\r\n") if "ice" in line] == ["a=ice-ufrag:abcd"] * 2
    sdp.silenced("")


CODECS = {"m=audio": "a=rtpmap:111 opus/48000/2\r\n", "m=video": "a=rtpmap:96 VP8/90000\r\n"}


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
@pytest.mark.parametrize("said", ["a=sendonly", "a=sendonly:", "a=sendonly:1", "a=sendrecv", "a=sendonly\t", "a=mid:2"])
def test_no_writing_of_an_offer_is_heard_by_a_device_that_reads_it_otherwise(said: str, end: str) -> None:
    voice = AUDIO.replace("mid:0", "mid:2") + CODECS["m=audio"]
    for hidden in (voice.replace("a=recvonly", said), voice.replace("a=recvonly", f"a=recvonly{end}{said}")):
        offer = HEAD + VIDEO + CODECS["m=video"] + "a=note" + end + hidden.replace("\r\n", end)
        heard = device.read(sdp.silenced(offer))
        assert not heard.voice and not heard.speaks


def test_an_offer_has_to_take_video() -> None:
    sdp.check_offer(HEAD + AUDIO + VIDEO)
    sdp.check_offer((HEAD + VIDEO.replace("recvonly", "sendrecv")).replace("\r\n", "\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no SDP"),
        ("hello", "no SDP"),
        ("<html>", "no SDP"),
        (HEAD + AUDIO, "no video"),
        (HEAD + VIDEO.replace("recvonly", "sendonly"), "takes no video"),
        (HEAD + VIDEO.replace("recvonly", "inactive"), "takes no video"),
        (HEAD + VIDEO + "a=" + "x" * 2000, "too long"),
        (HEAD + VIDEO + "a=\0", "not printable"),
    ],
)
def test_an_offer_by_which_nothing_can_be_seen(text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        sdp.check_offer(text)


def test_candidates_stand_where_they_belong() -> None:
    found = [Candidate(HOST, "1"), Candidate(RELAY, None, 0), Candidate(HOST, "1"), Candidate("nonsense", "0")]
    text = sdp.with_candidates(HEAD + AUDIO + VIDEO, [*found, Candidate(HOST, "7", 9)], is_all=True)
    end = "a=end-of-candidates\r\n"
    assert text == f"{HEAD}{AUDIO}a={RELAY}\r\n{end}{VIDEO}a={HOST}\r\n{end}"
    assert "end-of" not in sdp.with_candidates(HEAD + VIDEO, found[:1], is_all=False)


def test_a_candidate_can_say_nothing_else() -> None:
    bad = Candidate(f"{HOST}\r\na=sendonly", "1")
    assert sdp.with_candidates(HEAD + VIDEO, [bad], is_all=False) == HEAD + VIDEO


def test_a_fragment() -> None:
    text = f"a=ice-ufrag:abcd\r\na=ice-pwd:x\r\nm=video 9 RTP/AVP 0\r\na=mid:1\r\na={HOST}\r\na={RELAY}\r\n"
    name, candidates, is_all = sdp.fragment(text)
    assert (name, is_all) == ("abcd", False) and sdp.ufrag(HEAD + VIDEO) == name
    assert [(each.candidate, each.sdp_mid) for each in candidates] == [(HOST, "1"), (RELAY, "1")]
    assert candidates[0].sdp_m_line_index is None and candidates[0].username_fragment == "abcd"
    assert sdp.fragment(f"a={HOST}\na=end-of-candidates\n")[1:] == ([Candidate(HOST, None, 0, None)], True)


def test_a_fragment_has_limits() -> None:
    with pytest.raises(Refused, match="more than 64"):
        sdp.fragment(f"a={HOST}\n" * 65)
    with pytest.raises(Refused, match="no SDP"):
        sdp.fragment("{}")


@given(text=st.text(), lines=st.lists(st.sampled_from([HEAD, AUDIO, VIDEO, f"a={HOST}\n", "a=mid:\n", "m=\n", "a="])))
def test_any_text_is_read_or_refused(text: str, lines: list[str]) -> None:
    for each in (text, "".join(lines), "".join(lines) + text):
        for read in (sdp.check_offer, sdp.fragment, sdp.ufrag):
            with contextlib.suppress(Refused):
                read(each)
