"""What devices are to say yet: kept until a child has begun with it, so that nothing is lost with a child. Pure."""

from __future__ import annotations

from procs.errors import Refused

MOST = 8  # of a device
DEATHS = 2  # of conversations that were to begin with it: it may be what they died of


class _Child:
    """Counts of one, since its birth."""

    told = begun = 0
    is_over = False  # it is being ended


class Sayings:
    """Those of all devices, each in the order in which they came."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._deaths: dict[str, int] = {}  # of each device's first
        self._children: dict[str, _Child] = {}

    def add(self, device: str, text: str) -> None:
        """One more. Raises Refused."""
        waiting = self._texts.setdefault(device, [])
        if len(waiting) >= MOST:
            raise Refused(f"{MOST} announcements wait already at {device}")
        waiting.append(text)

    def begun(self, device: str, child: str, count: int) -> None:
        """So many of those that it was told a child has begun with, or won't."""
        its = self._children.get(child)
        if its and not its.is_over and count > its.begun:
            del self._texts.get(device, [])[: count - its.begun]
            its.begun = count
            self._deaths.pop(device, None)

    def untold(self, device: str, child: str) -> list[str]:
        """What this child of the device was not told yet."""
        its = self._children.get(child, _Child)
        return [] if its.is_over else self._texts.get(device, [])[its.told - its.begun :]

    def told(self, child: str) -> None:
        """It was told the next one."""
        self._children.setdefault(child, _Child()).told += 1

    def ended(self, child: str) -> None:
        """It is being ended, by no fault of its own. Whoever comes after it is told the rest."""
        self._children.setdefault(child, _Child()).is_over = True

    def died(self, device: str, child: str) -> bool:
        """It is dead, maybe of what it was to begin with: whether there is something that nobody is told any more."""
        its, waiting = self._children.pop(child, None), self._texts.get(device)
        if its is None or its.is_over or its.told == its.begun or not waiting:
            return False
        self._deaths[device] = self._deaths.get(device, 0) + 1
        if self._deaths[device] < DEATHS:
            return False
        del self._deaths[device], waiting[0]
        return True

    def forget(self, device: str, child: str) -> None:
        """Nothing of it is to be said any more, and its child is being ended."""
        if child:
            self.ended(child)
        self._texts.pop(device, None)
        self._deaths.pop(device, None)
