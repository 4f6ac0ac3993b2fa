"""What is counted: the published figures, without labels as published, and ours, one for each device.

Children tell theirs by these names; of a counter `_total` may be left out, as the published code names them.
"""

from __future__ import annotations

from procs import log
from procs.figures import Figures, Kind
from procs.messages.voice import VoiceBeat

_SESSION = (1, 5, 15, 30, 60, 120, 240, 480, 960, 1920)
_PING = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_STT_TTFT = (0.01, 0.015, 0.025, 0.05, 0.075, 0.1)
_TTS_TTFT = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55)
_LLM_TTFT = (0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 1.0)
_GENERATION = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
_WORDS = (5, 10, 25, 50, 100, 200, 500, 1000)
_LATENCY = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5)
_RECONNECT = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


def _counters(help_by_name: dict[str, str]) -> dict[str, Kind]:
    return {f"{name}_total": Kind("counter", text) for name, text in help_by_name.items()}


_PUBLISHED = {
    **_counters({
        "worker_sessions": "connections of devices and browsers",
        "worker_service_misses": "instances of a service that were full",
        "worker_hard_service_misses": "instances of a service that failed",
        "worker_force_disconnects": "conversations that were ended from here",
        "worker_fatal_service_misses": "times that no instance of a service was to be had",
        "worker_hard_errors": "children that died by themselves",
    }),
    "worker_active_sessions": Kind("gauge", "connections that there are"),
    "worker_session_duration": Kind("histogram", "seconds a connection lasted", _SESSION),
    "worker_health_ok": Kind("summary", "1 for each check at which all services were up, else 0"),
    **_counters({
        "worker_stt_sessions": "sessions with a recogniser",
        "worker_stt_misses": "recognisers that were full",
        "worker_stt_hard_misses": "recognisers that failed",
        "worker_stt_sent_frames": "frames sent to recognisers",
        "worker_stt_recv_frames": "messages of recognisers",
        "worker_stt_recv_words": "words of recognisers",
    }),
    "worker_stt_active_sessions": Kind("gauge", "sessions with recognisers that there are"),
    "worker_stt_ping_time": Kind("histogram", "seconds to connect to a recogniser", _PING),
    "worker_stt_find_time": Kind("histogram", "seconds to find a recogniser with a free slot", _PING),
    "worker_stt_session_duration": Kind("histogram", "seconds of a session with a recogniser", _SESSION),
    "worker_stt_audio_duration": Kind("histogram", "seconds of sound in it", _SESSION),
    "worker_stt_num_words": Kind("histogram", "words of it", _WORDS),
    "worker_stt_ttft": Kind("histogram", "seconds to its first word or step", _STT_TTFT),
    **_counters({
        "worker_tts_sessions": "sessions with a synthesiser",
        "worker_tts_misses": "synthesisers that were full",
        "worker_hard_tts_misses": "synthesisers that failed",
        "worker_tts_interrupt": "sessions that were ended before their end",
        "worker_tts_sent_frames": "messages to synthesisers",
        "worker_tts_recv_frames": "messages of synthesisers",
        "worker_tts_recv_words": "words of synthesisers",
    }),
    "worker_tts_active_sessions": Kind("gauge", "sessions with synthesisers that there are"),
    "worker_tts_ping_time": Kind("histogram", "seconds to connect to a synthesiser", _PING),
    "worker_tts_find_time": Kind("histogram", "seconds to find a synthesiser with a free slot", _PING),
    "worker_tts_ttft": Kind("histogram", "seconds from the first word to the first sound", _TTS_TTFT),
    "worker_tts_audio_duration": Kind("histogram", "seconds of sound of a reply", _GENERATION),
    "worker_tts_gen_duration": Kind("histogram", "seconds until it was there", _GENERATION),
    **_counters({
        "worker_vllm_sessions": "requests to the language model",
        "worker_vllm_interrupt": "requests that were ended before their end",
        "worker_vllm_hard_errors": "requests that failed",
        "worker_vllm_sent_words": "words sent to the language model",
        "worker_vllm_recv_words": "words of the language model",
    }),
    "worker_vllm_active_sessions": Kind("gauge", "requests that there are"),
    "worker_vllm_ttft": Kind("histogram", "seconds to the first word", _LLM_TTFT),
    "worker_vllm_request_length": Kind("histogram", "words of a request", _WORDS),
    "worker_vllm_reply_length": Kind("histogram", "words of a reply", _WORDS),
    "worker_vllm_gen_duration": Kind("histogram", "seconds to the last word", _GENERATION),
    **_counters({"worker_voice_donation_submissions": "always 0: no voices are collected here"}),
}  # fmt: skip
_BY_DEVICE = {
    "planaria_voice_connected": Kind("gauge", "1: the device is connected"),
    "planaria_voice_connections_total": Kind("counter", "connections with the device"),
    "planaria_voice_refused_total": Kind("counter", "messages of the device that were not taken"),
    "planaria_voice_born_total": Kind("counter", "children that were born for the device"),
    "planaria_voice_replies_total": Kind("counter", "replies that were begun"),
    "planaria_voice_interruptions_total": Kind("counter", "replies that the user ended"),
    "planaria_voice_false_interruptions_total": Kind("counter", "pauses of a reply after which it went on"),
    "planaria_voice_pause_seconds": Kind("histogram", "from the end of speech until it was taken for one", _LATENCY),
    "planaria_voice_flush_seconds": Kind("histogram", "from there until all words were there", _LATENCY),
    "planaria_voice_llm_seconds": Kind(
        "histogram", "from the model's question to the first words of the reply", _LATENCY
    ),
    "planaria_voice_tts_seconds": Kind("histogram", "from telling these to the synthesiser to their sound", _LATENCY),
    "planaria_voice_ours_seconds": Kind(
        "histogram", "what passed between these, until the first of it was sent", _LATENCY
    ),
    "planaria_voice_onset_to_paused_seconds": Kind("histogram", "from a voice's onset to the reply's pause", _LATENCY),
    "planaria_voice_reconnect_seconds": Kind("histogram", "from a lost connection to the next", _RECONNECT),
}
KINDS = {
    **_PUBLISHED,
    **{name: its._replace(label="device") for name, its in _BY_DEVICE.items()},
    "planaria_voice_unknown_figures_total": Kind("counter", "figures of children that nobody knows"),
    "planaria_voice_browsers": Kind("gauge", "browsers that talk to it"),
    "planaria_voice_browsers_refused_total": Kind("counter", "browsers that there was no room for"),
    "planaria_voice_leases": Kind("gauge", "devices that this backend may call"),
    "planaria_voice_lines_unwritten": Kind("gauge", "lines of conversations that are not in the store yet"),
    "planaria_voice_store_up": Kind("gauge", "1: the store answers"),
}
BROWSER = "browser"  # as the label of those that are no device


