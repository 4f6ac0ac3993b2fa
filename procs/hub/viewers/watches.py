"""Who watches which device: sessions of signalling, and for how long each waits for whom. Pure; the clock is an
argument. What of them lasts beyond this process is in watch_store.py."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

from procs.hub.tunnel.views import View
from procs.wire.frames.watch import SignalAnswer, SignalIce, SignalOffer

K = TypeVar("K")
V = TypeVar("V")
Kind = Literal["viewer", "resume", "whep"]
VIEWER: Kind = "viewer"  # ends with the connection that it began on, as published
RESUME: Kind = "resume"  # waits for its viewer to come back on another
WHEP: Kind = "whep"  # has no connection: its viewer asks by HTTP, and may be silent

ANSWER_S = 30.0  # for a device to answer
RETURN_S = 10.0  # for the connection of device or viewer to come back: what they see of each other has its own path
RESTART_S = 30.0  # the same after a start of the hub, when all of them come at once
SILENT_S = 86_400.0  # for a session of WHEP; as long as its TURN credentials are good
SETTLED_S = 30.0  # after an answer nobody asks for it again
MAX_OF_VIEWER = 16
MAX_OF_DEVICE = 64
FOR_OWNERS = 8  # of these: whoever else watches can't keep them out
MAX_HELD = 64  # candidates
MAX_SAID = 256

Signal = SignalOffer | SignalAnswer | SignalIce


class Held:
    """What one side has signalled and the other may not have got: the last description, and the candidates since."""

    __slots__ = ("_frames",)

    def __init__(self) -> None:
        self._frames: list[tuple[str, Signal]] = []

    def __bool__(self) -> bool:
        return bool(self._frames)

    def __iter__(self) -> Iterator[tuple[str, Signal]]:
        return iter(list(self._frames))

    @property
    def has_description(self) -> bool:
        """Whether it begins with an offer or an answer."""
        return any(not isinstance(signal, SignalIce) for _, signal in self._frames[:1])

    def add(self, kind: str, signal: Signal) -> None:
        """One more; those over MAX_HELD are lost, as candidates may be."""
        if not isinstance(signal, SignalIce):
            self._frames.clear()
        if len(self._frames) <= MAX_HELD:
            self._frames.append((kind, signal))

    def clear(self) -> None:
        """It has arrived."""
        self._frames.clear()


@dataclass(slots=True, eq=False)
class Watch(Generic[V]):
    """One session. `viewer` is whoever watches, None while they are away. `viewer_until`, `device_until`: when it is
    over unless they are back, 0 while they are here."""

    viewer: V | None
    user_id: int
    device_id: str
    instance: str
    begun_at: float
    kind: Kind = VIEWER
    stream: str = ""
    login: str = ""
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    is_answered: bool = False
    viewer_until: float = 0.0
    device_until: float = 0.0
    settled_at: float = 0.0
    to_device: Held = field(default_factory=Held)
    to_viewer: Held = field(default_factory=Held)
    may_talk: bool = False  # and be heard at the device, which is more than looking
    ufrag: str = ""  # of the viewer's ICE, where the hub has to know it
    view: View | None = None  # by which it ends with what lets its viewer in
    said: set[int] = field(default_factory=set)  # by the device, since the last offer

    def is_repeated(self, frame: bytes) -> bool:
        """Whether the device has said just this before: it says again what it can't know to have arrived."""
        mark = hash(frame)
        if mark in self.said:
            return True
        if len(self.said) < MAX_SAID:
            self.said.add(mark)
        return False


class Over(NamedTuple, Generic[V]):
    """A session that has to end, and why."""

    watch: Watch[V]
    reason: str


