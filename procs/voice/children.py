"""Which device has a child, when one is born, and when one is ended. Pure: what happened and the time go in, what to do
comes out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from procs.backoff import crash_pause
from procs.messages.voice import VoiceBeat
from procs.voice.config import Device

MAX_UNBORN = 8  # at a time: the zygote forks one after the other, and each spec waits in its socket
BORN_S = 30.0  # from the fork to the first beat: at our own start the zygote has to import everything first
BEAT_S = 4.0  # without one a child stands still
SETTLED_S = 10.0  # a child that dies by itself before is one of a row
AGAIN_S = 1.0  # an order to kill that was not heard is given again
_KILLED = -9


class Fork(NamedTuple):
    """Have a child born for a device."""

    child: str
    device: Device
    failures: int
    since: float  # Unix time since when it is not connected; 0: from now on


class Kill(NamedTuple):
    """End a child, whatever it does."""

    child: str
    why: str


Action = Fork | Kill


class _Slot:
    """A device's."""

    def __init__(self) -> None:
        self.child = ""
        self.device: Device | None = None
        self.beat: VoiceBeat | None = None
        self.forked_at = self.beat_at = self.not_before = 0.0
        self.killed_at: float | None = None
        self.failures = self.row = 0
        self.connections = 0  # of the children before this one
        self.since = 0.0
        self.is_over = False


class Children:
    """Those of all devices. `name`: what a child of this leader is called; no two ever the same."""

    def __init__(self, named: str, pause: Callable[[int], float] = crash_pause) -> None:
        self._ids = (f"{named}-{number}" for number in itertools.count(1))
        self._pause = pause
        self._slots: dict[str, _Slot] = {}
        self._of: dict[str, str] = {}  # child -> device

    def device_of(self, child: str) -> str:
        """Whose a child is; "": it is none of ours, or no more."""
        return self._of.get(child, "")

    def child_of(self, device: str) -> str:
        """The child of a device; "" if it has none."""
        slot = self._slots.get(device)
        return slot.child if slot else ""

    def beat_of(self, device: str) -> VoiceBeat | None:
        """What its child said last, with the connections of all; also of one that has ended, for it is over."""
        slot = self._slots.get(device)
        return slot.beat if slot and (slot.child or slot.is_over) else None

    def beaten(self, child: str, beat: VoiceBeat, now: float) -> None:
        """A child has said how it does."""
        if slot := self._slots.get(self.device_of(child)):
            total = slot.connections + beat.connections
            slot.beat, slot.beat_at = msgspec.structs.replace(beat, connections=total), now

    def reconnect(self, device: str, now: float) -> list[Action]:
        """End its child: another one is born at once, and dials anew."""
        slot = self._slots.get(device)
        if slot is None:
            return []
        slot.is_over, slot.not_before, slot.row = False, 0.0, 0
        return self._kill(slot, "it was asked for", now) if slot.child else []

    def ended(self, child: str, status: int, now: float) -> str:
        """A child is dead; returns the device. One that dies by itself again and again is waited for; being killed is
        no fault of its own."""
        device = self._of.pop(child, "")
        if not device:
            return ""
        slot = self._slots[device]
        by_us = slot.killed_at is not None
        was_well = by_us or (status == _KILLED and slot.beat) or now - slot.forked_at >= SETTLED_S
        slot.is_over = not by_us and status == 0 and bool(slot.beat and slot.beat.state == "over")
        slot.row = 0 if was_well else slot.row + 1
        slot.not_before = now + self._pause(slot.row)
        slot.failures = slot.beat.attempts if slot.beat and not by_us else 0
        if slot.beat:
            slot.connections = slot.beat.connections
            slot.since = 0.0 if slot.beat.state == "connected" else slot.beat.since
        slot.child, slot.killed_at = "", None
        return device

    def tick(self, wanted: Mapping[str, Device], now: float) -> list[Action]:
        """What is to be done so that each of these has a child that is as it says, and nobody else has one."""
        actions: list[Action] = []
        unborn = sum(bool(slot.child) and not slot.beat for slot in self._slots.values())
        for name, slot in list(self._slots.items()):
            if slot.child:
                actions += self._look(slot, wanted.get(name), now)
            elif name not in wanted:
                del self._slots[name]
        for name, device in wanted.items():
            slot = self._slots.setdefault(name, _Slot())
            if not slot.child and slot.device != device:  # with other settings it may not be over, nor crash
                slot.device, slot.is_over, slot.row, slot.not_before = device, False, 0, 0.0
            if not slot.child and not slot.is_over and now >= slot.not_before and unborn < MAX_UNBORN:
                unborn += 1
                actions.append(self._fork(name, slot, device, now))
        return actions

    def _fork(self, name: str, slot: _Slot, device: Device, now: float) -> Fork:
        slot.child, slot.device, slot.beat = next(self._ids), device, None
        slot.forked_at, slot.killed_at = now, None
        self._of[slot.child] = name
        return Fork(slot.child, device, slot.failures, slot.since)

    def _look(self, slot: _Slot, wanted: Device | None, now: float) -> list[Action]:
        if wanted is None:
            return self._kill(slot, "its device is not to be called", now)
        if wanted != slot.device:
            return self._kill(slot, "its device has changed", now)
        if slot.beat is None and now - slot.forked_at > BORN_S:
            return self._kill(slot, f"it has not begun within {BORN_S:g} s", now)
        if slot.beat is not None and now - slot.beat_at > BEAT_S:
            return self._kill(slot, f"it has said nothing for {BEAT_S:g} s", now)
        return self._kill(slot, "", now) if slot.killed_at is not None else []

    @staticmethod
    def _kill(slot: _Slot, why: str, now: float) -> list[Action]:
        if slot.killed_at is not None and now - slot.killed_at < AGAIN_S:
            return []
        slot.killed_at = now
        return [Kill(slot.child, why)]
