"""Messages of the speech services, against bytes written here by hand and by the rules of msgpack."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
import pytest

from procs.errors import Refused
from procs.wire import moshi
from procs.wire.moshi import FROM_STT, FROM_TTS, TO_STT, TO_TTS, Side

PCM = np.array([0, 1, -1, 16384, 32767, -32768], np.int16)
FLOATS = [0.0, 1 / 32768, -1 / 32768, 0.5, 32767 / 32768, -1.0]
pack = msgspec.msgpack.encode


def test_sound_is_a_map_with_a_list_of_single_floats_as_large_as_was_measured_of_the_published_one() -> None:
    data = moshi.encode(moshi.Audio(PCM))
    singles = b"".join(b"\xca" + struct.pack(">f", each) for each in FLOATS)
    assert data == b"\x82\xa4type\xa5Audio\xa3pcm\xdd\0\0\0\6" + singles
    assert msgspec.msgpack.decode(data) == {"type": "Audio", "pcm": FLOATS}
    step = moshi.encode(moshi.Audio(np.zeros(moshi.STEP, np.int16)))
    assert len(step) in range(9_600, 9_640)


@pytest.mark.parametrize(
    "packed",
    [
        b"\x96" + b"".join(b"\xca" + struct.pack(">f", each) for each in FLOATS),
        b"\xdc\0\6" + b"".join(b"\xcb" + struct.pack(">d", each) for each in FLOATS),
        b"\x96\0" + b"".join(b"\xcb" + struct.pack(">d", each) for each in FLOATS[1:5]) + b"\xff",
        b"\x96" + b"".join(b"\xca" + struct.pack(">f", each) for each in [*FLOATS[:4], 7.5, -3e38]),
    ],
    ids=["single", "double", "mixed with whole numbers", "too loud"],
)
def test_all_kinds_of_numbers_are_read(packed: bytes) -> None:
    sound = moshi.decode(b"\x82\xa3pcm" + packed + b"\xa4type\xa5Audio", TO_STT)
    assert isinstance(sound, moshi.Audio) and sound.pcm.dtype == np.int16
    assert sound.pcm.tolist() == PCM.tolist()


def test_a_message_of_each_kind_is_read_as_written() -> None:
    said: list[tuple[Side[Any], Any]] = [
        *((TO_STT, each) for each in (moshi.Init(), moshi.Marker(-7), moshi.OggOpus(b"OggS"))),
        *((FROM_STT, each) for each in (moshi.Ready(), moshi.Word("hello", 1.2), moshi.EndWord(1.5), moshi.Marker(3))),
        *((FROM_STT, each) for each in (moshi.Step(42, [0.9, 0.8, 0.7, 0.2], 0), moshi.Error(moshi.NO_CHANNELS))),
        *((TO_TTS, each) for each in (moshi.Text("hi"), moshi.Voice([0.5, 1.0], [1, 2]), moshi.Eos())),
        *((FROM_TTS, each) for each in (moshi.TimedText("hi", 0.32, 0.56), moshi.Ready(), moshi.OggOpus(b""))),
    ]
    for side, message in said:
        assert moshi.decode(moshi.encode(message), side) == message
    assert moshi.decode(pack({"type": "Word", "text": "a", "start_time": 1, "x": [{}]}), FROM_STT) == moshi.Word("a", 1)
    assert msgspec.msgpack.decode(moshi.encode(moshi.Eos())) == {"type": "Eos"}


def test_a_synthesiser_takes_words_as_text_and_a_zero_as_the_end() -> None:
    assert moshi.decode("hello there", TO_TTS) == moshi.Text("hello there")
    assert moshi.decode(b"\0", TO_TTS) == moshi.Eos()
    for side, data in ((TO_STT, "hello"), (TO_STT, b"\0"), (TO_TTS, "x" * (moshi.MAX_TEXT + 1))):
        with pytest.raises(Refused):
            moshi.decode(data, side)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x82",
        pack([]),
        pack({"type": "Text", "text": "hi"}),
        pack({"pcm": [0.0]}),
        pack({"type": "Audio"}),
        pack({"type": "Audio", "pcm": 1.0}),
        pack({"type": "Audio", "pcm": ["a"]}),
        pack({"type": "Audio", "pcm": [float("nan")]}),
        pack({"type": "Audio", "pcm": [float("inf"), 1]}),
        pack({"type": "Audio", "pcm": [0] * (moshi.MAX_SAMPLES + 1)}),
        b"\x82\xa4type\xa5Audio\xa3pcm\xdd\xff\xff\xff\xff",
        b"\x82\xa4type\xa5Audio\xa3pcm\x92\xca\0\0\0\0\xca\0\0",
        b"\x82\xa4type\xa5Audio\xa1x" + b"\x91" * 100_000,
        pack({"type": "Marker", "id": 2**64 - 1}),
        bytes(moshi.MAX_BYTES + 1),
    ],
    ids=range(16),
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        moshi.decode(data, TO_STT)


def test_what_would_be_refused_is_not_written() -> None:
    with pytest.raises(Refused):
        moshi.encode(moshi.Audio(np.zeros(moshi.MAX_SAMPLES + 1, np.int16)))
    assert len(moshi.encode(moshi.Audio(np.zeros(moshi.MAX_SAMPLES, np.int16)))) < moshi.MAX_BYTES
    with pytest.raises(Refused):
        moshi.encode(moshi.Marker(2**64))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_times_and_probabilities_are_numbers(value: float) -> None:
    for side, message in (
        (moshi.FROM_STT, moshi.Word("x", value)),
        (moshi.FROM_STT, moshi.EndWord(value)),
        (moshi.FROM_STT, moshi.Step(0, [value])),
        (moshi.FROM_TTS, moshi.TimedText("x", 0.0, value)),
    ):
        with pytest.raises(Refused):
            moshi.decode(moshi.encode(message), side)
