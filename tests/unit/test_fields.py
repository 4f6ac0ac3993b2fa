"""Header fields that pass from hub to proxy and back: what goes on, what ends with its connection, what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from procs.errors import Refused
from procs.wire.fields import HOP_BY_HOP, MAX_BYTES, MAX_FIELDS, Pairs, request_fields, response_fields

both = pytest.mark.parametrize("fields", [request_fields, response_fields])
Fields = Callable[[Pairs], Pairs]


@both
def test_order_doubles_and_spelling_are_kept(fields: Fields) -> None:
    pairs = [
        ("Set-Cookie", "a=1"),
        ("X-B", ""),
        ("set-cookie", "b=2"),
        ("Content-Length", "12"),
        ("X-c", "é\tü"),
    ]
    assert fields(pairs) == pairs


@both
def test_what_is_for_one_connection_ends_there(fields: Fields) -> None:
    hops = [(name.title(), "x") for name in HOP_BY_HOP] + [("CONNECTION", " X-Mine ,close,\tx-other")]
    assert fields([*hops, ("x-mine", "1"), ("X-Other", "2"), ("X-Kept", "3")]) == [("X-Kept", "3")]
    published = {"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailer"}
    assert {name.lower() for name in published | {"Transfer-Encoding", "Upgrade"}} <= HOP_BY_HOP


def test_a_websocket_keeps_its_subprotocol_only() -> None:
    handshake = [(f"Sec-WebSocket-{name}", "x") for name in ("Key", "Version", "Extensions", "Accept", "Protocol")]
    assert request_fields(handshake) == [("Sec-WebSocket-Protocol", "x")]


def test_nobody_waits_for_a_100() -> None:
    assert request_fields([("Expect", "100-continue")]) == []


@both
def test_a_length_beside_chunks_is_none(fields: Fields) -> None:
    assert fields([("content-length", "5"), ("Transfer-Encoding", "chunked")]) == []


@both
def test_a_length_is_said_once(fields: Fields) -> None:
    assert fields([("Content-Length", "5"), ("content-length", " 5 ")]) == [("Content-Length", "5")]


@both
@pytest.mark.parametrize("lengths", [["5", "6"], ["5, 5"], ["-1"], ["+5"], ["0x5"], [""], ["٥"], ["5\t6"], ["9" * 19]])
def test_lengths_that_two_readers_would_read_differently_are_refused(fields: Fields, lengths: list[str]) -> None:
    with pytest.raises(Refused, match="Content-Length"):
        fields([("Content-Length", length) for length in lengths])


def test_two_hosts_are_refused() -> None:
    with pytest.raises(Refused, match="Host"):
        request_fields([("Host", "a"), ("host", "a")])


@both
@pytest.mark.parametrize("name", ["", " ", "a b", "a:", "a\r", "a\n", "é", "\0", "a\tb", "(x)", "a\r\nX-Evil: 1\r\n"])
def test_what_is_no_name_is_refused(fields: Fields, name: str) -> None:
    with pytest.raises(Refused, match="no name"):
        fields([(name, "x")])


@both
@pytest.mark.parametrize(
    "wrong", [chr(code) for code in (*range(9), *range(10, 32), 127)] + ["\r\nX-Evil: 1", "\ud800"]
)
def test_control_characters_are_refused_also_at_the_ends_and_where_dropped(fields: Fields, wrong: str) -> None:
    for name in ("X-A", "Connection", "Transfer-Encoding"):
        for value in (wrong, wrong + "a", "a" + wrong, "a" + wrong + "b"):
            with pytest.raises(Refused, match="control character"):
                fields([(name, value)])


@both
def test_their_number_and_size_are_limited(fields: Fields) -> None:
    assert len(fields([(f"x-{n}", "") for n in range(MAX_FIELDS)])) == MAX_FIELDS
    with pytest.raises(Refused, match="more than 100"):
        fields([(f"x-{n}", "") for n in range(MAX_FIELDS + 1)])
    room = MAX_BYTES - len("x") - 4
    assert fields([("x", "a" * room)])
    for value in ("a" * (room + 1), "é" * (room // 2 + 1)):
        with pytest.raises(Refused, match="bytes of them"):
            fields([("x", value)])
    with pytest.raises(Refused, match="more than 100"):
        fields([("connection", "x")] * 101)
