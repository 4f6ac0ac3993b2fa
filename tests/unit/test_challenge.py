"""A device's proof: fixed vectors, and that neither a reader of the wire nor of the store can make one."""

from __future__ import annotations

import itertools

import pytest

from procs.errors import Refused
from procs.wire import challenge
from procs.wire.challenge import Keys, Verifier, check, check_signature, keys, proof, signature, transcript, verifier

SECRET, DEVICE = "correct horse", "pi-cam-001"
# Made with openssl (kdf PBKDF2, dgst -mac HMAC), not with our code.
CLIENT_KEY = "70ff6b0f982613a9d116706637f097bbb321903b6517b58048078e9eee93a3ed"
STORED_KEY = "47b16f8d3fa5b75e31fe96516d73b68105943f2ba13dd9a6418af6babc2f72f8"
SERVER_KEY = "f2d66acc702f621a76fbe97335c9e7701d421aa155fec5b4bcc014cf7cbcd11f"
SAID = bytes.fromhex(
    "0000001b706c616e6172696120646576696365206368616c6c656e6765203100"
    "00000a70692d63616d2d30303100000010303132333435363738396162636465"
    "6600000040" + "31" * 64 + "00000040" + "32" * 64
)
PROOF = "7cb13a070d4ae022b7415bd44d55844ef9f9aace42fcdcc1877f90cf337d32ce"
SIGNATURE = "e2cfed5f3fd4eff9ca59a05173aabd29e63c2047d8d631e6396d17de75c43fd0"
MINE, KEPT = keys(SECRET, DEVICE), verifier(SECRET, DEVICE)


def test_fixed_vectors() -> None:
    assert Keys(bytes.fromhex(CLIENT_KEY), bytes.fromhex(STORED_KEY), bytes.fromhex(SERVER_KEY)) == MINE
    assert Verifier(bytes.fromhex(STORED_KEY), bytes.fromhex(SERVER_KEY)) == KEPT
    assert KEPT.to_text() == f"planaria-1:{STORED_KEY}:{SERVER_KEY}"
    assert transcript(DEVICE, "0123456789abcdef", "1" * 64, "2" * 64) == SAID
    assert proof(MINE, SAID) == PROOF
    assert signature(KEPT, SAID) == SIGNATURE


def test_who_has_the_secret_is_known_and_knows_the_hub() -> None:
    said = transcript(DEVICE, "", challenge.nonce(), challenge.nonce())
    assert check(Verifier.from_text(KEPT.to_text()), said, proof(MINE, said))
    assert check_signature(MINE, said, signature(KEPT, said))


@pytest.mark.parametrize("change", range(5))
def test_a_proof_is_good_for_one_exchange_of_one_device(change: int) -> None:
    parts = [DEVICE, "i", "1" * 64, "2" * 64]
    other = [part + "x" if at == change else part for at, part in enumerate(parts)]
    said, elsewhere = transcript(*parts), transcript(*other)
    assert check(KEPT, elsewhere, proof(MINE, said)) is (change == 4)
    assert check_signature(MINE, elsewhere, signature(KEPT, said)) is (change == 4)


@pytest.mark.parametrize("wrong", [keys("correct horses", DEVICE), keys(SECRET, "pi-cam-002")])
def test_another_secret_or_device_proves_nothing(wrong: Keys) -> None:
    assert not check(KEPT, SAID, proof(wrong, SAID))
    assert not check_signature(wrong, SAID, SIGNATURE)


def test_what_the_hub_keeps_makes_no_proof() -> None:
    assert MINE.client_key not in KEPT
    for stolen in itertools.product([KEPT.stored_key, KEPT.server_key, bytes(32)], repeat=3):
        assert not check(KEPT, SAID, proof(Keys(*stolen), SAID))


def test_one_changed_digit_is_wrong() -> None:
    for at in range(64):
        changed = f"{int(PROOF[at], 16) ^ 1:x}"
        assert not check(KEPT, SAID, PROOF[:at] + changed + PROOF[at + 1 :])
        assert not check_signature(
            MINE, SAID, SIGNATURE[:at] + ("0" if SIGNATURE[at] != "0" else "1") + SIGNATURE[at + 1 :]
        )


@pytest.mark.parametrize(
    "text", ["", PROOF[:-1], PROOF + "0", PROOF.upper(), PROOF + "\n", "é" * 64, "\ud800" * 64, "g" * 64]
)
def test_what_is_no_digest_is_simply_wrong(text: str) -> None:
    assert not check(KEPT, SAID, text)
    assert not check_signature(MINE, SAID, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "planaria-1",
        KEPT.to_text() + "\n",
        KEPT.to_text()[:-1],
        KEPT.to_text().replace("-1", "-2"),
        " " + KEPT.to_text(),
    ],
)
def test_what_is_no_verifier_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="verifier"):
        Verifier.from_text(text)


@pytest.mark.parametrize("secret", ["", "x" * 1025, "\ud800"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(Refused, match="secret"):
        keys(secret, DEVICE)


def test_no_two_exchanges_sign_the_same_bytes() -> None:
    texts = ["", "a", "ab", "b", "\0"]
    made = {transcript(*parts) for parts in itertools.product(texts, repeat=4)}
    assert len(made) == len(texts) ** 4


def test_nonces_are_fresh_and_nothing_secret_is_shown() -> None:
    assert len({challenge.nonce() for _ in range(100)}) == 100
    assert repr([MINE, KEPT]) == "[Keys(...), Verifier(...)]"
