"""Rooms of agents: what is kept of who was there."""

from __future__ import annotations

from typing import Any, cast

from procs.hub.signalling.rooms import OPEN, Agent, Rooms


def agent(rooms: Rooms, room: str, name: str) -> Agent:
    made = Agent(cast(Any, None), room, name)
    rooms.enter(made)
    return made


def test_who_was_called_can_answer_and_keeps_nobody_who_has_gone() -> None:
    rooms = Rooms()
    called, caller = agent(rooms, OPEN, "called"), agent(rooms, "other", "caller")
    assert rooms.called_by(called, "caller") is None
    assert rooms.called_by(caller, "called") is called and rooms.called_by(called, "caller") is caller
    rooms.leave(caller)
    assert rooms.called_by(called, "caller") is None
    del caller
    assert not called.callers
