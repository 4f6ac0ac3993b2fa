"""The fast lane's records: against AES-GCM spelled out, and against whoever changes, repeats or delays them."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from procs.agent.lane.slices import Incoming, outgoing
from procs.agent.lane.sockets import IN_BYTES
from procs.settings import ROOT
from procs.wire import records
from procs.wire.records import HEAD, MAGIC, MOST_RECORDS, OVERHEAD, REKEY_RECORDS, WINDOW, Opener, Sealer, index_of

GOLDEN = [json.loads(line) for line in (ROOT / "tests/golden/lane.jsonl").read_text().splitlines()]
SECRET = bytes(range(24))
STEP = OVERHEAD + 100


def by_hand(key: bytes, nonce: bytes, text: bytes) -> bytes:
    """AES-GCM without associated data, of single blocks of AES (NIST SP 800-38D)."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update
    pieces = [text[at : at + 16] for at in range(0, len(text), 16)]
    sealed = b"".join(
        bytes(a ^ b for a, b in zip(piece, block(nonce + count.to_bytes(4, "big")), strict=False))
        for count, piece in enumerate(pieces, 2)
    )
    factor, state = int.from_bytes(block(bytes(16)), "big"), 0
    for piece in [*(sealed[at : at + 16] for at in range(0, len(sealed), 16)), pack_sizes(sealed)]:
        state = times(state ^ int.from_bytes(piece.ljust(16, b"\0"), "big"), factor)
    return sealed + (state ^ int.from_bytes(block(nonce + b"\0\0\0\1"), "big")).to_bytes(16, "big")


def pack_sizes(sealed: bytes) -> bytes:
    return bytes(8) + (8 * len(sealed)).to_bytes(8, "big")


def times(one: int, other: int) -> int:
    """In GF(2^128), as GCM counts its bits."""
    found = 0
    for bit in range(127, -1, -1):
        if one >> bit & 1:
            found ^= other
        other = other >> 1 ^ (0xE1 << 120 if other & 1 else 0)
    return found


def apart(joined: bytes, step: int) -> list[memoryview]:
    return [memoryview(joined)[at : at + step] for at in range(0, len(joined), step)]


def sealed(sealer: Sealer, count: int) -> list[memoryview]:
    """So many records of 100 bytes, which tell their counters."""
    first = sealer.count
    return apart(sealer.seal([b"%100d" % counter for counter in range(first, first + count)]), STEP)


def pair(first: int = 0) -> tuple[Sealer, Opener]:
    sealer = Sealer(SECRET)
    sealer.count = first
    return sealer, Opener(SECRET)


def followed(opener: Opener, datagrams: list[memoryview], first: int) -> int:
    """How many are opened behind each other, from this counter on."""
    room = memoryview(bytearray(100 * len(datagrams)))
    rooms = [room[at : at + 100] for at in range(0, len(room), 100)]
    done = opener.follow(first, [each[HEAD:] for each in datagrams], rooms)
    assert bytes(room[: 100 * done]) == b"".join(b"%100d" % counter for counter in range(first, first + done))
    return done


@pytest.mark.parametrize("vector", GOLDEN, ids=lambda vector: vector["what"])
def test_vectors(vector: dict[str, Any]) -> None:
    secret, counter = bytes.fromhex(vector["secret"]), vector["counter"]
    expected = [bytes.fromhex(each) for each in vector["datagrams"]]
    texts = [bytes.fromhex(each) for each in vector["texts"]]
    for number, (datagram, text) in enumerate(zip(expected, texts, strict=True), counter):
        assert datagram[:HEAD] == bytes([MAGIC]) + secret[:4] + number.to_bytes(8, "big")
        assert datagram[HEAD:] == by_hand(secret[8:], secret[4:8] + number.to_bytes(8, "big"), text)
    sealer, opener = Sealer(secret), Opener(secret)
    sealer.count = counter
    assert sealer.seal(texts) == b"".join(expected)
    assert [opener.open(memoryview(each)) for each in expected] == list(enumerate(texts, counter))


@pytest.mark.parametrize("vector", [each for each in GOLDEN if "frame" in each], ids=lambda vector: vector["what"])
def test_vectors_of_frames(vector: dict[str, Any]) -> None:
    secret, frame = bytes.fromhex(vector["secret"]), bytes.fromhex(vector["frame"])
    sealer, incoming = Sealer(secret), Incoming(Opener(secret))
    sealer.count = vector["counter"]
    (run,) = outgoing(sealer, [frame], vector["size"])
    assert apart(*run) == [bytes.fromhex(each) for each in vector["datagrams"]]
    incoming.take(memoryview(run[0]), run[1])
    assert [b"".join(iov) for iov in incoming.frames()] == [frame]


