"""A voice backend as a process of its own, with speech services and devices that are processes, too: all by loopback,
each ended by its pid and started again as its supervisor would. What it says of itself comes from its REST alone."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests import audio_rig, speech_rig, spoken, voice_rig, warm
from tests.audio_rig import Device
from tests.rig import children, clean_environ, free_port, until
from tests.speech_rig import Service
from tests.spoken import RATE, Sound
from tests.warm import Forked

LIMIT_S = 20.0
SPEECH = ("stt", "tts", "llm")
BLOCK = 480  # samples: 20 ms


class Speech:
    """The three services, each at a port of its own that it keeps."""

    def __init__(self, run_dir: Path, **environ: str) -> None:
        self._run_dir, self._environ = run_dir, environ
        self._ports = {which: free_port() for which in SPEECH}
        self._open: dict[str, contextlib.ExitStack] = {}
        self.services: dict[str, Service] = {}
        self._beside = ThreadPoolExecutor(len(SPEECH))  # its threads live on: with its thread a process would end

    def start(self, *which: str) -> None:
        """Start these, and wait until they serve."""
        list(self._beside.map(self._start, which))

    def _start(self, which: str) -> None:
        self._open[which] = contextlib.ExitStack()
        service = speech_rig.service(which, self._run_dir, port=self._ports[which], **self._environ)
        self.services[which] = self._open[which].enter_context(service)

    def kill(self, *which: str) -> None:
        """SIGKILL to these."""
        for each in which:
            self._open[each].close()

    @property
    def environ(self) -> dict[str, str]:
        """Where a backend finds them."""
        schemes = {"stt": "ws", "tts": "ws", "llm": "http"}
        return {f"KYUTAI_{each.upper()}_URL": f"{schemes[each]}://127.0.0.1:{self._ports[each]}" for each in SPEECH}

    def transcribed(self, sound: Sound, folder: Path) -> list[str]:
        """The words in it. Long silences are left out: they cost as much as words."""
        heard = np.concatenate([spoken.silence(0.5), dense(sound), spoken.silence(0.5)])
        data = audio_rig.wav(folder / "transcribed.wav", heard).read_bytes()
        status, body = self.services["stt"].call("POST", "/api/asr-streaming", data)
        assert status == 200, body
        return [each["text"] for each in json.loads(body) if each["type"] == "Word"]


@contextlib.contextmanager
def speech(run_dir: Path, **environ: str) -> Iterator[Speech]:
    """All three, until the end of the block."""
    run_dir.mkdir(mode=0o700, exist_ok=True)
    its = Speech(run_dir, **environ)
    try:
        its.start(*SPEECH)
        yield its
    finally:
        its.kill(*its.services)


@dataclass
class Voice:
    """A backend."""

    folder: Path
    port: int
    environ: dict[str, str]
    process: Forked = field(init=False)

    def start(self) -> None:
        """Start it; `wait` waits until it answers."""
        with self.log.open("ab") as log:
            self.process = warm.start(voice_rig.VOICE, voice_rig.WARM, self.environ, stdout=log, stderr=log)

    def wait(self) -> None:
        """Until it answers."""
        until(self._answers, LIMIT_S)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.said
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.call("GET", "/")[0] == 200
        return False

    def kill(self) -> None:
        """SIGKILL to the leader alone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def log(self) -> Path:
        """Where it logs."""
        return self.folder / "voice.log"

    @property
    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    @property
    def config(self) -> Path:
        """Its devices.json."""
        return Path(self.environ["REMOTE_DEVICES_CONFIG"])

    @property
    def url(self) -> str:
        """Where browsers call."""
        return f"ws://127.0.0.1:{self.port}/v1/realtime"

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One request: status, and what JSON came."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        with contextlib.closing(line):
            headers = {"Content-Type": "application/json"} if body is not None else {}
            line.request(method, path, None if body is None else json.dumps(body), headers)
            answer = line.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if data[:1] in (b"{", b"[") else data.decode()

    def get(self, path: str) -> Any:
        """What it answers."""
        status, answer = self.call("GET", path)
        assert status == 200, (status, answer)
        return answer

    def post(self, path: str, body: object = None) -> Any:
        """What it answers."""
        status, answer = self.call("POST", path, body)
        assert status < 300, (status, answer)
        return answer

    def device(self, name: str) -> dict[str, Any]:
        """How one is."""
        found: dict[str, Any] = self.get("/v1/devices/status")["devices"][name]
        return found

    def is_connected(self, name: str) -> bool:
        """Whether it is."""
        return bool(self.device(name)["connected"])

    def is_quiet(self, name: str) -> bool:
        """Whether the bot has ended, and nobody speaks."""
        return bool(self.device(name).get("turn") == "waiting_for_user")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What was said there so far."""
        found: list[dict[str, Any]] = self.get(f"/v1/devices/{name}/lines")["lines"]
        return found

    def texts(self, name: str, role: str) -> list[str]:
        """The same of one of the two."""
        return [line["text"] for line in self.lines(name) if line["role"] == role]

    def configure(self, devices: Sequence[Mapping[str, Any]]) -> None:
        """Write its devices.json, whole."""
        write_config(self.config, devices)

    def children(self) -> list[int]:
        """Pids of its conversations."""
        return [child for zygote in children(self.process.pid) for child in children(zygote)]

    def child_at(self, port: int) -> int:
        """The pid of the one that is connected there; 0: none is."""
        sockets = connected_to(port)
        return next((pid for pid in self.children() if sockets & sockets_of(pid)), 0)


def write_config(file: Path, devices: Sequence[Mapping[str, Any]]) -> None:
    """A devices.json, put there as a whole."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"devices": list(devices)}))
    new.rename(file)


