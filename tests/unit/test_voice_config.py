"""devices.json: one line for each mistake, and devices that are right go on. No processes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from procs import log
from procs.brood import MAX_SPEC
from procs.errors import ConfigError, Refused
from procs.messages import encode
from procs.messages.voice import Line, Services, VoiceSpec
from procs.settings import ROOT
from procs.voice import config, options, voices
from procs.voice.config import Device
from procs.voice.devices_file import DevicesFile
from procs.voice.transcript import Transcript

SMALLTALK = '{"type":"smalltalk"}'
QUIZ = '{"type":"quiz_show"}'


def find_voice(name: str) -> str:
    """Two with instructions of their own, one without."""
    if name not in ("Watercooler", "Quiz show", "slt"):
        raise Refused(f"voice {name!r}: must be Watercooler, Quiz show or slt")
    return {"Watercooler": SMALLTALK, "Quiz show": QUIZ}.get(name, "")


def parse(*devices: object) -> config.Parsed:
    """Of these entries."""
    return config.parse(json.dumps({"devices": devices}), find_voice)


def entry(**more: object) -> dict[str, object]:
    """One that is right."""
    return {"name": "kitchen", "host": "10.0.0.5", **more}


def test_a_device_has_the_published_defaults() -> None:
    found = parse(entry())
    assert found.problems == []
    assert found.devices["kitchen"] == Device("kitchen", "10.0.0.5", 8765, "Watercooler", SMALLTALK, True, 5.0, True)


def test_all_that_can_be_said_is_taken() -> None:
    whole = entry(
        port=1, voice="slt", instructions={"type": "news", "language": "fr"}, auto_reconnect=False, reconnect_delay=1,
        enabled=False, token="t0ken", tls=True, ca="/etc/ca.pem",
    )  # fmt: skip
    its = parse(whole).devices["kitchen"]
    assert (its.port, its.auto_reconnect, its.reconnect_delay, its.enabled) == (1, False, 1.0, False)
    assert json.loads(its.instructions) == {"type": "news", "language": "fr"}
    assert (its.token, its.tls, its.ca) == ("t0ken", True, "/etc/ca.pem")


def test_text_is_taken_for_instructions_and_a_voice_brings_its_own() -> None:
    its = parse(entry(instructions="Be brief.")).devices["kitchen"]
    assert json.loads(its.instructions) == {"type": "constant", "text": "Be brief."}
    assert parse(entry(voice="Quiz show")).devices["kitchen"].instructions == QUIZ
    assert parse(entry(voice="slt")).devices["kitchen"].instructions == SMALLTALK


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"port": 70000}, "devices[0].port=70000: must be 1 to 65535"),
        ({"port": True}, "devices[0].port=true: must be a whole number without quotes, 1 to 65535"),
        ({"port": "8765"}, 'devices[0].port="8765": must be a whole number without quotes, 1 to 65535'),
        ({"name": ""}, 'devices[0].name="": must be 1 to 64 characters without a /'),
        ({"name": "a/b"}, 'devices[0].name="a/b": must be 1 to 64'),
        ({"name": ".."}, 'devices[0].name="..": must be 1 to 64'),  # in a path it is none
        ({"name": "a\x9b31m"}, "must be 1 to 64"),  # which a terminal obeys
        ({"host": "a b"}, 'devices[0].host="a b": must be the address or the name of a host'),
        ({"voice": "Nobody"}, "devices[0]: voice 'Nobody': must be Watercooler"),
        ({"prot": 1}, "devices[0].prot: unknown field; known are name, host, port"),
        ({"reconnect_delay": 0}, "devices[0].reconnect_delay=0: must be seconds from 0.1 to 3600"),
        ({"reconnect_delay": 10**4000}, "must be seconds from 0.1 to 3600"),
        ({"reconnect_delay": float("nan")}, "devices[0].reconnect_delay=NaN: must be seconds from 0.1 to 3600"),
        ({"enabled": "yes"}, 'devices[0].enabled="yes": must be true or false'),
        ({"instructions": {"type": "poem"}}, "must be instructions of a type that there is: constant, smalltalk,"),
        ({"instructions": {"type": ["news"]}}, "must be instructions of a type that there is: constant, smalltalk,"),
        ({"instructions": {"type": "news", "language": "de"}}, "in a language that there is: en, fr, en/fr, fr/en"),
        ({"instructions": {"type": "news", "language": 7}}, "in a language that there is: en, fr, en/fr, fr/en"),
        ({"instructions": {"type": "constant"}}, "must be instructions (Object missing required field `text`"),
        ({"instructions": {"type": "news", "text": "x"}}, "must be instructions without 'text', which news does not"),
        ({"instructions": 7}, 'devices[0].instructions=7: must be an object such as {"type": "smalltalk"}'),
        ({"token": "two words"}, "devices[0].token=***: must be 1 to 256"),
        ({"token": "a", "token_file": "b"}, "devices[0]: set either token or token_file"),
    ],
)
def test_each_mistake_is_one_line_and_the_others_keep_talking(changes: dict[str, Any], line: str) -> None:
    found = parse(entry(**changes), entry(name="door"))
    assert list(found.devices) == ["door"]
    assert len(found.problems) == 1, found.problems
    assert found.problems[0].startswith("devices.json: devices[0]")
    assert found.problems[0].rpartition(": ")[2] in str(log.redact("", found.problems[0])), (
        "a log shows what is to be done about it"
    )
    assert line in found.problems[0]
    assert "\n" not in found.problems[0]


def test_what_is_wrong_in_every_way_is_told_in_a_few_lines() -> None:
    """Each is a line in the log, and the leader does nothing else meanwhile."""
    found = parse(*({"name": f"{number}", "host": "h", **dict.fromkeys(map(str, range(50)))} for number in range(50)))
    assert len(found.problems) == config.MAX_PROBLEMS + 1
    assert found.problems[-1] == "devices.json: 900 more"
    assert len(found.wrong) == 50, "known to be wrong, so that they stay as they were"


def test_a_child_can_be_born_whatever_its_instructions_and_history_are() -> None:
    """What goes into no message would end the leader, and end it again whenever it starts."""
    assert "at most" in parse(entry(instructions="\U0001f600" * 7000)).problems[0]
    its = parse(entry(instructions='"' * 5000)).devices["kitchen"]
    lines = [Line(number, "user", "\U0001f600" * 4000, final=True) for number in range(200)]
    its = its._replace(instructions=json.dumps({"type": "constant", "text": "x" * (config.MAX_INSTRUCTIONS - 100)}))
    services = Services(stt=["ws://a.example.org:1"] * 16, tts=["ws://a.example.org:1"] * 16, llm="http://a:1")
    spec = VoiceSpec(
        id="device-1-1", run_dir="/run" * 20, services=services, instructions=its.instructions, token="x" * 256,
        ca="x" * 1000, history=Transcript(lines, 1).to_be_born_with(),
    )  # fmt: skip
    assert len(spec.history) == 2
    assert len(encode(spec)) <= MAX_SPEC


def test_names_are_needed_and_are_somebody_s_own() -> None:
    found = parse({"host": "a"}, entry(), entry(host="b"), 7)
    assert found.devices["kitchen"].host == "10.0.0.5"
    assert found.problems == [
        "devices.json: devices[0].name: is missing",
        'devices.json: devices[2].name="kitchen": devices[1] has that name already',
        "devices.json: devices[3]=7: must be an object",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"devices": [\n  {"name": "a",}\n]}', "devices.json: line 2, column 16: "),
        ("[]", 'devices.json: must be {"devices": [...]}'),
        ('{"devices": {}}', 'devices.json: must be {"devices": [...]}'),
        ('{"devices": [], "device": []}', "devices.json: 'device': unknown field beside devices"),
        ('{"devices": [{"name": "\\ud800"}]}', "devices.json: holds a half of a character"),
        ("[" * 200_000, "devices.json: nested too deeply"),
        (f'{{"devices": [{{"port": {"1" * 5000}}}]}}', "devices.json: holds a number that is too long"),
    ],
)
def test_what_is_no_list_of_devices_is_refused(text: str, line: str) -> None:
    with pytest.raises(Refused) as refused:
        config.parse(text, find_voice)
    assert str(refused.value).startswith(line)


def test_a_change_leaves_all_else_as_it_was_written() -> None:
    text = json.dumps({"devices": [entry(port=70000), entry(name="door", token_file="t")]})
    after = json.loads(config.changed(text, "door", {"port": 9000, "token": "abc"}, find_voice))["devices"]
    assert after == [entry(port=70000), entry(name="door", port=9000, token="abc")]
    with pytest.raises(Refused, match="port=0: must be 1 to 65535"):
        config.changed(text, "door", {"port": 0}, find_voice)
    with pytest.raises(Refused, match="a device keeps its name"):
        config.changed(text, "door", {"name": "gate"}, find_voice)
    with pytest.raises(KeyError):
        config.changed(text, "gate", {"port": 9000}, find_voice)


def test_who_says_which_device_is_called_is_told_no_secret() -> None:
    """Neither what a file of this machine holds, nor the token that another device was shown."""
    text = json.dumps({"devices": [entry(token="t0ken"), entry(name="door", token_file="t", ca="c")]})
    for name, changes, why in (
        ("kitchen", {"token_file": "/home/me/key"}, "token_file: can be set in the file alone"),
        ("kitchen", {"ca": "/home/me/key"}, "ca: can be set in the file alone"),
        ("kitchen", {"host": "10.6.6.6"}, "host: with another one the token has to be given again"),
        ("kitchen", {"port": 1}, "port: with another one"),
        ("door", {"host": "10.6.6.6", "token": ""}, "host: with another one"),
        ("door", {"ca": ""}, "ca: with another one"),
        ("door", {"ca": None, "token_file": None}, "ca: with another one"),
    ):
        with pytest.raises(Refused, match=why):
            config.changed(text, name, changes, find_voice)
    with pytest.raises(Refused, match="token_file: can be set"):
        config.added(text, entry(name="mine", host="10.6.6.6", token_file="/home/me/key"), find_voice)
    same = config.changed(text, "door", {"host": "10.0.0.5", "port": 8765, "tls": False, "token_file": "t"}, find_voice)
    default = config.changed(text, "door", {"port": None, "tls": None}, find_voice)
    assert json.loads(default)["devices"][1]["token_file"] == "t", "nor is the default"
    assert json.loads(same)["devices"][1]["token_file"] == "t", "the same is no change"
    moved = config.changed(text, "kitchen", {"host": "10.0.0.7", "token": "t0ken"}, find_voice)
    assert json.loads(moved)["devices"][0]["host"] == "10.0.0.7"


def test_devices_are_added_and_removed() -> None:
    text = config.added('{"devices": []}', entry(), find_voice)
    with pytest.raises(Refused, match="there is a device of that name"):
        config.added(text, entry(), find_voice)
    with pytest.raises(Refused, match="host: is missing"):
        config.added(text, {"name": "x"}, find_voice)
    assert json.loads(config.without(text, "kitchen")) == {"devices": []}


# The file


def changed(file: DevicesFile, text: str) -> bool:
    """Written by somebody's editor, and looked at."""
    beside = file.path.with_suffix(".tmp")
    beside.write_text(text)
    beside.rename(file.path)
    return file.look()


