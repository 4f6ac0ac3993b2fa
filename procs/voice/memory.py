"""What outlives the leader: its leases, what was said, which microphones are muted. The store is asked here only.

A line is in the store within a moment of its change: while one write is on its way, what changes meanwhile goes with
the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import NoReturn

from procs import log
from procs.errors import StoreDown
from procs.messages.voice import Line
from procs.store import Store
from procs.voice import tables
from procs.voice.leases import Leases
from procs.voice.transcript import Transcript

OWNER = "voice.owner"  # in run/: whoever is started again holds what it held
MAX_UNWRITTEN = 20_000  # lines while the store is down; beyond, the oldest are lost to it
AGAIN_S = 0.5
NOT_ASKED = "it was not asked yet"


def boot_clock() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def owner_of(run_dir: Path) -> str:
    """By which this backend is known to the store, made once."""
    file = run_dir / OWNER
    if file.exists() and (known := file.read_text().strip()):
        return known[:64]
    made = f"{os.uname().nodename[:40]}-{secrets.token_hex(6)}"
    beside = file.with_name(f".{OWNER}.new")
    beside.write_text(made)
    os.replace(beside, file)
    return made


class Device:
    """What is known of a device that is ours."""

    def __init__(self, known: tables.Known) -> None:
        self.transcript = Transcript(known.lines, int(time.time() * 1000))
        self.muted = known.muted


class Memory:
    """One store, and what we know of it."""

    def __init__(self, store: Store, owner: str) -> None:
        self._store = store
        self.leases = Leases(owner)
        self.problem = NOT_ASKED  # with the store; "" if it answered last
        self.devices: dict[str, Device] = {}
        self._wanted: frozenset[str] = frozenset()
        self._unwritten: dict[tuple[str, int], Line] = {}
        self._look, self._write = asyncio.Event(), asyncio.Event()
        self._is_made = False
        self._writing = 0

    @property
    def unwritten(self) -> int:
        """Lines that are not in the store yet."""
        return len(self._unwritten) + self._writing

    def want(self, devices: frozenset[str]) -> None:
        """These are to be called by us, if nobody else does."""
        if devices != self._wanted:
            self._wanted = devices
            self._look.set()

    def may_call(self, device: str) -> bool:
        """Whether a child of this device may live now."""
        return device in self.devices and self.leases.holds(device, boot_clock())

    def add(self, device: str, line: Line) -> None:
        """Something was said."""
        if its := self.devices.get(device):
            its.transcript.add(line)
            self._unwritten[device, line.number] = line
            if len(self._unwritten) > MAX_UNWRITTEN:
                del self._unwritten[next(iter(self._unwritten))]
            self._write.set()

    async def forget(self, device: str) -> None:
        """All that was said there. Raises StoreDown."""
        for key in [key for key in self._unwritten if key[0] == device]:
            del self._unwritten[key]
        await self._make()
        await self._store.run(tables.forget, device)
        if its := self.devices.get(device):
            its.transcript.forget()

    async def mute(self, device: str, is_muted: bool) -> None:
        """Durable when this returns. Raises StoreDown."""
        await self._make()
        await self._store.run(tables.mute, device, is_muted)
        if its := self.devices.get(device):
            its.muted = is_muted

    async def seen(self, device: str) -> Transcript:
        """What the store has of a device that is not ours. Raises StoreDown."""
        await self._make()
        return Transcript((await self._store.read(tables.known, device)).lines, int(time.time() * 1000))

    async def is_elsewhere(self, device: str) -> bool:
        """Whether another backend calls it now, by what the store says. Raises StoreDown."""
        await self._make()
        return await self._store.read(tables.is_elsewhere, self.leases.owner, device)

    async def _make(self) -> None:
        """The tables, before anything is asked of them: somebody may ask before our first look. Raises StoreDown."""
        if not self._is_made:
            await asyncio.to_thread(self._store.exclusively, tables.make)
            self._is_made = True

    async def hold(self) -> NoReturn:
        """Take and renew leases, for ever."""
        while True:
            self._look.clear()
            try:
                await self._ask()
            except StoreDown as error:
                self._went(str(error))
                wait_s = AGAIN_S
            else:
                self._went("")
                wait_s = self.leases.wait_s(boot_clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), wait_s)

    def _went(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.error("the store cannot be asked; without it no device is called for long", why=problem)
        elif self.problem not in ("", NOT_ASKED) and not problem:
            log.info("the store answers again")
        self.problem = problem

    async def _ask(self) -> None:
        await self._make()
        asked_at = boot_clock()
        answer = await self._store.run(tables.take, self.leases.owner, self._wanted)
        self.leases.answered(asked_at, boot_clock(), answer)
        ours = {device for device, held in answer.items() if held.owner == self.leases.owner}
        for device in self.devices.keys() - ours:
            del self.devices[device]
            log.info("a device is not ours any more", device=device)
        for device in sorted(ours - self.devices.keys()):
            self.devices[device] = Device(await self._store.read(tables.known, device))

    async def write(self) -> NoReturn:
        """Bring lines to the store, for ever."""
        while True:
            await self._write.wait()
            self._write.clear()
            lines, self._unwritten = self._unwritten, {}
            self._writing = len(lines)
            said = [(device, line) for (device, _), line in lines.items()]
            try:
                lost = await self._store.run(tables.keep, self.leases.owner, said)
            except StoreDown as error:
                self._went(str(error))
                self._unwritten = lines | self._unwritten
                await asyncio.sleep(AGAIN_S)
                self._write.set()
            else:
                for device in lost:
                    log.warning("lines are not kept: another backend has the device", device=device)
            self._writing = 0
