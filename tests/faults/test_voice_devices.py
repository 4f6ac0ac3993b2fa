"""Devices that are not as they should be: the others feel nothing of them, they are called again less and less often,
and the log says once what is wrong. The same with a devices.json that is wrong."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from procs.kinds import Address
from tests import conversing, device_minimal
from tests.conversing import Speech, Voice
from tests.device_minimal import Device
from tests.faults.links import Link, lossy
from tests.rig import free_port, until
from tests.spoken import speech as spoken_by

pytestmark = [pytest.mark.needs("flite"), pytest.mark.timeout(300)]
LIMIT_S = 60.0  # on a busy machine, which talks and hears late
WELCOME = "Good morning, and welcome to the house by the river, and to all that is going to be said in it."
TEXT = f'Say "{WELCOME}". In london the weather is good in the summer. The timer is set for ten minutes.'
BAD_FOR_S = 14.0  # a ping that is not answered is noticed within ten
SILENT_DELAY_S = 3.0


class HangsUp:
    """One that hangs up on everybody. `called`: when."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self._listener.getsockname()[1]
        self.called: list[float] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._listener.accept()[0].close()
                self.called.append(time.monotonic())

    def close(self) -> None:
        """The end."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Row:
    """All devices of these tests."""

    def __init__(self, vanishing: Link, rebooting: Device, well: Device, babbling: Device, far: Device) -> None:
        self.vanishing, self.rebooting, self.well, self.babbling = vanishing, rebooting, well, babbling
        self.far = far  # the one that has vanished
        self.hanging = device_minimal.Hanging(answers=False)
        self.silent = device_minimal.Hanging(answers=True)
        self.hangs_up = [HangsUp() for _ in range(3)]
        self.closed = free_port()

    def entries(self) -> list[dict[str, object]]:
        """For devices.json."""
        ports = {
            "well": self.well.port,
            "vanishing": self.vanishing.here.port,
            "rebooting": self.rebooting.port,
            "hanging": self.hanging.port,
            "silent": self.silent.port,
            "closed": self.closed,
            "babbling": self.babbling.port,
        }
        ports |= {f"hangs-up-{number}": each.port for number, each in enumerate(self.hangs_up)}
        delays = {"silent": SILENT_DELAY_S}
        return [
            conversing.entry(name, port, TEXT, "rms", reconnect_delay=delays.get(name, 0.2))
            for name, port in ports.items()
        ]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speech]:
    with conversing.speech(tmp_path_factory.mktemp("speech")) as its:
        yield its


def noticed(voice: Voice) -> float:
    """When the log first said that the one that vanished is gone."""
    line = next(line for line in lines_of(voice, "vanishing") if "not connected" in line)
    return datetime.fromisoformat(json.loads(line)["time"]).timestamp()


def lines_of(voice: Voice, name: str) -> list[str]:
    """What the log says of a device."""
    return [line for line in voice.said.splitlines() if f'"{name}"' in line or f"={name} " in f"{line} "]


@pytest.fixture
def row() -> Iterator[Row]:
    with contextlib.ExitStack() as held:
        well, rebooting, far = (held.enter_context(device_minimal.device()) for _ in range(3))
        babbling = held.enter_context(device_minimal.device(device_minimal.Rubbish))
        yield Row(held.enter_context(lossy(Address("127.0.0.1", far.port))), rebooting, well, babbling, far)


def test_bad_devices_are_left_to_themselves(speech: Speech, row: Row, tmp_path: Path) -> None:
    with conversing.voice(tmp_path, speech, row.entries()) as voice:
        well, babbling = row.well, row.babbling
        until(lambda: all(each.is_called for each in (well, row.rebooting, row.far, babbling)), LIMIT_S)
        for each in (well, babbling):
            each.talk.until(lambda: each.talk.of("response.audio.done"), LIMIT_S)  # noqa: B023
        row.vanishing.is_black_hole = True
        began, vanished = time.monotonic(), time.time()
        reboots(voice, row.rebooting)
        well.talk.say(spoken_by("set a timer for ten minutes"))
        well.talk.until(lambda: "The timer is set for ten minutes." in voice.texts("well", "assistant"), LIMIT_S)
        babbling.talk.say(spoken_by("what is the weather like in london"))
        answer = "In london the weather is good in the summer."
        babbling.talk.until(lambda: answer in voice.texts("babbling", "assistant"), LIMIT_S)
        until(lambda: not voice.is_connected("vanishing"), LIMIT_S)
        print(f"vanished: noticed after {noticed(voice) - vanished:.1f} s")
        time.sleep(max(0.0, began + BAD_FOR_S - time.monotonic()))
        look_at(voice, row)
        row.vanishing.is_black_hole = False
        until(lambda: voice.is_connected("vanishing"), LIMIT_S)
        assert len(well.talks) == len(babbling.talks) == 1, "they were not called again"
    assert max(each.most for each in (well, row.rebooting, babbling)) == 1


def reboots(voice: Voice, device: Device) -> None:
    """Twice; it is called again each time, and the conversation is known."""
    for number in (2, 3):
        device.vanish()
        until(lambda: not voice.is_connected("rebooting"), LIMIT_S)
        time.sleep(0.5)
        device.start()
        began = time.monotonic()
        until(lambda: len(device.talks) == number and voice.is_connected("rebooting"), LIMIT_S)  # noqa: B023
        print(f"called again {time.monotonic() - began:.2f} s after it was back")
    assert voice.texts("rebooting", "assistant")[0].startswith("Good")


def look_at(voice: Voice, row: Row) -> None:
    """What is said of those that can't be talked with, and how often they were called."""
    for name in ("hanging", "silent", "closed", "hangs-up-0"):
        state = voice.device(name)
        told = [line for line in lines_of(voice, name) if "devices.json" not in line]
        print(name, state["state"], state["problem"], len(told))
        assert not state["connected"] or name == "silent"
        assert name == "silent" or state["problem"], "in words"
        # Of the silent one each time: connected, that it sends no sound, not connected.
        assert 1 <= len(told) <= (3 * len(row.silent.opened) if name == "silent" else 3), told
    pauses = [b - a for a, b in itertools.pairwise(row.silent.opened)]
    print("called", len(row.silent.opened), len(row.hanging.opened), [round(each, 2) for each in pauses])
    assert all(each >= 10 + SILENT_DELAY_S for each in pauses), "a handshake alone is no good connection"
    rows = [[b - a for a, b in itertools.pairwise(each.called)] for each in row.hangs_up]
    print(*([round(pause, 2) for pause in each] for each in rows), sep="\n")
    assert all(4 <= len(each) <= 20 and max(each[-2:]) > 2 * min(each[:3]) for each in rows), "less and less often"
    assert len({round(each[2], 2) for each in rows}) > 1, "and not all at the same time"
    assert row.hanging.still_open() <= 1 and row.silent.still_open() <= 1, "the one before is ended first"


