"""The fast lane's records and slices: a path that does anything to them, and a peer that says anything in them."""

from __future__ import annotations

from collections import Counter
from struct import pack

from hypothesis import given, settings
from hypothesis import strategies as st

from procs.agent.lane.slices import Incoming, outgoing
from procs.agent.lane.vnet import HEAD, MOST_SEGMENTS, PLAIN, shape
from procs.wire.records import OVERHEAD, Opener, Sealer
from tests.examples import some_of
from tests.segmenting import ACK, CWR, FIN, PSH, TCP, UDP, cut, frame

SECRET = bytes(range(24))
SIZE = 1000
FLAGS = st.sampled_from([ACK, ACK | PSH, ACK | CWR, ACK | PSH | FIN | CWR])
FRAMES = st.builds(
    lambda version, protocol, size, step, flags, number: frame(
        version,
        protocol,
        (number.to_bytes(4, "big") * 1000)[:size],
        step if size > step else 0,
        **({"flags": flags, "sequence": number, "number": number & 0xFFFF} if protocol == TCP else {}),
    ),
    st.sampled_from([4, 6]),
    st.sampled_from([TCP, UDP]),
    st.integers(1, 900) | st.integers(1, 3500),
    st.integers(100, 800),
    FLAGS,
    st.integers(0, (1 << 32) - 1),
)
CHANGES = st.sampled_from(["", "", "", "lose", "flip", "cut", "twice", "late", "join"])


def packets(incoming: Incoming) -> list[bytes]:
    """What is written, each as the kernel takes it apart; fails where one does not agree with itself."""
    found = []
    for iov in incoming.frames():
        whole = b"".join(iov)
        assert isinstance(iov[0], bytes)
        if not whole.startswith(PLAIN):
            its = shape(iov[0], len(whole))
            assert its is None or its.many <= MOST_SEGMENTS
        found += cut(whole)
    return found


@settings(max_examples=some_of(150), deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=6), st.lists(st.tuples(CHANGES, st.integers(0, 1 << 30)), min_size=1))
def test_whatever_the_path_does_only_packets_of_ours_come_and_each_once(
    frames: list[bytes], changes: list[tuple[str, int]]
) -> None:
    incoming = Incoming(Opener(SECRET))
    sealer = Sealer(SECRET)
    sealer.count = changes[0][1] % 600
    on_the_way: list[tuple[bytes, int]] = []
    late: list[bytes] = []
    datagrams = [
        run[0][at : at + run[1]] for run in outgoing(sealer, frames, SIZE) for at in range(0, len(run[0]), run[1])
    ]
    for number, each in enumerate(datagrams):
        change, how = changes[number % len(changes)]
        if change == "flip":
            at = how % (8 * len(each))
            each = each[: at // 8] + bytes([each[at // 8] ^ 1 << at % 8]) + each[at // 8 + 1 :]
        elif change == "cut":
            each = each[: how % len(each)]
        if change == "late":
            late.append(each)
        elif change == "join" and on_the_way:
            before, step = on_the_way.pop()
            on_the_way.append((before + each, step if how % 2 else 1 + how % (2 * SIZE)))
        elif change != "lose":
            on_the_way += [(each, len(each))] * (2 if change == "twice" else 1)
    for joined, step in [*on_the_way, *((each, len(each)) for each in late)]:
        incoming.take(memoryview(joined), step)
    assert Counter(packets(incoming)) <= Counter(packet for each in frames for packet in cut(each))


SHORT = st.integers(0, 300) | st.integers(0, 65535)
TAILS = st.builds(
    lambda back, count, segment, kind, size, headers: (
        back,
        headers + pack("!HHBBB", count, segment, kind, len(headers) if size is None else size, 3),
    ),
    st.integers(-2, 5),
    st.integers(1, 8) | st.integers(0, 65535),
    st.sampled_from([100, 101]) | SHORT,
    st.sampled_from([1, 4, 5, 0x81, 0x84]) | st.integers(0, 255),
    st.none() | st.integers(0, 255),
    st.builds(
        lambda each, at, value: each[:at] + value + each[at + len(value) :],
        st.sampled_from([frame(v, p, b"")[HEAD:] for v in (4, 6) for p in (TCP, UDP)]),
        st.integers(0, 60),
        st.just(b"") | st.binary(max_size=3),
    ),
)
TEXTS = st.binary(max_size=60) | st.builds(
    lambda each, kind: b"".join(part[HEAD:] for part in each) + bytes([kind]),
    st.lists(FRAMES, max_size=3),
    st.integers(0, 4),
)


@settings(max_examples=some_of(300), deadline=None)
@given(
    st.lists(st.tuples(TAILS, st.lists(st.integers(0, 200) | st.just(100), max_size=6)) | TEXTS, max_size=8), st.data()
)
def test_whatever_a_peer_says_the_kernel_gets_nothing_that_does_not_agree_with_itself(
    said: list[bytes | tuple[tuple[int, bytes], list[int]]], data: st.DataObject
) -> None:
    sealer, incoming = Sealer(SECRET), Incoming(Opener(SECRET))
    sealer.count = data.draw(st.sampled_from([0, 250, (1 << 26) - 100]))
    texts: list[bytes] = []
    for each in said:
        if isinstance(each, bytes):
            texts.append(each)
            continue
        (back, tail), payloads = each
        base = (sealer.count + len(texts) + back) & 0xFFFFFFFF
        trailer = tail[:-7] + base.to_bytes(4, "big") + tail[-7:]
        texts += [bytes(size) + trailer for size in payloads]
    for at in range(0, len(texts), 4):
        run = texts[at : at + 4]
        step = len(run[0]) + OVERHEAD
        joined = sealer.seal(run)
        incoming.take(memoryview(joined), step)  # of which some may be cut where they do not end
    assert sum(map(len, packets(incoming))) <= sum(map(len, texts))
