"""Signatures under offers and answers, and keys that are pinned: nobody stands in another's place."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path

import msgspec
import pytest

from procs.agent import keyring
from procs.agent.identity import FIRST_USE, Identity, Trust, public_key, signed_text
from procs.agent.keyring import Peers, folder_in, own_key
from procs.errors import ConfigError, Refused
from procs.wire import signal
from procs.wire.signal import Answer, Offer

CAPS = '{"planes":[2,1]}'
OFFER = Offer("bob", "alice", "v=0 offer", "s-1")
ANSWER = Answer("alice", "bob", "v=0 answer", "s-1")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Identity, Identity]:
    """Alice and Bob, on a machine each."""
    return agent(tmp_path, "alice"), agent(tmp_path, "bob")


def agent(place: Path, name: str, trust: Trust = FIRST_USE) -> Identity:
    """An agent on the machine of this name."""
    (place / name).mkdir(exist_ok=True)
    return Identity(name, folder_in(place / name), trust)


def test_what_is_signed_stands_written() -> None:
    """By this text agents of other makes can do the same."""
    sha = "8f6d04d3d6fd4a7ed8d4ae2e4a5b2f1e"
    text = signed_text(ANSWER, CAPS, OFFER.sdp).decode()
    lines = text.split("\n")
    assert lines[:5] == ["planaria-signal-1", "answer", "alice", "bob", "s-1"] and lines[-1] == CAPS
    assert len(lines) == 8 and all(len(digest) == 64 for digest in lines[5:7]) and sha not in text
    assert signed_text(OFFER, CAPS).decode().split("\n")[1:5] == ["offer", "bob", "alice", "s-1"]


def test_both_ways_through_the_wire(pair: tuple[Identity, Identity]) -> None:
    alice, bob = pair
    offer = signal.decode(signal.encode(bob.signed(OFFER, CAPS)))
    assert isinstance(offer, Offer) and offer.auth and offer.auth.caps == CAPS
    assert alice.check(offer)
    answer = signal.decode(signal.encode(alice.signed(ANSWER, CAPS, OFFER.sdp)))
    assert isinstance(answer, Answer)
    assert bob.check(answer, OFFER.sdp)
    assert alice.peers.all()["bob"].key == bob.key and bob.peers.all()["alice"].key == alice.key


@pytest.mark.parametrize(
    "change", [{"sdp": "v=0 other"}, {"sender": "eve"}, {"session": "s-2"}, {"to": "carol"}, {"auth": "caps"}]
)
def test_whatever_the_server_changes_is_seen(pair: tuple[Identity, Identity], change: dict[str, str]) -> None:
    alice, bob = pair
    offer = bob.signed(OFFER, CAPS)
    if "auth" in change:
        change = {"auth": msgspec.structs.replace(offer.auth, caps="{}")}  # type: ignore[type-var, dict-item]
    with pytest.raises(Refused):
        alice.check(msgspec.structs.replace(offer, **change))
    assert alice.peers.all() == {}, "and nobody's key is kept"


def test_an_answer_is_to_its_offer_alone(pair: tuple[Identity, Identity]) -> None:
    alice, bob = pair
    with pytest.raises(Refused, match="signature"):
        bob.check(alice.signed(ANSWER, CAPS, "v=0 an offer that the server made up"), OFFER.sdp)


def test_another_key_is_refused_loudly_until_the_old_one_is_forgotten(
    pair: tuple[Identity, Identity], tmp_path: Path
) -> None:
    alice, bob = pair
    alice.check(bob.signed(OFFER, CAPS))
    (tmp_path / "other").mkdir()
    other = Identity("bob", folder_in(tmp_path / "other"))
    with pytest.raises(Refused, match="HAS ANOTHER KEY"):
        alice.check(other.signed(OFFER, CAPS))
    assert alice.check(bob.signed(OFFER, CAPS)), "the one that was known gets in as before"
    assert alice.peers.forget("bob") and not alice.peers.forget("bob")
    assert alice.check(other.signed(OFFER, CAPS))
    again = agent(tmp_path, "alice")
    assert again.key == alice.key
    with pytest.raises(Refused, match="HAS ANOTHER KEY"):
        again.check(bob.signed(OFFER, CAPS))


def test_only_who_is_approved(pair: tuple[Identity, Identity], tmp_path: Path) -> None:
    _, bob = pair
    careful = agent(tmp_path, "alice", Trust("approved"))
    with pytest.raises(Refused, match=re.escape(f"--approve bob {bob.key}")):
        careful.check(bob.signed(OFFER, CAPS))
    careful.peers.pin("bob", bob.key, approved=True)
    assert careful.check(bob.signed(OFFER, CAPS))
    named = agent(tmp_path, "alice", Trust("approved", known={"bob": "A" * 43 + "="}))
    with pytest.raises(Refused, match="HAS ANOTHER KEY") as refused:
        named.check(bob.signed(OFFER, CAPS))
    said = str(refused.value)
    assert "differs from key: in planaria.yaml (tunnel: peers: bob) at 'alice'" in said and "--forget" not in said
    assert len(said) < 500, "or the end of it would not reach the other side"


def test_who_signs_nothing_gets_in_where_it_may_and_never_for_one_who_does(
    pair: tuple[Identity, Identity], tmp_path: Path
) -> None:
    alice, bob = pair
    with pytest.raises(Refused, match="PLANARIA_ALLOW_UNSIGNED"):
        alice.check(OFFER)
    open_to_all = agent(tmp_path, "alice", Trust(allow_unsigned=True))
    assert open_to_all.check(OFFER) is False
    assert open_to_all.check(bob.signed(OFFER, CAPS)) is True
    with pytest.raises(Refused, match="is known by its key"):
        open_to_all.check(OFFER)


def test_files_that_cannot_be_used(pair: tuple[Identity, Identity], tmp_path: Path) -> None:
    alice, bob = pair
    alice.peers.path.write_text('{"peers": {"bob": 5}}')
    with pytest.raises(Refused, match="cannot be read"):
        alice.check(bob.signed(OFFER, CAPS))
    key = tmp_path / "alice" / "agent" / "key"
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        agent(tmp_path, "alice")
    key.chmod(0o600)
    key.write_text("torn")
    with pytest.raises(ConfigError, match="is no key"):
        agent(tmp_path, "alice")


def _first_use(folder: Path, number: int, out: multiprocessing.Queue[str]) -> None:
    key = public_key(own_key(folder))
    Peers(folder).pin(f"peer-{number}", key)
    out.put(key)


def test_names_that_somebody_makes_up_crowd_out_each_other_and_nobody_who_was_met(
    pair: tuple[Identity, Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "MAX_PEERS", 4)
    alice, bob = pair
    alice.peers.pin("old", bob.key, approved=True)
    alice.check(bob.signed(OFFER, CAPS))
    alice.met("bob")
    for number in range(9):
        alice.peers.pin(f"stranger{number}", bob.key)
    assert set(alice.peers.all()) == {"old", "bob", "stranger7", "stranger8"}
    for name in ("stranger7", "stranger8"):
        alice.met(name)
    with pytest.raises(Refused, match="4 peers are known already"):
        alice.peers.pin("late", bob.key)
    assert alice.peers.pin("bob", bob.key, approved=True).approved, "who is known can be approved all the same"


@pytest.mark.parametrize(("peer", "key"), [("bob", "xx"), ("b/b", "A" * 43 + "="), ("", "A" * 43 + "=")])
def test_what_could_not_be_read_again_is_not_kept(pair: tuple[Identity, Identity], peer: str, key: str) -> None:
    alice, bob = pair
    assert alice.check(bob.signed(OFFER, CAPS))
    with pytest.raises(ConfigError, match="must be"):
        alice.peers.pin(peer, key, approved=True)
    assert alice.peers.all().keys() == {"bob"}


def test_many_processes_at_the_first_use_have_one_key_and_lose_no_peer(tmp_path: Path) -> None:
    out: multiprocessing.Queue[str] = multiprocessing.Queue()
    folder = folder_in(tmp_path)
    starts = [multiprocessing.Process(target=_first_use, args=(folder, n, out)) for n in range(6)]
    for each in starts:
        each.start()
    keys = {out.get(timeout=20) for _ in starts}
    for each in starts:
        each.join()
    assert len(keys) == 1 and len(Peers(folder).all()) == 6


def test_a_revoked_key_gets_in_nowhere_and_the_next_one_has_to_be_approved(
    pair: tuple[Identity, Identity], tmp_path: Path
) -> None:
    alice, bob = pair
    (tmp_path / "new").mkdir()
    new = Identity("bob", folder_in(tmp_path / "new"))
    assert alice.trusted("bob") == "" and not alice.peers.revoke("bob")
    assert alice.check(bob.signed(OFFER, CAPS)) and alice.trusted("bob") == bob.key
    assert alice.why_not("bob", bob.key) == ""
    assert Peers(tmp_path / "alice" / "agent").revoke("bob"), "another process"
    assert alice.trusted("bob") == "" and alice.why_not("bob", bob.key) == "its key was revoked"
    named = agent(tmp_path, "alice", Trust(known={"bob": bob.key}))
    again = agent(tmp_path, "alice")
    for its in (alice, again, named):
        with pytest.raises(Refused, match="was revoked"):
            its.check(bob.signed(OFFER, CAPS))
        with pytest.raises(Refused, match="was revoked"):  # whoever has it now calls himself something else
            its.check(Identity("eve", folder_in(tmp_path / "bob")).signed(_as("eve"), CAPS))
        with pytest.raises(Refused, match=re.escape(f"--approve bob {new.key}")):
            its.check(new.signed(OFFER, CAPS))
    alice.peers.pin("bob", new.key, approved=True)
    assert alice.check(new.signed(OFFER, CAPS)) and alice.trusted("bob") == new.key
    assert alice.peers.forget("bob")
    with pytest.raises(Refused, match="was revoked"):
        alice.check(bob.signed(OFFER, CAPS))
    alice.peers.pin("bob", bob.key, approved=True)
    assert alice.check(bob.signed(OFFER, CAPS)), "by the word of a person"


def _as(name: str) -> Offer:
    return msgspec.structs.replace(OFFER, sender=name)


def test_what_a_connection_stands_on_can_be_taken_away(pair: tuple[Identity, Identity], tmp_path: Path) -> None:
    alice, bob = pair
    alice.check(bob.signed(OFFER, CAPS))
    whole = alice.peers.path.read_bytes()
    assert alice.why_not("bob", bob.key) == ""
    alice.peers.path.write_text("torn")
    assert alice.why_not("bob", bob.key) == "", "nobody can say anything else"
    alice.peers.path.write_bytes(whole)
    assert alice.peers.revoke("A" * 43 + "="), "a key that was never here"
    assert alice.why_not("bob", bob.key) == ""
    alice.peers.forget("bob")
    assert alice.why_not("bob", bob.key) == "its key is not known any more"
    alice.peers.pin("bob", "B" * 43 + "=")
    assert alice.why_not("bob", bob.key) == "its key was replaced by another"
