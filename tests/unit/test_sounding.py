"""What is said of a device's ears and mouth: to Prometheus, and by `make up` while cards are opened."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from procs.messages import encode
from procs.messages.requests import AudioState
from procs.messages.warden import Sounding, decode_to_warden
from procs.warden.sounding import Sounded
from procs.warden.watching import FRESH_S
from scripts import health, reach, status

SAID = Sounding(7, True, 3, {"no token": 2}, {"not JSON": 1}, {"underruns": 4, "concealed_ms": 1500, "depth_ms": 60})


def test_prometheus_reads_how_the_sound_does() -> None:
    sounded = Sounded()
    assert sounded.text(1.0) == ""
    sounded.take(decode_to_warden(encode(SAID)), 1.0)  # type: ignore[arg-type]  # one of several
    lines = sounded.text(1.5).splitlines()
    for line in (
        "planaria_audio_held 1",
        "planaria_audio_connections_total 3",
        'planaria_audio_turned_away_total{reason="no token"} 2',
        'planaria_audio_refused_total{reason="not JSON"} 1',
        "planaria_audio_underruns_total 4",
        "planaria_audio_concealed_seconds_total 1.5",
        "planaria_audio_depth_seconds 0.06",
    ):
        assert line in lines
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    order = [line.split("{")[0].split()[0] for line in lines if not line.startswith("#")]
    assert [name for name, _ in itertools.groupby(order)] == families
    assert sounded.text(1.1 + FRESH_S) == ""


def state(microphone: str) -> AudioState:
    """Of a device whose speaker is there."""
    return AudioState(
        listens="127.0.0.1:1", tls=False, needs_token=False, backend="", protocol="", for_s=0.0,
        microphone=microphone, speaker="ok", echo="none", muted=False, awake=True, wake="",
        connections=0, turned_away={}, refused={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("microphone", "word", "is_missed"), [("ok", "on", 0), ("opening", "opening", 0), ("missing: it is", "missing", 1)]
)
def test_a_card_that_is_being_opened_is_not_missed_yet(microphone: str, word: str, is_missed: int) -> None:
    its = state(microphone)
    assert len(reach.missing_sound(its)) == is_missed and reach.opens(its) == (word == "opening")
    assert status.audio_row(msgspec.to_builtins(its))[3] == word


def test_what_comes_back_by_itself_needs_no_make_up() -> None:
    why = "speech_tts: it does not serve: refused"
    coming = {"name": "speech_tts", "state": "STARTING", "uptime_s": 0}
    assert "being started again" in health.remedy(why, [coming])
    for other in ({"name": "hub"}, {"uptime_s": 60}, {"state": "FAILING"}):
        assert health.remedy(why, [coming | other]) == "make up mends it"