def test_no_file_is_no_mistake_but_one_that_vanishes_ends_no_conversation(tmp_path: Path) -> None:
    file = DevicesFile(tmp_path / "devices.json", find_voice)
    assert (file.look(), file.told.configured) == (True, False), "which is said, once"
    assert not file.look()
    assert changed(file, json.dumps({"devices": [entry()]}))
    assert file.told.configured
    assert list(file.told.devices) == ["kitchen"]
    assert not file.look(), "nothing is new"
    file.path.unlink()
    assert file.look()
    assert file.told.problems == [file.told.unread] == ["devices.json: is gone; its device stays as before"]
    assert list(file.told.devices) == ["kitchen"]
    with pytest.raises(Refused, match=r"devices\.json: is gone"):
        file.add(entry(name="door"))
    assert changed(file, json.dumps({"devices": []}))
    assert (file.told.configured, file.told.devices, file.told.problems) == (True, {}, [])


def test_what_is_written_badly_ends_no_conversation(tmp_path: Path) -> None:
    file = DevicesFile(tmp_path / "devices.json", find_voice)
    changed(file, json.dumps({"devices": [entry(), entry(name="door")]}))
    before = file.told.devices
    assert changed(file, '{"devices": [')
    assert file.told.devices == before
    assert "line 1" in file.told.problems[0]
    assert changed(file, json.dumps({"devices": [entry(port=0), entry(name="gate")]}))
    assert set(file.told.devices) == {"kitchen", "gate"}, "the one that is wrong now stays as it was"
    assert file.told.devices["kitchen"] == before["kitchen"]


