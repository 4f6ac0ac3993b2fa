"""Who watches which device: sessions of signalling, in memory. Pure; the clock is an argument."""

from __future__ import annotations

import uuid
from typing import Generic, TypeVar

V = TypeVar("V")
ANSWER_S = 30.0  # for a device to answer
RETURN_S = 10.0  # for a device's control connection to come back: what it carries has its own connections
MAX_OF_VIEWER = 16
MAX_OF_DEVICE = 64


class Watch(Generic[V]):
    """One session. `viewer` is whoever watches, `device_gone_at` is 0 while the device is here."""

    __slots__ = (
        "begun_at",
        "device_gone_at",
        "device_id",
        "instance",
        "is_answered",
        "session_id",
        "user_id",
        "viewer",
    )

    def __init__(self, viewer: V, user_id: int, device_id: str, instance: str, now: float) -> None:
        self.session_id = str(uuid.uuid4())
        self.viewer, self.user_id = viewer, user_id
        self.device_id, self.instance = device_id, instance
        self.begun_at, self.device_gone_at = now, 0.0
        self.is_answered = False


class Watches(Generic[V]):
    """Every session."""

    def __init__(self) -> None:
        self._all: dict[str, Watch[V]] = {}
        self._of_device: dict[str, dict[str, Watch[V]]] = {}
        self._of_viewer: dict[int, dict[str, Watch[V]]] = {}  # by id()

    def __len__(self) -> int:
        return len(self._all)

    def begin(self, viewer: V, user_id: int, device_id: str, instance: str, now: float) -> Watch[V] | None:
        """A new one; None when there are too many."""
        of_viewer = self._of_viewer.setdefault(id(viewer), {})
        of_device = self._of_device.setdefault(device_id, {})
        if len(of_viewer) >= MAX_OF_VIEWER or len(of_device) >= MAX_OF_DEVICE:
            self._tidy(viewer, device_id)
            return None
        watch = Watch(viewer, user_id, device_id, instance, now)
        self._all[watch.session_id] = of_viewer[watch.session_id] = of_device[watch.session_id] = watch
        return watch

    def end(self, watch: Watch[V]) -> bool:
        """It is over; False if it was before."""
        if self._all.pop(watch.session_id, None) is None:
            return False
        del self._of_viewer[id(watch.viewer)][watch.session_id]
        del self._of_device[watch.device_id][watch.session_id]
        self._tidy(watch.viewer, watch.device_id)
        return True

    def _tidy(self, viewer: V, device_id: str) -> None:
        if not self._of_viewer.get(id(viewer), True):
            del self._of_viewer[id(viewer)]
        if not self._of_device.get(device_id, True):
            del self._of_device[device_id]

    def of_viewer(self, viewer: V) -> list[Watch[V]]:
        """Those of one viewer."""
        return list(self._of_viewer.get(id(viewer), {}).values())

    def of_device(self, device_id: str) -> list[Watch[V]]:
        """Those of one device."""
        return list(self._of_device.get(device_id, {}).values())

    def by_viewer(self, viewer: V, session_id: str) -> Watch[V] | None:
        """One of this viewer's."""
        return self._of_viewer.get(id(viewer), {}).get(session_id)

    def by_device(self, device_id: str, session_id: str) -> Watch[V] | None:
        """One of this device's."""
        return self._of_device.get(device_id, {}).get(session_id)

    def device_left(self, device_id: str, now: float) -> list[Watch[V]]:
        """The device's control connection is gone; returns the sessions that are over by that. Those of a device that
        has a name for its identity (instance) live on for a while: their media never went by that connection."""
        over = []
        for watch in self.of_device(device_id):
            watch.device_gone_at = now
            if not watch.instance:
                over.append(watch)
        return over

    def device_came(self, device_id: str, instance: str) -> list[Watch[V]]:
        """It is back; returns the sessions that are over, since it is another."""
        over = []
        for watch in self.of_device(device_id):
            if instance and watch.instance == instance:
                watch.device_gone_at = 0.0
            else:
                over.append(watch)
        return over

    def due(self, now: float) -> list[tuple[Watch[V], str]]:
        """The sessions whose time is over, and why."""
        over = []
        for watch in self._all.values():
            if watch.device_gone_at and now - watch.device_gone_at > RETURN_S:
                over.append((watch, "device_disconnected"))
            elif not watch.is_answered and now - watch.begun_at > ANSWER_S:
                over.append((watch, "timeout"))
        return over
