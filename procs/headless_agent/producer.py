"""The loop of a producer: wait until a picture is due, draw it, encode it, stamp it, write it."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import deque

from procs import log
from procs.errors import NoFirstFrame
from procs.headless_agent.control import Wishes, listen_to_bus, listen_to_signals
from procs.headless_agent.encoder import AccessUnit, Choice, open_encoder
from procs.headless_agent.options import Producer
from procs.headless_agent.output import open_output
from procs.headless_agent.pacing import Schedule
from procs.headless_agent.pictures import open_pictures
from procs.life import Alive
from procs.media import annexb, sei
from procs.pipes import Stdout

DROP_REPORT_S = 5.0
OVERTIME_S = 1.0


def produce(chosen: Producer, alive: Alive) -> None:
    """Make pictures until the duration is over (0: for ever)."""
    first = threading.Event()
    # A thread of Python does not run while a driver that hangs is called with the interpreter's lock held.
    alive.allow(chosen.first_frame_limit_s + OVERTIME_S)
    threading.Thread(target=_insist, args=(first, chosen.first_frame_limit_s), name="first frame", daemon=True).start()
    wishes = Wishes()
    listen_to_signals(wishes)
    loop = _Loop(chosen, alive, wishes)
    loop.step()
    first.set()
    gc.freeze()  # what the imports made stays; no collection has to walk it between two frames
    gc.enable()
    listen_to_bus(chosen.instance_id, alive.run_dir, wishes, loop.describe)
    log.info(loop.encoder_and_reason(), **_facts(chosen))
    while not chosen.duration or loop.schedule.index < chosen.duration * chosen.fps:
        loop.step()


def _insist(first: threading.Event, limit_s: float) -> None:
    """A thread that ends the process if the first picture takes too long, whatever the main thread is stuck in."""
    if not first.wait(limit_s):
        raise NoFirstFrame(f"no first picture within {limit_s:g} s")


def _facts(chosen: Producer) -> dict[str, object]:
    return {
        "size": f"{chosen.width}x{chosen.height}",
        "fps": chosen.fps,
        "bitrate": chosen.bitrate,
        "threads": chosen.threads,
        "out": chosen.out,
    }


class _Loop:
    """One picture after the other. Nothing of it lasts: a new process starts a new one."""

    def __init__(self, chosen: Producer, alive: Alive, wishes: Wishes) -> None:
        self._chosen, self._alive, self._wishes = chosen, alive, wishes
        self._pictures = open_pictures(chosen)
        self._encoder = open_encoder(chosen, self._pictures, alive.failures)
        self._under_way: deque[tuple[int, int]] = deque()  # (index, capture time) of pictures the encoder holds
        stdout = Stdout(chosen.stdout_limit_s, chosen.stdout_chunk, alive.beat)
        start_ns = time.monotonic_ns()
        self.schedule = Schedule(chosen.fps, start_ns)
        self._output = open_output(chosen, stdout, start_ns)
        self._frames = 0
        self._reported_drops, self._reported_at = 0, time.monotonic()

    def step(self) -> None:
        """Wait for the next picture's time and make it."""
        _sleep_until(self.schedule.due_ns())
        index = self.schedule.take(time.monotonic_ns())
        captured_ns = time.time_ns()
        self._pictures.draw(index, captured_ns)
        self._under_way.append((index, captured_ns))
        if bits_per_s := self._wishes.take_bitrate():
            self._encoder.set_bitrate(bits_per_s)
            log.info("bit rate changed", bitrate=bits_per_s)
        for unit in self._encoder.encode(self._pictures, index, keyframe=self._wishes.take_keyframe()):
            self._put(unit, *self._under_way.popleft())
        self._frames += 1
        self._alive.dropped = self.schedule.dropped
        self._alive.beat()
        self._report_drops()

    def _put(self, unit: AccessUnit, index: int, captured_ns: int) -> None:
        stamped = annexb.insert_before_slice(unit.data, sei.stamp(index, captured_ns))
        self._alive.serving()
        self._output.put(unit._replace(data=stamped), index)

    def _report_drops(self) -> None:
        """Say at most every few seconds how many pictures were dropped."""
        now, dropped = time.monotonic(), self.schedule.dropped
        if dropped > self._reported_drops and now - self._reported_at >= DROP_REPORT_S:
            log.warning("too slow: pictures dropped", dropped=dropped - self._reported_drops, frames=self._frames)
            self._reported_drops, self._reported_at = dropped, now

    def encoder_and_reason(self) -> str:
        """What encodes, and why nothing better does. go2rtc keeps the first 512 bytes of stderr: this goes first."""
        refusals = self._refusals()
        return f"encoder {self._encoder.name}" + (f" ({refusals})" if refusals else "")

    def _refusals(self) -> str:
        return self._encoder.refusals if isinstance(self._encoder, Choice) else ""

    def describe(self) -> dict[str, object]:
        """The fields of messages.Description that this loop knows."""
        chosen = self._chosen
        return {
            "instance": chosen.instance_id,
            "pid": os.getpid(),
            "width": chosen.width,
            "height": chosen.height,
            "fps": chosen.fps,
            "bitrate": self._encoder.bitrate,
            "encoder": self._encoder.name,
            "frames": self._frames,
            "dropped": self.schedule.dropped,
            "renderer": self._pictures.renderer,
            "refusals": self._refusals(),
        }


def _sleep_until(due_ns: int) -> None:
    wait_ns = due_ns - time.monotonic_ns()
    if wait_ns > 0:
        time.sleep(wait_ns / 1e9)
