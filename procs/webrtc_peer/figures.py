"""How watch sessions do, summed up for the warden: each of them, and each stream since our start. Pure."""

from __future__ import annotations

from procs.messages.warden import Watching, WatchSession, WatchTotals
from procs.messages.watch import Beat

MAX_STREAMS = 32  # known by name; whoever watches chooses names, and they are kept for as long as we live
OTHERS = "others"
_SUMMED = {"packets": "packets", "octets": "bytes", "packets_lost": "packets_lost", "packets_again": "packets_again",
           "dropped": "dropped"}  # fmt: skip


class Figures:
    """Of all sessions."""

    def __init__(self) -> None:
        self._sessions: dict[str, WatchSession] = {}
        self._began: dict[str, float] = {}
        self._before: dict[str, dict[str, float]] = {}  # what each session has added to its stream's sums so far
        self._totals: dict[str, dict[str, float]] = {}

    def take(self, stream: str, beat: Beat, now: float) -> None:
        """A session says how it does."""
        its, stats = beat.session_id, {name: max(0.0, value) for name, value in beat.stats.items()}
        began = self._began.setdefault(its, now)
        self._sessions[its] = WatchSession(
            session_id=its,
            stream=stream,
            state=beat.state,
            path=beat.path,
            for_s=round(now - began, 1),
            bits_per_s=stats.get("bits_per_s", 0.0),
            asked_bits_per_s=stats.get("asked_bits_per_s", 0.0),
            loss=round(stats.get("loss", 0.0), 3),
            round_trip_ms=round(stats["round_trip_ms"], 1) if "round_trip_ms" in stats else None,
            packets=stats.get("packets", 0.0),
            packets_lost=beat.stats.get("packets_lost", 0.0),
            packets_again=stats.get("packets_again", 0.0),
            dropped=stats.get("dropped", 0.0),
        )
        if stats.get("packets"):
            self._add(stream, its, stats)

    def over(self, session_id: str) -> None:
        """A session is over; what it has added stays."""
        for known in (self._sessions, self._began, self._before):
            known.pop(session_id, None)

    def told(self, pid: int) -> Watching:
        """For the warden."""
        totals = [
            WatchTotals(name, int(its["sessions"]), *(its[figure] for figure in _SUMMED))
            for name, its in self._totals.items()
        ]
        return Watching(pid, list(self._sessions.values()), totals)

    def _add(self, stream: str, session_id: str, stats: dict[str, float]) -> None:
        name = stream if stream in self._totals or len(self._totals) < MAX_STREAMS else OTHERS
        totals = self._totals.setdefault(name, dict.fromkeys(("sessions", *_SUMMED), 0.0))
        totals["sessions"] += session_id not in self._before
        before = self._before.setdefault(session_id, {})
        for figure, told_as in _SUMMED.items():
            value = stats.get(told_as, 0.0)
            totals[figure] += max(0.0, value - before.get(figure, 0.0))  # a viewer's count of losses may go down
            before[figure] = max(value, before.get(figure, 0.0))