class _Child:
    """What a child has added, that ends with it."""

    def __init__(self) -> None:
        self.beat = VoiceBeat("connecting")
        self.gauges: dict[str, float] = {}


class Metrics:
    """All of this backend."""

    def __init__(self) -> None:
        self.figures = Figures(KINDS)
        self._children: dict[str, _Child] = {}

    def seen(self, child: str, device: str, seen: list[tuple[str, float]]) -> None:
        """What a child has seen; device "": a browser's."""
        for given, value in seen:
            name = given if given in KINDS else f"{given}_total"
            its = KINDS.get(name)
            if its is None or (its.kind == "counter" and value < 0):
                self.figures.add("planaria_voice_unknown_figures_total")
                log.warning("a figure that nobody knows", name=given)
                continue
            of = (device or BROWSER) if its.label else ""
            if its.kind in ("histogram", "summary"):
                self.figures.observe(name, value, of=of)
                continue
            self.figures.add(name, value, of=of)
            if its.kind == "gauge":
                gauges = self._children.setdefault(child, _Child()).gauges
                gauges[name] = gauges.get(name, 0.0) + value

    def beaten(self, child: str, device: str, beat: VoiceBeat, now: float) -> None:
        """How a child does; `now` in Unix time."""
        known = self._children.setdefault(child, _Child())
        before, known.beat = known.beat, beat
        was, is_ = before.state == "connected", beat.state == "connected"
        more = max(0, beat.connections - before.connections, is_ - was)
        self.figures.add("worker_sessions_total", more)
        self.figures.add("planaria_voice_connections_total", more, of=device or BROWSER)
        refused = max(0, beat.refused - before.refused)
        self.figures.add("planaria_voice_refused_total", refused, of=device or BROWSER)
        self.figures.add("worker_active_sessions", is_ - was)
        if device:
            self.figures.set("planaria_voice_connected", is_, of=device)
        if was and (more or not is_):
            self.figures.observe("worker_session_duration", max(0.0, now - before.since))

    def ended(self, child: str, device: str, now: float) -> None:
        """A child is dead, and what it had open is closed."""
        known = self._children.pop(child, None)
        if known is None:
            return
        for name, value in known.gauges.items():
            self.figures.add(name, -value)
        if known.beat.state == "connected":
            self.figures.add("worker_active_sessions", -1)
            self.figures.observe("worker_session_duration", max(0.0, now - known.beat.since))
        if device:
            self.figures.set("planaria_voice_connected", 0, of=device)
