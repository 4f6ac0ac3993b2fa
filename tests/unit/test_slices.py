"""Frames through the fast lane's texts: whatever is lost or comes late, what arrives are the packets of the original,
by the word of a segmenter that is not ours."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import combinations, groupby
from struct import pack, pack_into

import pytest

from procs.agent.lane import slices
from procs.agent.lane.slices import CONTROL, PACKETS, PARTIAL, RUN_BYTES, SLICE, Incoming, mtu
from procs.agent.lane.vnet import ECN, HEAD, MOST_SEGMENTS, PLAIN, TCP4, TCP6, shape
from procs.wire.records import MOST_RECORDS, OVERHEAD, Opener, Sealer
from tests.segmenting import ACK, CWR, FIN, PSH, TCP, UDP, cut, frame

SECRET = bytes(range(24))
SIZE = 1472
STAMPS = bytes([1, 1, 8, 10]) + bytes(range(8))
NOISE = random.Random(11).randbytes(70_000)
FRAMES = {
    "TCP, IPv4": frame(4, TCP, NOISE[:6000], 1368, flags=ACK | PSH, options=STAMPS),
    "no options, all flags": frame(4, TCP, NOISE[:5001], 1380, ECN, flags=CWR | ACK | PSH | FIN),
    "all options": frame(4, TCP, NOISE[:4444], 1111, options=bytes(40)),
    "TCP, IPv6": frame(6, TCP, NOISE[:6001], 1340, flags=ACK | FIN, options=STAMPS),
    "numbers that begin again": frame(4, TCP, NOISE[:6000], 1000, sequence=(1 << 32) - 2500, number=0xFFFE),
    "UDP, IPv4": frame(4, UDP, NOISE[:5555], 1200),
    "UDP, IPv6": frame(6, UDP, NOISE[:3001], 999),
    "segments of the same size": frame(4, TCP, NOISE[:4000], 1000),
    "a last one of a byte": frame(4, TCP, NOISE[:4001], 1000),
    "segments of a byte": frame(4, UDP, NOISE[:5], 1),
    "two": frame(6, TCP, NOISE[:1001], 1000),
}


def outgoing(sealer: Sealer, frames: Iterable[bytes], size: int) -> list[tuple[bytes, int]]:
    """All of them at once."""
    return list(slices.outgoing(sealer, frames, size))


def one(options: bytes = b"") -> bytes:
    """A packet with options of IP, whose sum is partial."""
    found = frame(4, UDP, b"with options")
    packet = bytearray(found[HEAD : HEAD + 20] + options + found[HEAD + 20 :])
    packet[0] += len(options) // 4
    packet[2:4] = len(packet).to_bytes(2, "big")
    return found[:6] + (20 + len(options)).to_bytes(2, "little") + found[8:HEAD] + packet


PACKED = {
    "whole, IPv4": PLAIN + cut(frame(4, UDP, NOISE[:200]))[0],
    "whole, IPv6": PLAIN + cut(frame(6, TCP, NOISE[:100]))[0],
    "a fragment": PLAIN + bytes.fromhex("450000240000200040110000000000000000000001020304050607080000000000000000"),
    "nothing but a header": PLAIN + bytes.fromhex("4500001400000000403b00000000000000000000"),
    "partial TCP, IPv4": frame(4, TCP, b"", options=STAMPS),
    "partial TCP, IPv6": frame(6, TCP, NOISE[:300], flags=ACK | PSH),
    "partial UDP, IPv4": frame(4, UDP, b""),
    "partial UDP, IPv6": frame(6, UDP, NOISE[:77]),
    "partial, with options of IP": one(bytes([1] * 8)),
    "full": frame(4, TCP, NOISE[: mtu(SIZE) - 40]),
}


def lane(first: int = 0) -> tuple[Sealer, Incoming]:
    sealer = Sealer(SECRET)
    sealer.count = first
    return sealer, Incoming(Opener(SECRET))


def apart(runs: Iterable[tuple[bytes, int]]) -> list[bytes]:
    """Datagrams, one by one."""
    return [joined[at : at + step] for joined, step in runs for at in range(0, len(joined), step)]


def arrive(incoming: Incoming, datagrams: Sequence[bytes], most: int = 64) -> list[bytes]:
    """The packets that come of these, as the kernel joins datagrams: those of a size, and a shorter one at the end."""
    at = 0
    while at < len(datagrams):
        run = [datagrams[at]]
        while at + len(run) < len(datagrams) and len(run) < most and len(run[-1]) == len(run[0]):
            if len(datagrams[at + len(run)]) > len(run[0]):
                break
            run.append(datagrams[at + len(run)])
        incoming.take(memoryview(b"".join(run)), len(run[0]))
        at += len(run)
    return came(incoming)


def came(incoming: Incoming) -> list[bytes]:
    """The packets of the frames, each of which is such as the switch admits."""
    found = []
    for iov in incoming.frames():
        whole = b"".join(iov)
        assert isinstance(iov[0], bytes)
        if not whole.startswith(PLAIN):
            its = shape(iov[0], len(whole))
            assert its and its.many <= MOST_SEGMENTS
        found += cut(whole)
    return found


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("first", [0, 250, (1 << 26) - 100])
def test_a_frame_comes_as_it_went(name: str, first: int) -> None:
    sealer, incoming = lane(first)
    runs = outgoing(sealer, [FRAMES[name]], SIZE)
    assert len(runs) == 1 and len(apart(runs)) == len(cut(FRAMES[name]))
    for joined, step in runs:
        incoming.take(memoryview(joined), step)
    assert [b"".join(iov) for iov in incoming.frames()] == [FRAMES[name]]
    assert incoming.malformed == 0


@pytest.mark.parametrize("name", FRAMES)
def test_any_slices_that_are_lost_cost_only_themselves(name: str) -> None:
    packets = cut(FRAMES[name])
    for count in range(len(packets) + 1):
        for kept in combinations(range(len(packets)), count):
            sealer, incoming = lane()
            datagrams = apart(outgoing(sealer, [FRAMES[name]], SIZE))
            assert arrive(incoming, [datagrams[n] for n in kept]) == [packets[n] for n in kept]
            assert incoming.malformed == 0


def test_a_run_of_slices_is_one_frame_again() -> None:
    sealer, incoming = lane()
    datagrams = apart(outgoing(sealer, [frame(4, TCP, NOISE[:40_000], 1000)], SIZE))
    del datagrams[20]
    del datagrams[10]
    arrive(incoming, datagrams)
    assert arrive(incoming, []) == []
    sealer, incoming = lane()
    datagrams = apart(outgoing(sealer, [frame(4, TCP, NOISE[:40_000], 1000)], SIZE))
    for each in (*datagrams[:10], *datagrams[11:20], *datagrams[21:]):
        incoming.take(memoryview(each), len(each))
    assert [len(b"".join(iov)) - HEAD - 40 for iov in incoming.frames()] == [10_000, 9_000, 19_000]
    datagrams = apart(outgoing(sealer, [FRAMES["no options, all flags"]], SIZE))
    del datagrams[1]
    for each in datagrams:
        incoming.take(memoryview(each), len(each))
    assert [iov[0][1] for iov in incoming.frames()] == [0, TCP4]  # ECN is of the first segment


def test_slices_behind_each_other_are_not_looked_at_one_by_one() -> None:
    """Only those at the begin of a run and behind a lost one are, each of which costs as much as several."""
    for lost in ([], [20], [0, 7, 39], [39]):
        sealer, incoming = lane()
        datagrams = apart(outgoing(sealer, [frame(4, TCP, NOISE[:39_500], 1000)], SIZE))
        its, looks = incoming._opener.open, list[int]()
        incoming._opener.open = lambda datagram, its=its, looks=looks: looks.append(1) or its(datagram)  # type: ignore
        arrive(incoming, [each for n, each in enumerate(datagrams) if n not in lost])
        assert len(looks) == 1 + len({*lost} - {0, 39})


@pytest.mark.parametrize("most", [1, 2, 5, 64])
def test_what_comes_in_another_order_is_written_in_that_order(most: int) -> None:
    rand = random.Random(most)
    for _ in range(60):
        frames = rand.sample([*FRAMES.values(), *PACKED.values()], 5)
        sealer, incoming = lane(rand.choice([0, 200, 1000]))
        packets: list[list[bytes]] = []
        datagrams: list[bytes] = []
        for each in frames:
            its = apart(outgoing(sealer, [each], SIZE))
            packets += [[packet] for packet in cut(each)]
            datagrams += its
        order = [n for n in range(len(datagrams)) if rand.random() > 0.1]
        if rand.random() < 0.7:
            order.sort(key=lambda n: n + rand.random() * 4)
        again = sorted(order + rand.choices(order, k=3), key=order.index)  # some come twice
        assert arrive(incoming, [datagrams[n] for n in again], most) == [p for n in order for p in packets[n]]
        assert incoming.malformed == 0


def test_packets_share_datagrams_and_keep_their_order() -> None:
    rand = random.Random(3)
    small = [each for each in PACKED.values() if len(each) < 500]
    for _ in range(40):
        frames = rand.choices(small, k=rand.randrange(1, 60))
        frames.insert(rand.randrange(len(frames)), FRAMES["two"])
        sealer, incoming = lane()
        runs = outgoing(sealer, frames, SIZE)
        assert all(step <= SIZE and len(joined) <= RUN_BYTES for joined, step in runs)
        assert arrive(incoming, apart(runs)) == [packet for each in frames for packet in cut(each)]
    runs = outgoing(Sealer(SECRET), [PACKED["partial TCP, IPv4"]] * 270, SIZE)
    assert [(len(joined) // step, len(joined) % step > 0) for joined, step in runs] == [(10, False)]  # 27 in each


@pytest.mark.parametrize("name", PACKED)
def test_a_packet_comes_as_it_went(name: str) -> None:
    sealer, incoming = lane()
    arrive(incoming, apart(outgoing(sealer, [PACKED[name]] * 3, SIZE)))
    for joined, step in outgoing(sealer, [PACKED[name]] * 3, SIZE):
        incoming.take(memoryview(joined), step)
    assert [b"".join(iov) for iov in incoming.frames()] == [PACKED[name]] * 3


def test_runs_are_what_one_call_of_the_kernel_takes() -> None:
    for step in (1, 50, 500, 1380):
        sealer, incoming = lane()
        sent = frame(4, TCP, NOISE[: min(58_000, 300 * step)], step)
        runs = outgoing(sealer, [sent], SIZE)
        for joined, its in runs:
            assert its <= SIZE and len(joined) <= RUN_BYTES and 0 < -(-len(joined) // its) <= MOST_SEGMENTS
        assert arrive(incoming, apart(runs)) == cut(sent)  # and no frame has more segments than the switch admits
    runs = outgoing(Sealer(SECRET), [frame(4, UDP, NOISE[:8000])] * 20, 9000)
    assert sum(len(apart([run])) for run in runs) == 20 and all(len(joined) <= RUN_BYTES for joined, _ in runs)


def test_a_narrow_path_gets_tcp_cut_smaller_and_no_more_of_what_does_not_fit() -> None:
    for name, each in FRAMES.items():
        sealer, incoming = lane()
        runs = outgoing(sealer, [each, PACKED["whole, IPv4"]], 600)
        assert all(step <= 600 for _, step in runs)
        if name.startswith("UDP"):
            assert arrive(incoming, apart(runs)) == cut(PACKED["whole, IPv4"])
            continue
        narrow = bytearray(each)
        pack_into(
            "<H", narrow, 4, min(mtu(600) - int.from_bytes(each[2:4], "little"), int.from_bytes(each[4:6], "little"))
        )
        assert arrive(incoming, apart(runs)) == [*cut(bytes(narrow)), *cut(PACKED["whole, IPv4"])]
    assert outgoing(Sealer(SECRET), [FRAMES["TCP, IPv4"], PACKED["full"]], 150) == []


def test_the_largest_packet_that_fits() -> None:
    for size in (600, 1232, SIZE):
        whole, least = mtu(size), OVERHEAD + 1
        assert len(outgoing(Sealer(SECRET), [frame(4, TCP, NOISE[: whole - 40])], size)) == 1
        assert len(outgoing(Sealer(SECRET), [frame(4, UDP, NOISE[:3000], whole - 28)], size)) == 1
        assert outgoing(Sealer(SECRET), [frame(4, UDP, NOISE[:3000], whole - 27)], size) == []
        assert outgoing(Sealer(SECRET), [frame(4, UDP, NOISE[: size - least + 1 - 28])], size) == []


def test_a_key_that_is_spent_sends_no_more() -> None:
    sealer, incoming = lane(MOST_RECORDS - 1)
    sent = [PACKED["whole, IPv4"], *FRAMES.values(), PACKED["whole, IPv6"]]
    assert arrive(incoming, apart(outgoing(sealer, sent, SIZE))) == cut(PACKED["whole, IPv4"])
    assert outgoing(sealer, sent, SIZE) == []


def test_control_is_apart_and_does_not_divide_a_frame() -> None:
    sealer, incoming = lane()
    runs = outgoing(sealer, [FRAMES["TCP, IPv4"]], SIZE)
    first, *rest = apart(runs)
    ping = sealer.seal([b"ping" + bytes([CONTROL])])
    for each in (first, ping, *rest):
        incoming.take(memoryview(each), len(each))
    assert [b"".join(iov) for iov in incoming.frames()] == [FRAMES["TCP, IPv4"]]
    assert incoming.controls == [b"ping"]


def test_a_frame_that_a_later_packet_has_overtaken_is_still_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sealer, incoming = lane()
    run, step = outgoing(sealer, [FRAMES["TCP, IPv4"]], SIZE)[0]
    (late,) = outgoing(sealer, [PACKED["whole, IPv4"]], SIZE)
    incoming.take(memoryview(late[0]), late[1])
    one_by_one, opened = list[memoryview](), incoming._opener.open

    def noting(datagram: memoryview) -> tuple[int, bytes] | None:
        one_by_one.append(datagram)
        return opened(datagram)

    monkeypatch.setattr(incoming._opener, "open", noting)
    incoming.take(memoryview(run), step)
    assert [b"".join(iov) for iov in incoming.frames()] == [PACKED["whole, IPv4"], FRAMES["TCP, IPv4"]]
    assert len(one_by_one) == 1, "the others are opened at once"


def test_a_batch_of_many_frames_keeps_each() -> None:
    """More than the room that is there for a batch, mostly."""
    sealer, incoming = lane()
    sent = [frame(4, TCP, random.Random(n).randbytes(50_000), 1300) for n in range(30)]
    for _ in range(2):
        packets = [packet for each in sent for packet in cut(each)]
        assert arrive(incoming, apart(outgoing(sealer, sent, SIZE))) == packets
    room = incoming._arena
    for each in sent:
        assert arrive(incoming, apart(outgoing(sealer, [each], SIZE))) == cut(each)
    assert incoming._arena is room  # once for all


@pytest.mark.parametrize(
    "text",
    [
        b"",
        bytes([PACKETS]),
        b"\x45" + bytes([PACKETS]),
        bytes(100) + bytes([PACKETS]),
        b"\x45\0\0\x64" + bytes(80) + bytes([PACKETS]),  # says more than there is
        b"\x45\0\0\x13" + bytes(80) + bytes([PACKETS]),  # and less than a header
        b"\x60" + bytes(38) + bytes([PACKETS]),
        PACKED["a fragment"][HEAD:] + bytes([PARTIAL]),
        PACKED["nothing but a header"][HEAD:] + bytes([PARTIAL]),
        PACKED["partial UDP, IPv4"][HEAD : HEAD + 26] + bytes([PARTIAL]),
        bytes([4]),
        bytes([255]),
    ],
)
def test_texts_that_make_no_sense_are_counted(text: bytes) -> None:
    sealer, incoming = lane()
    incoming.take(memoryview(sealer.seal([text])), OVERHEAD + len(text))
    assert incoming.frames() == []
    assert incoming.malformed == (text != bytes([PACKETS]))


def test_of_packets_those_before_nonsense_count() -> None:
    sealer, incoming = lane()
    good = PACKED["whole, IPv4"]
    text = good[HEAD:] * 2 + b"nonsense" + bytes([PACKETS])
    incoming.take(memoryview(sealer.seal([text])), OVERHEAD + len(text))
    assert [b"".join(iov) for iov in incoming.frames()] == [good, good]
    assert incoming.malformed == 1


@pytest.mark.parametrize("name", ["TCP, IPv4", "TCP, IPv6", "UDP, IPv4", "UDP, IPv6"])
def test_a_slice_that_lies_becomes_no_frame_that_does(name: str) -> None:
    """Each byte behind the payload changed, in all slices: what comes agrees with itself, or nothing comes."""
    sealer, incoming = lane()
    opener = Opener(SECRET)
    texts = [
        found[1] for each in apart(outgoing(sealer, [FRAMES[name]], SIZE)) if (found := opener.open(memoryview(each)))
    ]
    payload = int.from_bytes(FRAMES[name][4:6], "little")
    trailer = texts[0][payload:]
    bad = 0
    for place in range(len(trailer) - 1):
        for value in {0, 1, 0x40, 0x44, 0x46, 0x60, 255, trailer[place] ^ 1, trailer[place] ^ 0x80}:
            lie = bytearray(trailer)
            lie[place] = value
            first = sealer.count
            if not 4 <= len(trailer) - place - 1 - 6 < 8:  # of where the frame begins
                lie[-11:-7] = first.to_bytes(4, "big")
            joined = sealer.seal([each[: len(each) - len(trailer)] + lie for each in texts])
            incoming.take(memoryview(joined), len(texts[0]) + OVERHEAD)
            bad += not came(incoming)
    assert bad > 50 and incoming.malformed > 50


def lies(headers: bytes, sizes: Sequence[int], count: int, segment: int, kind: int = TCP4) -> Incoming:
    """What becomes of slices of these sizes, in one run. A size below 0: less than there is behind the payload."""
    sealer, incoming = lane()
    trailer = headers + pack("!IHHBBB", 0, count, segment, kind, len(headers), SLICE)
    texts = [NOISE[:size] + trailer if size >= 0 else trailer[-size:] for size in sizes]
    incoming.take(memoryview(sealer.seal(texts)), len(texts[0]) + OVERHEAD)
    return incoming


def test_a_slice_is_shorter_only_at_the_end() -> None:
    headers = FRAMES["two"][HEAD : HEAD + 60]
    for short, count in ((999, 5), (1, 5), (0, 5), (-1, 5), (-71, 5), (0, 3), (-1, 3), (-70, 3)):
        incoming = lies(headers, [1000, 1000, short], count, 1000, TCP6)
        assert [len(packet) for packet in came(incoming)] == [1060, 1060]
        assert incoming.malformed == 1


def test_no_frame_is_larger_than_a_packet_can_be() -> None:
    headers = FRAMES["two"][HEAD : HEAD + 60]
    for sizes, segment in (([60_000] * 2, 60_000), ([60_000] * 12, 60_000), ([1400] * 60, 1400)):
        incoming = lies(headers, sizes, len(sizes), segment, TCP6)
        assert came(incoming) == []
        assert incoming.malformed > 0
    assert len(came(lies(headers, [1400] * 46, 46, 1400, TCP6))) == 46


def test_no_ip_header_is_shorter_than_one() -> None:
    headers = bytearray(FRAMES["segments of the same size"][HEAD : HEAD + 40])
    headers[0], headers[16 + 12] = 0x44, 0x60  # TCP begins where its addresses are, and is as long as the rest
    incoming = lies(bytes(headers), [1000, 1000], 2, 1000)
    assert (incoming.frames(), incoming.malformed) == ([], 1)


def test_what_is_sent_is_in_order_of_its_counters() -> None:
    sealer = Sealer(SECRET)
    runs = outgoing(sealer, [*PACKED.values(), *FRAMES.values()] * 3, SIZE)
    counters = [int.from_bytes(each[5:13], "big") for each in apart(runs)]
    assert counters == [*range(sealer.count)]
    assert [key for key, _ in groupby(counters)] == counters


def test_a_run_goes_before_the_next_is_sealed() -> None:
    sealer = Sealer(SECRET)
    frames = [PACKED["whole, IPv4"], FRAMES["TCP, IPv4"], FRAMES["TCP, IPv6"]]
    counts = [sealer.count for _ in slices.outgoing(sealer, frames, SIZE)]
    assert counts == [6, 6, 11], "the packet and the first frame; then the second"
