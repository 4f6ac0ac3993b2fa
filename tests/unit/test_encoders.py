"""What is encoded anew: by one for all who need it, in step with the stream's clock, and again when it has died."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator

import av
import pytest

from procs.errors import Refused
from procs.headless_agent import audio
from procs.media import aac, vp8
from procs.messages import decode
from procs.messages.watch import EncoderSpec, Encoding, Unit
from procs.webrtc_peer import codecs, encoders
from procs.webrtc_peer.encode_sound import PIECE_US, Sound
from procs.webrtc_peer.encoders import Encoders

START_US = 9_000_000
RATE = 44_100  # not that of Opus


@pytest.fixture(scope="module")
def adts() -> list[bytes]:
    """Two seconds of a tone, as packets of RTP bring them."""
    encoder = av.CodecContext.create("aac", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "stereo", "fltp"
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE, frame_size=aac.SAMPLES)
    sound = itertools.islice(audio.tone(), 100)
    frames = [bytes(p) for block in sound for piece in resampler.resample(block) for p in encoder.encode(piece)]
    framer = aac.Framer(bytes(encoder.extradata or b""))
    packets = [_packet(frames[at : at + 3]) for at in range(0, len(frames), 3)]
    return [frame for packet in packets for frame in framer.frames(packet)]


def _packet(frames: list[bytes]) -> bytes:
    heads = b"".join((len(frame) << 3).to_bytes(2, "big") for frame in frames)
    return (8 * len(heads)).to_bytes(2, "big") + heads + b"".join(frames)


def units(adts: list[bytes], at_us: int = START_US) -> list[tuple[Unit, bytes]]:
    return [
        (Unit("audio", "aac", at, at_us + at * aac.SAMPLES * 1_000_000 // RATE), frame) for at, frame in enumerate(adts)
    ]


def loudest(pieces: Iterator[tuple[Unit, bytes]]) -> list[int]:
    """Of each piece of G.711."""
    decoder = av.CodecContext.create("pcm_alaw", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout = 8000, "mono"
    frames = [frame for _, data in pieces for frame in decoder.decode(av.Packet(data))]
    return [max(map(abs, array("h", bytes(frame.planes[0])))) for frame in frames]


def test_aac_becomes_opus_in_step_with_the_stream(adts: list[bytes]) -> None:
    sound = Sound("opus")
    made = list(sound.put(units(adts)))
    assert {unit.codec for unit, _ in made} == {"opus"} and sound.skipped == 0
    times = [unit.time_us for unit, _ in made]
    assert times == [START_US + at * PIECE_US for at in range(len(made))]
    assert abs(times[-1] - units(adts)[-1][0].time_us) < 3 * PIECE_US
    back = loudest(Sound("pcma").put(made))
    assert len(back) > 80 and all(2500 < each < 4500 for each in back[5:]), "a tone of a tenth of full scale"


def test_a_frame_that_has_its_header_already_is_left_alone(adts: list[bytes]) -> None:
    assert list(aac.Framer(bytes.fromhex("1210")).frames(_packet(adts[:3]))) == adts[:3]


def test_sound_that_can_not_be_decoded_or_jumps_costs_only_itself(adts: list[bytes]) -> None:
    sound = Sound("opus")
    first = list(sound.put([*units(adts[:20]), (Unit("audio", "aac", 1, START_US + 500_000), b"no AAC at all")]))
    later = list(sound.put(units(adts, START_US + 3_000_000)))
    assert sound.skipped == 1 and len(first) > 15
    assert later[0][0].time_us == START_US + 3_000_000 and len(later) > 80


@pytest.mark.parametrize("payload", [b"", b"\x00\x10", b"\x00\x10\x00\x00", b"\x00\x10\xff\xff" + bytes(90)])
def test_a_packet_that_is_no_aac_is_refused(payload: bytes) -> None:
    if payload:
        with pytest.raises(Refused):
            list(aac.Framer(bytes.fromhex("1210")).frames(payload))
    else:
        with pytest.raises(Refused):
            aac.Framer(payload)


def test_vp8_is_cut_to_size_and_says_where_a_picture_begins() -> None:
    found = vp8.payloads(bytes(2500), 1200, 0x12345)
    assert [len(each) for each in found] == [1200, 1200, 2500 - 2 * 1196 + 4]
    assert [each[:4].hex() for each in found] == ["9080a345", "8080a345", "8080a345"]


def test_what_a_viewer_takes_decides_what_is_made() -> None:
    for stream, takes, made in (
        (["h264", "aac"], {"h264", "opus"}, ["opus"]),
        (["h264", "opus"], {"h264", "opus"}, []),
        (["h264", "pcma"], {"vp8", "pcma"}, ["vp8"]),
        (["h264"], {"h264", "opus"}, []),
        ([], {"h264", "opus"}, []),
    ):
        assert codecs.to_make(stream, takes) == made


class Rig:
    """Encoders, and what was done."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.all = Encoders(
            "/run",
            self,
            lambda encoder: self.done.append(("ready", encoder.name)),
            lambda encoder: self.done.append(("gone", encoder.name)),
        )

    def fork(self, child: str, spec: bytes) -> None:
        told = decode(spec, EncoderSpec)
        assert told.name == child
        self.done.append((f"fork {told.stream} {told.codec}", child))

    def kill(self, child: str) -> None:
        self.done.append(("kill", child))

    def told(self) -> list[tuple[str, str]]:
        done, self.done = self.done, []
        return done


def test_one_serves_all_and_goes_with_the_last() -> None:
    rig = Rig()
    for user in ("a", "b", "a"):
        assert rig.all.needs(user, "cam", ["opus"], 0.0) == []
    assert rig.told() == [("fork cam opus", "encoder 1")]
    rig.all.heard(Encoding("encoder 1", 7, 0, 0), 0.1)
    rig.all.left("a")
    assert rig.told() == [("ready", "encoder 1")]
    assert rig.all.needs("b", "cam", [], 0.2) == []
    assert rig.told() == [("kill", "encoder 1"), ("gone", "encoder 1")]
    rig.all.gone("encoder 1", "signal 9", 0.3)
    rig.all.tick(99.0)
    assert rig.told() == []


def test_one_that_dies_or_stands_still_comes_back_ever_less_soon() -> None:
    rig = Rig()
    rig.all.needs("a", "cam", ["vp8"], 0.0)
    rig.all.heard(Encoding("encoder 1", 7, 0, 0), 1.0)
    rig.all.tick(1.0 + encoders.SILENT_S)
    rig.told()
    rig.all.tick(1.1 + encoders.SILENT_S)
    assert rig.told() == [("kill", "encoder 1"), ("gone", "encoder 1"), ("fork cam vp8", "encoder 2")]
    rig.all.heard(Encoding("encoder 1", 7, 0, 0), 4.2)
    assert rig.told() == [], "it is not that any more"
    for at in range(2, 5):
        rig.all.gone(f"encoder {at}", "exit 1", 5.0)
    rig.told()
    rig.all.tick(5.1)
    assert rig.told() == [], "it waits now"
    rig.all.tick(5.0 + encoders.PAUSE_MAX_S)
    assert rig.told() == [("fork cam vp8", "encoder 5")]


def test_there_are_only_so_many() -> None:
    rig = Rig()
    for at in range(encoders.MAX_ENCODERS):
        assert rig.all.needs("a" * at or "b", f"cam{at}", ["opus"], 0.0) == []
    assert rig.all.needs("late", "cam", ["opus"], 0.0) == ["opus"]
    assert rig.all.needs("late", "cam0", ["opus"], 0.0) == [], "there is one for that"
