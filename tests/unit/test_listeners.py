"""Who listens at an address, and who only seems to."""

from __future__ import annotations

import socket

import pytest

from procs.errors import ConfigError
from procs.kinds import Address
from scripts import listeners


def refuse(address: Address) -> None:
    listeners.refuse_taken("hub", "PLANARIA_HUB", address)


def test_a_socket_of_a_process_that_is_just_ending_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens still, and /proc shows nobody who holds it."""
    monkeypatch.setattr(listeners, "listener", lambda _: 0)
    answers = iter(["Address already in use", "Address already in use", ""])
    monkeypatch.setattr(listeners, "_why_not_bound", lambda *_: next(answers))
    refuse(Address("127.0.0.1", 1))
    assert not list(answers)


def test_one_that_stays_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "listener", lambda _: 0)
    monkeypatch.setattr(listeners, "LET_GO_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match="choose another port"):
        refuse(Address("127.0.0.1", other.getsockname()[1]))


def test_who_listens_is_named_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match=r"by pid \d+"):
        refuse(Address("127.0.0.1", other.getsockname()[1]))
