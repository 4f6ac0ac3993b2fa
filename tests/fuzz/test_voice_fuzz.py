"""Voice events, messages of speech services, binary frames, Ogg and Opus against anything: taken or Refused."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.errors import Refused
from procs.media import opus
from procs.media.ogg import OggReader, OggWriter
from procs.wire import moshi, realtime
from procs.wire.audio_frame import pack_audio, parse_audio
from tests import golden
from tests.examples import some_of

SIDES: list[realtime.Side[Any]] = [realtime.FROM_BACKEND, realtime.FROM_BROWSER, realtime.FROM_DEVICE]
SERVICES: list[moshi.Side[Any]] = [moshi.TO_STT, moshi.FROM_STT, moshi.TO_TTS, moshi.FROM_TTS]
EVENTS = [json.dumps(said.frame).encode() for said in golden.transcript("realtime")]
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
kinds = st.sampled_from(sorted(frozenset[str]().union(*(side.types for side in SIDES))))
names = st.sampled_from(["event_id", "session", "delta", "audio", "error", "args", "response", "start_time", "muted"])
services = st.sampled_from(["Audio", "OggOpus", "Init", "Marker", "Ready", "Word", "Step", "Text", "Voice", "Eos"])
fields = st.sampled_from(["pcm", "data", "id", "text", "start_time", "prs", "step_idx", "embeddings", "shape"])


@settings(deadline=None, max_examples=some_of(150))  # a busy machine
@given(
    data=st.binary()
    | st.builds(lambda kind, rest: json.dumps({"type": kind} | rest).encode(), kinds, st.dictionaries(names, anything))
    | st.builds(
        lambda event, at, put: event[:at] + put + event[at:],
        st.sampled_from(EVENTS),
        st.integers(0, 200),
        st.binary(max_size=4),
    )
)
def test_any_event(data: bytes) -> None:
    for side in SIDES:
        with suppress(Refused):
            event = realtime.decode(data, side)
            assert realtime.decode(realtime.encode(event), side) == event


@settings(deadline=None, max_examples=some_of(150))  # a busy machine
@given(
    data=st.binary()
    | st.text()
    | st.builds(
        lambda kind, rest: msgspec.msgpack.encode({"type": kind} | rest), services, st.dictionaries(fields, anything)
    )
    | st.builds(
        lambda pcm, cut: msgspec.msgpack.encode({"type": "Audio", "pcm": pcm})[:cut],
        st.lists(st.floats() | st.integers(-9, 9), max_size=20),
        st.integers(15, 220),
    )
)
def test_any_message_of_a_service(data: bytes | str) -> None:
    for side in SERVICES:
        with suppress(Refused):
            message = moshi.decode(data, side)
            again = moshi.decode(moshi.encode(message), side)
            if isinstance(message, moshi.Audio):
                assert isinstance(again, moshi.Audio) and again.pcm.tolist() == message.pcm.tolist()
            else:
                assert moshi.encode(again) == moshi.encode(message)  # a float may be no number, which equals nothing


@given(data=st.binary(max_size=20))
def test_any_binary_frame(data: bytes) -> None:
    with suppress(Refused):
        frame = parse_audio(data)
        assert parse_audio(pack_audio(frame)) == frame


PACKETS = [b"\x48" + bytes((number,)) * 40 for number in range(12)]
dense = st.lists(st.sampled_from([b"OggS", b"OggS\0\2", b"OpusHead", b"\xff" * 9, bytes(9)]) | st.binary(max_size=9))


@settings(deadline=None)  # a busy machine
@given(cuts=st.lists(st.integers(0, 2000), max_size=9), junk=st.dictionaries(st.integers(0, 12), dense, max_size=4))
def test_whatever_stands_between_pages_every_page_is_read(cuts: list[int], junk: dict[int, list[bytes]]) -> None:
    writer = OggWriter(1)
    pages = [writer.write([each]) for each in PACKETS]
    data = b"".join(b"".join(junk.get(at, [])) + page for at, page in enumerate([*pages, b""]))
    reader, edges = OggReader(), [0, *sorted(cuts), len(data)]
    found = [each for one, two in itertools.pairwise(edges) for each in reader.feed(data[one:two])]
    assert [each.packet for each in found] == PACKETS


@settings(deadline=None, max_examples=some_of(200))  # a busy machine
@given(
    data=st.binary()
    | st.builds(
        lambda change, at: (whole := OggWriter(1).write(PACKETS))[:at] + change + whole[at + len(change) :],
        st.binary(max_size=5),
        st.integers(0, 800),
    )
    | st.builds(lambda packet: OggWriter(2).write([b"\x4b\1" + packet]), st.binary(max_size=300))
)
def test_any_bytes_are_an_ogg_stream(data: bytes) -> None:
    decoder = opus.Decoder()
    for each in OggReader().feed(data):
        with suppress(Refused):
            assert len(decoder.decode(each.packet)) == opus.packet_samples(each.packet)


DECODER = opus.Decoder()


@settings(deadline=None, max_examples=some_of(200))  # a busy machine
@given(packet=st.binary(max_size=120) | st.builds(lambda rest: b"\x48" + rest, st.binary(min_size=1, max_size=99)))
def test_any_packet_is_decoded_or_refused(packet: bytes) -> None:
    with suppress(Refused):
        assert len(DECODER.decode(packet)) == opus.packet_samples(packet)
