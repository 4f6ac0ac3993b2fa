"""Who is to be ended, and why. Pure: observations with their times go in, verdicts come out. All times are seconds of
CLOCK_MONOTONIC. An observation that is late, missing or false costs at worst a restart, which costs milliseconds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from procs.warden import limits
from procs.warden.go2rtc import Stream
from procs.warden.limits import LIMITS, OTHER, Limits, kind_of

GO2RTC, SUPERVISORD = "go2rtc", "supervisord"


class Verdict(NamedTuple):
    """A process that is to be ended."""

    pid: int
    name: str
    kind: str  # stopped, silent, stream, memory, escalated
    reason: str
    asks_for_stack: bool = False  # it hangs, and may be able to show where


class Known(NamedTuple):
    """A process of ours, as it is seen now."""

    name: str
    pid: int
    since: float  # when it was started
    gives_signs: bool  # heartbeats, or (go2rtc) answers


@dataclass
class _Watched:
    """What is remembered of a process for as long as it lives."""

    known: Known
    served_at: float | None = None  # its first sign of life
    sign_at: float | None = None  # its last


@dataclass
class _Flow:
    """What is remembered of a stream."""

    received: int | None = None
    pids: tuple[int, ...] = ()
    moved_at: float = 0.0  # when a byte came, a process, or somebody to watch
    made_at: float = 0.0  # when a process made it, or nobody watched
    is_watched: bool = False


@dataclass
class Policy:
    """One a warden. `ceilings`: program -> bytes, over those of limits.LIMITS."""

    ceilings: Mapping[str, int] = field(default_factory=dict)
    stall_limit_s: float = 10.0  # after which a capture gives its command up
    escalated_at: dict[str, float] = field(
        default_factory=dict
    )  # go2rtc or supervisord -> when, by this or a former us
    watched: dict[int, _Watched] = field(default_factory=dict)
    _stopped: dict[int, tuple[str, float]] = field(default_factory=dict)
    _readers: Collection[int] = ()
    _flows: dict[str, _Flow] = field(default_factory=dict)
    _large: dict[int, int] = field(default_factory=dict)
    _failures: Mapping[str, int] = field(default_factory=dict)
    heard_at: float = -math.inf  # when supervisord last gave a sign
    _ended_at: dict[int, float] = field(default_factory=dict)  # by us
    supervisord: int = 0
    _decided_at: float = -math.inf
    _forgiven_at: float = -math.inf  # silence before this is our own fault

    # --- what is seen ----------------------------------------------------------------------------------

    def see_supervisord(self, pid: int, now: float) -> None:
        """It has sent an event."""
        self.supervisord, self.heard_at = pid, now

    def see_processes(self, known: Iterable[Known]) -> None:
        """All that live now; what is remembered of others is forgotten."""
        self.watched = {each.pid: self._renewed(each) for each in known}

    def _renewed(self, known: Known) -> _Watched:
        watched = self.watched.get(known.pid)
        if not watched or watched.known.name != known.name:
            return _Watched(known)
        watched.known = known
        return watched

    def see_failures(self, failures: Mapping[str, int]) -> None:
        """How often each program has failed in a row."""
        self._failures = failures

    def see_sign(self, pid: int, now: float) -> bool:
        """A process lives: its heartbeat, or an answer. Returns whether it is its first."""
        watched = self.watched.get(pid)
        if not watched:
            return False
        is_first = watched.served_at is None
        watched.sign_at = max(now, watched.sign_at or now)
        watched.served_at = now if is_first else watched.served_at
        return is_first

    def see_stopped(self, stopped: Mapping[int, str], now: float) -> None:
        """All processes below supervisord, itself included, that are stopped now: pid -> name."""
        self._stopped = {
            pid: (name, self._stopped[pid][1] if pid in self._stopped else now) for pid, name in stopped.items()
        }

    def see_memory(self, pid: int, used: int) -> None:
        """How many bytes a process has for itself."""
        self._large[pid] = used

    def see_streams(
        self,
        streams: Mapping[str, Stream],
        makers: Mapping[str, tuple[int, ...]],
        now: float,
        readers: Collection[int] = (),
    ) -> None:
        """go2rtc's streams, and the processes that go2rtc has started for each. `readers`: those who only wait for
        somebody else to fill a pipe, and can't be blamed for what does not come."""
        self._readers = readers
        flows = {}
        for name, stream in streams.items():
            if not stream.is_exec:
                continue
            pids = makers.get(name, ())
            flow = self._flows.get(name, _Flow(moved_at=now, made_at=now))
            if not (stream.watched_by or pids) or (stream.received, pids) != (flow.received, flow.pids):
                flow.moved_at = now
            if pids or not stream.watched_by or stream.received not in (None, flow.received):
                flow.made_at = now  # bytes come: somebody makes it, if nobody whom we know
            flow.received, flow.pids, flow.is_watched = stream.received, pids, bool(stream.watched_by)
            flows[name] = flow
        self._flows = flows

    # --- what follows ----------------------------------------------------------------------------------

    def decide(self, now: float) -> list[Verdict]:
        """Who is to be ended now. To be called once a second or more."""
        if now - self._decided_at > limits.AWAY_S:
            self._forgiven_at = now
        self._decided_at = now
        if first := self._about_supervisord(now):
            return [verdict for verdict in first if self._is_due(verdict.pid, now)]
        if now - max(self.heard_at, self._forgiven_at) > limits.DOUBTFUL_S:
            return []  # what is ended now might not be started again
        verdicts: dict[int, Verdict] = {}
        for verdict in (*self._stopped_ones(now), *self._silent(now), *self._too_large(), *self._escalated(now)):
            verdicts.setdefault(verdict.pid, verdict)
        for verdict in self._dry_streams(now):
            verdicts.setdefault(verdict.pid, verdict)
        return [verdict for verdict in verdicts.values() if self._is_due(verdict.pid, now)]

    def _is_due(self, pid: int, now: float) -> bool:
        """Not to be ended twice while it dies."""
        self._ended_at = {each: at for each, at in self._ended_at.items() if now - at < limits.STOPPED_S}
        return self._ended_at.setdefault(pid, now) == now

    def _about_supervisord(self, now: float) -> list[Verdict]:
        pid = self.supervisord
        silent_s = now - max(self.heard_at, self._forgiven_at)
        if pid in self._stopped and now - self._stopped[pid][1] >= limits.STOPPED_S:
            return [Verdict(pid, SUPERVISORD, "stopped", "by SIGSTOP")]
        if pid and silent_s >= limits.SUPERVISORD_S:
            return [Verdict(pid, SUPERVISORD, "silent", f"no event for {silent_s:.1f} s")]
        return []

    def _stopped_ones(self, now: float) -> Iterable[Verdict]:
        for pid, (name, since) in self._stopped.items():
            if now - since >= limits.STOPPED_S and pid != self.supervisord:
                yield Verdict(pid, name, "stopped", "by SIGSTOP")

    def _silent(self, now: float) -> Iterable[Verdict]:
        for pid, watched in self.watched.items():
            if not watched.known.gives_signs or pid in self._stopped:
                continue
            allowed = self.limits_of(watched.known.name)
            limit_s = allowed.start_s if watched.sign_at is None else allowed.silence_s
            since = watched.known.since if watched.sign_at is None else watched.sign_at
            silent_s = now - max(since, self._forgiven_at)
            if silent_s >= limit_s:
                what = "has not served" if watched.sign_at is None else "no sign of life"
                is_ours = watched.known.name != GO2RTC
                yield Verdict(pid, watched.known.name, "silent", f"{what} for {silent_s:.1f} s", is_ours)

    def _too_large(self) -> Iterable[Verdict]:
        large, self._large = self._large, {}
        for pid, used in large.items():
            name, ceiling = self._name_of(pid), self.ceiling(pid)
            if used > ceiling and (pid in self.watched or pid == self.supervisord):
                reason = f"{used / 1e6:.0f} MB, and {ceiling / 1e6:.0f} MB are allowed"
                yield Verdict(pid, name, "memory", reason)

    def _dry_streams(self, now: float) -> Iterable[Verdict]:
        for name, flow in self._flows.items():
            limit_s = limits.FIRST_BYTE_S if flow.received is None else self._pause_s(flow)
            dry_s = now - max(flow.moved_at, self._forgiven_at)
            makers = [pid for pid in flow.pids if pid not in self._readers]
            if makers and dry_s >= limit_s:
                flow.moved_at = now
                for pid in makers:
                    known = self.watched[pid].known.name if pid in self.watched else f"the producer of {name}"
                    yield Verdict(pid, known, "stream", f"no byte for {dry_s:.1f} s", pid in self.watched)

    def _pause_s(self, flow: _Flow) -> float:
        """How long a stream may pause: our own producer never does, and what others capture may be a slow show."""
        kinds = {kind_of(self.watched[pid].known.name) for pid in flow.pids if pid in self.watched}
        return limits.STREAM_S if kinds == {"headless_agent"} else max(limits.STREAM_S, self.stall_limit_s + 2.0)

    def _escalated(self, now: float) -> Iterable[Verdict]:
        go2rtc = next((each for each in self.watched.values() if each.known.name == GO2RTC), None)
        if any(flow.is_watched and now - flow.moved_at < limits.STREAM_S for flow in self._flows.values()):
            go2rtc = None  # it works for others, who would be cut off
        for name, flow in self._flows.items():
            waited_s = now - max(flow.made_at, self._forgiven_at)
            if go2rtc and waited_s >= limits.FORGOTTEN_S and self._may(GO2RTC, limits.GO2RTC_EVERY_S, now):
                reason = f"{name} is watched, and nobody has made it for {waited_s:.0f} s"
                yield Verdict(go2rtc.known.pid, GO2RTC, "escalated", reason)
        failures = self._failures.get(GO2RTC, 0)
        if failures >= limits.HOPELESS_STARTS and self._may(SUPERVISORD, limits.SUPERVISORD_EVERY_S, now):
            yield Verdict(self.supervisord, SUPERVISORD, "escalated", f"go2rtc has failed {failures} times in a row")

    def _may(self, level: str, every_s: float, now: float) -> bool:
        if now - self.escalated_at.get(level, -math.inf) < every_s:
            return False
        self.escalated_at[level] = now
        return True

    def _name_of(self, pid: int) -> str:
        return self.watched[pid].known.name if pid in self.watched else SUPERVISORD

    # --- what others ask -------------------------------------------------------------------------------

    def limits_of(self, name: str) -> Limits:
        """What is allowed to a process of this name."""
        return LIMITS.get(kind_of(name), OTHER)

    def ceiling(self, pid: int) -> int:
        """How many bytes a process may have for itself."""
        name = self._name_of(pid)
        return self.ceilings.get(kind_of(name), self.limits_of(name).memory_mb * 1_000_000)

    def serving(self) -> list[tuple[str, int]]:
        """Name and pid of all that have given a sign."""
        return [(each.known.name, pid) for pid, each in self.watched.items() if each.sign_at is not None]

    def has_served(self, pid: int) -> bool:
        """Whether a process has given a sign."""
        return pid in self.watched and self.watched[pid].served_at is not None

    def made_by(self, pid: int) -> set[str]:
        """The streams that a process has made when it was last seen."""
        return {name for name, flow in self._flows.items() if pid in flow.pids}

    def dry_s(self, stream: str, now: float) -> float:
        """How long no byte has come from a stream that is watched."""
        flow = self._flows.get(stream)
        return now - flow.moved_at if flow else 0.0
