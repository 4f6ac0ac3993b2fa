"""Frames that are many packets, or not summed up yet, between an interface and its peers."""

from __future__ import annotations

from struct import pack, unpack_from

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.agent.lane import vnet
from procs.agent.lane.vnet import HEAD, NEEDS_CSUM, PLAIN, Iov
from procs.agent.packets import checksum
from procs.agent.switch import Switch, Traffic
from tests.examples import some_of
from tests.unit.test_packets import BOB4, BOB6, DONT_FRAGMENT, ME4, ME6, is_whole, syn, tcp_sum
from tests.unit.test_switch import EVE4, TUNNEL
from tests.unit.test_vnet import frame

TCP, UDP = 6, 17
TO_BOB = {4: ME4 + BOB4, 6: ME6 + BOB6}
FROM_BOB = {4: BOB4 + ME4, 6: BOB6 + ME6}


def readdressed(whole: bytes, addresses: bytes) -> bytes:
    """A frame of IPv4 or IPv6 between these; its sums are left wrong."""
    at = HEAD + (12 if whole[HEAD] >> 4 == 4 else 8)
    return whole[:at] + addresses + whole[at + len(addresses) :]


def large(version: int, protocol: int, between: dict[int, bytes], size: int = 5000, step: int = 1000) -> bytes:
    """One of five packets."""
    return readdressed(frame(version, protocol, bytes(size), step), between[version])


def as_iov(whole: bytes, first: int = 120) -> Iov:
    """As it comes from a lane."""
    return [whole[:first], memoryview(whole)[first:]]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_many_in_one_go_as_one_and_count_as_many(version: int, protocol: int) -> None:
    switch = Switch(TUNNEL)
    whole, one = large(version, protocol, TO_BOB), readdressed(frame(version, protocol, bytes(99), 0), TO_BOB[version])
    hinted = whole[:2] + b"\7\7" + whole[4:]  # the kernel says how much it has in one piece, not what the headers are
    assert switch.sort([whole, one, hinted, one]) == ({"bob": [whole, one, whole, one]}, [])
    switch.sent("bob", [whole, one, whole], 2)
    each = vnet.packets([whole, one])
    assert switch.traffic["bob"].passed()["sent_packets"] == 6 == len(each) and switch.traffic["bob"].lost == 5
    assert switch.traffic["bob"].sent_bytes == sum(map(len, each))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_many_in_one_come_as_one_and_count_as_many(version: int, protocol: int) -> None:
    switch = Switch(TUNNEL)
    whole, one = (
        large(version, protocol, FROM_BOB),
        readdressed(frame(version, protocol, bytes(99), 0), FROM_BOB[version]),
    )
    iovs = [as_iov(whole), [one], [one], as_iov(whole)]
    assert switch.admit("bob", iovs) == iovs
    each = vnet.packets([whole, one])
    assert (switch.traffic["bob"].received_packets, switch.traffic["bob"].received_bytes) == (
        2 * len(each),
        2 * sum(map(len, each)),
    )
    assert switch.admit("eve", iovs) == [] and switch.traffic["eve"].spoofed == 12


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("step", [0, 1000])
def test_what_passed_before_changes_no_judgement(version: int, protocol: int, step: int) -> None:
    good, used = readdressed(frame(version, protocol, bytes(5000), step), FROM_BOB[version]), Switch(TUNNEL)
    assert used.admit("bob", [as_iov(good)]) == [as_iov(good)]
    changed = [good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :] for at in range(HEAD + 60) for bit in (1, 16, 128)]
    for peer in ("bob", "eve"):
        for iov in [*map(as_iov, [*changed, good[:-1], good + b"\0"]), as_iov(good, 130), as_iov(good, 40), [good]]:
            used.traffic[peer], new = Traffic(), Switch(TUNNEL)
            assert used.admit(peer, [iov]) == new.admit(peer, [iov])
            counts = [(each.traffic[peer].passed(), each.traffic[peer].dropped()) for each in (used, new)]
            assert counts[0] == counts[1]