def test_counters_go_up_and_no_nonce_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    nonces: list[bytes] = []

    class Noting:
        def __init__(self, key: bytes) -> None: ...

        def encrypt(self, nonce: bytes, text: bytes, more: None) -> bytes:
            nonces.append(nonce)
            if text == b"fails":
                raise OverflowError
            return text + bytes(16)

    monkeypatch.setattr(records, "AESGCM", Noting)
    sealer = Sealer(SECRET)
    for count in (1, 63, 64, 0, 64, 100, 700, 1):
        sealer.seal([b"text"] * count)
    with pytest.raises(OverflowError):
        sealer.seal([b"text", b"fails", b"text"])
    sealer.seal([b"text"])
    assert all(nonce[:4] == SECRET[4:8] for nonce in nonces)
    counters = [int.from_bytes(nonce[4:], "big") for nonce in nonces]
    assert len(counters) == 996 and all(one < other for one, other in pairwise(counters))


@pytest.mark.parametrize("first", [0, 250, (1 << 25) - 7, MOST_RECORDS - 70])
def test_what_is_sealed_is_opened(first: int) -> None:
    sealer, opener = pair(first)
    datagrams = sealed(sealer, 70)
    assert [opener.open(each) for each in datagrams] == [(n, b"%100d" % n) for n in range(first, first + 70)]
    assert (opener.newest, opener.forged, opener.replayed) == (first + 69, 0, 0)
    assert {index_of(each) for each in datagrams} == {sealer.index} == {opener.index} == {SECRET[:4]}


@pytest.mark.parametrize("first", [0, 250, 8100])
def test_those_that_follow_each_other_are_opened_at_once(first: int) -> None:
    sealer, opener = pair(first)
    datagrams = sealed(sealer, 60)
    assert opener.open(datagrams[0])
    done = followed(opener, datagrams[1:], first + 1)
    assert done == min(59, 255 - first % 256)  # up to where more than the last byte of the counter changes
    assert [opener.open(each) for each in datagrams[: 1 + done]] == [None] * (1 + done)
    assert (opener.replayed, opener.newest) == (1 + done, first + done)


@pytest.mark.parametrize("early", [40, 70, 300])
def test_those_that_a_later_one_has_overtaken_are_opened_at_once_too_and_none_twice(early: int) -> None:
    sealer, opener = pair()
    datagrams = sealed(sealer, 301)
    assert opener.open(datagrams[early])
    assert opener.open(datagrams[0]) and followed(opener, datagrams[1:60], 1) == min(early, 60) - 1
    assert opener.newest == early
    assert [opener.open(each) for each in datagrams[: min(early, 60)]] == [None] * min(early, 60)
    assert opener.open(datagrams[early]) is None and opener.replayed == min(early, 60) + 1
    if early < 60:
        assert (
            opener.open(datagrams[early + 1]) and followed(opener, datagrams[early + 2 : 60], early + 2) == 58 - early
        )
        assert opener.newest == 59
    assert opener.open(datagrams[60]) and followed(opener, datagrams[61:65], 61) == 4, "and it goes on as before"


