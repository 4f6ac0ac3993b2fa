"""Who waits behind whom before a lane."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from procs.agent.fair_queue import (
    BURST_S,
    CALM_S,
    LEAST,
    MOST_BYTES,
    MOST_FLOWS,
    SPARSE_BYTES_S,
    TURN_BYTES,
    TURN_FRAMES,
    FairQueue,
    flow_of,
)
from procs.agent.lane.vnet import HEAD, PLAIN
from tests.segmenting import TCP, UDP, frame
from tests.unit.test_packets import v4

BULK = 60_000
APART = 1 << 60  # so many flows that no two share a place


def of(port: int, size: int = BULK, number: int = 0) -> bytes:
    """A frame of one flow."""
    return frame(4, TCP, number.to_bytes(4, "big") + bytes(size), 1000, ports=(port, 80))


def taken(queue: FairQueue) -> list[list[bytes]]:
    """All there is, turn by turn."""
    turns = []
    while queue:
        turns.append([each for frames in queue.take(0.0).values() for each in frames])
    return turns


def in_line(turns: Iterable[list[bytes]]) -> list[bytes]:
    """As they go."""
    return [each for turn in turns for each in turn]


def test_a_flow_keeps_its_order_and_all_of_it_goes() -> None:
    queue = FairQueue(APART)
    frames = [of(port, random.Random(number).choice((1, 900, BULK)), number) for number in range(40) for port in (1, 2)]
    assert queue.add({"bob": frames}) == {}
    assert queue.bytes == sum(max(LEAST, len(each)) for each in frames)
    went = in_line(taken(queue))
    assert sorted(went) == sorted(frames) and not queue.bytes
    for port in (1, 2):
        assert [each for each in went if flow_of(each) == flow_of(of(port))] == [
            each for each in frames if flow_of(each) == flow_of(of(port))
        ]


def test_what_has_nothing_waiting_goes_before_bulk() -> None:
    queue = FairQueue(APART)
    queue.add({"bob": [of(1)] * 30})
    queue.take(0.0)
    few = [of(2, 10), of(3, 10)]
    queue.add({"bob": few[:1], "eve": few[1:]})
    turn = queue.take(0.0)
    assert turn["bob"][0] == few[0] and turn["eve"] == few[1:]


def test_flows_of_which_much_waits_share_by_bytes() -> None:
    queue = FairQueue(APART)
    small = [of(2, 1000)] * 1000
    queue.add({"bob": [of(1)] * 30 + small})
    turns = [in_line([turn]) for turn in taken(queue)[1:16]]
    sizes = {
        port: sum(len(each) for turn in turns for each in turn if each[30:32] == bytes([0, port])) for port in (1, 2)
    }
    assert 0.5 < sizes[1] / sizes[2] < 2, sizes


def test_a_flood_of_flows_leaves_others_half_of_each_turn() -> None:
    queue = FairQueue(APART)
    queue.add({"bob": [of(1)] * 60})
    queue.take(0.0)
    for number in range(8):
        queue.add({"eve": [of(2 + number * TURN_FRAMES + each, 10) for each in range(TURN_FRAMES)]})
        assert sum(map(len, queue.take(0.0).get("bob", ()))) >= BULK


def test_a_new_flow_does_not_wait_for_as_many_small_frames_as_a_large_one_has_bytes() -> None:
    queue = FairQueue(APART)
    queue.add({"bob": [of(1)] * 30})
    queue.take(0.0)
    flood, ping = [of(2, 1)] * 40, of(3, 10)
    queue.add({"eve": flood})
    queue.take(0.0)
    queue.add({"eve": flood, "bob": [ping]})
    turns: list[dict[str, list[bytes]]] = []
    while not turns or ping not in turns[-1].get("bob", ()):
        turns.append(queue.take(0.0))
        queue.add({"eve": flood})
    assert len(turns) <= 2


def test_who_is_emptied_in_each_turn_has_no_more_than_its_share() -> None:
    queue = FairQueue(APART)
    queue.add({"bob": [of(port) for port in range(1, 21)] * 3})
    went = {"bob": 0, "eve": 0}
    for number in range(120):
        queue.add({"eve": [of(99)] * 2 if number >= 20 else []})  # as all others have had a turn
        turn = queue.take(0.0)
        queue.add({"bob": turn.get("bob", [])})
        for peer, frames in turn.items():
            went[peer] += len(frames)
    assert went["eve"] * 19 < went["bob"] * 2, "of 21 flows"


def test_what_a_flow_loses_is_not_taken_from_its_turns() -> None:
    queue = FairQueue(APART)
    sizes = {1: 0, 2: 0}
    for number in range(200):
        queue.add({"bob": [of(1)] * 6 + [of(2, 9000)] * 58})
        turn = queue.take(0.0)["bob"]
        for each in turn if number >= 80 else ():
            sizes[each[31]] += len(each)
    assert queue.bytes > MOST_BYTES - TURN_BYTES - 2 * BULK  # it has been full, and the second was the fullest
    assert 0.5 < sizes[1] / sizes[2] < 2, sizes


def test_small_frames_are_not_kept_in_numbers_that_take_more_room_than_their_bytes() -> None:
    queue = FairQueue()
    most = MOST_BYTES // LEAST
    lost = queue.add({"eve": [of(2, 1)] * (most + 10)})
    assert len(lost["eve"]) == 10 and len(in_line(taken(queue))) == most


def test_a_turn_is_bounded() -> None:
    queue = FairQueue(APART)
    queue.add({"bob": [of(1)] * 20 + [of(port, 1) for port in range(2, 300)]})
    for turn in taken(queue):
        assert len(turn) <= TURN_FRAMES
        assert sum(map(len, turn)) < TURN_BYTES + BULK * 2


def test_the_fullest_flow_loses_its_oldest_and_nobody_else_anything() -> None:
    queue = FairQueue(APART)
    bulk = [of(1, number=number) for number in range(400)]
    queue.add({"eve": [of(2, 5000)]})
    lost = queue.add({"bob": bulk})
    assert lost == {"bob": bulk[: len(lost["bob"])]} and lost["bob"]
    assert MOST_BYTES - len(bulk[0]) < queue.bytes <= MOST_BYTES
    went = in_line(taken(queue))
    assert of(2, 5000) in went and len(went) == 401 - len(lost["bob"])


def test_those_that_are_equally_full_lose_equally() -> None:
    queue = FairQueue(APART)
    ports, each = range(1, 11), MOST_BYTES // BULK // 10
    assert not queue.add({"bob": [of(port) for port in ports for _ in range(each)] + [of(11, 5000)]})
    lost = queue.add({"bob": [of(port) for port in ports for _ in range(4)]})["bob"]
    went = in_line(taken(queue))
    assert len(lost) > each, "as much as one of them had"
    assert {sum(flow_of(frame) == flow_of(of(port)) for frame in went) for port in ports} == {each, each + 1}
    assert of(11, 5000) in went


def test_the_fullest_is_who_has_most_waiting_and_not_who_has_had_most() -> None:
    queue = FairQueue(APART)
    for _ in range(2):
        queue.add({"eve": [of(1)] * 200})
        while queue.bytes > 8 * BULK:
            queue.take(0.0)
    lost = queue.add({"bob": [of(2)] * (MOST_BYTES // BULK)})
    assert set(lost) == {"bob"}


def test_who_has_had_its_turn_is_first_again_once_all_others_have() -> None:
    queue = FairQueue(APART)
    queue.add({"bob": [of(port) for port in range(2, 22)] * 12})
    for _ in range(15):
        queue.take(0.0)
    queue.add({"eve": [of(1)] * 2})
    assert len(queue.take(0.0)["eve"]) == 2
    for _ in range(15):
        queue.take(0.0)
    queue.add({"eve": [of(1, 10)]})
    assert next(iter(queue.take(0.0))) == "eve"


def test_as_many_flows_as_there_may_be() -> None:
    queue = FairQueue()
    for number in range(4 * MOST_FLOWS):
        queue.add({"eve": [of(number, 10)]})
    assert len(queue._flows) <= MOST_FLOWS
    assert len(in_line(taken(queue))) == 4 * MOST_FLOWS and not queue._flows


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_flow_is_protocol_addresses_and_ports(version: int, protocol: int) -> None:
    one = frame(version, protocol, bytes(10), ports=(1, 2))
    assert flow_of(one) == flow_of(frame(version, protocol, bytes(99), ports=(1, 2)))
    assert flow_of(one) != flow_of(frame(version, protocol, bytes(10), ports=(1, 3)))
    assert flow_of(one) != flow_of(frame(version, protocol, bytes(10), ports=(3, 2)))
    assert flow_of(one) != flow_of(frame(version, UDP if protocol == TCP else TCP, bytes(10), ports=(1, 2)))


def test_fragments_and_what_has_no_ports_are_one_flow() -> None:
    pings = [PLAIN + v4(bytes([8, 0, each, each, each, each]), protocol=1) for each in range(2)]
    assert flow_of(pings[0]) == flow_of(pings[1])
    first = bytearray(PLAIN + v4(bytes([1, 2, 3, 4, 5, 6, 7, 8]), protocol=17))
    first[HEAD + 6] |= 0x20
    second = bytearray(PLAIN + v4(bytes(8), protocol=17))
    second[HEAD + 7] = 1
    assert flow_of(bytes(first)) == flow_of(bytes(second))
    with_options = bytearray(PLAIN + v4(bytes(30)))
    with_options[HEAD] = 0x46
    assert flow_of(bytes(with_options))


def is_sparse(queue: FairQueue, frame: bytes, now: float) -> bool:
    """Whether one that comes alone is."""
    first, rest = queue.part({"bob": [frame]}, now)
    assert [first, rest] in ([{"bob": [frame]}, {}], [{}, {"bob": [frame]}])
    return bool(first)


def test_a_flow_of_little_is_sparse_for_ever_and_one_of_much_is_not() -> None:
    queue, ping, rate = FairQueue(APART), of(1, 100), 8 * SPARSE_BYTES_S
    assert all(is_sparse(queue, ping, 1000 + at / 50) for at in range(1000))
    much = [is_sparse(queue, of(2, 1000), 1000 + at * 1000 / rate) for at in range(4000)]
    assert much[0] and not any(much[10:])
    assert not is_sparse(queue, of(3), 1000), "nor is one of much at once"


@pytest.mark.parametrize("seed", range(5))
def test_no_frame_passes_another_of_its_flow_and_none_goes_faster_than_sparse_ones_may(seed: int) -> None:
    dice, queue, now = random.Random(seed), FairQueue(APART), 1000.0
    went, late = list[tuple[float, int]](), -1.0
    for _ in range(3000):
        now += dice.expovariate(1 / dice.choice((0.001, 0.05, 0.3)))
        frame = of(1, dice.choice((10, 100, 1400, 9000)))
        if is_sparse(queue, frame, now):
            assert now - late >= CALM_S
            went.append((now, len(frame)))
        else:
            late = now
    assert 100 < len(went) < 2900
    for start, (begins, _) in enumerate(went):
        sent = 0
        for at, size in went[start : start + 300]:
            sent += size
            assert sent <= (at - begins + BURST_S) * SPARSE_BYTES_S + 1


def test_nothing_is_sparse_of_a_flow_that_has_waited_before_what_waited_has_arrived() -> None:
    queue = FairQueue(APART)
    assert queue.part({"bob": [of(1)] * 9}, 1000) == ({}, {"bob": [of(1)] * 9})
    queue.add({"bob": [of(1)] * 9})
    left = 1000.0
    while queue:
        left += 1
        queue.take(left)
    assert not is_sparse(queue, of(1, 10), left + 0.001)
    assert is_sparse(queue, of(1, 10), left + 0.001 + 2 * CALM_S)


def test_nothing_is_sparse_of_a_flow_that_waits_nor_beyond_a_turn_of_them() -> None:
    queue = FairQueue(APART)
    queue.add({"bob": [of(1)] * 9, "eve": [of(2)]})
    assert not is_sparse(queue, of(1, 10), 1000) and is_sparse(queue, of(3, 10), 1000)
    many = [of(port, 10) for port in range(10, 11 + TURN_FRAMES)]
    assert queue.part({"bob": many[:9], "eve": many[9:]}, 1001) == (
        {"bob": many[:9], "eve": many[9:-1]},
        {"eve": many[-1:]},
    )
    assert not is_sparse(queue, many[-1], 1001.1), "since it would pass that one"
