"""WebSocket frames: in any pieces, of any size, against an implementation that is not ours, and what is refused."""

from __future__ import annotations

import contextlib
import itertools
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions import Extension
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from procs.errors import Refused
from procs.wire import ws13

LIMIT = 200_000
NONE: list[Extension] = []


def theirs(opcode: int, data: bytes, *, masked: bool, fin: bool = True) -> bytes:
    """A frame as the `websockets` package writes it."""
    return Frame(Opcode(opcode), data, fin).serialize(mask=masked, extensions=NONE)


def fed(pieces: list[bytes], *, masked: bool) -> list[tuple[int, bytes]]:
    """What comes of bytes."""
    frames = ws13.Frames(masked=masked, limit=LIMIT)
    return [(message.opcode, bytes(message.data)) for piece in pieces for message in frames.feed(piece)]


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """Data in pieces."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


SIZES = st.sampled_from([0, 1, 125, 126, 127, 1000, 65535, 65536, 66000, LIMIT])


@given(st.lists(SIZES, max_size=6), st.lists(st.integers(0, 10**6), max_size=12), st.booleans())
def test_messages_come_out_as_they_went_in_however_they_are_cut(sizes: list[int], at: list[int], masked: bool) -> None:
    messages = [os.urandom(size) for size in sizes]
    data = b"".join(theirs(2, message, masked=masked) for message in messages)
    assert fed(cut(data, at), masked=masked) == [(ws13.BINARY, message) for message in messages]


@given(st.lists(st.binary(max_size=300), max_size=5), st.lists(st.integers(0, 10**4), max_size=30))
def test_byte_by_byte_and_fragmented_with_pings_between(parts: list[bytes], at: list[int]) -> None:
    data = b""
    for number, part in enumerate(parts):
        data += theirs(2 if number == 0 else 0, part, masked=True, fin=number == len(parts) - 1)
        data += theirs(9, b"ping", masked=True)
    found = fed(cut(data, at), masked=True)
    assert [item for item in found if item[0] == ws13.PING] == [(ws13.PING, b"ping")] * len(parts)
    assert [item for item in found if item[0] == ws13.BINARY] == ([(ws13.BINARY, b"".join(parts))] if parts else [])


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65535, 65536, 100_000])
@pytest.mark.parametrize("mask", [None, lambda: bytes(4), lambda: os.urandom(4)])
def test_another_implementation_reads_ours(size: int, mask: object) -> None:
    message = os.urandom(size)
    reader = StreamReader()
    for piece in ws13.frames([message], mask):  # type: ignore[arg-type]
        reader.feed_data(piece)
    parsing = Frame.parse(reader.read_exact, mask=mask is not None, max_size=LIMIT, extensions=NONE)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    assert (done.value.value.opcode, bytes(done.value.value.data)) == (Opcode.BINARY, message)


BAD = {
    "text": theirs(1, b"hello", masked=True),
    "not masked": theirs(2, b"hello", masked=False),
    "too long": theirs(2, bytes(LIMIT + 1), masked=True),
    "said to be too long": b"\x82\xff" + (1 << 63).to_bytes(8, "big") + bytes(4),
    "reserved bits": b"\xc2\x80" + bytes(4),
    "unknown control": b"\x8b\x80" + bytes(4),
    "long ping": b"\x89\xfe\x00\x80" + bytes(4 + 128),
    "ping in fragments": b"\x09\x80" + bytes(4),
    "end of nothing": b"\x80\x80" + bytes(4),
    "a message in a message": b"\x02\x80" + bytes(4) + b"\x82\x80" + bytes(4),
    "fragments without end": (b"\x02\x80" + bytes(4)) + (b"\x00\x80" + bytes(4)) * 1000,
}


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_the_protocol_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        fed([BAD[name]], masked=True)
    with pytest.raises(Refused):
        fed([bytes([byte]) for byte in BAD[name]], masked=True)


def test_tiny_fragments_cost_no_more_than_what_they_bring() -> None:
    """Else a few hundred kilobytes of them hold up everybody else for seconds."""

    def takes_s(messages: int, fragments: int) -> float:
        middle = theirs(0, b"", masked=True, fin=False) * (fragments - 2)
        message = theirs(2, b"x", masked=True, fin=False) + middle + theirs(0, b"", masked=True)
        frames = ws13.Frames(masked=True, limit=1024 * 1024)
        began = time.process_time()
        assert len([*frames.feed(message * messages)]) == messages
        return time.process_time() - began

    assert takes_s(50, 1000) < 4 * takes_s(5000, 10)


def test_a_masked_frame_of_a_server_is_refused() -> None:
    with pytest.raises(Refused):
        fed([theirs(2, b"x", masked=True)], masked=False)


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=9), st.booleans())
def test_any_bytes_are_taken_or_refused(data: bytes, at: list[int], masked: bool) -> None:
    with contextlib.suppress(Refused):
        fed(cut(data, at), masked=masked)


def test_a_small_message_does_not_keep_the_large_one_beside_it() -> None:
    frames = ws13.Frames(masked=False, limit=LIMIT)
    data = theirs(2, bytes(100_000), masked=False) + theirs(2, b"small", masked=False)
    large, small = frames.feed(data)
    assert large.data.obj is data and small.data.obj is not data


KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # that of RFC 6455, section 1.3
GOOD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: p"
)


def test_a_handshake() -> None:
    ws13.check_answer(GOOD, KEY, "p")
    for wrong in (
        GOOD.replace(b"s3pP", b"S3pP"),
        GOOD.replace(b"101", b"401"),
        GOOD.replace(b"Protocol: p", b"Protocol: q"),
        GOOD + b"\r\nSec-WebSocket-Extensions: permessage-deflate",
        b"SSH-2.0-OpenSSH",
        b"",
    ):
        with pytest.raises(Refused):
            ws13.check_answer(wrong, KEY, "p")


def test_closing() -> None:
    assert ws13.read_closing(memoryview(ws13.closing(1012, "é" * 200)))[0] == 1012
    assert len(ws13.closing(1012, "é" * 200)) <= ws13.MAX_CONTROL
    assert ws13.read_closing(memoryview(b"")) == (1005, "")
