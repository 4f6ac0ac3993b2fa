"""Frames of mux1 byte by byte, and the receiver's account of credit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from procs.errors import Refused
from procs.wire import mux1
from procs.wire.mux1 import DROPPED_BEFORE, FIN, MAX_WINDOW, MIN_COST, Code, Head, MuxLimits, Open, Receiving, Type

LIMITS = MuxLimits(max_frame=1024, init_credit=4096, session_credit=64 * 1024, max_streams=8)


def view(payload: bytes) -> memoryview:
    return memoryview(payload)


@pytest.mark.parametrize(
    ("made", "bytes_"),
    [
        (mux1.data(0x01020304, b"ab", FIN), b"\xa1\3\0\1\1\2\3\4ab"),
        (mux1.data(1, b"", DROPPED_BEFORE), b"\xa1\3\0\x10\0\0\0\1"),
        (mux1.credit(5, 0x00010203), b"\xa1\4\0\0\0\0\0\5\0\1\2\3"),
        (mux1.reset(3, Code.UNKNOWN, "é"), b"\xa1\5\0\0\0\0\0\3\0\x11\xc3\xa9"),
        (mux1.ping(b"12345678"), b"\xa1\6\0\0\0\0\0\x0012345678"),
        (mux1.pong(view(b"12345678")), b"\xa1\7\0\0\0\0\0\x0012345678"),
        (mux1.opening(1, Open("http", "GET", "/")), b'\xa1\1\0\0\0\0\0\1{"kind":"http","method":"GET","path":"/"}'),
        (mux1.head(1, Head(200, [("a", "b")])), b'\xa1\2\0\0\0\0\0\1{"status":200,"headers":[["a","b"]]}'),
    ],
)
def test_the_bytes_of_each_frame(made: bytes, bytes_: bytes) -> None:
    assert made == bytes_
    frame = mux1.unpack(made)
    assert (frame.type, frame.flags, bytes(frame.payload)) == (made[1], made[3], made[8:])


def test_a_request_and_an_answer_come_back_whole() -> None:
    request = Open("ws", "POST", "/api/ws?src=a", [("X", "1"), ("X", "2")], "r1", 5, 3, "live")
    assert mux1.read_open(mux1.unpack(mux1.opening(7, request)).payload) == request
    answer = Head(599, [("Set-Cookie", "a"), ("Set-Cookie", "b")], endless=True, subprotocol="v1")
    assert mux1.read_head(mux1.unpack(mux1.head(7, answer)).payload) == answer
    newer = b'{"kind":"http","method":"GET","path":"/","colour":[1]}'
    assert mux1.read_open(view(newer)) == Open("http", "GET", "/")


def test_a_reason_is_cut_and_read_whatever_it_is() -> None:
    assert mux1.read_reset(view(mux1.reset(1, Code.CANCEL, "é" * 300)[8:])) == (1, "é" * 100)
    assert mux1.read_reset(view(mux1.reset(1, 9, "x" + "é" * 300)[8:]))[1].startswith("x" + "é" * 99)
    assert mux1.read_reset(view(b"\xff\xff\xff")) == (65535, "\ufffd")


@pytest.mark.parametrize("wrong", ["\ud800", "a\udcff"])
def test_what_is_no_text_is_refused_and_a_reason_is_sent_all_the_same(wrong: str) -> None:
    for request in (Open("http", "GET", wrong), Open("http", "GET", "/", [("a", wrong)])):
        with pytest.raises(Refused):
            mux1.opening(1, request)
    with pytest.raises(Refused):
        mux1.head(1, Head(200, [("a", wrong)]))
    assert mux1.read_reset(view(mux1.reset(1, Code.CANCEL, wrong)[8:]))[0] == Code.CANCEL


@pytest.mark.parametrize(
    "message", [b"", b"\xa1\3\0\0\0\0\0", b"\xa2\3\0\0\0\0\0\0", b"\xa1\0" + bytes(6), b"\xa1\x08" + bytes(6)]
)
def test_what_is_no_frame_is_refused(message: bytes) -> None:
    with pytest.raises(Refused):
        mux1.unpack(message)


@pytest.mark.parametrize(
    ("read", "payload"),
    [
        *((mux1.read_credit, wrong) for wrong in (b"", b"\0\0\1", b"\0\0\0\0", b"\0\0\0\1\0")),
        *((mux1.read_reset, wrong) for wrong in (b"", b"\0", bytes(1025))),
        *((mux1.read_head, wrong) for wrong in (b"", b"{}", b'{"status":99}', b'{"status":"200"}', b"[" * 60_000)),
        (mux1.read_head, b'{"status":200,"headers":[["a"]]}'),
        (mux1.read_head, b'{"status":200,"headers":{"a":"b"}}'),
        (mux1.read_head, b'{"status":200}' + b" " * mux1.MAX_OPENING),
        (mux1.read_open, b'{"kind":"tcp","method":"GET","path":"/"}'),
        (mux1.read_open, b'{"kind":"http","method":"","path":"/"}'),
        (mux1.read_open, b'{"kind":"http","method":"GET","path":""}'),
        (mux1.read_open, b'{"kind":"http","method":"GET","path":"/","prio":4}'),
        (mux1.read_open, b'{"kind":"http","method":"GET","path":"/","timeout_ms":0}'),
        (mux1.read_open, b'{"kind":"http","method":"GET","path":"\xff"}'),
    ],
)
def test_what_says_nothing_is_refused(read: Callable[[memoryview], Any], payload: bytes) -> None:
    with pytest.raises(Refused):
        read(view(payload))


def test_an_opening_that_nobody_would_take_is_not_sent() -> None:
    with pytest.raises(Refused, match="over the limit"):
        mux1.opening(1, Open("http", "GET", "/", [("a", "b" * 1000)] * 70))
    with pytest.raises(Refused, match="over the limit"):
        mux1.head(1, Head(200, [("a", "b" * 1000)] * 70))


def test_tiny_frames_cost_more_than_their_bytes() -> None:
    assert [mux1.cost(size) for size in (0, 1, MIN_COST, MIN_COST + 1)] == [MIN_COST, MIN_COST, MIN_COST, MIN_COST + 1]
    assert mux1.cost(0, FIN) == 0 and mux1.cost(1, FIN) == MIN_COST


def test_credit_comes_back_when_half_a_window_was_handed_on() -> None:
    receiving = Receiving(LIMITS)
    window = receiving.window()
    assert receiving.take(window, 3000)
    assert receiving.read(window, 2000) == 0
    assert receiving.read(window, 100) == 2100, "something waits: the window stays as it is"
    assert (window.size, window.left, window.unread) == (4096, 4096 - 900, 900)


def test_a_window_grows_while_its_reader_keeps_pace_but_never_into_what_is_set_aside() -> None:
    receiving = Receiving(LIMITS)
    windows = [receiving.window() for _ in range(LIMITS.max_streams)]
    for _ in range(50):
        for window in windows:
            size = window.left
            assert receiving.take(window, size)
            receiving.read(window, size)
            receiving.session_grant()
    assert sum(window.size for window in windows) == LIMITS.session_credit * 3 // 4
    for window in windows:
        assert receiving.take(window, window.left), "all may stall with full windows"
    assert receiving.left + receiving.session_grant() > 0
    for window in windows:
        receiving.forget(window)
    receiving.session_grant()
    assert receiving.left == LIMITS.session_credit


def test_a_window_holds_no_more_than_a_moment_of_a_slow_flow() -> None:
    for bytes_per_s, limit in ((250_000, 128 * 1024), (2_500_000, 2_000_000), (100_000_000, MAX_WINDOW)):
        receiving, now = Receiving(MuxLimits(session_credit=2**30)), 100.0
        window = receiving.window()
        for _ in range(4000):
            now += 10_000 / bytes_per_s
            assert receiving.take(window, 10_000)
            receiving.read(window, 10_000, now)
            receiving.session_grant()
        assert window.size <= limit
        assert window.size == limit or window.size > 0.3 * bytes_per_s


def test_one_window_has_a_limit_of_its_own() -> None:
    receiving = Receiving(MuxLimits(session_credit=2**30))
    window = receiving.window()
    for _ in range(20):
        size = window.left
        receiving.take(window, size)
        receiving.read(window, size)
        receiving.session_grant()
    assert window.size == MAX_WINDOW


def test_too_much_for_a_stream_is_told_and_its_credit_of_the_session_is_not_lost() -> None:
    receiving = Receiving(LIMITS)
    window = receiving.window()
    for _ in range(100):
        assert not receiving.take(window, LIMITS.init_credit + 1)
        receiving.session_grant()
    assert receiving.take(window, LIMITS.init_credit)


def test_too_much_for_the_session_is_refused() -> None:
    receiving = Receiving(LIMITS)
    receiving.take(None, LIMITS.session_credit)
    assert receiving.session_grant() == LIMITS.session_credit
    receiving.take(None, LIMITS.session_credit)
    with pytest.raises(Refused, match="session"):
        receiving.take(receiving.window(), 1)


def test_the_types_are_those_of_the_published_layout() -> None:
    assert [*Type] == [1, 2, 3, 4, 5, 6, 7]
    assert [*Code] == [1, 2, 3, 4, 5, 6, 7, 8, 16, 17]