def connected_to(port: int) -> set[str]:
    """Inodes of this machine's sockets that have a connection to that port of loopback."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port and fields[3] == "01":
            found.add(fields[9])
    return found


def sockets_of(pid: int) -> set[str]:
    """Inodes of a process's sockets."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry.path)):
                    found.add(match[1])
    return found


@contextlib.contextmanager
def voice(
    folder: Path, its: Speech, devices: Sequence[Mapping[str, Any]], *, config: Path | None = None, **environ: str
) -> Iterator[Voice]:
    """Run a backend until the end of the block, from when it answers. `config`: another's devices.json."""
    run_dir = folder / "run"
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = config or folder / "devices.json"
    port = free_port()
    told = {"HOST": "127.0.0.1", "PORT": str(port), "LOG_LEVEL": "info", "REMOTE_DEVICES_CONFIG": str(file)}
    told |= {"PLANARIA_RUN_DIR": str(run_dir)} | its.environ | environ
    running = Voice(folder, port, clean_environ(**told))
    if config is None:
        running.configure(devices)
    running.start()
    try:
        running.wait()
        yield running
    finally:
        running.kill()


def entry(name: str, port: int, text: str = "", voice: str = "slt", **more: Any) -> dict[str, Any]:
    """One of devices.json. `text`: what the bot is told, in words."""
    instructions = {"type": "constant", "text": text} if text else {"type": "smalltalk"}
    its = {"name": name, "host": "127.0.0.1", "port": port, "voice": voice, "instructions": instructions}
    return its | {"reconnect_delay": 0.2} | more


class Person:
    """Somebody at a device whose microphone is live (tests/live_microphone.py)."""

    def __init__(self, device: Device, mouth: Path, voice: str = "rms") -> None:
        self.device, self.voice = device, voice
        self._mouth, self._said = mouth, 0

    def say(self, text: str) -> float:
        """Begin to say it; returns for how many seconds it goes on."""
        return self.utter(spoken.speech(text, self.voice))

    def utter(self, sound: Sound) -> float:
        """The same with any sound."""
        self._said += 1
        file = self._mouth / f"{self._said:04}"
        file.write_bytes(sound.astype("<i2").tobytes())
        file.rename(file.with_suffix(".pcm"))
        return len(sound) / RATE

    def is_silent(self) -> bool:
        """Whether all was said."""
        return not any(self._mouth.glob("*.pcm"))

    def speaker(self) -> list[tuple[float, str, int]]:
        """What the speaker was told: when, what, and how much of its response had been heard, in ms."""
        with contextlib.suppress(FileNotFoundError):
            told = [line.split() for line in (self._mouth / "speaker").read_text().splitlines()]
            return [(float(at), what, int(heard)) for at, what, heard in told]
        return []

    def hears(self, for_s: float = 0.2) -> bool:
        """Whether the speaker speaks: there was sound within that time, of which the file is late by nothing."""
        return loud(self.device.played()[-round(for_s * RATE) :]) > 0

    def heard_s(self, since: int = 0) -> float:
        """How much sound there was, from that sample of the speaker on."""
        return loud(self.device.played()[since:])


def loud(sound: Sound) -> float:
    """Seconds of it that are no silence."""
    return float(_is_loud(sound).sum() * BLOCK / RATE)


def dense(sound: Sound) -> Sound:
    """The same without what lies more than 0.3 s from anything that is no silence."""
    reach = np.ones(2 * round(0.3 * RATE / BLOCK) + 1)
    is_near = np.convolve(_is_loud(sound), reach, "same") > 0 if len(sound) >= BLOCK else np.zeros(0, bool)
    return sound[: len(is_near) * BLOCK].reshape(-1, BLOCK)[is_near].ravel()


def _is_loud(sound: Sound) -> NDArray[np.bool_]:
    blocks = sound[: len(sound) // BLOCK * BLOCK].reshape(-1, BLOCK).astype(np.int32)
    found: NDArray[np.bool_] = np.abs(blocks).max(axis=1, initial=0) > 300
    return found


@contextlib.contextmanager
def person(folder: Path, *flags: str, voice: str = "rms") -> Iterator[Person]:
    """A device with somebody at it."""
    mouth = folder / "mouth"
    mouth.mkdir(parents=True)
    with audio_rig.device(folder, *flags, program=("-m", "tests.live_microphone", str(mouth))) as device:
        yield Person(device, mouth, voice)


def together(stack: contextlib.ExitStack, *started: contextlib.AbstractContextManager[Any]) -> list[Any]:
    """What these give, all of them started at the same time; they end with the stack."""
    beside = stack.enter_context(ThreadPoolExecutor(len(started)))  # the last to end: processes end with their threads
    return list(beside.map(stack.enter_context, started))


def holds(device: Device) -> list[str]:
    """What a device has logged of who holds it, in order."""
    kinds = {
        "a backend can call": "began",
        "a backend holds the device": "held",
        "its connection is over": "over",
        "turned a connection away": "away",
    }
    return [kind for line in device.said.splitlines() for text, kind in kinds.items() if text in line]


def never_two(device: Device) -> bool:
    """Whether nobody ever wanted a device that was held, as it has logged itself."""
    told = holds(device)
    return "away" not in told and ("held", "held") not in itertools.pairwise(told)


class Watch:
    """How long things took, for who reads the test's output."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def told(self, what: str) -> float:
        """Say it, and begin again."""
        now = time.monotonic()
        took, self.began = now - self.began, now
        print(f"{what}: {took:.2f} s")
        return took
