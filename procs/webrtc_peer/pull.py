"""Each watched stream once from the local go2rtc, for as long as somebody watches it.

Promises: a stream is pulled once, whatever the number of its viewers; it comes back by itself after whatever ends it;
it ends LINGER_S after its last viewer; its times never jump back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, NoReturn

from procs import log
from procs.errors import LinkLost, Refused
from procs.webrtc_peer import rtsp
from procs.webrtc_peer.rtsp_login import Server
from procs.webrtc_peer.sorter import OnUnit, Sorter, can_pass

LINGER_S = 10.0  # a page that is loaded again finds the stream running
FIRST_UNIT_S = 15.0  # a camera that has to be reached first
SILENT_S = 4.0
RETRY_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)  # go2rtc is on this machine: asking it costs nothing
UNKNOWN_AFTER_S = 2.0  # a go2rtc that has just started does not know its streams yet
LOOK_S = 0.5


class State(NamedTuple):
    """How a stream is: as messages.Source, which it becomes. `is_unknown`: go2rtc has nothing of that name for us."""

    state: str  # starting, live or dry
    codecs: tuple[str, ...] = ()  # h264/<profile-level-id>, opus, pcma, pcmu, aac
    why: str = ""
    is_unknown: bool = False
    hears: str = ""  # pcma or pcmu: how one can speak to it


OnState = Callable[[str, State], None]


class Pulls:
    """All streams that are wanted. `on_unit(stream, unit, data)` takes what comes, `on_state(stream, state)` news."""

    def __init__(
        self,
        go2rtc: Server,
        on_unit: OnUnit,
        on_state: OnState = lambda stream, state: None,
        hears: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        """`hears`: how one can speak to a stream; may raise Refused."""
        self._go2rtc, self._on_unit, self._on_state, self._hears = go2rtc, on_unit, on_state, hears
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._states: dict[str, State] = {}
        self._errors: asyncio.Queue[BaseException] = asyncio.Queue()
        self.connects = 0  # RTSP connections begun so far

    def want(self, stream: str) -> None:
        """Pull this stream. To be said as often as one likes."""
        if stream in self._ends:
            self._ends.pop(stream).cancel()
        if stream not in self._tasks:
            self._tasks[stream] = asyncio.ensure_future(self._keep_pulling(stream))
            self._tasks[stream].add_done_callback(self._done)

    def unwant(self, stream: str) -> None:
        """Nobody watches it any more; it ends in a while unless it is wanted again."""
        if stream in self._tasks and stream not in self._ends:
            self._ends[stream] = asyncio.get_running_loop().call_later(LINGER_S, self._end, stream)

    async def watch(self) -> NoReturn:
        """Raise what nobody had foreseen of pulling a stream, once there is any: it would never come back."""
        raise await self._errors.get()

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._errors.put_nowait(error)

    def state(self, stream: str) -> State:
        """How it is now."""
        return self._states.get(stream, State("starting"))

    def __len__(self) -> int:
        return len(self._tasks)

    def _end(self, stream: str) -> None:
        self._ends.pop(stream, None)
        self._states.pop(stream, None)
        self._tasks.pop(stream).cancel()

    def _is_now(self, stream: str, state: State) -> None:
        if self._states.get(stream) != state:
            self._states[stream] = state
            log.info("stream", stream=stream, state=state.state, why=state.why)
            self._on_state(stream, state)

    async def _keep_pulling(self, stream: str) -> None:
        self._is_now(stream, State("starting"))
        sorter = Sorter(stream, self._on_unit)
        failures = 0
        unknown_since: float | None = None
        while True:
            began = sorter.pictures
            try:
                await self._pull(stream, sorter)
            except (OSError, LinkLost, Refused, TimeoutError) as error:
                why = str(error) or type(error).__name__
                is_unknown = isinstance(error, rtsp.NoSuchStream)
            now = time.monotonic()
            failures = 0 if sorter.pictures > began else failures + 1
            unknown_since = (unknown_since or now) if is_unknown else None
            unknown = unknown_since is not None and now - unknown_since >= UNKNOWN_AFTER_S
            self._is_now(stream, self.state(stream)._replace(state="dry", why=why, is_unknown=unknown))
            await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])

    async def _pull(self, stream: str, sorter: Sorter) -> None:
        """One connection, until it ends. Raises what ended it."""
        self.connects += 1
        player = await rtsp.describe(self._go2rtc, stream)
        live = State("live", codecs_of(player.tracks), hears=await self._asked(stream))
        sorter.begin(player.tracks, lambda: self._is_now(stream, live))
        playing = asyncio.ensure_future(player.play(sorter.take))
        limit_s, since = FIRST_UNIT_S, time.monotonic()
        try:
            while True:
                seen = sorter.pictures
                done, _ = await asyncio.wait([playing], timeout=LOOK_S)
                if done:
                    await playing
                now = time.monotonic()
                if sorter.pictures != seen:
                    limit_s, since = SILENT_S, now
                elif now - since > limit_s:
                    raise LinkLost(f"no picture came for {limit_s:g} s")
        finally:
            player.close()
            playing.cancel()

    async def _asked(self, stream: str) -> str:
        """Whom one can't ask hears nothing."""
        with contextlib.suppress(Refused):
            return await self._hears(stream) if self._hears else ""
        return ""


def codecs_of(tracks: Sequence[rtsp.Track]) -> tuple[str, ...]:
    """As messages.Source has them."""
    passed = [track for track in tracks if can_pass(track)]
    return tuple(f"{track.codec}/{track.profile}" if track.profile else track.codec for track in passed)
