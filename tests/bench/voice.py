"""Voice, first part: what a second of sound costs at each stage, on the wire, and on a bad network.

Figures of CPU are of whole stages, both ends of them: they tell more on a busy machine than times do.
"""

from __future__ import annotations

from typing import NamedTuple

from procs.audio_io.sound import RATE, Pcm
from procs.media import opus
from tests.bench import voice_stages
from tests.bench.measure import Result, Size, median, say


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    sound_s: float
    simulated_s: float


PLANS: dict[Size, Plan] = {
    "full": Plan(5, 20.0, 600.0),
    "quick": Plan(3, 8.0, 120.0),
    "least": Plan(1, 2.0, 10.0),
}


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere where flite is not installed."""
    plan = PLANS[size]
    result = Result("voice")
    result.peers = {
        "json": "the published protocol: events with base64 of Ogg pages, two packets of 20 ms each",
        "network": "simulated: 2 % of packets lost, the others 0 to 60 ms late",
    }
    result.targets = {"binary_vs_json_bytes": "at most 0.6"}
    pcm = voice_stages.material(plan.sound_s)
    _stages(result, plan, pcm)
    _network(result, plan, pcm)
    return result


def _stages(result: Result, plan: Plan, pcm: Pcm) -> None:
    say("each stage alone")
    for name, stage in voice_stages.stages(pcm).items():
        spent = [voice_stages.cpu_ms_per_s(stage, len(pcm) / RATE) for _ in range(plan.rounds)]
        result.figures[f"{name}_cpu_ms_per_s"] = round(median(spent), 3)


def _network(result: Result, plan: Plan, pcm: Pcm) -> None:
    say("a bad network")
    played = voice_stages.over_a_bad_network(pcm, plan.simulated_s)
    seconds, packets = len(pcm) / RATE, opus.Encoder().encode(pcm)
    carried = [
        voice_stages.kbit_s((len(each) for each in made(packets)), seconds, besides)
        for besides in (0, voice_stages.TCP_IP)
        for made in (voice_stages.frames, voice_stages.events)
    ]
    result.figures |= {
        "jitter_depth_ms_p50": round(voice_stages.depth(played, 0.5), 1),
        "jitter_depth_ms_p99": round(voice_stages.depth(played, 0.99), 1),
        "concealed_pct": round(played.concealed_pct, 2),
        "underruns_per_minute": round(60 * played.underruns / plan.simulated_s, 2),
        "binary_kbit_s": round(carried[0], 1),
        "json_kbit_s": round(carried[1], 1),
        "binary_tcp_ip_kbit_s": round(carried[2], 1),
        "json_tcp_ip_kbit_s": round(carried[3], 1),
    }
    result.ratio("binary_vs_json_bytes", carried[:1], carried[1:2])
