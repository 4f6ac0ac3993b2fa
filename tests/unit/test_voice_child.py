"""What a child does with frames and sound, without a network."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from procs.errors import Refused
from procs.media.ogg import OggReader
from procs.media.opus import Encoder, Samples
from procs.media.opuspackets import packet_samples
from procs.voice.child.far_end import MAX_LOST, FarEnd, Frame, Heard, Wrong
from procs.voice.child.figures import MOST, Figures
from procs.voice.child.kept import MOST as MOST_STEPS
from procs.voice.child.kept import PRE_ROLL, Kept
from procs.voice.child.sound import Microphone, Speaker
from procs.wire import moshi
from procs.wire import realtime as wire
from procs.wire.audio_frame import AudioFrame, pack_audio, parse_audio
from tests.realtime_backend import decoded, is_in, pieces, tone

PACKETS = Encoder(frame_ms=20).encode(tone(1.0))


def ours() -> FarEnd:
    return FarEnd(ours=True, browser=False, serial=1)


def published(*, browser: bool = False) -> FarEnd:
    return FarEnd(ours=False, browser=browser, serial=1)


def append(ogg: bytes) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(ogg).decode()})


def frames(packets: list[bytes], timestamps: list[int]) -> list[bytes]:
    return [
        pack_audio(AudioFrame(packet, seq, timestamp))
        for seq, (packet, timestamp) in enumerate(zip(packets, timestamps, strict=True))
    ]


@pytest.mark.parametrize(
    ("timestamps", "lost"),
    [
        ([0, 480, 960], [0, 0, 0]),
        ([7000, 7480, 8920], [0, 0, 960]),
        ([2**32 - 480, 0, 480], [0, 0, 0]),
        ([0, 480 + MAX_LOST + 1, 960 + MAX_LOST + 1], [0, 0, 0]),  # begun anew
        ([480, 0, 480], [0, 0, 0]),  # back: begun anew
    ],
)
def test_a_packet_of_ours_says_what_was_lost_before_it(timestamps: list[int], lost: list[int]) -> None:
    far = ours()
    took = [each for frame in frames(PACKETS[:3], timestamps) for each in far.received(frame)]
    assert took == [Heard(packet, gap) for packet, gap in zip(PACKETS, lost, strict=False)]


def heard(far: FarEnd, ogg: list[bytes]) -> list[bytes]:
    return [each.packet for page in ogg for each in far.received(append(page)) if isinstance(each, Heard)]


def test_a_published_device_is_heard_through_garbage_and_from_the_middle() -> None:
    whole = list(pieces(tone(1.0)))
    count = len(heard(published(), whole))
    assert count >= 50
    far = published()
    first = heard(far, whole[:5])
    (wrong,) = far.received(append(b"garbage" * 30))
    assert isinstance(wrong, Wrong) and "not all of it" in wrong.why
    assert len(first) + len(heard(far, whole[5:])) == count
    assert len(heard(published(), whole[5:])) == count - len(first)


def test_a_browser_is_heard_from_the_beginning_of_a_stream_only() -> None:
    whole = list(pieces(tone(1.0)))
    far = published(browser=True)
    assert heard(far, whole[5:]) == []
    assert len(heard(far, whole)) >= 50


@pytest.mark.parametrize(
    "frame",
    ["no JSON", '{"type":"session.update"}', '{"type":"nobody.knows"}', '{"type":"input_audio_buffer.append"}',
     b"", b"\1\0", b"\2\0\0\0\0\0\0\0\0\0", "[" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("far", [ours(), published(), published(browser=True)])
def test_rubbish_is_refused_with_a_reason(far: FarEnd, frame: Frame) -> None:
    (took,) = far.received(frame)
    assert isinstance(took, Wrong) and took.why


def test_what_only_ours_know_is_said_to_ours_only() -> None:
    for event in (wire.Pause(), wire.Resume(), wire.Flush(), wire.Mute(muted=True)):
        assert ours().event(event) and not published().event(event)
    assert published().event(wire.SpeechStarted())


def test_sound_goes_to_ours_a_packet_a_frame_with_its_place() -> None:
    far = ours()
    told = [parse_audio(frame) for frame in far.sound(PACKETS[:2], first=True) if isinstance(frame, bytes)]
    told += [parse_audio(frame) for frame in far.sound(PACKETS[2:3], first=True) if isinstance(frame, bytes)]
    assert [(its.seq, its.timestamp, its.first) for its in told] == [(0, 0, True), (1, 480, False), (2, 960, True)]
    assert [its.packet for its in told] == PACKETS[:3]


def test_sound_goes_to_others_two_packets_a_page_and_the_rest_is_not_forgotten() -> None:
    far = published()
    pages = far.sound(PACKETS[:5], first=True)
    assert len(pages) == 2
    pages += far.rest()
    assert far.rest() == []
    events = [wire.decode(page, wire.FROM_BACKEND) for page in pages]
    reader = OggReader()
    got = [its.packet for event in events if isinstance(event, wire.AudioDelta) for its in reader.feed(event.delta)]
    assert got == PACKETS[:5]
    far.sound(PACKETS[:1], first=False)
    far.drop()
    assert far.rest() == []


def test_what_was_lost_is_filled_with_as_much() -> None:
    microphone = Microphone()
    for packet in PACKETS[:10]:
        assert len(microphone.decode(packet, 0)) == packet_samples(packet)
    filled = microphone.decode(PACKETS[12], 960)
    assert len(filled) == 960 + 480 and np.abs(filled[:480]).max() > 1000  # the tone goes on
    with pytest.raises(Refused):
        microphone.decode(b"", 0)
    assert len(microphone.decode(PACKETS[13], 0)) == 480


def test_what_is_said_is_heard_to_its_last_sample() -> None:
    speaker, far = Speaker(), published()
    sound = tone(0.507)
    pages = far.sound(speaker.encode(sound), first=True) + far.sound(speaker.end(), first=False) + far.rest()
    ogg = b"".join(base64.b64decode(json.loads(page)["delta"]) for page in pages)
    out = decoded(ogg)
    assert len(sound) <= len(out) <= len(sound) + 2 * 480 and is_in(out)
    speaker.encode(sound[:100])
    speaker.drop()
    assert speaker.end() == []


def steps(count: int) -> Samples:
    return np.repeat(np.arange(count, dtype=np.int16), moshi.STEP)


def test_half_a_second_is_kept_while_nobody_speaks_and_all_while_somebody_does() -> None:
    kept = Kept()
    assert kept.add(steps(20), all_wanted=False)
    assert (kept.first, kept.end) == (20 - PRE_ROLL, 20) and kept.at(15)[0] == 15
    assert not kept.add(steps(1)[:100], all_wanted=True)
    assert kept.add(steps(50), all_wanted=True)
    assert (kept.first, kept.end) == (20 - PRE_ROLL, 70)
    kept.settle(65)
    assert kept.first == 65
    kept.add(steps(MOST_STEPS + 10), all_wanted=True)
    assert kept.end - kept.first == MOST_STEPS


def test_pieces_of_any_length_become_steps() -> None:
    kept, sound = Kept(), np.arange(5 * moshi.STEP, dtype=np.int16)
    for at in range(0, len(sound), 333):
        kept.add(sound[at : at + 333], all_wanted=True)
    assert np.array_equal(np.concatenate([kept.at(step) for step in range(5)]), sound)


def test_figures_nobody_takes_do_not_grow_for_ever() -> None:
    figures = Figures()
    for number in range(3 * MOST):
        figures.add("a", number)
    assert len(figures.take()) <= MOST and figures.take() == []
    with figures.while_active("b"):
        assert figures.take() == [("b", 1.0)]
    assert figures.take() == [("b", -1.0)]
