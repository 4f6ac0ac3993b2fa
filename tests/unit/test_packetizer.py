"""Access units to RTP payloads and back: aiortc's reader, and ours, find what went in."""

from __future__ import annotations

from aiortc.codecs.h264 import h264_depayload
from hypothesis import given
from hypothesis import strategies as st

from procs.media import annexb, depacketizer, packetizer
from procs.webrtc_peer.gate import _runs

SIZE = 1200

# No NAL unit ends in a zero byte or holds a start code.
NALS = st.lists(
    st.builds(
        lambda kind, size, byte: bytes((0x60 | kind,)) + bytes((byte,)) * size,
        st.sampled_from((1, 5, 6, 7, 8)),
        st.one_of(st.integers(1, 40), st.integers(1190, 1205), st.integers(1, 9000)),
        st.integers(4, 255),
    ),
    min_size=1,
    max_size=8,
)


@given(NALS)
def test_what_goes_in_comes_out(nals: list[bytes]) -> None:
    payloads = packetizer.payloads(annexb.join(nals), SIZE)
    assert max(map(len, payloads)) <= SIZE
    assert annexb.split(b"".join(map(h264_depayload, payloads))) == nals
    into = depacketizer.H264()
    units = [
        unit
        for at, payload in enumerate(payloads)
        for unit in into.push(depacketizer.Packet(96, at == len(payloads) - 1, at, 1, payload))
    ]
    if any(annexb.nal_type(nal) in (1, 5) for nal in nals):
        found = annexb.split(units[0].data)
        assert sorted(found) == sorted(nals)
    assert not into.refused and not into.lost


def test_fragments_are_of_one_size_and_small_units_travel_together() -> None:
    small, large = [b"\x67sps", b"\x68pps", b"\x06sei"], b"\x65" + b"i" * 5000
    aggregate, *fragments = packetizer.payloads(annexb.join([*small, large]), SIZE)
    assert aggregate[0] & 0x1F == 24
    assert {len(each) for each in fragments[:-1]} == {SIZE} and len(fragments[-1]) < SIZE


@given(st.lists(st.integers(1, 1300), max_size=200))
def test_the_kernel_gets_runs_of_one_size_in_order(sizes: list[int]) -> None:
    datagrams = [memoryview(bytes(size)) for size in sizes]
    runs = _runs(datagrams)
    assert [each for run in runs for each in run] == datagrams
    for run in runs:
        assert {len(each) for each in run[:-1]} <= {len(run[0])} and len(run[-1]) <= len(run[0])
