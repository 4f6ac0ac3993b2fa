"""Voice, first part: what a second of sound costs at each stage, and how our own speech services keep up. The second is
in voice_talk.py.

Figures of CPU are of whole stages, both ends of them: they tell more on a busy machine than times do. What
hearing takes without a service around it is measured in turn with the service. Late is how long after the last sample
of a step its answer comes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from procs.audio_io.sound import RATE, Pcm
from procs.media import opus
from tests.bench import voice_services, voice_stages, voice_talk
from tests.bench.measure import Result, Size, median, percentile, say

TEXT = " ".join(voice_stages.SENTENCES)


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    sound_s: float
    simulated_s: float
    sessions: tuple[int, ...]
    session_s: float


PLANS: dict[Size, Plan] = {
    "full": Plan(5, 20.0, 600.0, (1, 2, 4, 8), 15.0),
    "quick": Plan(3, 4.0, 120.0, (1, 2), 3.2),
    "least": Plan(1, 2.0, 10.0, (1, 2), 1.6),
}


def bench(size: Size) -> Result:
    """Run it all. Raises NotHere where flite is not installed."""
    plan = PLANS[size]
    result = Result("voice")
    result.peers = {
        "json": "the published protocol: events with base64 of Ogg pages, two packets of 20 ms each",
        "hearing": "what speech_stt does with sound, in this process: no WebSocket, no processes, nobody beside it",
        "network": "simulated: 2 % of packets lost, the others 0 to 60 ms late",
    }
    result.targets = {"binary_vs_json_bytes": "at most 0.6", "stt_rtf": "under 1", "tts_rtf": "under 1"}
    pcm = voice_stages.material(plan.sound_s)
    _stages(result, plan, pcm)
    _network(result, plan, pcm)
    with tempfile.TemporaryDirectory(prefix="planaria-bench-") as folder:
        _synthesis(result, plan, Path(folder))
        _recognition(result, plan, Path(folder))
        voice_talk.bench(result, size, Path(folder))
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


def _synthesis(result: Result, plan: Plan, folder: Path) -> None:
    say("speech_tts")
    with voice_services.service("tts", folder, 8) as tts:
        voice_services.spoken(tts, "Hello.")
        spoken = [voice_services.spoken(tts, TEXT) for _ in range(plan.rounds)]
    result.figures |= {
        "tts_rtf": round(median([each.took_s / each.seconds for each in spoken]), 4),
        "tts_first_sound_ms": round(median([each.first_ms for each in spoken]), 1),
    }


def _recognition(result: Result, plan: Plan, folder: Path) -> None:
    pcm = voice_stages.material(plan.session_s)
    seconds = len(pcm) / RATE
    alone = voice_stages.hearing(pcm)
    with voice_services.service("stt", folder, max(plan.sessions)) as stt:
        say("speech_stt, as fast as it can")
        fast, ours, theirs = [], [], []
        for _ in range(plan.rounds):
            before = stt.cpu_s()
            fast.append(voice_services.heard(stt, [pcm], paced=False)[0])
            ours.append(1000 * (stt.cpu_s() - before) / seconds)
            theirs.append(voice_stages.cpu_ms_per_s(alone, seconds))
        result.figures |= {
            "stt_rtf": round(median([each.took_s / seconds for each in fast]), 3),
            "stt_ready_ms": round(median([each.ready_ms for each in fast]), 1),
            "hearing_cpu_ms_per_s": round(median(theirs), 1),
        }
        result.ratio("stt_cpu_vs_hearing", ours, theirs)
        for count in plan.sessions:
            say(f"speech_stt, {count} who speak at once")
            _together(result, stt, pcm, count)


def _together(result: Result, stt: voice_services.Service, pcm: Pcm, count: int) -> None:
    before = stt.cpu_s()
    everybody = voice_services.heard(stt, [pcm] * count, paced=True)
    late_ms = [ms for each in everybody for ms in each.late_ms]
    result.figures |= {
        f"late_ms_p50_{count}": round(percentile(late_ms, 0.5), 1),
        f"late_ms_p99_{count}": round(percentile(late_ms, 0.99), 1),
        f"late_ms_worst_{count}": round(max(late_ms), 1),
        f"stt_cpu_ms_per_s_{count}": round(1000 * (stt.cpu_s() - before) / (len(pcm) / RATE) / count, 1),
    }
