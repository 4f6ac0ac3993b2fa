"""Whose a datagram is that comes to the port of all sessions (procs/agent/lane/demux.py)."""

from __future__ import annotations

import random

import pytest
from aioice import stun

from procs.agent.lane import demux
from procs.agent.lane.demux import Demux

BOB, CAROL = ("192.0.2.2", 5000), ("192.0.2.3", 5000)
DTLS = b"\x17\xfe\xfd\x00\x01" + bytes(18)
HELLO = b"\x16\xfe\xfd\x00\x00" + bytes(18)


def made(*ufrags: str) -> Demux[str]:
    """One that expects these, and gives their names."""
    one: Demux[str] = Demux()
    for ufrag in ufrags:
        assert one.expect(ufrag, ufrag)
    return one


def stun_of(kind: stun.Class, name: str = "", transaction: bytes | None = None) -> bytes:
    """A STUN message as aioice makes it."""
    message = stun.Message(
        stun.Method.BINDING, kind, transaction, {"PRIORITY": 1} | ({"USERNAME": name} if name else {})
    )
    message.add_message_integrity(b"password")
    return bytes(message)


def test_a_check_is_for_whom_it_names() -> None:
    one = made("here", "also")
    assert one.of_stun(stun_of(stun.Class.REQUEST, "here:there"), 0.0) == "here"
    assert one.of_stun(stun_of(stun.Class.REQUEST, "also:here"), 0.0) == "also"
    for name in ("there:here", "", ":here", "her:x", "\N{SNOWMAN}:x"):
        assert one.of_stun(stun_of(stun.Class.REQUEST, name), 0.0) is None
    assert (one.strangers, one.malformed) == (5, 0)


def test_an_answer_is_for_who_has_asked_and_only_for_a_while() -> None:
    one = made("here")
    question = stun_of(stun.Class.REQUEST, "there:here", b"a" * 12)
    assert one.of_stun(stun_of(stun.Class.RESPONSE, "", b"a" * 12), 0.0) is None
    assert one.sent("here", BOB, question, 1.0)
    for kind in (stun.Class.RESPONSE, stun.Class.ERROR):
        assert one.of_stun(stun_of(kind, "", b"a" * 12), 1.0 + demux.QUESTION_S) == "here"
        assert one.of_stun(stun_of(kind, "here:there", b"b" * 12), 1.0) is None
    assert one.of_stun(stun_of(stun.Class.RESPONSE, "", b"a" * 12), 1.1 + demux.QUESTION_S) is None
    assert one.of_stun(stun_of(stun.Class.INDICATION, "here:there"), 1.0) is None


def test_dtls_comes_from_where_a_check_was_answered_or_dtls_was_sent_and_from_nowhere_else() -> None:
    one = made("here")
    one.sent("here", BOB, stun_of(stun.Class.REQUEST, "there:here"), 0.0)
    assert one.of_dtls(DTLS, BOB, 0.0) is None, "a peer may name any address as its own"
    one.sent("here", BOB, stun_of(stun.Class.RESPONSE), 0.0)
    one.sent("here", CAROL, DTLS, 0.0)
    assert one.of_dtls(DTLS, BOB, 0.0) == "here" == one.of_dtls(DTLS, CAROL, 0.0)
    assert one.of_dtls(DTLS, ("192.0.2.2", 5001), 0.0) is None
    assert one.of_dtls(DTLS, BOB, demux.CLAIM_S + 0.1) is None
    assert one.strangers == 3


def test_an_owner_that_is_new_is_told_where_dtls_comes_from() -> None:
    one = made("here", "younger")
    one.sent("younger", CAROL, stun_of(stun.Class.RESPONSE), 0.0)
    one.heard("here", [BOB, CAROL], 0.0)
    one.heard("unknown", [BOB], 0.0)
    assert (one.of_dtls(DTLS, BOB, 1.0), one.of_dtls(DTLS, CAROL, 1.0)) == ("here", "younger")
    assert one.of_dtls(DTLS, BOB, 1.0 + demux.CLAIM_S) is None


