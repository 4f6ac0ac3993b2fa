"""The figures: published names and types, ours for each device, and nothing that outlives its child."""

from __future__ import annotations

import json
import re

import pytest

from procs.figures import Figures, Kind
from procs.messages.voice import VoiceBeat
from procs.settings import ROOT
from procs.voice.metrics import KINDS, Metrics

# As the published backend has them (counters get _total).
PUBLISHED = {
    "counter": "worker_sessions worker_service_misses worker_hard_service_misses worker_force_disconnects"
    " worker_fatal_service_misses worker_hard_errors worker_stt_sessions worker_stt_misses worker_stt_hard_misses"
    " worker_stt_sent_frames worker_stt_recv_frames worker_stt_recv_words worker_tts_sessions worker_tts_misses"
    " worker_hard_tts_misses worker_tts_interrupt worker_tts_sent_frames worker_tts_recv_frames worker_tts_recv_words"
    " worker_vllm_sessions worker_vllm_interrupt worker_vllm_hard_errors worker_vllm_sent_words worker_vllm_recv_words"
    " worker_voice_donation_submissions",
    "gauge": "worker_active_sessions worker_stt_active_sessions worker_tts_active_sessions worker_vllm_active_sessions",
    "histogram": "worker_session_duration worker_stt_ping_time worker_stt_find_time worker_stt_session_duration"
    " worker_stt_audio_duration worker_stt_num_words worker_stt_ttft worker_tts_ping_time worker_tts_find_time"
    " worker_tts_ttft worker_tts_audio_duration worker_tts_gen_duration worker_vllm_ttft worker_vllm_request_length"
    " worker_vllm_reply_length worker_vllm_gen_duration",
    "summary": "worker_health_ok",
}


def lines(metrics: Metrics) -> list[str]:
    """What Prometheus reads."""
    return metrics.figures.text().splitlines()


def test_published_figures_are_there_from_the_start_without_labels() -> None:
    found = lines(Metrics())
    for kind, names in PUBLISHED.items():
        for name in names.split():
            full = f"{name}_total" if kind == "counter" else name
            assert f"# TYPE {full} {kind}" in found
            assert f"{full}_count 0" in found if kind in ("histogram", "summary") else f"{full} 0" in found
    assert {name for name in KINDS if name.startswith("worker_")} == {
        f"{name}_total" if kind == "counter" else name for kind, names in PUBLISHED.items() for name in names.split()
    }


def test_every_line_is_one_that_prometheus_reads() -> None:
    its = Metrics()
    its.seen("c", 'a "b" \\', [("planaria_voice_llm_seconds", 0.04), ("worker_vllm_ttft", 3.0)])
    its.figures.observe("worker_health_ok", 1)
    sample = re.compile(r'[a-z_]+(\{[a-z]+="(\\.|[^"\\\n])*"(,le="[^"]+")?\})? [0-9.+e-]+')
    for line in lines(its):
        assert line.startswith("# ") or sample.fullmatch(line), line
    assert r'planaria_voice_llm_seconds_bucket{device="a \"b\" \\",le="0.05"} 1' in lines(its)
    assert 'worker_vllm_ttft_bucket{le="1"} 0' in lines(its)
    assert 'worker_vllm_ttft_bucket{le="+Inf"} 1' in lines(its)
    assert "worker_health_ok_count 1" in lines(its)
    assert not any(line.startswith("worker_health_ok_bucket") for line in lines(its))


def test_children_tell_figures_and_browsers_have_a_label_of_their_own() -> None:
    its = Metrics()
    its.seen("c", "kitchen", [("worker_stt_sessions", 2), ("planaria_voice_replies", 1)])
    its.seen("d", "", [("planaria_voice_replies", 3), ("no_such_figure", 1), ("worker_stt_sessions", -1)])
    assert its.figures.of("worker_stt_sessions_total") == 2
    assert its.figures.of("planaria_voice_replies_total", "kitchen") == 1
    assert its.figures.of("planaria_voice_replies_total", "browser") == 3
    assert its.figures.of("planaria_voice_unknown_figures_total") == 2


def test_what_a_child_has_open_ends_with_it() -> None:
    its = Metrics()
    its.beaten("c", "kitchen", VoiceBeat("connected", since=100.0, connections=1), 100.0)
    its.seen("c", "kitchen", [("worker_stt_active_sessions", 1), ("worker_stt_active_sessions", 1)])
    assert its.figures.of("worker_active_sessions") == its.figures.of("planaria_voice_connected", "kitchen") == 1
    its.ended("c", "kitchen", 130.0)
    for name in ("worker_active_sessions", "worker_stt_active_sessions"):
        assert its.figures.of(name) == 0
    assert its.figures.of("planaria_voice_connected", "kitchen") == 0
    assert its.figures.of("worker_sessions_total") == 1
    assert "worker_session_duration_sum 30" in lines(its)


def test_connections_and_refused_messages_are_counted_by_what_beats_say() -> None:
    its = Metrics()
    for beat in (
        VoiceBeat("connected", since=1.0, connections=1),
        VoiceBeat("connected", since=1.0, connections=1, refused=2),
        VoiceBeat("waiting", since=4.0, connections=1, refused=2),
        VoiceBeat("connected", since=5.0, connections=2, refused=5),
    ):
        its.beaten("c", "kitchen", beat, 5.0)
    assert its.figures.of("planaria_voice_connections_total", "kitchen") == 2
    assert its.figures.of("planaria_voice_refused_total", "kitchen") == 5
    assert its.figures.of("worker_active_sessions") == 1
    assert "worker_session_duration_count 1" in lines(its)


def test_a_device_that_is_no_more_is_told_of_no_more() -> None:
    its = Metrics()
    its.seen("c", "kitchen", [("planaria_voice_llm_seconds", 1.0)])
    its.figures.forget("kitchen")
    assert "kitchen" not in its.figures.text()


def test_a_figure_that_was_not_declared_is_our_mistake() -> None:
    with pytest.raises(KeyError):
        Figures({"a": Kind("counter", "x")}).add("b")


def test_the_dashboard_shows_figures_that_there_are() -> None:
    board = json.loads((ROOT / "docker/grafana/voice.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    named = {name for expr in asked for name in re.findall(r"\b(?:worker|planaria_voice)_\w+", expr)}
    assert len(named) > 20
    unknown = {name for name in named if name not in KINDS and re.sub("_(bucket|sum|count)$", "", name) not in KINDS}
    assert not unknown
