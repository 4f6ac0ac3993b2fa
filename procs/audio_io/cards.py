"""Ears and mouth of a machine: a microphone and a speaker by PortAudio, which may come and go.

PortAudio's own threads only carry blocks: played ones out of the player, heard ones into a queue. The sound thread
cleans and delivers what was heard; where a card is missing it keeps real time in its place, so that the conversation
goes on. The keeper opens cards, sees that they live, and looks again for what is missing.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import Any

from procs import log
from procs.audio_io import devices
from procs.audio_io.board import Board, Pace
from procs.audio_io.devices import Side
from procs.audio_io.ear import Ear
from procs.audio_io.echo import KEPT_S, Beside
from procs.audio_io.lines import Line, Microphone, Speaker
from procs.audio_io.sound import OPENING, Pcm
from procs.backoff import delays
from procs.errors import NotHere

_WATCH_S = 0.5
_WAITING = 25  # blocks of the microphone; older ones are no use


class CardSound(Board):
    """Sound of this machine's cards, chosen by part of their names."""

    def __init__(self, ear: Ear, microphone: str, speaker: str) -> None:
        super().__init__(ear)
        self.microphone = self.speaker = OPENING
        self._names: dict[Side, str] = {"microphone": microphone, "speaker": speaker}
        self._open: dict[Side, Line] = {}
        self._heard: queue.SimpleQueue[Pcm] = queue.SimpleQueue()
        self._spoken = Beside()
        self._known = False  # PortAudio has looked for cards
        self._closed_glitches = 0

    @property
    def glitches(self) -> int:
        """How often a card got or gave nothing in time."""
        return self._closed_glitches + sum(line.glitches for line in list(self._open.values()))

    # The sound thread

    def _run(self) -> None:
        self.ear.prepare()
        threading.Thread(target=self._keep, name="cards", daemon=True).start()
        pace, delay_s = Pace(), 0.0
        while True:
            heard = self._next(pace)
            if "speaker" not in self._open:
                self._pull(0.0)
            if self._delay_s != delay_s:
                self.ear.delay(delay_s := self._delay_s)
            self.ear.spoken(self._spoken.take())
            self._deliver(self.ear.nothing() if heard is None else self.ear.hear(heard))

    def _next(self, pace: Pace) -> Pcm | None:
        """A block of the microphone; None, in real time, while there is none."""
        if "microphone" in self._open:
            with contextlib.suppress(queue.Empty):
                block = self._heard.get(timeout=_WATCH_S)
                while self._heard.qsize() > _WAITING:
                    block = self._heard.get_nowait()
                pace.start()
                return block
        pace.wait()
        return None

    def _pull(self, latency_s: float) -> Pcm:
        """What is spoken next; also in PortAudio's thread."""
        block = self.player.pull(latency_s)
        self._spoken.put(block)
        return block

    @property
    def _delay_s(self) -> float:
        return max(0.0, sum(line.latency_s for line in list(self._open.values())) - KEPT_S)

    # The keeper

    def _keep(self) -> None:
        """PortAudio learns of new cards only by beginning anew, which ends what is open: not while anything is said."""
        pauses, again_at = delays(), 0.0
        while True:
            if len(self._open) == 2:
                pauses = delays()
            elif time.monotonic() >= again_at and (not self._open or self.cursor.state != "playing"):
                self._open_all()
                again_at = time.monotonic() + next(pauses)
            time.sleep(_WATCH_S)
            for side, line in list(self._open.items()):
                if not line.alive:
                    self._close(side)
                    self._say(side, f"missing: {line.name} has gone silent; plug it in again")
                    again_at = 0.0

    def _open_all(self) -> None:
        for side in list(self._open):
            self._close(side)
        try:
            card = devices.library()
            if self._known:
                card._terminate()
                card._initialize()
            self._known = True
            found = devices.devices(card)
        except Exception as error:  # PortAudio's, of any kind: it is looked for again
            for each in self._names:
                self._say(each, f"missing: {error}")
            return
        for each in self._names:
            self._open_one(card, found, each)
        self.output_s = self._open["speaker"].latency_s if "speaker" in self._open else 0.0

    def _open_one(self, card: Any, found: list[devices.Device], side: Side) -> None:
        try:
            device = devices.pick(found, side, self._names[side])
            if side == "microphone":
                self._open[side] = Microphone(card, device, self._heard.put)
            else:
                self._open[side] = Speaker(card, device, self._pull)
        except NotHere as error:
            self._say(side, f"missing: {error}")
        except Exception as error:  # PortAudio's: one side that fails in a new way leaves the other
            self._say(side, f"missing: {type(error).__name__}: {error}")
        else:
            self._say(side, "ok", device.name)

    def _close(self, side: Side) -> None:
        line = self._open.pop(side)
        self._closed_glitches += line.glitches
        line.close()

    def _say(self, side: Side, how: str, name: str = "") -> None:
        """In the state; in the log when it changes."""
        if getattr(self, side) != how:
            (log.info if how == "ok" else log.warning)("sound-card", side=side, state=how, name=name)
        setattr(self, side, how)
