"""The least form of every bench runs and keeps to the agreed names. No figure is asserted: that is no test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from procs.settings import ROOT
from tests import nat
from tests.bench.measure import Result

PRODUCER = {
    "figures": {
        "cpu_ms_per_frame",
        "first_byte_ms",
        "ffmpeg_first_byte_ms",
        "added_latency_ms_p50",
        "gap_ms_p50",
        "rss_mb",
    },
    "ratios": {"cpu_vs_ffmpeg", "rgba_pipe_cpu_over_ours", "egl_cpu_vs_older", "egl_first_byte_vs_older"},
}
PROCESSES = ("go2rtc", "capture", "headless_agent", "warden", "keeper", "supervisord")
RECOVERY = {
    "figures": {f"{p}.{f}_ms_{q}" for p in PROCESSES for f in ("new_pid", "serving") for q in ("p50", "p99", "worst")}
    | {f"{process}.import_ms" for process in PROCESSES}
    | {"headless_agent.gap_ms_p50", "warden_rss_mb", "warden_cpu_pct"},
    "ratios": {"stock_new_pid_over_ours", "s6_new_pid_over_ours"},
}
PROXY = {
    "figures": {
        "get_ms_p50",
        "get_ms_p99",
        "rate_16",
        "bulk_mb_s",
        "get_ms_p99_under_bulk",
    },
    "ratios": {"get_p99_vs_ssh", "rate_16_vs_ssh", "bulk_vs_ssh"},
}
HUB: dict[str, set[str]] = {
    "figures": {"idle_kb_per_device", "storm_hello_ms_p99", "devices", "heartbeats"},
    "ratios": set(),
}
PAGE: dict[str, set[str]] = {
    "figures": {"first_paint_ms", "weight_kb", "idle_requests_per_s", "scroll_frame_ms_p99", "devices"},
    "ratios": set(),
}
WATCH = {
    "figures": {"cpu_ms_per_viewer_second", "first_frame_ms_p50", "playing_again_s_p95", "private_mb"},
    "ratios": {"reencode_cpu_over_ours", "cpu_vs_go2rtc"},
}
CHANNEL = {
    "figures": {"mbit_s", "ping_us_p50", "send_file_mbit_s"},
    "ratios": {"mbit_vs_plain_aiortc", "send_file_vs_plain_aiortc"},
}
TUNNEL = {
    "figures": {"plane1_mbit_s", "plane2_mbit_s", "supervised_mbit_s", "ping_ms", "ping_load_ms_p99", "small_pps"},
    "ratios": {
        "plane1_vs_plain_aiortc",
        "plane2_vs_wireguard_go",
        "supervised_vs_wireguard_go",
        "pps_vs_wireguard_go",
        "plane1_loss1_vs_bare",
        "plane2_loss1_vs_bare",
    },
}
STAGES = ("echo_canceller", "opus_encode", "opus_decode", "json", "binary", "playback", "resample", "service_messages")
SERVICES = ("stt_rtf", "tts_rtf", "tts_first_sound_ms", "late_ms_p50_1", "late_ms_p99_2", "stt_cpu_ms_per_s_2")
TALK = {f"{part}_ms_p50" for part in ("whole", "pause", "flush", "llm", "tts", "floor", "share", "reconnect")}
VOICE = {
    "figures": {f"{stage}_cpu_ms_per_s" for stage in (*STAGES, "vad", "recognition", "hearing")}
    | {*SERVICES, *TALK, "onset_to_paused_ms_p95", "child_cpu_ms_per_s", "listening_cpu_ms_per_s", "idle_200_mb_scaled"}
    | {"jitter_depth_ms_p50", "jitter_depth_ms_p99", "concealed_pct", "binary_kbit_s", "json_kbit_s"},
    "ratios": {"binary_vs_json_bytes", "stt_cpu_vs_hearing"},
}


def result_of(bench: str) -> dict[str, Any]:
    """What its least form prints."""
    command = [sys.executable, "-m", "tests.bench", bench, "--least", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == {"name", "figures", "peers", "ratios", "machine"}
    return result


def keeps_to(agreed: dict[str, set[str]], result: dict[str, Any]) -> None:
    """Whether each agreed name is there, with a figure that can be."""
    for part, names in agreed.items():
        assert names <= set(result[part])
        assert all(value > 0 for value in (result[part][name] for name in names))


@pytest.mark.needs("ffmpeg", "libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
@pytest.mark.long
def test_the_producer_bench_prints_one_object_with_the_agreed_names() -> None:
    keeps_to(PRODUCER, result_of("producer"))


@pytest.mark.needs("s6-svscan")
@pytest.mark.long
def test_the_recovery_bench_too() -> None:
    keeps_to(RECOVERY, result_of("recovery"))


@pytest.mark.needs("nginx", "ssh", "sshd", "wrk")
@pytest.mark.long
def test_the_proxy_bench_too() -> None:
    result = result_of("proxy")
    keeps_to(PROXY, result)
    assert "live_first_byte_extra_ms" in result["figures"]  # it may be less than nothing


def test_the_hub_bench_too() -> None:
    result = result_of("hub")
    keeps_to(HUB, result)
    assert result["figures"]["heartbeats_late"] < result["figures"]["heartbeats"]


@pytest.mark.needs("chromium", "ffmpeg")
@pytest.mark.long
def test_the_page_bench_too() -> None:
    keeps_to(PAGE, result_of("page"))


@pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not())
@pytest.mark.needs("chromium", "nft", "ip", "nsenter")
@pytest.mark.long
def test_the_watch_bench_too() -> None:
    result = result_of("watch")
    keeps_to(WATCH, result)
    assert {"first_frame_extra_ms_p50", "glass_extra_ms_p50"} <= set(result["figures"])  # they may be less than nothing


@pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not())
@pytest.mark.needs("ip", "nsenter")
@pytest.mark.long
def test_the_channel_bench_too() -> None:
    keeps_to(CHANNEL, result_of("channel"))


@pytest.mark.skipif(os.geteuid() != 0, reason=nat.why_not())
@pytest.mark.needs("ip", "nsenter", "ss", "iperf3", "wireguard-go", "wg")
@pytest.mark.long
def test_the_tunnel_bench_too() -> None:
    keeps_to(TUNNEL, result_of("tunnel"))


@pytest.mark.needs("flite")
@pytest.mark.long
def test_the_voice_bench_too() -> None:
    result = result_of("voice")
    keeps_to(VOICE, result)
    assert "added_ms_p50" in result["figures"]  # it may be less than nothing


def test_who_reads_the_table_sees_what_was_missed() -> None:
    aims = {"rate": "aim: > 2000", "ratio": "aim: >= 4", "ping": "aim: < 10", "words": "at most 0.6"}
    found = {"rate": 2000.0, "ratio": 4.0, "ping": 10.5, "words": 3.0, "free": 1.0}
    table = Result("any", found, targets=aims).as_table()
    assert {line.split()[0] for line in table.splitlines() if line.endswith("missed")} == {"rate", "ping"}


def test_an_unknown_bench_is_one_line() -> None:
    command = [sys.executable, "-m", "tests.bench", "telepathy"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "telepathy" in done.stderr
