"""How a suite is, from its warden's words to those of the wire, and which of them are worth a frame. Pure."""

from __future__ import annotations

import re
from collections import Counter

from procs.messages import warden
from procs.messages.requests import ProcessState, SuiteState
from procs.messages.warden import WatchSession
from procs.wire.frames.suite import Process, Recovery, Suite, TunnelPeer, WatchedStream

EVERY_S = 1.0  # between two frames
SMALL_EVERY_S = 5.0  # the same where only memory or traffic has changed, or a duration in a text
GROWN = 0.03  # by so much memory has to change to be told of,
GROWN_BYTES = 1_000_000  # and by so much
MOVED = 0.1  # by so much traffic has to
MAX_PROCESSES = 500
MAX_TROUBLES = 100
MAX_PEERS = 64
MAX_STREAMS = 64
MAX_REASONS = 16
MAX_FIGURE = 1e15


def told(state: SuiteState, at: str) -> Suite:
    """What the warden says, as a frame's payload. `at`: now."""
    processes = [_process(each, state.bounds_s) for each in state.processes[:MAX_PROCESSES]]
    peers = [_peer(each) for each in state.tunnel.peers[:MAX_PEERS]] if state.tunnel else []
    return Suite(at, processes, [text[:500] for text in state.troubles[:MAX_TROUBLES]], peers, _watched(state))


def _process(each: ProcessState, bounds_s: list[float]) -> Process:
    its = each.recoveries
    return Process(
        name=each.name[:200] or "?",
        pid=each.pid,
        state=each.state[:64],
        age_s=max(0.0, each.age_s),
        restarts_hour=each.restarts_hour,
        restarts=each.restarts,
        last_end=each.last_end[:500],
        last_end_at=each.last_end_at.removesuffix("Z"),
        memory=each.memory,
        failures=each.failures,
        wait_s=max(0.0, each.wait_s),
        recovery=Recovery(bounds_s, its.counts, its.p50_ms, its.worst_ms) if its else Recovery(),
    )


def _peer(each: warden.TunnelPeer) -> TunnelPeer:
    lost = [(reason[:64], count) for reason, count in each.dropped.items() if count > 0]
    return TunnelPeer(
        peer=each.peer,
        is_up=each.is_up,
        why=each.why,
        plane=each.plane,
        path=each.path,
        remote=each.remote,
        round_trip_ms=_known(each.round_trip_ms),
        sent_bits_per_s=_known(each.sent_bits_per_s),
        received_bits_per_s=_known(each.received_bits_per_s),
        dropped=dict(lost[:MAX_REASONS]),
    )


def _known(figure: float | None) -> float | None:
    return None if figure is None else _bounded(figure)


def _bounded(figure: float) -> float:
    return min(MAX_FIGURE, figure)


def _watched(state: SuiteState) -> list[WatchedStream]:
    streams: dict[str, list[WatchSession]] = {}
    for each in state.watching or []:
        streams.setdefault(each.stream, []).append(each)
    return [_stream(name, streams[name]) for name in sorted(streams)[:MAX_STREAMS]]


def _stream(name: str, sessions: list[WatchSession]) -> WatchedStream:
    paths = Counter(each.path for each in sessions)
    bits_per_s, loss = sum(each.bits_per_s for each in sessions), max(each.loss for each in sessions)
    return WatchedStream(name, len(sessions), paths["direct"], paths["relayed"], _bounded(bits_per_s), _bounded(loss))


class Teller:
    """Which of the looks at a suite are told to somebody. The first one is."""

    def __init__(self) -> None:
        self._last: Suite | None = None
        self._told_at = 0.0

    def is_due(self, suite: Suite, now: float) -> bool:
        """Whether to tell it now, as is then taken for done."""
        last, ago_s = self._last, now - self._told_at
        if last and (ago_s < EVERY_S or not (_differ(last, suite) or (ago_s >= SMALL_EVERY_S and _grew(last, suite)))):
            return False
        self._last, self._told_at = suite, now
        return True


def _differ(one: Suite, other: Suite) -> bool:
    return _substance(one) != _substance(other)


def _substance(suite: Suite) -> object:
    rows = [
        (p.name, p.pid, p.state, p.restarts_hour, p.restarts, p.last_end, p.last_end_at, p.failures, p.recovery.counts)
        for p in suite.processes
    ]
    peers = [(its.peer, its.is_up, its.plane, its.path, its.remote, _plain(its.why)) for its in suite.tunnel]
    watched = [(its.stream, its.viewers, its.direct, its.relayed) for its in suite.watching]
    return rows, [_plain(text) for text in suite.troubles], peers, watched


def _plain(text: str) -> str:
    return re.sub("[0-9]+", "0", text)


def _grew(one: Suite, other: Suite) -> bool:
    pairs = zip(one.processes, other.processes, strict=True)  # of the same substance, so of the same processes
    grown = any(abs(a.memory - b.memory) > max(GROWN_BYTES, GROWN * a.memory) for a, b in pairs)
    return grown or one.troubles != other.troubles or _moved(one, other)


def _moved(one: Suite, other: Suite) -> bool:
    return any(abs(a - b) > MOVED * max(a, b) for a, b in zip(_traffic(one), _traffic(other), strict=True))


def _traffic(suite: Suite) -> list[float]:
    of_peers = [
        (its.round_trip_ms or 0, its.sent_bits_per_s or 0, its.received_bits_per_s or 0, sum(its.dropped.values()))
        for its in suite.tunnel
    ]
    return [figure for each in of_peers for figure in each] + [
        figure for its in suite.watching for figure in (its.bits_per_s, its.loss)
    ]