def test_an_address_that_is_anothers_now_is_judged_anew() -> None:
    switch = Switch(TUNNEL)
    iovs = [as_iov(large(4, TCP, FROM_BOB)), [readdressed(frame(4, TCP, bytes(99), 0), FROM_BOB[4])]]
    assert switch.admit("bob", iovs) == iovs
    switch.allow("bob", TUNNEL.allowed["bob"][1:])
    switch.allow("zoe", TUNNEL.allowed["bob"][:1])
    assert switch.admit("bob", iovs) == [] and switch.admit("zoe", iovs) == iovs


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_what_says_other_than_it_is_does_not_get_to_the_kernel(version: int, protocol: int) -> None:
    switch = Switch(TUNNEL)
    good = {step: readdressed(frame(version, protocol, bytes(5000), step), FROM_BOB[version]) for step in (0, 1000)}
    assert len(switch.admit("bob", [as_iov(each) for each in good.values()])) == 2
    bad = [
        whole[:at] + bytes([whole[at] ^ 3]) + whole[at + 1 :]
        for whole in good.values()
        for at in (1, 6, 8, HEAD + version - 1)
    ]
    bad += [good[0] + b"x", good[1000][:-1], good[0][: HEAD + 19], good[0][:5]]
    bad.append(readdressed(frame(version, protocol, bytes(6500), 100), FROM_BOB[version]))  # of 65
    for whole in bad:
        assert switch.admit("bob", [as_iov(whole)]) == switch.admit("bob", [[whole]]) == [], whole[:30]
    assert switch.traffic["bob"].malformed == 2 * len(bad)


@pytest.mark.parametrize("is_4", [True, False])
def test_a_sum_that_is_not_made_yet_stays_as_it_is_when_segments_are_to_fit(is_4: bool) -> None:
    packet = syn(b"\2\4" + pack("!H", 1460), is_4=is_4)
    start = 20 if is_4 else 40
    partial = packet[: start + 16] + b"\x12\x34" + packet[start + 18 :]
    later = vnet.VIRTIO.pack(NEEDS_CSUM, 0, 0, 0, start, 16)
    ((sorted_,),) = Switch(TUNNEL).sort([later + partial])[0].values()
    back = readdressed(later + partial, FROM_BOB[4 if is_4 else 6])
    ((admitted,),) = Switch(TUNNEL).admit("bob", [[back]])
    for whole in (sorted_, bytes(admitted)):
        assert unpack_from("!H", whole, HEAD + start + 22) == (1380 - start - 20,)
        assert whole[HEAD + start + 16 : HEAD + start + 18] == b"\x12\x34"
    ((summed,),) = Switch(TUNNEL).sort([PLAIN + packet])[0].values()
    assert tcp_sum(summed[HEAD:]) == 0 and summed[HEAD + start + 22 :] == sorted_[HEAD + start + 22 :]


def test_what_does_not_fit_is_told_of_once_or_cut() -> None:
    switch = Switch(TUNNEL)
    switch.takes("bob", 600)
    for version, protocol, said, mtu in ((4, TCP, b"\3\4", 600), (6, TCP, b"\2\0", 1280), (6, UDP, b"\2\0", 1280)):
        sorted_, (answer,) = switch.sort([large(version, protocol, TO_BOB, step=1300)])
        packet = b"".join(answer)[HEAD:]
        start = 20 if version == 4 else 40
        assert sorted_ == {"bob": []} and is_whole(packet) and packet[start : start + 2] == said
        assert unpack_from("!H", packet, start + 6) == (mtu,)
    assert switch.traffic["bob"].too_big == 12
    fits = large(6, TCP, TO_BOB, step=1200)
    assert switch.sort([fits]) == ({"bob": [fits]}, []), "such a one of IPv6 the session takes in pieces"
    whole = large(4, UDP, TO_BOB)
    whole = whole[: HEAD + 6] + b"\0\0" + whole[HEAD + 8 :]
    assert whole[HEAD + 6] << 8 != DONT_FRAGMENT
    sorted_, answers = switch.sort([whole])
    found = vnet.packets(sorted_["bob"])
    assert answers == [] and len(found) == 10 and max(map(len, found)) <= 600
    assert all(checksum(each[:20]) == 0 and is_whole(each) for each in found)


