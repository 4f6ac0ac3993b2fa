"""Settings of a device's ears and mouth: what planaria.yaml says of them, and what is installed for them."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from procs.errors import ConfigError, NotHere
from procs.messages.voice import VoiceBeat, VoiceDevice, VoiceState
from scripts import addresses, reach, roles, speaking, status, voice
from tests.unit.test_wall import plan


def test_the_file_tells_the_process_by_variables_and_is_the_weakest(tmp_path: Path) -> None:
    document = "{audio: {port: 9000, microphone: USB, wake_word: alexa}}"
    found = plan(tmp_path, document, PLANARIA_AUDIO_MICROPHONE="Jabra")
    assert (str(found.audio.listens), found.audio.microphone) == ("127.0.0.1:9000", "Jabra")
    told = {name: value for name, value in found.environment.items() if name.startswith("PLANARIA_AUDIO_")}
    assert told == {
        "PLANARIA_AUDIO_PORT": "9000",
        "PLANARIA_AUDIO_MICROPHONE": "Jabra",
        "PLANARIA_AUDIO_WAKE_WORD": "alexa",
    }
    conf = roles.conf({"audio"}, found.wall.hub.listen, found.told)
    assert 'PLANARIA_AUDIO_PORT="9000"' in conf and "[program:audio_io]\nautostart=true" in conf


def test_the_backend_is_told_the_same_way(tmp_path: Path) -> None:
    found = plan(tmp_path, "{voice: {devices: /srv/devices.json, browsers: 3}}", PLANARIA_ROLES="voice", PORT="9010")
    assert (found.voice.browsers, str(found.voice.listens)) == (3, "127.0.0.1:9010")
    assert found.environment["REMOTE_DEVICES_CONFIG"] == "/srv/devices.json"
    with pytest.raises(ConfigError, match=r"host=0\.0\.0\.0 .*: others can reach it"):
        plan(tmp_path, "{voice: {host: 0.0.0.0}}", PLANARIA_ROLES="voice")
    assert plan(tmp_path, "{voice: {host: 0.0.0.0}}"), "whose role is off, it needs nothing"


def test_status_shows_devices_and_says_what_is_wrong() -> None:
    beat = VoiceBeat("waiting", problem="connection refused", since=time.time() - 61, attempts=3, connections=2)
    its = VoiceDevice("kitchen", "10.0.0.5", 8765, "slt", "{}", True, True, 5.0, "waiting", "refused", beat, 7)
    deaf = msgspec.structs.replace(its, name="hall", state="connected", problem="the device sends no sound")
    well = msgspec.structs.replace(its, name="attic", state="connected", problem="")
    state = VoiceState(True, [its, deaf, well], ["devices.json: x"], {"stt": "", "tts": "away", "llm": ""})
    row = status.voice_row(msgspec.to_builtins(its))
    assert row[:3] == ("kitchen", "10.0.0.5:8765", "waiting") and row[-2:] == ("7", "2")
    assert len(row) == len(status.VOICE)
    assert reach.missing_voice(state) == [
        "devices.json: x",
        "voice: tts is down: away",
        "voice device kitchen: refused",
        "voice device hall: the device sends no sound",
    ]
    assert status.voice_row(msgspec.to_builtins(msgspec.structs.replace(its, beat=None)))[3] == "-"


def test_make_up_says_where_the_backend_is_and_who_hears_speaks_and_answers_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = "ws://gpu-1:8080,ws://gpu-2:8080"
    others = {"KYUTAI_STT_URL": several, "KYUTAI_LLM_URL": "https://llm.example.org/v1", "PLANARIA_SPEECH_LLM": "off"}
    settings = {"PLANARIA_ROLES": "voice", "PORT": "9010", "REMOTE_DEVICES_CONFIG": "/srv/devices.json"}
    found = plan(tmp_path, **settings, **others)
    assert speaking.backend(found) == {"url": "http://127.0.0.1:9010/", "devices_file": "/srv/devices.json"}
    assert speaking.places(found) == {
        "stt": "ws://gpu-1:8080, ws://gpu-2:8080 (KYUTAI_STT_URL; ours is at ws://127.0.0.1:8090)",
        "tts": "ws://127.0.0.1:8089",
        "llm": "https://llm.example.org (another server: PLANARIA_SPEECH_LLM=off)",
    }
    addresses.show(tmp_path, found, "")
    said = capsys.readouterr().out
    assert "\nvoice   http://127.0.0.1:9010/ " in said and "/srv/devices.json" in said
    assert "\nstt     ws://gpu-1:8080, ws://gpu-2:8080 " in said
    everywhere = plan(tmp_path, PLANARIA_ROLES="voice", HOST="0.0.0.0", PLANARIA_VOICE_KEY="k" * 16)
    assert (speaking.backend(everywhere) or {})["url"] == "http://127.0.0.1:8010/"
    assert speaking.backend(plan(tmp_path)) is None and speaking.places(plan(tmp_path)) == {}


def test_what_can_not_be_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"port='70000' \(.*audio\): must be a whole number"):
        plan(tmp_path, "{audio: {port: 70000}}")
    with pytest.raises(ConfigError, match="must both be set, or neither"):
        plan(tmp_path, "{audio: {cert: cert.pem}}", PLANARIA_ROLES="audio")
    assert plan(tmp_path, "{audio: {cert: cert.pem}}"), "whose role is off, it needs nothing"


def test_more_is_installed_for_who_needs_more(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/bootstrap.sh").write_text(f'cd "{tmp_path}" && echo "$@" >> asked; exit $(cat status)\n')
    (tmp_path / "status").write_text("0")
    voice.install(tmp_path, roles.DEFAULT)
    assert not (tmp_path / "asked").exists()
    voice.install(tmp_path, frozenset({"audio"}))
    (tmp_path / "status").write_text("1")
    with pytest.raises(NotHere, match=r"voice needs what scripts/bootstrap\.sh voice could not"):
        voice.install(tmp_path, frozenset({"hub", "voice"}))
    assert (tmp_path / "asked").read_text() == "voice\nvoice\n"