def test_a_changed_bit_anywhere_is_a_forgery_and_changes_nothing() -> None:
    sealer, opener = pair()
    old, new = sealed(sealer, 2)
    opener.open(old)
    for bit in range(8 * len(new)):
        changed = bytearray(new)
        changed[bit // 8] ^= 1 << bit % 8
        before = opener.forged + opener.replayed
        assert opener.open(memoryview(changed)) is None, bit
        assert (opener.newest, opener.forged + opener.replayed) == (0, before + 1)
    assert opener.replayed == 1  # by one bit it is the one before
    for size in range(len(new)):
        assert opener.open(new[:size]) is None
    assert opener.open(memoryview(bytes(new) + b"\0")) is None
    assert opener.open(new) == (1, b"%100d" % 1)


def test_of_those_that_follow_a_forged_a_lost_and_a_repeated_one_end_it() -> None:
    for change in ("forged", "lost", "repeated"):
        sealer, opener = pair()
        datagrams = sealed(sealer, 20)
        opener.open(datagrams[0])
        if change == "forged":
            wrong = bytearray(datagrams[9])
            wrong[50] ^= 1
            datagrams[9] = memoryview(wrong)
        elif change == "lost":
            del datagrams[9]
        else:
            datagrams.insert(9, datagrams[8])
        assert followed(opener, datagrams[1:], 1) == 8
        assert opener.newest == 8
        rest = [found[0] for each in datagrams[9:] if (found := opener.open(each))]
        assert rest == {"forged": [*range(10, 20)], "lost": [*range(10, 20)], "repeated": [*range(9, 20)]}[change]
        assert (opener.forged, opener.replayed) == (change == "forged", change == "repeated")


def test_records_of_another_key_are_forgeries() -> None:
    for place in range(24):
        other = bytearray(SECRET)
        other[place] ^= 1
        opener = Opener(bytes(other))
        (datagram,) = sealed(Sealer(SECRET), 1)
        assert opener.open(datagram) is None
        assert opener.open(memoryview(bytes([MAGIC]) + other[:4] + datagram[5:])) is None or place < 4
        assert opener.forged == (1 if place < 4 else 2)


SMALL = 1024  # a window that few records fill


def test_no_two_records_of_a_key_that_share_a_place_are_one_and_blocks_are_whole() -> None:
    assert MOST_RECORDS // WINDOW + 1 < 256 and WINDOW % 256 == 0 and MOST_RECORDS % 256 == 0


ENDS = [(SMALL, 0), (SMALL, 894), (SMALL, 204_500), (WINDOW, WINDOW - 300), (WINDOW, MOST_RECORDS - 4096)]


@pytest.mark.parametrize(("window", "first"), ENDS)
def test_runs_in_any_order_repeated_changed_and_lost_are_taken_as_one_by_one(
    monkeypatch: pytest.MonkeyPatch, window: int, first: int
) -> None:
    """Against all counters that were accepted, in a set. The first of a run is opened, and those that follow it."""
    monkeypatch.setattr(records, "WINDOW", window)
    dice = random.Random(first)
    sealer, opener = pair(first)
    datagrams, accepted, newest, replayed, forged = sealed(sealer, 4096), set[int](), -1, 0, 0
    for at in range(0, 4096, 20):
        start = max(0, at - dice.choice((0, 0, 40, 300, SMALL - 20, SMALL, SMALL + 90)))
        run = [*range(start, min(4096, start + dice.choice((1, 30, 64))))]
        if dice.random() < 0.5:  # one is repeated, one comes in the wrong place, one is lost
            run.insert(dice.randrange(len(run)), dice.choice(run))
            run.insert(dice.randrange(len(run)), max(0, at - dice.randrange(90)))
            del run[dice.randrange(len(run))]
        wrong = dice.randrange(128)
        views = [memoryview(bytes(datagrams[n][:-1]) + bytes([datagrams[n][-1] ^ (n % 128 == wrong)])) for n in run]
        expected = list[int]()
        for number in run:
            if first + number <= newest - window or first + number in accepted:
                replayed += 1
            elif number % 128 == wrong:
                forged += 1
            else:
                expected.append(first + number)
                accepted.add(first + number)
                newest = max(newest, first + number)
        got, place = list[int](), 0
        while place < len(views):
            opened, place = opener.open(views[place]), place + 1
            if opened:
                done = followed(opener, views[place:], opened[0] + 1)
                got += range(opened[0], opened[0] + 1 + done)
                place += done
        assert got == expected
        assert (opener.newest, opener.replayed, opener.forged) == (newest, replayed, forged)
    assert len(accepted) > 2000 and replayed > 1000 and forged > 10


def test_each_is_taken_once_however_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "WINDOW", SMALL)
    sealer, opener = pair()
    datagrams = sealed(sealer, 3 * SMALL)
    shuffled = random.Random(1)
    order = sorted(range(len(datagrams)), key=lambda n: n + shuffled.random() * (SMALL - 1))
    for n in order:
        assert opener.open(datagrams[n]) == (n, b"%100d" % n), "delayed by less than the window"
        if n % 100 == 0:
            assert opener.open(datagrams[n]) is None
    assert [opener.open(each) for each in datagrams if opener.open(each)] == []
    assert opener.forged == 0


def test_what_is_older_than_the_window_is_refused_and_what_is_just_in_it_is_taken() -> None:
    sealer, opener = pair()
    datagrams = sealed(sealer, 3)
    sealer.count = WINDOW
    late = sealed(sealer, 2)
    assert opener.open(late[0])
    assert opener.open(datagrams[0]) is None
    assert opener.open(datagrams[1])
    assert opener.open(late[1])
    assert opener.open(datagrams[2])
    assert opener.open(datagrams[1]) is None
    assert (opener.replayed, opener.forged, opener.newest) == (2, 0, WINDOW + 1)


def test_what_is_read_first_has_nothing_refused_that_waits_in_the_other_socket() -> None:
    sealer, opener = pair()
    waiting = sealed(sealer, 1)
    sealer.count += 2 * IN_BYTES // 64  # the kernel gives twice as much as is asked for; no slice of TCP is smaller
    assert opener.open(sealed(sealer, 1)[0]) and opener.open(waiting[0])


def test_a_key_seals_so_many_and_no_more() -> None:
    assert REKEY_RECORDS < MOST_RECORDS
    sealer, opener = pair(MOST_RECORDS - 3)
    assert len(apart(sealer.seal([b"text"] * 3), OVERHEAD + 4)) == 3
    assert sealer.seal([b"text"]) == b""
    assert sealer.count == MOST_RECORDS
    # A peer that goes on all the same gains nothing by it, up to the last number that there is.
    for counter in (MOST_RECORDS, 1 << 56, (1 << 64) - 1):
        number = counter.to_bytes(8, "big")
        datagram = SECRET[:4] + number + by_hand(SECRET[8:], SECRET[4:8] + number, b"text")
        assert opener.open(memoryview(bytes([MAGIC]) + datagram)) is None
    assert (opener.forged, opener.newest) == (3, -1)


def test_what_is_no_record() -> None:
    opener = Opener(SECRET)
    for size in (0, 1, 4, 5, HEAD, OVERHEAD - 1):
        datagram = (bytes([MAGIC]) + SECRET[:4]).ljust(size, b"\0")[:size]
        assert opener.open(memoryview(datagram)) is None
        assert index_of(datagram) == b""
    assert opener.forged == 6
    (empty,) = apart(Sealer(SECRET).seal([b""]), OVERHEAD)
    assert opener.open(empty) == (0, b"")
