"""FLV: what libavformat writes comes out as the units that went in, in pieces of any size; damage is refused."""

from __future__ import annotations

import io

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs.errors import Refused
from procs.headless_agent.libav import X264
from procs.headless_agent.options import Producer
from procs.media import annexb, flv

FRAMES = 25


def coded() -> tuple[list[bytes], bytes]:
    """Access units of x264, and the same muxed to FLV by libavformat."""
    chosen = Producer(width=64, height=48, fps=25, gop=10, bitrate=200_000)
    encoder = X264(chosen, "nv12")
    file = io.BytesIO()
    units = []
    with av.open(file, "w", format="flv") as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 10
        for index in range(FRAMES):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                memoryview(plane)[:] = bytes([index * 9 % 256]) * plane.buffer_size
            frame.pts = index
            for packet in stream.encode(frame):
                units.append(bytes(packet))
                container.mux(packet)
    assert encoder.name == "x264"
    return units, file.getvalue()


UNITS, FLV = coded()


def nals_of(avcc: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(avcc):
        size = int.from_bytes(avcc[at : at + 4], "big")
        found.append(avcc[at + 4 : at + 4 + size])
        at += 4 + size
    return found


@given(st.integers(1, 5000))
def test_every_unit_comes_out_as_it_went_in(piece: int) -> None:
    demuxer, found = flv.Demuxer(), []
    for at in range(0, len(FLV), piece):
        found += demuxer.push(FLV[at : at + piece])
    assert len(found) == FRAMES
    for (data, is_keyframe), packet, index in zip(found, UNITS, range(FRAMES), strict=True):
        assert is_keyframe == (index % 10 == 0) == annexb.is_keyframe(data)
        nals = annexb.split(data)
        if is_keyframe:
            assert [annexb.nal_type(nal) for nal in nals[:2]] == [annexb.SPS, annexb.PPS]
            nals = nals[2:]
        raw = annexb.split(packet) if packet.startswith((annexb.START_3, annexb.START_4)) else nals_of(packet)
        assert nals == [nal for nal in raw if annexb.nal_type(nal) not in (annexb.SPS, annexb.PPS)]


def test_a_unit_is_there_with_its_last_byte() -> None:
    whole = flv.Demuxer().push(FLV)
    demuxer, came = flv.Demuxer(), []
    for at in range(len(FLV)):
        came += [at] * len(demuxer.push(FLV[at : at + 1]))
    assert len(came) == len(whole)
    assert came[-1] < len(FLV), "no later tag is waited for"
    assert came == sorted(set(came))


def test_what_is_no_flv_is_refused() -> None:
    for data in (b"GLV", b"\0\0\0\1\x67", b"ffmpeg version"):
        with pytest.raises(Refused, match="not FLV"):
            flv.Demuxer().push(data)
    head = FLV[:13]
    for body, said in (
        (b"\x12\1\0\0\0abc", "not H.264"),  # another codec
        (b"\x17", "not H.264"),
        (b"\x17\0\0\0\0\1B", "no AVCDecoderConfigurationRecord"),
        (b"\x17\0\0\0\0\1B\xc0\x20\xff\xe1\0", "cut short|longer"),
        (b"\x27\1\0\0\0\0\0\0\x09ab", "longer than its picture"),
        (b"\x27\1\0\0\0", "without NAL units"),
    ):
        tag = b"\x09" + len(body).to_bytes(3, "big") + bytes(7) + body + bytes(4)
        with pytest.raises(Refused, match=said):
            flv.Demuxer().push(head + tag)


def test_new_parameter_sets_take_the_place_of_old_ones() -> None:
    def tag(body: bytes, kind: int = 9) -> bytes:
        return bytes((kind,)) + len(body).to_bytes(3, "big") + bytes(7) + body + bytes(4)

    def record(sps: bytes) -> bytes:
        return b"\x17\0\0\0\0\1B\xc0\x20\xff\xe1\0" + bytes((len(sps),)) + sps + b"\1\0\3\x68ab"

    picture = b"\x17\1\0\0\0\0\0\0\3\x65xy"
    demuxer = flv.Demuxer()
    units = demuxer.push(FLV[:13] + tag(record(b"gA")) + tag(picture) + tag(record(b"gBC")) + tag(picture, 0x29))
    assert [annexb.split(data)[0] for data, _ in units] == [b"gA", b"gBC"], "and a tag's filter bit is no other kind"


@given(st.binary(max_size=300), st.integers(0, len(FLV) - 1))
def test_damage_is_refused_or_read_and_nothing_else(noise: bytes, at: int) -> None:
    demuxer = flv.Demuxer()
    try:
        demuxer.push(FLV[:at])
        demuxer.push(noise)
        demuxer.push(FLV[at:])
    except Refused:
        pass
