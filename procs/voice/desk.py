"""What other processes of this machine ask over the bus: how it does, what was said, and to do something."""

from __future__ import annotations

from procs.errors import Refused, StoreDown
from procs.messages import MAX_BYTES, encode
from procs.messages.requests import Command, Describe, Reply
from procs.messages.voice import Do, Listen, VoiceDevice, VoiceState
from procs.voice.browsers import Browsers
from procs.voice.leader import Leader

FRESH_S = 5.0  # how old what is known of the services may be
ROOM = MAX_BYTES // 2  # for devices; problems and the rest have the other half
SHOWN = 20  # problems of devices.json


class Desk:
    """Answers them."""

    def __init__(self, leader: Leader, browsers: Browsers) -> None:
        self._leader, self._browsers = leader, browsers

    async def answer(self, asked: Command) -> Reply | None:
        """One request. Raises Refused."""
        try:
            if isinstance(asked, Describe):
                return Reply(0, ok=True, body=await self._state(asked.after))
            if isinstance(asked, Listen):
                return Reply(0, ok=True, body=await self._leader.told(asked))
            if isinstance(asked, Do):
                await self._leader.do(asked)
                return None
        except KeyError as name:
            raise Refused(f"no device is called {name}") from None
        except StoreDown as error:
            raise Refused(str(error)) from None
        raise Refused(f"{type(asked).__name__} is nothing for the voice backend")

    async def _state(self, after: str) -> VoiceState:
        told = self._leader.file.told
        rest = [its for its in sorted(self._leader.devices(), key=lambda its: its.name) if its.name > after]
        devices = _within(rest, ROOM)
        problems = [problem[:500] for problem in told.problems[:SHOWN]]
        if self._leader.memory.problem:
            problems.insert(0, self._leader.memory.problem[:500])
        return VoiceState(
            configured=told.configured,
            devices=devices,
            problems=problems,
            services=await self._leader.health.known(FRESH_S),
            browsers=len(self._browsers),
            owner=self._leader.memory.leases.owner,
            more=len(devices) < len(rest),
        )


def _within(devices: list[VoiceDevice], room: int) -> list[VoiceDevice]:
    """As many as go in; one at least, for else nobody would get further."""
    chosen: list[VoiceDevice] = []
    for its in devices:
        room -= len(encode(its))
        if room < 0 and chosen:
            break
        chosen.append(its)
    return chosen
