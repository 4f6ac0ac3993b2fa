"""Stand-ins for processes that are asked over the bus, each in a thread of the test's own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq
from msgspec.structs import replace

from procs import bus, rpc
from procs.errors import Refused
from procs.messages.requests import Command, Describe, Reply
from procs.messages.voice import Do, Line, Listen, VoiceBeat, VoiceDevice, VoiceState, VoiceTold

Handle = Callable[[Command], Reply | None]


@contextlib.contextmanager
def answering(run_dir: Path, endpoint: str, handle: Handle) -> Iterator[None]:
    """Somebody who answers at an endpoint. Gone at the end, and its socket's file with it."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    responder, ended = rpc.Responder(context, run_dir, endpoint), threading.Event()

    def serve() -> None:
        while not ended.is_set():
            responder.serve(handle, 0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        context.destroy()
        bus.path(run_dir, endpoint).unlink(missing_ok=True)


def voice_device(name: str, **more: object) -> VoiceDevice:
    """One that is connected and listens."""
    beat = VoiceBeat("connected", since=time.time() - 65, protocol="planaria", turn="waiting_for_user",
                     echo="cancelled", microphone="ok", speaker="ok")  # fmt: skip
    device = VoiceDevice(name, "192.0.2.7", 8600, "Gertrude", "{}", True, True, 5.0, "connected", beat=beat)
    return replace(device, **more)


class Leader:
    """A voice backend's leader whose devices and lines are what the test says. `done`: what it was told to do."""

    def __init__(self, *devices: VoiceDevice) -> None:
        self.devices = {each.name: each for each in devices}
        self.state = VoiceState(True, [], [], {"stt": "", "tts": "", "llm": ""})
        self.done: list[Do] = []
        self.refuses = ""  # why it does nothing
        self.at_a_time = 2  # devices in one answer
        self.slow_s = 0.0  # to do something
        self.changes = 0
        self.lines: dict[str, dict[int, tuple[int, Line]]] = {}  # device -> number -> when it changed last

    def hears(self, name: str, line: Line) -> None:
        """Have something said at a device, or said on."""
        self.changes += 1
        of_device = self.lines.setdefault(name, {})
        of_device[line.number] = self.changes, line

    def change(self, name: str, **how: object) -> None:
        """Have a device be otherwise; what a beat has goes into it."""
        device = self.devices[name]
        beat = device.beat or VoiceBeat("over")
        of_beat = {key: value for key, value in how.items() if key in VoiceBeat.__struct_fields__ and key != "state"}
        rest = {key: value for key, value in how.items() if key not in of_beat}
        self.devices[name] = replace(device, beat=replace(beat, **of_beat), **rest)

    def answer(self, command: Command) -> Reply | None:
        """As the bus has it. Raises Refused."""
        if isinstance(command, Describe):
            later = [each for name, each in sorted(self.devices.items()) if name > command.after]
            state = replace(self.state, devices=later[: self.at_a_time], more=len(later) > self.at_a_time)
            return Reply(0, True, body=state)
        if not isinstance(command, Listen | Do):
            raise Refused("not here")
        if command.name not in self.devices:
            raise Refused(f"there is no device {command.name}")
        if isinstance(command, Listen):
            known = self.lines.get(command.name, {}).values()
            newer = [line for changed, line in sorted(known, key=lambda one: one[0]) if changed > command.after]
            return Reply(0, True, body=VoiceTold(newer[-50:], self.changes))
        self._do(command)
        return None

    def _do(self, command: Do) -> None:
        if self.refuses:
            raise Refused(self.refuses)
        self.done.append(command)
        time.sleep(self.slow_s)
        if command.what in ("mute", "unmute"):
            self.change(command.name, muted=command.what == "mute")
        elif command.what in ("enable", "disable"):
            is_on = command.what == "enable"
            self.change(command.name, enabled=is_on, state="connected" if is_on else "disabled")
        elif command.what == "forget":
            self.lines.pop(command.name, None)
        elif command.what == "say":
            number = len(self.lines.get(command.name, {})) + 1
            self.hears(command.name, Line(number, "assistant", command.text, True, time.time()))


@contextlib.contextmanager
def voice_leader(run_dir: Path, *devices: VoiceDevice) -> Iterator[Leader]:
    """It, at voice.state."""
    leader = Leader(*devices)
    with answering(run_dir, bus.VOICE_STATE, leader.answer):
        yield leader