def test_what_is_not_right_behind_ip_is_made_whole() -> None:
    switch = Switch(TUNNEL)
    whole = large(6, TCP, TO_BOB)
    packet = whole[HEAD:]
    options = bytes([TCP, 0, 1, 4, 0, 0, 0, 0])  # of IPv6, eight bytes of padding
    longer = packet[:4] + pack("!H", len(packet) - 40 + 8) + b"\0" + packet[7:40] + options + packet[40:]
    virtio = vnet.VIRTIO.pack(NEEDS_CSUM, vnet.TCP6, 68, 1000, 48, 16)
    ((*found,),) = switch.sort([virtio + longer])[0].values()
    assert len(found) == 5 and all(each.startswith(PLAIN) and is_whole(each[HEAD:]) for each in found)
    inner = vnet.VIRTIO.pack(NEEDS_CSUM, 0, 0, 0, 28, 6)  # of what a datagram carries
    carried = readdressed(PLAIN + frame(4, UDP, bytes(100), 0)[HEAD:], TO_BOB[4])[HEAD:]
    ((made,),) = switch.sort([inner + carried])[0].values()
    assert made.startswith(PLAIN) and checksum(made[HEAD + 28 :]) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_two_small_ones_that_came_as_one_go_on_as_two(version: int) -> None:
    whole = large(version, TCP, TO_BOB, 1000, 500)  # as a peer's session has joined them, and the kernel has passed on
    forwarded = b"\0" + whole[1:2] + pack("<HHHH", len(whole) - HEAD, 500, 0, 0) + whole[HEAD:]
    switch = Switch(TUNNEL)
    for _ in range(2):  # the second time the address is known
        ((*found,),) = switch.sort([forwarded])[0].values()
    assert len(found) == 2 and all(each.startswith(PLAIN) and is_whole(each[HEAD:]) for each in found)


@settings(max_examples=some_of(300), deadline=None)
@given(
    st.sampled_from([4, 6]),
    st.sampled_from([TCP, UDP]),
    st.sampled_from([0, 90]),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), max_size=4),
    st.sampled_from([5, 11, 31, 43, 50, 64, 120]),
)
def test_nothing_breaks_on_garbage(
    version: int, protocol: int, step: int, changes: list[tuple[int, int]], first: int
) -> None:
    changed = bytearray(readdressed(frame(version, protocol, bytes(200), step), FROM_BOB[version]))
    for at, value in changes:
        changed[at] = value
    whole, switch = bytes(changed), Switch(TUNNEL)
    for cut in (whole, whole[: len(whole) - 1], whole[: HEAD + first]):
        for iov in ([cut], as_iov(cut, first)):
            for _ in range(2):  # the second time behind one that passed
                good = [readdressed(frame(version, protocol, bytes(200), 0), FROM_BOB[version])]
                admitted = switch.admit("bob", [good, iov])
                assert good in admitted and (len(admitted) == 1 or is_whole(cut[HEAD:]))
        if len(cut) >= HEAD:
            for its in switch.sort([cut, readdressed(cut, TO_BOB[version])[: len(cut)]])[0].values():
                switch.sent("bob", its, 1)
                vnet.packets(its)


def test_nobody_else_gets_it() -> None:
    to_eve = readdressed(frame(4, UDP, bytes(5000), 1000), ME4 + EVE4)
    switch = Switch(TUNNEL)
    assert switch.sort([large(4, UDP, TO_BOB), to_eve])[0]["eve"] == [to_eve]
    to_nobody = readdressed(to_eve, ME4 + bytes([10, 77, 0, 9]))
    assert switch.sort([to_nobody, PLAIN + to_nobody[HEAD:]])[0] == {} and switch.homeless == 6
