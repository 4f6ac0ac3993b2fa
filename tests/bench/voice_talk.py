"""Voice, second part: whole conversations. How long a user waits for an answer, and how much of it is ours.

A turn is measured at the device, by what it is told: from the last sample of the user's voice until the backend takes
the turn for over, knows all its words, has the first words of an answer, and their first sound is there. What the
backend measures itself of the same turns (`told_`) is checked against it: its clock starts where it hears a voice end.
The floor is a row of the same services (voice_row.py), in turn with the turns. What of a turn is ours (`share_`) is
measured with services that answer from memory, which note when they were asked and when they answered (voice_alone.py).
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from procs.errors import Unhealthy
from tests import conversing, spoken
from tests.bench import signs, voice_alone, voice_ground, voice_row, voice_services
from tests.bench.measure import Result, Size, median, percentile, say
from tests.bench.voice_device import Device, Turn, Utterance, devices, turn, utterance, wait_for
from tests.voice_rig import Backend

USER, BOT = "rms", "slt"
QUESTIONS = {
    "who wrote the book": "My mother wrote the book.",
    "how far is the moon": "The moon is far.",
    "what is the weather like in london": "London weather is good.",
    "where is the kitchen": "The kitchen is here.",
}
INSTRUCTIONS = {"type": "constant", "text": " ".join(['Say "Hello there."', *QUESTIONS.values()])}
STORY = "There was a brave little dog who lived in a house by the river with an old man and all of his children. " * 3
PARTS = ("pause", "flush", "llm", "tts")
TOLD = (*PARTS, "ours")
LATE_S = 0.2  # more than alone: a conversation too many
NO_PAUSE_S = 2.0
SAY_S = 0.3  # from one look at whether the bot speaks to the next: by then it does what it was told
SERVED_S = 1.0  # before a child is killed again


class Plan(NamedTuple):
    """How much is measured."""

    turns: int
    onsets: int
    reconnects: int
    sessions: tuple[int, ...]
    session_turns: int
    alone: voice_alone.Plan


PLANS: dict[Size, Plan] = {
    "full": Plan(12, 40, 10, (1, 2, 4, 8), 5, voice_alone.Plan(20, 30, 200)),
    "quick": Plan(2, 3, 2, (), 0, voice_alone.Plan(4, 12, 0)),
    "least": Plan(1, 1, 1, (), 0, voice_alone.Plan(1, 3, 0)),
}
TARGETS = {
    "share_ms_p50": "under 60",
    "added_ms_p50": "under 60",
    "onset_to_paused_ms_p95": "under 200",
    "idle_200_mb": "under 3000",
    "idle_200_mb_scaled": "under 3000",
}


def bench(result: Result, size: Size, folder: Path) -> None:
    """Run it all."""
    plan = PLANS[size]
    result.targets |= TARGETS
    result.peers["row"] = "the same services, called one after the other for the same question, connected beforehand"
    questions = [utterance(spoken.speech(text, USER)) for text in QUESTIONS]
    with conversing.speech(folder / "speech") as speech, devices(max(plan.sessions, default=1)) as there:
        told = [
            {"name": f"bench{n}", "host": "127.0.0.1", "port": each.port, "voice": BOT, "instructions": INSTRUCTIONS}
            for n, each in enumerate(there)
        ]
        entries = [{**each, "reconnect_delay": 0.1, "enabled": not n} for n, each in enumerate(told)]
        with voice_ground.backend(folder / "real", speech.environ, *entries) as its:
            _turns(result, plan, its, there[0], speech.environ, questions)
            _onsets(result, plan, its, there[0], questions)
            _reconnects(result, plan, its, there[0])
            if plan.sessions:
                pids = {name: each.process.pid for name, each in speech.services.items()}
                _sessions(result, plan, its, there, questions, pids)
    voice_alone.bench(result, plan.alone, folder, questions)


# Turns


def _turns(
    result: Result, plan: Plan, its: Backend, device: Device, services: dict[str, str], questions: list[Utterance]
) -> None:
    turns, rows, told = list[Turn](), list[voice_row.Row](), list[dict[str, float]]()
    for number in range(plan.turns):
        say(f"a question and its answer, {number + 1} of {plan.turns}")
        question, known = questions[number % len(questions)], len(device.timings)
        bot = voice_row.Bot(INSTRUCTIONS, BOT, its("GET", "/v1/devices/bench0/lines").json["lines"])
        turns.append(turn(device, question))
        told += [each for each in device.timings[known:][-1:] if each and each not in told]
        rows.append(voice_row.row(services, question, bot))
    if len(told) < len(turns):
        raise Unhealthy(f"the backend has measured {len(told)} turns, of {len(turns)}")
    parts = [[later - earlier for earlier, later in itertools.pairwise(each)] for each in turns]
    added = [sum(part[1:]) - (row.whole - row.pause) for part, row in zip(parts, rows, strict=True)]
    gaps = [sum(part[1:]) - sum(mine[name] for name in TOLD[1:]) for part, mine in zip(parts, told, strict=True)]
    result.figures |= {
        "whole_ms_p50": _ms([each.whole_s for each in turns]),
        "whole_ms_p95": round(1000 * percentile([each.whole_s for each in turns], 0.95), 1),
        **{f"{name}_ms_p50": _ms([each[at] for each in parts]) for at, name in enumerate(PARTS)},
        **{f"told_{name}_ms_p50": _ms([each[name] for each in told]) for name in TOLD},
        "told_gap_ms_p50": _ms(gaps),
        "floor_ms_p50": _ms([each.whole for each in rows]),
        **{f"floor_{name}_ms_p50": _ms([getattr(each, name) for each in rows]) for name in PARTS},
        "added_ms_p50": _ms([each.whole_s - row.whole for each, row in zip(turns, rows, strict=True)]),
        "added_after_pause_ms_p50": _ms(added),
        "microphone_late_ms_worst": round(1000 * device.late_s, 1),
    }


def _ms(seconds: list[float]) -> float:
    return round(1000 * median(seconds), 1)


# Barge-in


def _onsets(result: Result, plan: Plan, its: Backend, device: Device, voices: list[Utterance]) -> None:
    say(f"{plan.onsets} who speak while the bot does")
    luck, took, missed = random.Random(10), list[float](), 0
    for number in range(plan.onsets):
        signs.wait_for(lambda: _speaks(its, device), "the bot to speak", SAY_S)
        time.sleep(luck.uniform(0.3, 0.6))
        onset = device.say(voices[number % len(voices)]).onset
        deadline = onset + NO_PAUSE_S
        while not (found := [at for at in device.paused if at > onset]) and time.monotonic() < deadline:
            time.sleep(0.01)
        if found:
            took.append(found[0] - onset)
        missed += not found
        time.sleep(0.5)
    if not took:
        raise Unhealthy("nobody who spoke over the bot made it pause")
    result.figures |= {
        "onset_to_paused_ms_p50": _ms(took),
        "onset_to_paused_ms_p95": round(1000 * percentile(took, 0.95), 1),
        "onsets_missed": missed,
    }


def _speaks(its: Backend, device: Device) -> bool:
    """Whether the bot does. It is made to where it has nothing to say: what waits to be said would be in the way."""
    if device.is_quiet:
        its("POST", "/v1/devices/bench0/say", {"text": STORY})
    return device.is_playing


# Reconnection


def _reconnects(result: Result, plan: Plan, its: Backend, device: Device) -> None:
    say(f"{plan.reconnects} children killed")
    took = []
    for _ in range(plan.reconnects):
        time.sleep(SERVED_S)
        pid, before, began = voice_ground.child_at(its, device.port), len(device.connected), time.monotonic()
        os.kill(pid, signal.SIGKILL)
        took.append(wait_for(lambda: device.connected[before:], "another child to call")[0] - began)  # noqa: B023
    result.figures |= {"reconnect_ms_p50": _ms(took), "reconnect_ms_worst": round(1000 * max(took), 1)}


# Many at once


def _sessions(
    result: Result, plan: Plan, its: Backend, there: list[Device], questions: list[Utterance], pids: dict[str, int]
) -> None:
    """How many can talk at once before answers come LATE_S later than to one alone."""
    pids = {**pids, "voice": its.process.pid}

    def used() -> dict[str, float]:
        return {**{name: voice_services.cpu_s(pid) for name, pid in pids.items()}, "bench": time.process_time()}

    alone_s, most, is_late, told = 0.0, 0, False, ""
    for count in plan.sessions:
        say(f"{count} conversations at once")
        for number in range(1, count):
            its("POST", f"/v1/devices/bench{number}/enable")
        began, before = time.monotonic(), used()
        wholes = _together(there[:count], questions, plan.session_turns)
        took_s = time.monotonic() - began
        shares = {name: (cpu_s - before[name]) / took_s for name, cpu_s in used().items()}
        alone_s = alone_s or median(wholes)
        late_s = percentile(wholes, 0.95) - alone_s
        is_late = is_late or late_s > LATE_S
        most = most if is_late else count
        told += f"; {count}: " + ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
        result.figures[f"turn_late_ms_p95_{count}"] = round(1000 * late_s, 1)
    result.figures["sessions_per_core"] = most / (os.cpu_count() or 1)
    result.peers["sessions"] = f"cores that each used, with so many conversations at once{told}"


def _together(there: list[Device], questions: list[Utterance], turns: int) -> list[float]:
    def talk(number: int) -> list[float]:
        time.sleep(0.7 * number)  # not all in the same moment
        return [turn(there[number], questions[(number + n) % len(questions)]).whole_s for n in range(turns)]

    with ThreadPoolExecutor(len(there)) as pool:
        return [whole for each in pool.map(talk, range(len(there))) for whole in each]
