"""The load test of a voice backend: its arithmetic by hand-made logs, and all of it against a backend whose delays are
known (tests/realtime_server.py)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from procs.errors import ConfigError
from procs.media.opuspackets import packet_samples
from procs.settings import ROOT
from procs.wire import realtime as wire
from scripts.loadtest import __main__ as command
from scripts.loadtest import figures, report, sounds
from scripts.loadtest.backend import Backend
from scripts.loadtest.figures import Heard, Spoken
from scripts.loadtest.talk import Outcome
from tests import realtime_server
from tests.realtime_backend import tone
from tests.rig import clean_environ

SECOND = wire.RATE
SPOKEN = Spoken(10.0, 12.0)
TURN = [
    Heard(9.0, wire.Transcription, text="old"),
    Heard(10.1, wire.Transcription),  # without a word
    Heard(10.5, wire.Transcription, text="what"),
    Heard(10.5, wire.SpeechStarted),
    Heard(12.4, wire.SpeechStopped),
    Heard(12.5, wire.ResponseCreated),
    Heard(12.75, wire.TextReady, text="It"),
    Heard(13.25, wire.AudioDelta, SECOND),
    Heard(13.3, wire.TextDelta, text="It"),
    Heard(14.25, wire.AudioDelta, SECOND),
    Heard(15.25, wire.AudioDelta, SECOND),
    Heard(15.5, wire.AudioDone),
    Heard(16.0, wire.ResponseCreated),
]


def test_a_turn_has_the_published_figures() -> None:
    assert figures.of_turn(TURN, SPOKEN) == {
        "stt_latency": 0.5,
        "vad_latency": 0.5,
        "llm_latency": 0.25,
        "tts_start_latency": 0.5,
        "tts_realtime_factor": 1.5,
        "end_of_speech_to_sound": 1.25,
    }


def test_what_did_not_come_has_no_figure() -> None:
    assert figures.of_turn(TURN[:5], SPOKEN) == {}
    assert figures.of_turn(TURN[:6], SPOKEN) == {"stt_latency": 0.5, "vad_latency": 0.5}
    once = figures.of_turn(TURN[:8], SPOKEN)
    assert "tts_realtime_factor" not in once, "one piece of sound has no rate"
    assert once["tts_start_latency"] == 0.5


def test_the_reply_to_half_a_question_is_not_the_one_that_counts() -> None:
    breath = [
        Heard(11.0, wire.ResponseCreated),
        Heard(11.1, wire.AudioDelta, SECOND),
        Heard(11.2, wire.Interrupted),
    ]
    assert figures.of_turn([*breath, *TURN[5:]], SPOKEN)["end_of_speech_to_sound"] == 1.25
    early = [breath[0], breath[1], Heard(12.1, wire.AudioDone)]
    assert figures.of_turn(early, SPOKEN)["vad_latency"] == -1.0, "unless no other comes"


OVER = [
    Heard(19.9, wire.AudioDelta, SECOND),
    Heard(20.1, wire.AudioDelta, SECOND // 4),
    Heard(20.5, wire.Interrupted),
    Heard(20.6, wire.AudioDelta, SECOND // 2),
    Heard(23.0, wire.ResponseCreated),
    Heard(24.0, wire.AudioDelta, SECOND),
]


def test_speaking_over_the_bot() -> None:
    found = figures.of_barge_in(OVER, 20.0)
    assert found == pytest.approx({"barge_in_quiet": 0.6, "barge_in_told": 0.5, "barge_in_sound_after": 0.5})
    assert figures.of_barge_in(OVER[:2], 20.0) == {}, "it has not noticed"
    assert figures.of_barge_in([OVER[0], Heard(20.05, wire.AudioDone), *OVER[1:]], 20.0) == {}, "it was over before"
    assert figures.of_barge_in([OVER[0], OVER[2]], 20.0)["barge_in_quiet"] == 0.0


def test_a_cough() -> None:
    went_on = [OVER[0], OVER[1], Heard(21.1, wire.AudioDelta, SECOND), Heard(21.2, wire.AudioDone), OVER[2]]
    assert figures.of_cough(went_on, 20.0) == pytest.approx({"cough_gap": 1.0})
    assert figures.of_cough(went_on[:3], 20.0) == {}, "no end"
    assert figures.of_cough([*OVER, Heard(25.0, wire.AudioDone)], 20.0) == {}, "broken off"


def test_a_summary_is_that_of_its_values() -> None:
    told = figures.summary([float(each) for each in range(1, 102)])
    assert told == figures.Summary(101, 51.0, 51.0, 91.0, 96.0)
    assert figures.summary([1.0, 2.0]) == figures.Summary(2, 1.5, 1.5, 1.9, 1.95)
    assert figures.summary([]) is None


def test_the_report_has_all_of_it() -> None:
    fine = Outcome("", {"reconnect": [0.01], "tts_realtime_factor": [1.5]}, Counter(turns=3, cough_went_on=1))
    bad = Outcome("no room", {"reconnect": [0.03]}, Counter(turns=1, barge_in_unnoticed=1))
    told = report.as_json([fine, bad, bad], {"server_url": "ws://x", "voice": "slt", "workers": 2})
    assert (told["ok_fraction"], told["failures"], told["counts"]["turns"]) == (0.3333, {"no room": 2}, 5)
    assert told["figures"]["reconnect"]["count"] == 3 and told["figures"]["reconnect"]["median"] == 0.03
    text = report.as_text(told)
    assert "1 of 3 conversations were OK (33%)" in text and "not OK, 2 times: no room" in text
    assert "30 ms" in text and "1.50" in text and "1.50 ms" not in text
    assert "not noticed 2" in text and "the reply went on 1" in text


def test_speech_is_counted_from_its_first_sound_to_its_last() -> None:
    silence = np.zeros(4800, np.int16)
    pcm = sounds.trimmed(np.concatenate([silence, tone(0.5), silence]))
    assert abs(len(pcm) - wire.RATE // 2) < 50
    assert len(sounds.trimmed(silence)) == 0
    packets = sounds.packets_of(pcm, b"\xf8")
    assert len(packets) % 2 == 0 and sum(map(packet_samples, packets)) >= len(pcm)
    assert 0.15 < len(sounds.made_up_cough()) / wire.RATE < 0.25


@pytest.mark.parametrize("url", ["voice.example.org", "ftp://x", "ws://", "ws://x:0", "ws://x:99999", "ws://x/?a=b"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--server-url"):
        Backend(url, "")


def test_an_address_may_have_a_path_and_either_scheme() -> None:
    assert Backend("https://voice.example.org/api/", "").realtime_url == "wss://voice.example.org/api/v1/realtime"
    assert Backend("ws://127.0.0.1:8010", "").realtime_url == "ws://127.0.0.1:8010/v1/realtime"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--n-workers", "0"], 2, "must be a whole number"),
        (["--without", "cough,sneeze"], 2, "sneeze"),
        (["--key-file", "/nowhere"], 2, "cannot be read"),
        (["--server-url", "ws://127.0.0.1:1"], 11, "/v1/health"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words) == code
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and err.startswith("loadtest_voice: ")


@pytest.mark.parametrize("more", [[], ["--voice", "slt"]])
def test_a_wrong_key_is_found_before_anybody_talks(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("another")
    with realtime_server.serving("open", "open sesame") as server:
        at = f"ws://127.0.0.1:{server.port}"
        for words in ([], ["--key-file", str(tmp_path / "key")]):
            assert command.main(["--server-url", at, *words, *more]) == 2
            out, err = capsys.readouterr()
            assert out == "" and err.count("\n") == 1 and "HTTP 401" in err and "--key-file" in err
        assert server.connections == 0


# --- against a backend -----------------------------------------------------------------------------


MODES = ("", "deaf", "jumpy", "full", "ill")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things to say."""
    folder = tmp_path_factory.mktemp("said")
    for at in range(2):
        with wave.open(str(folder / f"{at}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(24_000)
            file.writeframes(tone(0.8, 300 + 100 * at).tobytes())
    return folder


@pytest.fixture(scope="module")
def tested(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, Any, str]]:
    """What the load test says of each kind of backend: its exit code, its JSON, and what it said beside. All at once,
    since each takes as long as people talk."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text("open sesame\n")
    ended = {}
    with contextlib.ExitStack() as stack:
        running = {}
        for mode in MODES:
            server = stack.enter_context(realtime_server.serving(mode, "open sesame"))
            words = [
                "--server-url",
                f"ws://127.0.0.1:{server.port}",
                "--audio-dir",
                str(spoken),
                "--key-file",
                str(key),
            ]
            more = ["--n-workers", "2"] if not mode else []
            running[mode] = subprocess.Popen(
                [sys.executable, "-m", "scripts.loadtest", "--json", "--turns", "1", *words, *more],
                cwd=ROOT,
                env=clean_environ(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(running[mode].kill)
        for mode, process in running.items():
            out, err = process.communicate(timeout=100)
            ended[mode] = process.returncode, json.loads(out) if out else None, err
    return ended


Tested = dict[str, tuple[int, Any, str]]


def test_figures_are_what_the_backend_does(tested: Tested) -> None:
    code, told, err = tested[""]
    assert (code, told["ok_fraction"], told["voice"]) == (0, 1.0, "some/body.wav"), err
    counts = told["counts"]
    assert (counts["turns"], counts["barge_in_noticed"], counts["cough_went_on"]) == (2, 2, 2)
    found = {name: row["mean"] for name, row in told["figures"].items()}
    assert found.keys() == {*figures.PUBLISHED, *figures.OURS}
    page = realtime_server.PAGE_S
    assert found["stt_latency"] > 0.8 + realtime_server.PAUSE_S - 2 * page
    assert found["vad_latency"] > realtime_server.PAUSE_S - 2 * page
    assert found["llm_latency"] > realtime_server.THINKS_S - 0.01
    assert found["tts_start_latency"] > realtime_server.SPEAKS_AFTER_S - 0.01
    assert found["barge_in_told"] > realtime_server.NOTICED_S - 2 * page
    assert 0 < found["barge_in_quiet"] <= found["barge_in_told"] and found["barge_in_sound_after"] == 0
    parts = found["vad_latency"] + found["llm_latency"] + found["tts_start_latency"]
    assert found["end_of_speech_to_sound"] == pytest.approx(parts, abs=0.001)


def test_who_does_not_notice_that_it_is_spoken_over_is_told_so(tested: Tested) -> None:
    code, told, err = tested["deaf"]
    assert code == 0 and told["counts"]["barge_in_noticed"] == 0, err
    assert told["counts"]["barge_in_unnoticed"] == 1, "it spoke on to the end of its reply"
    assert "barge_in_told" not in told["figures"] and told["counts"]["cough_went_on"] == 1


def test_who_breaks_off_for_a_cough_is_told_so(tested: Tested) -> None:
    code, told, err = tested["jumpy"]
    assert code == 0 and told["counts"]["cough_interrupted"] == 1, err
    assert "cough_gap" not in told["figures"]


def test_who_has_no_room_or_is_not_well_is_told_so(tested: Tested) -> None:
    code, told, err = tested["full"]
    assert code == 1 and told["ok"] == 0, err
    ((why, count),) = told["failures"].items()
    assert "HTTP 503" in why and "no room" in why and count == 1
    code, told, err = tested["ill"]
    assert (code, told) == (8, None) and '"stt_up": false' in err