def test_an_address_is_taken_over_by_a_younger_connection_alone_and_only_by_what_it_sends() -> None:
    one = made("old", "new")
    one.sent("old", BOB, DTLS, 0.0)
    one.sent("new", BOB, stun_of(stun.Class.REQUEST, "x:new"), 0.1)
    assert one.of_dtls(DTLS, BOB, 0.1) == "old" == one.of_dtls(HELLO, BOB, 0.1)
    one.sent("new", BOB, stun_of(stun.Class.RESPONSE), 0.2)
    assert one.of_dtls(DTLS, BOB, 0.2) == "old" and one.of_dtls(HELLO, BOB, 0.2) == "new"
    one.sent("new", BOB, HELLO, 0.3)
    one.sent("old", BOB, DTLS, 0.4)
    one.sent("old", BOB, stun_of(stun.Class.RESPONSE), 0.4)
    assert one.of_dtls(DTLS, BOB, 0.4) == "new" == one.of_dtls(HELLO, BOB, 0.4)
    one.forget("new")
    assert one.of_dtls(DTLS, BOB, 0.5) is None
    one.sent("old", BOB, DTLS, 0.6)
    assert one.of_dtls(DTLS, BOB, 0.6) == "old"
    one.expect("new", "new")
    one.sent("old", BOB, HELLO, 0.7)
    assert one.of_dtls(HELLO, BOB, 0.7) == "old"
    one.sent("new", BOB, stun_of(stun.Class.RESPONSE), 1.0)
    assert one.of_dtls(DTLS, BOB, 0.7 + demux.CLAIM_S) == "new", "the old one has sent nothing for long"


def test_what_is_forgotten_leaves_nothing_and_the_others_all_they_had() -> None:
    one = made("here", "also")
    for number in range(10):
        for ufrag, to in (("here", BOB[0]), ("also", CAROL[0])):
            one.sent(ufrag, (to, 5000 + number), DTLS, 0.0)
            one.sent(ufrag, (to, 5000), stun_of(stun.Class.REQUEST, "x:y"), 0.0)
    one.expect("here", "here again")
    assert one.of_dtls(DTLS, BOB, 0.0) == "here again" and len(one) == 2 * 21
    for _ in range(2):
        one.forget("here")
        assert len(one) == 21 and one.of_dtls(DTLS, CAROL, 0.0) == "also" and one.of_dtls(DTLS, BOB, 0.0) is None
    assert not one.sent("here", BOB, DTLS, 0.0) and one.of_dtls(DTLS, BOB, 0.0) is None
    one.forget("also")
    assert len(one) == 0


def test_every_table_has_a_bound() -> None:
    one = made("here")
    for number in range(demux.MAX_QUESTIONS + 10):
        one.sent("here", BOB, stun_of(stun.Class.REQUEST, "x:here", number.to_bytes(12, "big")), number / 1e5)
    assert len(one) == 1 + demux.MAX_QUESTIONS
    one.sent("here", BOB, stun_of(stun.Class.REQUEST, "x:here", b"z" * 12), 100.0)
    assert len(one) == 2, "the others are of no use any more"
    for number in range(demux.MAX_CLAIMS + 10):
        one.sent("here", CAROL, DTLS, 100.0)  # which is in use, and stays
        one.sent("here", ("192.0.2.4", 1024 + number), stun_of(stun.Class.RESPONSE), 100.0)
    assert len(one) == 2 + demux.MAX_CLAIMS and one.of_dtls(DTLS, CAROL, 100.0) == "here"
    for number in range(1, demux.MAX_CONNECTIONS):
        assert one.expect(f"{number}", "")
    assert not one.expect("more", "") and one.expect("here", "again")


@pytest.mark.parametrize("seed", range(3))
def test_garbage_is_nobodys(seed: int) -> None:
    one, chance = made("here"), random.Random(seed)
    one.sent("here", BOB, stun_of(stun.Class.REQUEST, "x:here"), 0.0)
    good = stun_of(stun.Class.REQUEST, "here:there")
    for _ in range(2000):
        if chance.random() < 0.5:
            garbage = bytearray(chance.randbytes(chance.randrange(60)))
        else:
            garbage = bytearray(good)
            garbage[chance.randrange(8)] ^= 1 << chance.randrange(8)
            if garbage[:8] == good[:8]:
                continue
        assert one.of_stun(bytes(garbage), 0.0) is None
    assert one.strangers + one.malformed == 2000 and one.of_stun(good, 0.0) == "here"
    endless = b"\x00\x01\x04\x00" + good[4:20] + bytes(1024)
    assert one.of_stun(endless, 0.0) is None, "attributes of no length"
