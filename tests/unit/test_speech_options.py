"""What the three speech services can be told, by themselves and by `make up`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from procs.errors import ConfigError
from procs.kinds import Address
from procs.settings import ROOT
from procs.speech import options
from scripts import capture_programs, roles, speaking
from scripts.plan import load_plan
from tests.rig import clean_environ

KEY = "a-key-that-nobody-guesses"
PUBLIC = {"PLANARIA_SPEECH_TTS": "0.0.0.0:8089"}


def test_the_three_are_set_up_together_and_named_first() -> None:
    assert [options.which(argv) for argv in (["stt"], ["llm", "--sessions", "2"], [], ["--help"], ["sing"])] == [
        "stt", "llm", "", "", ""
    ]  # fmt: skip
    chosen = options.load(["tts", "--sessions", "2"], {"PLANARIA_SPEECH_STT": "127.0.0.1:9", "PLANARIA_SUITE": "/"})
    assert (chosen.listen("stt"), chosen.listen("tts"), chosen.sessions) == (
        Address("127.0.0.1", 9), Address("127.0.0.1", 8089), 2
    )  # fmt: skip
    with pytest.raises(ConfigError, match="invalid choice: 'sing'"):
        options.load(["sing"], {})


@pytest.mark.parametrize("environ", [{}, {"PLANARIA_SPEECH_KEY": "public_token"}])
def test_others_need_a_key_that_is_none_of_the_published(environ: dict[str, str]) -> None:
    environ = {**environ, **PUBLIC, "PLANARIA_SUITE": "/"}
    with pytest.raises(ConfigError, match=r"PLANARIA_SPEECH_TTS=0\.0\.0\.0:8089: others can reach it"):
        options.load(["tts"], environ)
    assert options.load(["stt"], environ).tts == Address("0.0.0.0", 8089), "stt itself is on loopback"
    assert options.load(["tts"], {**environ, "PLANARIA_SPEECH_KEY": KEY}).key == KEY
    if environ.get("PLANARIA_SPEECH_KEY"):
        assert options.load(["tts"], {**environ, "PLANARIA_COMPAT": "1"}).key == "public_token"


def test_a_key_may_stand_in_a_file_and_shows_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "key"
    environ = {"PLANARIA_SPEECH_KEY_FILE": str(file), "PLANARIA_SUITE": "/"}
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        options.load(["stt"], environ)
    file.write_text("two words\n")
    with pytest.raises(ConfigError, match="must hold") as wrong:
        options.load(["stt"], environ)
    assert "words" not in str(wrong.value).partition("must hold")[0]
    file.write_text(f"{KEY}\n")
    chosen = options.load(["stt"], environ)
    assert chosen.key == KEY and KEY not in repr(chosen)
    with pytest.raises(ConfigError, match="set one of them"):
        options.load(["stt"], {**environ, "PLANARIA_SPEECH_KEY": KEY})


def test_make_up_checks_them_where_the_role_is_on(tmp_path: Path) -> None:
    off = load_plan(tmp_path, {**PUBLIC, "PLANARIA_ROLES": "hub"})
    assert speaking.programs(off) == () and speaking.why_not(off) == ""
    with pytest.raises(ConfigError, match="others can reach it"):
        load_plan(tmp_path, {**PUBLIC, "PLANARIA_ROLES": "voice"})
    on = load_plan(tmp_path, {**PUBLIC, "PLANARIA_ROLES": "voice", "PLANARIA_SPEECH_KEY": KEY})
    assert [speaking.url(on, program) for program in speaking.programs(on)] == [
        "ws://127.0.0.1:8090", "ws://127.0.0.1:8089", "http://127.0.0.1:8091"
    ]  # fmt: skip
    told = roles.conf(on.suite.roles, on.wall.hub.listen, {}).split("[")
    started = {part.partition("]")[0] for part in told if "autostart=true" in part}
    assert started == {f"program:{name}" for name in ("voice", *speaking.PROGRAMS)}


def test_one_that_is_off_leaves_its_place_to_another(tmp_path: Path) -> None:
    environ = {"PLANARIA_SPEECH_STT": "off", "PLANARIA_SUITE": "/"}
    plan = load_plan(tmp_path, {**environ, "PLANARIA_ROLES": "voice"})
    assert speaking.programs(plan) == ("tts", "llm") and speaking.backend(plan)
    assert speaking.places(plan)["stt"] == "ws://127.0.0.1:8090 (another server: PLANARIA_SPEECH_STT=off)"
    assert [name for name in speaking.PROGRAMS if plan.is_off(name)] == ["speech_stt"]
    told = capture_programs.files(tmp_path, plan)[roles.NAME]
    assert "[program:speech_stt]\nautostart=false" in told and "[program:speech_tts]\nautostart=true" in told
    with pytest.raises(ConfigError, match="PLANARIA_SPEECH_STT=off: set an address"):
        options.load(["stt"], environ)
    with pytest.raises(ConfigError, match="or off: another server is used"):
        options.load(["tts"], {"PLANARIA_SPEECH_TTS": "away", "PLANARIA_SUITE": "/"})


def test_each_has_the_options_that_it_uses(capsys: pytest.CaptureFixture[str]) -> None:
    for program, absent in (("stt", "--tts "), ("tts", "--pause-s"), ("llm", "--sessions")):
        with pytest.raises(SystemExit):
            options.load([program, "--help"], {})
        told = capsys.readouterr().out
        assert f"--{program} " in told and "--key-file" in told and absent not in told
    with pytest.raises(ConfigError, match="has to come first"):
        options.load(["--sessions", "2", "tts"], {})


def test_without_its_libraries_it_says_in_one_line_what_installs_them(tmp_path: Path) -> None:
    for program in options.PROGRAMS:
        done = subprocess.run(
            [sys.executable, "-S", "-m", "procs.speech", program],
            cwd=ROOT,
            env=clean_environ(PLANARIA_RUN_DIR=str(tmp_path)),
            capture_output=True,
            text=True,
        )
        assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr
        assert "sh scripts/bootstrap.sh voice" in done.stderr
