"""The backend with services that answer from memory: what a turn takes, and costs, without any engine; and many devices
that are silent. They are greeted by "Bye.", and so the bot lets them be."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import NamedTuple

from procs.errors import Unhealthy
from tests.bench import signs, voice_ground, voice_services, wall
from tests.bench.measure import Result, cpu_s, median, percentile, say
from tests.bench.voice_device import Turn, Utterance, devices, turn, wait_for
from tests.bench.voice_ground import Seen
from tests.voice_rig import Backend

REPLY = "Yes."
GOODBYE = "Bye."
STEPS = ("hear", "flush", "ask", "speak", "play")  # from one to the next of: end of speech, what is seen, first frame
SEEN = ("pause", "flushed", "asked", "to speak")
MANY = 200  # devices
LONG_S, SHORT_S = 600.0, 2.0  # of silence that idle devices let be heard
SETTLE_S, LISTEN_S = 1.0, 3.0
LOOK_S, GREETED_S = 0.2, 120.0  # while they are greeted


class Plan(NamedTuple):
    """How much is measured."""

    turns: int
    listening: int  # devices whose microphone is on
    idle: int  # devices whose microphone has nothing to say, as one with voice activity detection; 0: not measured


def bench(result: Result, plan: Plan, folder: Path, questions: list[Utterance]) -> None:
    """Run it all."""
    result.peers["memory"] = "speech services that answer from memory"
    _turns(result, plan.turns, folder / "turns", questions)
    pss_mb, private_mb = _idle(result, plan.listening, LONG_S, folder / "listening")
    result.figures |= {
        "idle_child_private_mb": round(private_mb, 2),
        "idle_200_mb_scaled": round(pss_mb + (MANY - plan.listening) * private_mb),
    }
    if plan.idle:
        result.figures[f"idle_{plan.idle}_mb"] = round(_idle(result, plan.idle, SHORT_S, folder / "idle")[0])


def _turns(result: Result, count: int, folder: Path, questions: list[Utterance]) -> None:
    folder.mkdir()
    with (
        voice_ground.fakes(folder, REPLY) as fakes,
        devices(1) as (device,),
        voice_ground.backend(folder, fakes.environ, _entry("bench", device.port)) as its,
    ):
        wait_for(lambda: device.is_quiet, "a greeting")
        child = voice_ground.child_at(its, device.port)
        fakes.seen()
        began, before, steps = time.monotonic(), cpu_s(child), list[list[float]]()
        for number in range(count):
            say(f"a turn without engines, {number + 1} of {count}")
            done = turn(device, questions[number % len(questions)])
            steps.append(_steps(done, fakes.seen()))
        spent = 1000 * (cpu_s(child) - before) / (time.monotonic() - began)
    wholes, by_step = [sum(each) for each in steps], zip(STEPS, zip(*steps, strict=True), strict=True)
    result.figures |= {
        "share_ms_p50": round(1000 * median(wholes), 1),
        "share_ms_p95": round(1000 * percentile(wholes, 0.95), 1),
        **{f"share_{step}_ms_p50": round(1000 * median(list(each)), 1) for step, each in by_step},
        "child_cpu_ms_per_s": round(spent, 1),
    }


def _steps(done: Turn, seen: list[Seen]) -> list[float]:
    """Of a turn, without the pause. Raises Unhealthy."""
    after = [each for each in seen if each.at > done.end]
    found = [next((each for each in after if each.what == what), None) for what in SEEN]
    if not all(found):
        raise Unhealthy(f"of one turn only {[each.what for each in after]} was seen")
    pause = found[0].seconds if found[0] else 0.0
    times = [done.end + pause, *(each.at for each in found if each), done.first]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def _entry(name: str, port: int) -> dict[str, object]:
    return {"name": name, "host": "127.0.0.1", "port": port, "reconnect_delay": 0.2}


def _idle(result: Result, count: int, sound_s: float, folder: Path) -> tuple[float, float]:
    """Memory of a backend with so many, and what is a child's own."""
    say(f"{count} idle devices")
    folder.mkdir()
    with voice_ground.fakes(folder, GOODBYE) as fakes, voice_ground.crowd(count, sound_s) as ports:
        entries = [_entry(f"idle{number}", port) for number, port in enumerate(ports)]
        began = time.monotonic()
        with voice_ground.backend(folder, fakes.environ, *entries) as its:
            signs.wait_for(lambda: _greeted(its) == count, f"{count} devices to be greeted", LOOK_S, GREETED_S)
            took_s = time.monotonic() - began
            time.sleep(SETTLE_S)
            pids = wall.family(its.process.pid)
            if sound_s == LONG_S:
                result.figures["listening_cpu_ms_per_s"] = round(_cpu_ms_per_s(its, LISTEN_S) / count, 2)
            else:
                result.figures[f"idle_{count}_connected_s"] = round(took_s, 1)
                result.figures["idle_cpu_ms_per_s"] = round(_cpu_ms_per_s(its, LISTEN_S) / count, 2)
            return voice_ground.memory(pids).pss, voice_ground.memory(pids[-count:]).private / count


def _greeted(its: Backend) -> int:
    """How many have heard all that the bot has to say."""
    told = its("GET", "/v1/devices/status").json["devices"].values()
    done = [each for each in told if each["connected"] and each.get("turn") == "waiting_for_user"]
    return len(done)


def _cpu_ms_per_s(its: Backend, seconds: float) -> float:
    before, began = voice_services.cpu_s(its.process.pid), time.monotonic()
    time.sleep(seconds)
    return 1000 * (voice_services.cpu_s(its.process.pid) - before) / (time.monotonic() - began)
