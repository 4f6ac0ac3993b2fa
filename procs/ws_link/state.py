"""How the link is doing, for `make status`, and what it has not taken, counted."""

from __future__ import annotations

import time
from collections import Counter
from typing import Literal

from procs import log
from procs.messages.requests import LinkState


class State:
    """What there is to tell. All of it is of this process's life."""

    def __init__(self, device_id: str, hub: str) -> None:
        self._device_id, self._hub = device_id, hub
        self._state: Literal["connected", "connecting", "refused"] = "connecting"
        self._since = time.monotonic()
        self._said = ""
        self._reconnects = 0
        self._refused: Counter[str] = Counter()
        self.mux = False
        self.paired = ""
        self.sessions: int | None = None

    def note(self, kind: str, why: str) -> None:
        """Something was not taken, and we go on. `kind` is one of a few words of ours."""
        self._refused[kind] += 1
        log.warning(f"not taken: {kind}", why=why, times=self._refused[kind])

    def connected(self, mux: bool) -> None:
        """The hub has taken us."""
        self._change("connected", "")
        self.mux = mux

    def lost(self, why: str, *, refused: bool) -> None:
        """It has not, or no longer."""
        self._change("refused" if refused else "connecting", why[:500])
        self._reconnects += 1
        self.mux = False

    def _change(self, state: Literal["connected", "connecting", "refused"], said: str) -> None:
        if state != self._state:
            self._since = time.monotonic()
        self._state, self._said = state, said

    def told(self, workers: int) -> LinkState:
        """All of it, as a message."""
        return LinkState(
            device_id=self._device_id,
            hub=self._hub,
            state=self._state,
            since_s=time.monotonic() - self._since,
            reconnects=self._reconnects,
            refused=dict(self._refused),
            mux=self.mux,
            said=self._said,
            workers=workers,
            sessions=self.sessions,
            paired=self.paired,
        )