def test_what_is_hardly_meant_is_done_and_told(tmp_path: Path) -> None:
    """Else a device is told that another backend has it, and that is we; and an English voice reads French."""
    file = DevicesFile(tmp_path / "devices.json", find_voice)
    french = {"type": "smalltalk", "language": "fr/en"}
    changed(file, json.dumps({"devices": [
        entry(), entry(name="door", port=8766, instructions=french), entry(name="gate", host="10.0.0.5"),
        entry(name="off", instructions=french, enabled=False),
    ]}))  # fmt: skip
    assert list(file.told.devices) == ["kitchen", "door", "gate", "off"]
    assert file.told.problems == [
        'devices.json: device "gate": device "kitchen" is at 10.0.0.5, port 8765 too: '
        "while one talks there, the other waits",
        'devices.json: device "door": an English voice (Watercooler) is to speak French; '
        "French are Charles, Développeuse, Fabieng, espeak:fr",
    ]


def test_which_voices_are_english_is_known_of_ours() -> None:
    english = {each.name for each in voices.known() if voices.is_english(each.name)}
    assert english == {each.name for each in voices.known()} - {"Charles", "Développeuse", "Fabieng"}
    assert [voices.is_english(name) for name in ("slt", "espeak:en-us", "espeak:fr", "custom:x", "a/b.wav")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert voices.is_english("unmute-prod-website/p329_022.wav") and not voices.is_english(
        "unmute-prod-website/degaulle-2.wav"
    )


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "long"])
def test_what_is_no_file_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    bad = tmp_path / "bad"
    match kind:
        case "pipe":
            os.mkfifo(bad)
        case "endless":
            bad.symlink_to("/dev/zero")
        case "folder":
            bad.mkdir()
        case _:
            with bad.open("wb") as out:
                out.truncate(2**40)
    file = DevicesFile(tmp_path / "devices.json", find_voice)
    changed(file, json.dumps({"devices": [entry(), entry(name="door", token_file="bad")]}))
    assert set(file.told.devices) == {"kitchen"}
    assert "cannot be read: " in file.told.problems[0]
    file.path.unlink()
    bad.rename(file.path)
    assert file.look()
    assert set(file.told.devices) == {"kitchen"}
    assert file.told.problems[0].startswith("devices.json: cannot be read: ")


