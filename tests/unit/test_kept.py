"""What of a time without a connection is still sent when there is one again."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from procs.agent.datagrams import Datagrams
from procs.agent.hand import NO_CAPS
from procs.agent.kept import KEPT, OTHER_S, TCP_S, Kept

TCP, UDP, ICMP = 6, 17, 1


def packet(protocol: int, number: int, version: int = 4) -> bytes:
    head = (
        b"\x45" + bytes(8) + bytes([protocol]) + bytes(10) if version == 4 else b"\x60\0\0\0\0\0" + bytes([protocol, 9])
    )
    return head + number.to_bytes(4, "big")


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_is_kept_for_long_and_all_else_for_a_moment(version: int) -> None:
    kept = Kept()
    for number, protocol in enumerate((ICMP, TCP, UDP, TCP)):
        kept.add([packet(protocol, number, version)], number / 10)
    assert kept.taken(OTHER_S + 0.1) == [packet(each, n, version) for n, each in ((1, TCP), (2, UDP), (3, TCP))]
    assert not kept.taken(0.2), "they are kept no more"
    kept.add([packet(TCP, 4, version), packet(ICMP, 5, version)], 2.0)
    assert kept.taken(2.0 + OTHER_S) == [packet(TCP, 4, version)]
    kept.add([packet(TCP, 6, version)], 4.0)
    assert not kept.taken(4.0 + TCP_S)


def test_a_ping_of_an_outage_is_not_sent_after_it() -> None:
    class Below:
        def send(self, packets: list[bytes]) -> int:
            sent.extend(packets)
            return len(packets)

        def age(self, now: float) -> None:
            """Nothing waits."""

    sent: list[bytes] = []
    datagrams, packets = Datagrams(NO_CAPS), [packet(ICMP, 1), packet(TCP, 2)]
    assert datagrams.send(packets) == 0
    datagrams._packing = cast(Any, Below())
    datagrams.beat(time.monotonic() + 5.0, 0.0)
    assert sent == packets[1:] and datagrams._refused == 1


def test_the_last_few_are_kept_and_none_crowds_out_another_kind() -> None:
    kept = Kept()
    kept.add([packet(TCP, 0), *(packet(ICMP, number) for number in range(1, 3 * KEPT)), b""], 1.0)
    found = kept.taken(1.5)
    assert len(found) == 1 + KEPT and packet(TCP, 0) in found and packet(ICMP, 3 * KEPT - 1) in found
