"""Whatever go2rtc, or who is at its port, says: our RTSP client hands packets on or ends the connection, in bounds."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs.errors import LinkLost
from procs.webrtc_peer import rtsp

MAX_CUTS = 300  # each is a call
PIECE = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        (b"$\0\0\x04abcd", b"$\1\0\x01x", b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n", b"CSeq: \xc2\xb2\r\n\r\n")
    ),
    st.sampled_from(("RTSP/1.0 {}", "RTSP/1.0 200 OK\r\nCSeq: {}", "RTSP/1.0 200 OK\r\nContent-Length: {}")).map(
        lambda text: text.format("9" * 4400).encode() + b"\r\n\r\n"
    ),
    st.integers(-9, 10**7).map(lambda size: f"RTSP/1.0 200\r\nCSeq: 1\r\nContent-Length: {size}\r\n\r\n".encode()),
)


@given(st.lists(PIECE, max_size=10), st.integers(1, 5_000))
def test_any_bytes_in_any_pieces(pieces: list[bytes], cut: int) -> None:
    async def main() -> None:
        connection = rtsp.Connection()
        connection.hand(lambda packet: None)
        data = b"".join(pieces)[: cut * MAX_CUTS]
        for at in range(0, len(data), cut):
            connection.data_received(data[at : at + cut])
        assert len(connection._rest) <= max(rtsp.MAX_ANSWER, 65_539) + cut
        connection.connection_lost(None)
        assert isinstance(connection.over.exception(), LinkLost)

    asyncio.run(main())


@pytest.mark.parametrize("rtpmap", ["96 H264/" + "9" * 5000, "9" * 5000 + " H264/90000", "96 H264/0", "96 H264/x"])
def test_a_number_that_is_none_is_no_track(rtpmap: str) -> None:
    """An error here would be the end of every viewer's session, since nobody foresees it."""
    assert rtsp.described(f"m=video 0 RTP/AVP 96\r\na=rtpmap:{rtpmap}\r\na=control:x\r\n", "rtsp://x") == []


@given(st.text(max_size=400))
def test_any_description(text: str) -> None:
    for track in rtsp.described("m=video 0 RTP/AVP 96\r\n" + text, "rtsp://x"):
        assert track.kind in ("video", "audio") and track.control