def test_a_token_in_a_file_is_read_and_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("first\n")
    file = DevicesFile(tmp_path / "devices.json", find_voice)
    changed(file, json.dumps({"devices": [entry(token_file="secret"), entry(name="door", token_file="none")]}))
    assert file.told.devices["kitchen"].token == "first"
    assert "door" not in file.told.devices
    assert 'device "door": token_file=' in file.told.problems[0]
    (tmp_path / "secret").write_text("second, longer")
    assert file.look()
    assert any("must hold" in problem for problem in file.told.problems)
    assert file.told.devices["kitchen"].token == "first", "as it was"
    (tmp_path / "secret").write_text("the-second")
    assert file.look()
    assert file.told.devices["kitchen"].token == "the-second"
    (tmp_path / "none").write_text("now-it-is-there")
    assert file.look()
    assert file.told.devices["door"].token == "now-it-is-there"


def test_a_change_is_on_disk_and_keeps_who_may_read_it(tmp_path: Path) -> None:
    file = DevicesFile(tmp_path / "devices.json", find_voice)
    file.add(entry())
    assert file.path.stat().st_mode & 0o777 == 0o600, "tokens stand in it"
    file.path.chmod(0o640)
    file.change("kitchen", {"enabled": False})
    assert file.path.stat().st_mode & 0o777 == 0o640
    assert file.look()
    assert not file.told.devices["kitchen"].enabled
    file.remove("kitchen")
    assert os.listdir(tmp_path) == ["devices.json"]


