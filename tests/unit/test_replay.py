"""A cached GOP for a late reader: the same pictures, at times that grow and fit in with what is shown."""

from __future__ import annotations

import io

import av
import pytest

from procs.capture.packetizer import Packetizer
from procs.capture.replay import hurried
from procs.capture.transport import Transport
from procs.headless_agent.libav import X264
from procs.headless_agent.options import Producer
from procs.media import tspackets

STEP, START = 3000, 1_000_000_000


class Grey:
    """A picture of nothing."""

    def frame(self) -> av.VideoFrame:
        return av.VideoFrame(64, 48, "nv12")


def gop(count: int) -> list[bytes]:
    """So many pictures as units of a capture."""
    encoder = X264(Producer(width=64, height=48, fps=30, gop=300, bitrate=200_000), "nv12")
    packetizer, units = Packetizer(), []
    for index in range(count):
        (unit,) = encoder.encode(Grey(), index, keyframe=False)
        units.append(packetizer.picture(unit.data, START + index * STEP, keyframe=unit.is_keyframe))
    return units


def times(units: list[bytes]) -> list[int]:
    with av.open(io.BytesIO(b"".join(units)), "r", format="mpegts") as container:
        return [packet.dts for packet in container.demux(video=0) if packet.dts is not None]


def references(units: list[bytes]) -> list[int]:
    data = b"".join(units)
    found = [at for at in range(0, len(data), 188) if tspackets.has_pcr(data, at)]
    return [int.from_bytes(data[at + 6 : at + 11], "big") >> 7 for at in found]


@pytest.mark.parametrize("count", [1, 2, 40])
def test_they_come_after_what_was_shown_and_before_what_is_to_come(count: int) -> None:
    units = gop(count)
    newest = START + (count - 1) * STEP
    moved = hurried(units)
    assert times(units) == [START + i * STEP for i in range(count)]
    assert times(moved) == [newest + 1 + i for i in range(count)]
    steps = [a - b for a, b in zip(times(moved), times(units), strict=True)]
    assert [a - b for a, b in zip(references(moved), references(units), strict=True)] == steps, "clocks move along"
    assert [len(unit) for unit in moved] == [len(unit) for unit in units]


def test_more_than_a_period_has_ticks_end_with_the_newest() -> None:
    packetizer = Packetizer()
    picture = b"\0\0\0\1\x65" + bytes(range(1, 60))
    units = [packetizer.picture(picture, START + 3 * i, keyframe=not i) for i in range(10)]
    assert times(hurried(units)) == [START + 27 - 9 + i for i in range(10)]


def test_pictures_that_are_shown_in_another_order_are_not_replayed() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(30):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                memoryview(plane)[:] = bytes([index * 8]) * plane.buffer_size
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    transport = Transport()
    units = [unit.data for unit in transport.push(file.getvalue(), 0) + transport.quiet(0) if unit.picture]
    assert len(units) == 30 and hurried(units) == []


def test_what_has_no_times_is_left_as_it_is() -> None:
    table = bytes((0x47, 0x40, 0, 0x10, 0)) + bytes(183)
    assert hurried([table]) == [table]
    assert hurried([]) == []