class Watches(Generic[V]):
    """Every session."""

    def __init__(self) -> None:
        self._all: dict[str, Watch[V]] = {}
        self._of_device: dict[str, dict[str, Watch[V]]] = {}
        self._of_viewer: dict[int, dict[str, Watch[V]]] = {}  # by id()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Watch[V]]:
        return iter(list(self._all.values()))

    def begin(self, watch: Watch[V]) -> bool:
        """A new one; False when there are too many."""
        of_viewer = self._of_viewer.get(id(watch.viewer), {}) if watch.viewer is not None else {}
        of_device = self._of_device.get(watch.device_id, {})
        if len(of_viewer) >= MAX_OF_VIEWER or len(of_device) >= _room(watch):
            return False
        if watch.kind == WHEP:
            watch.viewer_until = watch.begun_at + SILENT_S
        self._all[watch.session_id] = watch
        self._of_device.setdefault(watch.device_id, {})[watch.session_id] = watch
        self._seat(watch)
        return True

    def restore(self, watch: Watch[V], now: float) -> bool:
        """One from before this process began, whose viewer and device are yet to come; its `begun_at` counts from now.
        It counts as answered: if it is not, its device knows, and ends it."""
        watch.begun_at += now
        watch.is_answered = True
        watch.device_until = now + RESTART_S
        if not self.begin(watch):
            return False
        if watch.kind != WHEP:
            watch.viewer_until = now + (RESTART_S if watch.kind == RESUME else 0)
        return True

    def resume(self, watch: Watch[V], viewer: V) -> bool:
        """Its viewer is here again, perhaps on one more connection than the hub knows to be gone; False when there are
        too many of it."""
        if watch.viewer is not viewer and len(self._of_viewer.get(id(viewer), {})) >= MAX_OF_VIEWER:
            return False
        self._unseat(watch)
        watch.viewer, watch.viewer_until = viewer, 0.0
        self._seat(watch)
        return True

    def end(self, watch: Watch[V]) -> bool:
        """It is over; False if it was before."""
        if self._all.pop(watch.session_id, None) is None:
            return False
        _drop(self._of_device, watch.device_id, watch.session_id)
        self._unseat(watch)
        return True

    def _seat(self, watch: Watch[V]) -> None:
        if watch.viewer is not None:
            self._of_viewer.setdefault(id(watch.viewer), {})[watch.session_id] = watch

    def _unseat(self, watch: Watch[V]) -> None:
        if watch.viewer is not None:
            _drop(self._of_viewer, id(watch.viewer), watch.session_id)

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

    def by_user(self, user_id: int, session_id: str, kind: Kind) -> Watch[V] | None:
        """One of this user's, of such a kind, whoever holds it."""
        watch = self._all.get(session_id)
        return watch if watch and (watch.user_id, watch.kind) == (user_id, kind) else None

    def spare(self, wanted: Watch[V]) -> Watch[V] | None:
        """Of a device that has no room for this one: one whose viewer is away, and might not come back."""
        of_device = self._of_device.get(wanted.device_id, {})
        if len(of_device) < _room(wanted):
            return None
        away = [watch for watch in of_device.values() if watch.kind == RESUME and watch.viewer is None]
        return min(away, key=lambda watch: watch.viewer_until, default=None)

    def viewer_left(self, viewer: V, now: float) -> list[Watch[V]]:
        """The viewer's connection is gone; returns the sessions that are over by that. One whose device is away as well
        waits for it, which has to be told."""
        over = []
        for watch in self.of_viewer(viewer):
            if watch.kind == VIEWER and not watch.device_until:
                over.append(watch)
                continue
            self._unseat(watch)
            watch.viewer, watch.viewer_until = None, now + (RETURN_S if watch.kind == RESUME else 0)
        return over

    def device_left(self, device_id: str, now: float) -> list[Watch[V]]:
        """The device's control connection is gone; returns the sessions that are over by that. Those of a device that
        has a name for its identity (instance) live on for a while: their media never went by that connection."""
        over = []
        for watch in self.of_device(device_id):
            watch.device_until = now + RETURN_S
            if not watch.instance:
                over.append(watch)
        return over

    def device_came(self, device_id: str, instance: str) -> list[Watch[V]]:
        """It is back; returns the sessions that are over, since it is another."""
        over = []
        for watch in self.of_device(device_id):
            if instance and watch.instance == instance:
                watch.device_until = 0.0
            else:
                over.append(watch)
        return over

    def due(self, now: float) -> list[Over[V]]:
        """The sessions whose time is over, and why."""
        return [Over(watch, reason) for watch in self._all.values() if (reason := _why_over(watch, now))]


def _why_over(watch: Watch[V], now: float) -> str:
    if watch.viewer is not None and now - watch.settled_at > SETTLED_S:
        watch.to_viewer.clear()
    if watch.device_until:  # it could not be told of anything
        return "device_disconnected" if now > watch.device_until else ""
    if not watch.is_answered and now - watch.begun_at > ANSWER_S:
        return "timeout"
    if watch.viewer_until and now > watch.viewer_until:
        return "timeout" if watch.kind == WHEP else "viewer_disconnected"
    return ""


def _drop(table: dict[K, dict[str, Watch[V]]], key: K, session_id: str) -> None:
    """Take one out of a table of tables, and leave no empty one."""
    del table[key][session_id]
    if not table[key]:
        del table[key]


def _room(watch: Watch[V]) -> int:
    """How many sessions its device may have for this one to begin."""
    return MAX_OF_DEVICE if watch.may_talk else MAX_OF_DEVICE - FOR_OWNERS