BAD: dict[str, dict[str, Any]] = {
    "devices[1]": {"host": "127.0.0.1", "port": 1},
    'name="well"': {"name": "well", "host": "127.0.0.1", "port": 1},
    "port=70000": {"name": "far", "host": "127.0.0.1", "port": 70000},
    "Nobody": {"name": "dumb", "host": "127.0.0.1", "voice": "Nobody"},
    "colour": {"name": "red", "host": "127.0.0.1", "colour": "red"},
}


def test_a_wrong_devices_json_says_what_is_wrong_and_the_rest_goes_on(speech: Speech, tmp_path: Path) -> None:
    with device_minimal.device() as well:
        right = conversing.entry("well", well.port, TEXT, "rms")
        with conversing.voice(tmp_path, speech, [right, *BAD.values()]) as voice:
            until(lambda: well.is_called)
            problems = voice.get("/v1/devices/status")["problems"]
            print(*problems, sep="\n")
            assert len(problems) == len(BAD)
            for number, (shown, problem) in enumerate(zip(BAD, problems, strict=True), 1):
                assert problem.startswith(f"devices.json: devices[{number}]") and shown in problem
                assert problem.count("\n") == 0 and sum(problem in line for line in voice.said.splitlines()) <= 1
            voice.config.write_text('{"devices": [')
            until(lambda: len(voice.get("/v1/devices/status")["problems"]) == 1)
            assert "line 1" in voice.get("/v1/devices/status")["problems"][0]
            said = len(well.talk.of("response.text.delta"))
            well.talk.until(lambda: well.talk.of("response.audio.done"))
            assert len(well.talk.of("response.text.delta")) > said, "the one that is right goes on talking"
            assert len(well.talks) == 1
