"""Who is registered where: an id in the room of its token. Rooms can't see each other.

A hub that lets everybody in has an open room besides, of those without a token. Everybody sees who is there, and who is
there can answer whoever called: so a published agent without a token can be called by one that has some.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from procs.errors import Refused
from procs.hub.people.accounts import Session
from procs.hub.viewers.peer import Peer

MAX_AGENTS = 5000
MAX_OF_ROOM = 1000  # or one room alone could keep all others out


OPEN = ""  # the room of those without a token
MAX_CALLERS = 1000
SIZES = (("1", 1, 1), ("2", 2, 2), ("3-10", 3, 10), ("11-100", 11, 100), ("over 100", 101, MAX_OF_ROOM))


class Agent:
    """An agent's connection, and what it is called. `session`: by what account it came, None without one."""

    __slots__ = ("__weakref__", "callers", "id", "peer", "room", "session")

    def __init__(self, peer: Peer, room: str, agent_id: str, session: Session | None = None) -> None:
        self.peer, self.room, self.id, self.session = peer, room, agent_id, session
        # Of one in the open room: those elsewhere that it may answer. Who has gone is not kept, with its connection.
        self.callers: WeakValueDictionary[str, Agent] = WeakValueDictionary()


class Rooms:
    """Every agent that is registered."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[str, Agent]] = {}

    @property
    def count(self) -> int:
        """How many rooms have somebody in them."""
        return len(self._rooms)

    @property
    def by_size(self) -> dict[str, int]:
        """How many agents are in rooms of this many. Who is alone there has nobody to meet, or the wrong token."""
        sizes = [len(room) for room in self._rooms.values()]
        return {name: sum(size for size in sizes if least <= size <= most) for name, least, most in SIZES}

    @property
    def agents(self) -> list[Agent]:
        """All of them."""
        return [agent for room in self._rooms.values() for agent in room.values()]

    @property
    def is_full(self) -> bool:
        """Whether nobody more can come."""
        return sum(map(len, self._rooms.values())) >= MAX_AGENTS

    def enter(self, agent: Agent) -> Agent | None:
        """Register; returns whom it replaces, who had the same id in the same room. Raises Refused when it is full."""
        room = self._rooms.get(agent.room, {})
        before = room.get(agent.id)
        if before is None and (len(room) >= MAX_OF_ROOM or self.is_full):
            raise Refused("too many agents")
        self._rooms.setdefault(agent.room, room)[agent.id] = agent
        return before

    def leave(self, agent: Agent) -> None:
        """It is gone; who has replaced it stays."""
        room = self._rooms.get(agent.room, {})
        if room.get(agent.id) is agent:
            del room[agent.id]
            if not room:
                del self._rooms[agent.room]

    def called_by(self, agent: Agent, wanted: str) -> Agent | None:
        """Whom an agent means by an id, who can answer from now on; None for nobody that it can see."""
        if found := self._find(agent.room, wanted):
            return found
        if found := self._find(OPEN, wanted):
            if len(found.callers) >= MAX_CALLERS:
                del found.callers[next(iter(found.callers))]
            found.callers[agent.id] = agent
            return found
        caller = agent.callers.get(wanted)
        return caller if caller and self._find(caller.room, wanted) is caller else None

    def _find(self, room: str, agent_id: str) -> Agent | None:
        return self._rooms.get(room, {}).get(agent_id)
