"""Agreement on the keys of a lane: whatever becomes of the HELLOs, no keys come back."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from procs.agent import ice
from procs.agent.lane.keying import LABEL, NONCE_BYTES, SECRET_BYTES, VERSION, Keying, Keys
from procs.agent.records import Records
from tests.channel_pair import LIMIT_S, Side, pair


def exporter(session: bytes = b"one") -> Callable[[bytes], bytes]:
    """Of a DTLS session, as far as its secrets differ by context."""
    return lambda context: hashlib.sha256(session + context).digest()[:SECRET_BYTES]


class End:
    """One side, what it has said, and all the keys that it had."""

    def __init__(self, role: str, session: bytes = b"one") -> None:
        self.said: list[bytes] = []
        self.had: list[Keys] = []
        self.keying = Keying(exporter(session), self.said.append, role)
        self.keying.on_keys = self.had.append

    @property
    def keys(self) -> Keys:
        """Those of now."""
        return self.had[-1]


def nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_BYTES, "big")


def exchange(one: End, two: End) -> None:
    """Hand over all that they say, until they are silent."""
    while one.said or two.said:
        for here, there in ((one, two), (two, one)):
            said, here.said[:] = here.said[:], []
            for hello in said:
                there.keying.heard(hello)


def agreed() -> tuple[End, End]:
    one, two = End("client"), End("server")
    one.keying.ours(nonce(1))
    two.keying.ours(nonce(2))
    exchange(one, two)
    return one, two


def test_both_get_the_same_secrets_and_each_direction_its_own() -> None:
    one, two = agreed()
    assert (one.keys.sends, one.keys.receives) == (two.keys.receives, two.keys.sends)
    assert one.keys.sends != one.keys.receives
    assert one.keys.may_send and two.keys.may_send


def test_nobody_may_send_before_the_other_side_has_the_keys() -> None:
    one, two = End("client"), End("server")
    one.keying.ours(nonce(1))
    two.keying.ours(nonce(2))
    one.said.clear()  # lost: two knows nothing yet
    one.keying.heard(two.said.pop())
    assert not one.keys.may_send and not two.had
    two.keying.heard(one.said[-1])
    assert two.keys.may_send  # it has been told that one knows both
    assert not one.keys.may_send
    one.keying.heard(two.said[-1])
    assert one.keys.may_send


def test_keys_are_told_before_the_other_side_is_told_that_we_have_them() -> None:
    order: list[str] = []
    two = Keying(exporter(), lambda hello: order.append("hello"), "server")
    two.on_keys = lambda keys: order.append("keys")
    two.ours(nonce(2))
    one = End("client")
    one.keying.ours(nonce(1))
    order.clear()
    two.heard(one.said[0])
    assert order == ["keys", "hello"]


def test_a_new_nonce_of_either_side_gives_new_keys_both_ways_and_the_old_ones_never_come_back() -> None:
    one, two = agreed()
    before = one.keys
    two.keying.ours(nonce(3))
    exchange(one, two)
    one.keying.ours(nonce(4))
    exchange(one, two)
    assert one.keys.may_send and two.keys.may_send
    assert (one.keys.sends, one.keys.receives) == (two.keys.receives, two.keys.sends)
    assert len({each.sends for each in one.had} & {each.receives for each in one.had}) == 0
    assert before.sends not in (one.keys.sends, one.keys.receives)


@pytest.mark.parametrize("seed", range(20))
def test_reordered_lost_and_repeated_hellos_bring_no_pair_back(seed: int) -> None:
    chance = random.Random(seed)
    ends = End("client"), End("server")
    ever: list[tuple[int, bytes]] = []  # all that was ever said, and to whom
    numbers = iter(range(1, 1000))
    changes: tuple[list[bytes], list[bytes]] = ([], [])
    for at in range(2):
        ends[at].keying.on_keys = lambda keys, at=at: changes[at].append(keys.sends)  # type: ignore[misc]
    for now in range(300):
        at = chance.randrange(2)
        if chance.random() < 0.1:
            ends[at].keying.ours(nonce(next(numbers)))
        ends[at].keying.tick(now / 2)
        for here in range(2):
            ever += [(1 - here, hello) for hello in ends[here].said]
            ends[here].said.clear()
        for to, hello in chance.sample(ever, min(3, len(ever))):
            ends[to].keying.heard(hello)
    for had in changes:
        runs = [had[n] for n in range(len(had)) if not n or had[n] != had[n - 1]]
        assert len(runs) > 5
        assert len(runs) == len(set(runs))  # once another has taken its place, a secret is never told again


def test_hellos_that_can_not_be_used_are_counted_and_change_nothing() -> None:
    one, two = agreed()
    before, count = one.keys, len(one.had)
    two.keying.tick(0.0)
    hello = two.said.pop()
    reflected = bytes([VERSION]) + (99).to_bytes(4, "big") + nonce(1) + nonce(1)
    another_of_the_same_serial = hello[:5] + nonce(77) + hello[21:]
    no_nonce = bytes([VERSION]) + (99).to_bytes(4, "big") + bytes(2 * NONCE_BYTES)
    bad = [b"", hello[:-1], bytes([VERSION + 1]) + hello[1:], reflected, another_of_the_same_serial, no_nonce]
    for each in bad:
        one.keying.heard(each)
    assert one.keying.refused == len(bad)
    assert (len(one.had), one.keys) == (count, before)
    one.keying.heard(hello + b" more, of a later version of ours")
    assert one.keying.refused == len(bad)


def test_two_of_the_same_nonce_get_no_keys() -> None:
    one, two = End("client"), End("server")
    for each in (one, two):
        each.keying.ours(nonce(1))
    exchange(one, two)
    one.keying.tick(0.0)
    assert not one.had and not two.had
    two.keying.ours(nonce(2))
    exchange(one, two)
    assert one.keys.may_send and two.keys.may_send


def test_all_is_said_again_each_second() -> None:
    one, two = agreed()
    count = len(one.had)
    for now in range(0, 40):
        one.keying.tick(now / 4)
    assert len(one.had) - count == len(one.said) == 10
    assert {each.sends for each in one.had[count:]} == {one.keys.sends}
    exchange(one, two)


def test_real_dtls_sessions_give_both_ends_the_same_and_each_session_other_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ice, "host_addresses", lambda: ["127.0.0.1"])

    def keying(side: Side) -> tuple[Keying, list[Keys]]:
        records = Records(side.dtls)
        dtls, had = records.dtls, list[Keys]()
        made = Keying(lambda context: dtls.export(LABEL, context, SECRET_BYTES), records.hello, dtls.role)
        made.on_keys, records.on_hello = had.append, made.heard
        return made, had

    async def until(true: Callable[[], Any]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not true():  # noqa: ASYNC110 - what it looks at changes in callbacks
                await asyncio.sleep(0.002)

    async def session() -> Keys:
        async with pair() as (here, there):
            (one, of_one), (two, of_two) = keying(here), keying(there)
            one.ours(nonce(1))
            two.ours(nonce(2))
            await until(lambda: all(had and had[-1].may_send for had in (of_one, of_two)))
            assert (of_one[-1].sends, of_one[-1].receives) == (of_two[-1].receives, of_two[-1].sends)
            return of_one[-1]

    first, second = asyncio.run(session()), asyncio.run(session())
    assert first.mine == second.mine
    assert len({first.sends, first.receives, second.sends, second.receives}) == 4