def test_every_file_that_readme_has_one_write_can_be_used() -> None:
    shown = re.findall(r"^echo '(\{\"devices\".*)' > devices.json$", (ROOT / "README.md").read_text(), re.M)
    found = [config.parse(text, find_voice) for text in shown]
    assert all(each.problems == [] for each in found)
    tokens = {(name, bool(its.token)) for each in found for name, its in each.devices.items()}
    assert tokens == {("panel", False), ("panel", True)}, "on one machine, and elsewhere"


# The settings


def load(*argv: str, **environ: str) -> options.Voice:
    """Settings of a process with just these."""
    return options.load(argv, {"PLANARIA_SUITE": "x", "PLANARIA_RUN_DIR": "/tmp", **environ})


def test_services_are_those_of_the_suite_unless_named() -> None:
    its = load(PLANARIA_SPEECH_STT="0.0.0.0:9090", PLANARIA_SPEECH_KEY="k" * 16).services
    assert (its.stt, its.tts, its.llm) == (["ws://127.0.0.1:9090"], ["ws://127.0.0.1:8089"], "http://127.0.0.1:8091")
    assert its.speech_key == its.llm_key == "k" * 16
    several = load(KYUTAI_STT_URL="http://a:1, wss://b:2", KYUTAI_LLM_URL="https://c/v1", PLANARIA_SPEECH_KEY="k")
    assert several.services.stt == ["ws://a:1", "wss://b:2"]
    assert several.services.llm == "https://c"
    assert several.services.llm_key == "", "what our own services are shown is nobody else's to see"
    assert load(PLANARIA_SPEECH_TTS="off").services.tts == ["ws://127.0.0.1:8089"], "where another is in its place"


def test_beyond_this_machine_a_key_is_needed() -> None:
    for words, environ in (((), {"HOST": "0.0.0.0"}), (("--host", "0.0.0.0"), {})):
        named = r"host=0\.0\.0\.0 \(HOST, --host\): others can reach it; set PLANARIA_VOICE_KEY or .*openssl rand"
        with pytest.raises(ConfigError, match=named):
            load(*words, **environ)
        with pytest.raises(ConfigError, match=r"the key of PLANARIA_VOICE_KEY or .* is too short"):
            load(*words, **environ, PLANARIA_VOICE_KEY="short")
    assert load("--host", "0.0.0.0", PLANARIA_VOICE_KEY="k" * 16).port == 8010


def test_help_says_what_is_taken_and_no_default_in_the_words_of_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load("--help")
    said = " ".join(capsys.readouterr().out.split())
    assert "()" not in said and "http:// and https:// are taken for these" in said and "[OPTION ...]" in said


def test_published_variables_are_taken() -> None:
    its = load(HOST="localhost", PORT="8000", LOG_LEVEL="warning", HUGGING_FACE_HUB_TOKEN="hf", KYUTAI_LLM_MODEL="m")
    assert (str(its.listens), its.log_level, its.services.model) == ("127.0.0.1:8000", "warning", "m")
    with pytest.raises(ConfigError, match=r"KYUTAI_STT_URL='x' \(environment\): must be ws://HOST:PORT"):
        load(KYUTAI_STT_URL="x")


@pytest.mark.parametrize(
    ("variable", "value", "wrong"),
    [
        ("PLANARIA_VOICE_KEY", "k" * 16, "two words"),
        ("KYUTAI_LLM_API_KEY", "sk-1", ""),
        ("PLANARIA_VOICE_STORE", "postgresql://planaria:secret@db/planaria", ""),
    ],
)
def test_a_secret_may_stand_in_a_file(tmp_path: Path, variable: str, value: str, wrong: str) -> None:
    file = tmp_path / "secret"
    file.write_text(value + "\n")
    its = load(**{f"{variable}_FILE": str(file)})
    assert value in (its.key, its.services.llm_key, its.store)
    assert load(**{variable: value}) == its
    with pytest.raises(ConfigError, match=f"{variable} and {variable}_FILE: set one of them"):
        load(**{variable: value, f"{variable}_FILE": str(file)})
    file.write_text(wrong)
    with pytest.raises(ConfigError, match=f"{variable}_FILE=.*: must hold ") as told:
        load(**{f"{variable}_FILE": str(file)})
    assert not wrong or wrong not in str(told.value)
    with pytest.raises(ConfigError, match=f"{variable}_FILE=.*: cannot be read"):
        load(**{f"{variable}_FILE": str(tmp_path)})
