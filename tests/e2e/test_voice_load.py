"""scripts/loadtest_voice.py against the real backend with the embedded speech services: somebody hears its greeting,
asks, speaks over the bot, coughs, and comes again. The figures themselves are tested in tests/unit."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from procs.settings import ROOT
from scripts.loadtest import figures
from tests import speech_rig, voice_rig
from tests.rig import clean_environ

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("flite", "espeak-ng")]
KEY = "a-key-that-is-long-enough"
OURS = {"PLANARIA_VOICE_KEY": KEY}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that lead to the speech services."""
    folder = tmp_path_factory.mktemp("s")
    with contextlib.ExitStack() as stack:
        stt, tts, llm = (stack.enter_context(speech_rig.service(each, folder)) for each in ("stt", "tts", "llm"))
        llm_url = f"http://127.0.0.1:{llm.port}"
        yield {"KYUTAI_STT_URL": stt.url, "KYUTAI_TTS_URL": tts.url, "KYUTAI_LLM_URL": llm_url}


def loaded(port: int, folder: Path, *words: str) -> tuple[int, Any, str]:
    """The load test's exit code, its JSON, and what it said beside."""
    key = folder / "key"
    key.write_text(KEY)
    url = f"ws://127.0.0.1:{port}"
    done = subprocess.run(
        [sys.executable, "-m", "scripts.loadtest", "--json", "--server-url", url, "--key-file", str(key), *words],
        cwd=ROOT,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


@pytest.mark.long  # its parts are in tests/e2e/test_loadtest.py and tests/e2e/test_voice.py
def test_somebody_in_a_browser_is_served_and_may_interrupt_and_cough(services: dict[str, str], tmp_path: Path) -> None:
    with voice_rig.backend(tmp_path, whole=True, environ=OURS | services) as backend:
        code, told, err = loaded(backend.port, tmp_path, "--turns", "1")
        assert code == 0 and told["ok_fraction"] == 1.0, err
        counts = told["counts"]
        assert counts["turns"] == 1 and counts["barge_in_unnoticed"] == counts["cough_interrupted"] == 0, told
        assert counts["barge_in_noticed"] and counts["cough_went_on"], f"replies were long enough for both: {told}"
        assert told["figures"].keys() == {*figures.PUBLISHED, *figures.OURS}
        assert told["figures"]["barge_in_sound_after"]["mean"] == 0, "what was interrupted is silent from then on"
        assert 0.5 < told["figures"]["tts_realtime_factor"]["mean"] < 2.0, "sound comes as fast as it is heard"
        assert backend("GET", "/v1/voices").status == 401


def test_who_finds_no_room_is_told_so_at_once(services: dict[str, str], tmp_path: Path) -> None:
    none = {"PLANARIA_VOICE_BROWSERS": "0"}
    with voice_rig.backend(tmp_path, whole=True, environ=OURS | none | services) as backend:
        code, told, err = loaded(backend.port, tmp_path, "--n-workers", "3")
        assert code == 1 and told["ok"] == 0, err
        ((why, count),) = told["failures"].items()
        assert why.startswith("HTTP 503") and count == 3


def test_who_cannot_serve_is_not_tested(tmp_path: Path) -> None:
    nobody = {f"KYUTAI_{each}_URL": "ws://127.0.0.1:1" for each in ("STT", "TTS")} | {
        "KYUTAI_LLM_URL": "http://127.0.0.1:1"
    }
    with voice_rig.backend(tmp_path, whole=True, environ=OURS | nobody) as backend:
        code, told, err = loaded(backend.port, tmp_path)
        assert (code, told) == (8, None) and "/v1/health: HTTP 503" in err
