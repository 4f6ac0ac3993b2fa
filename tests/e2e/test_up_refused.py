"""All that can be wrong with what `make up` finds: it says so in one line, and nothing of it stays alive."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from procs.errors import PlanariaError
from procs.headless_agent.options import no_nvidia_driver
from scripts import suite
from scripts.plan import load_plan
from scripts.stream_settings import next_step
from tests import hub_rig, nat
from tests.clone import Clone, said
from tests.peer_rig import ALONE
from tests.rig import clean_environ, until

HOPELESS = {"first_frame_limit_s": 0.001, "width": 8192, "height": 4320}

WRONG: list[tuple[str, dict[str, object], str, dict[str, str], int, list[str]]] = [
    ("unknown key", {"wrokers": 3}, "", {}, 2, ["'wrokers': unknown key in", "planaria.yaml; did you mean workers?"]),
    ("unknown producer key", {"producer": {"widht": 3}}, "", {}, 2, ["'widht': unknown key", "did you mean width?"]),
    ("size 0", {"producer": {"width": 0}}, "", {}, 2, ["width='0'", "planaria.yaml: producer", "even whole number"]),
    ("odd size", {"streams": {"a": {"height": 721}}}, "", {}, 2, ["height='721'", "streams.a", "even"]),
    ("huge size", {"producer": {"width": 100000}}, "", {}, 2, ["width='100000'", "8192"]),
    ("fps 0", {"producer": {"fps": 0}}, "", {}, 2, ["fps='0'", "1 to 240"]),
    ("bitrate abc", {}, "METABONK_HEADLESS_BITRATE=abc\n", {}, 2, ["METABONK_HEADLESS_BITRATE='abc' (.env)", "2.5M"]),
    ("blank in name", {"streams": {"a b": {}}}, "", {}, 2, ["'a b'", "stream's name must be"]),
    ("quote in name", {"streams": {"a'b": {}}}, "", {}, 2, ["stream's name must be"]),
    ("hash in name", {"streams": {"a#b": {}}}, "", {}, 2, ["'a#b'", "stream's name must be"]),
    ("shell in name", {"streams": {"$(touch x)": {}}}, "", {}, 2, ["stream's name must be"]),
    ("name in env", {}, "", {"METABONK_INSTANCE_PREFIX": "a;b"}, 2, ["METABONK_INSTANCE_PREFIX='a;b' (environment)"]),
    ("broken .env", {}, "GOOD=1\nBROKEN LINE\n", {}, 2, [".env: line 2: must be NAME=value"]),
    (
        "unknown variable",
        {},
        "PLANARIA_WROKERS=3\n",
        {},
        2,
        ["PLANARIA_WROKERS: unknown variable", "PLANARIA_WORKERS?"],
    ),
    (
        "exec source",
        {"sources": {"x": "exec:rm -rf /"}},
        "",
        {},
        2,
        ["sources.x: must be an rtsp"],
    ),
    ("missing file", {"sources": {"x": {"file": "/nonexistent.mp4"}}}, "", {}, 2, ["/nonexistent.mp4", "no such file"]),
    (
        "name twice",
        {"sources": {"omega-0": "rtsp://127.0.0.1/x"}},
        "",
        {},
        2,
        ["omega-0: is named as two kinds of stream"],
    ),
    (
        "not here yet",
        {"producer": {"encoder": "vpf"}},
        "",
        {},
        3,
        ["encoder vpf: ", "planaria.yaml: producer); encoder: auto takes", "make gpu-check"],
    ),
    ("open door", {"api": "0.0.0.0:1984"}, "", {}, 2, ["0.0.0.0:1984", "without a login", "openssl rand"]),
    (
        "no such settings",
        {},
        "",
        {"PLANARIA_SETTINGS": "/nonexistent.yaml"},
        2,
        ["/nonexistent.yaml", "cannot be read"],
    ),
    ("no go2rtc", {}, "", {"GO2RTC_BIN": "/nonexistent"}, 2, ["GO2RTC_BIN"]),
    ("no ffmpeg", {}, "PLANARIA_FFMPEG=/nonexistent\n", {}, 2, ["PLANARIA_FFMPEG='/nonexistent': is no program"]),
    ("list for settings", {"producer": [1]}, "", {}, 2, ["producer: must be 'key: value' lines, not a list"]),
]


# Of each file one, and what is found only later; the rest is what `load_plan` refuses.
BY_COMMAND = {"unknown key", "bitrate abc", "name in env", "not here yet", "no go2rtc", "no ffmpeg"}
ARGUMENTS = ("more", "env_file", "environ", "code", "parts")


@pytest.mark.parametrize(ARGUMENTS, [pytest.param(*w[1:], id=w[0]) for w in WRONG if w[0] not in BY_COMMAND])
def test_wrong_settings_are_refused_with_a_reason(
    tmp_path: Path, more: dict[str, object], env_file: str, environ: dict[str, str], code: int, parts: list[str]
) -> None:
    (tmp_path / "planaria.yaml").write_text(yaml.safe_dump(more))
    (tmp_path / ".env").write_text(env_file)
    with pytest.raises(PlanariaError) as refused:
        load_plan(tmp_path, clean_environ(**environ))
    why = str(refused.value)
    assert refused.value.exit_code == code and "\n" not in why and all(part in why for part in parts), why


@pytest.mark.parametrize(ARGUMENTS, [pytest.param(*w[1:], id=w[0]) for w in WRONG if w[0] in BY_COMMAND])
def test_wrong_settings_are_one_line_and_nothing_starts(
    down: Clone, more: dict[str, object], env_file: str, environ: dict[str, str], code: int, parts: list[str]
) -> None:
    down.write_settings(**more)
    (down.root / ".env").write_text(env_file)
    done = down.cli("up", environ=environ)
    assert done.returncode == code, done.stderr
    assert len(said(done)) == 1 and "Traceback" not in done.stderr
    assert all(part in said(done)[0] for part in parts), said(done)
    assert down.living() == []


def test_yaml_that_is_none_names_its_line(down: Clone) -> None:
    (down.root / "planaria.yaml").write_text("workers: 3\n  api: [\n")
    done = down.cli("up")
    assert (done.returncode, down.living()) == (2, [])
    assert "planaria.yaml: line 2:" in said(done)[0]


@pytest.mark.parametrize("port", ["api", "rtsp", "webrtc"])
def test_a_taken_port_names_who_has_it(down: Clone, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        down.write_settings(**{port: f"127.0.0.1:{other.getsockname()[1]}"})
        done = down.cli("up")
    assert (done.returncode, down.living()) == (2, [])
    (line,) = said(done)
    assert line.startswith(f"planaria: {port}=127.0.0.1:") and f"PLANARIA_GO2RTC_{port.upper()}" in line
    assert f"Address already in use by pid {os.getpid()} (" in line and "choose another port" in line


def test_two_clones_with_the_same_ports_are_not_both_told_that_they_serve(down: Clone, tmp_path: Path) -> None:
    other = Clone(tmp_path)
    other.install()
    other.api, other.rtsp, other.webrtc = down.api, down.rtsp, down.webrtc
    other.write_settings()
    command = [".venv/bin/python", "scripts/cli.py", "up"]
    try:
        both = [
            subprocess.Popen(
                command, cwd=one.root, env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for one in (down, other)
        ]
        errors = [one.communicate(timeout=120)[1] for one in both]
        codes = [one.returncode for one in both]
        assert 0 in codes or codes == [8, 8], errors  # both may lose; both may not win
        assert codes != [0, 0]
        assert any("in use by pid" in text or "is taken by pid" in text for text in errors), errors
    finally:
        suite.kill_all(other.root)


def test_every_set_of_options_is_tried(down: Clone) -> None:
    down.write_settings(streams={"bad": HOPELESS})
    done = down.cli("up")
    assert (done.returncode, down.living()) == (8, [])
    assert said(done)[0].startswith("planaria: headless_agent bad: ")


@pytest.mark.parametrize("words", [("keyframe", "omega-2"), ("bitrate", "omega-2", "500k")])
def test_a_command_while_the_suite_is_down_says_so(down: Clone, words: tuple[str, ...]) -> None:
    done = down.cli(*words)
    assert (done.returncode, said(done)) == (8, ["planaria: the suite is down; make up starts it"])


def test_the_status_of_a_suite_that_is_down_is_an_object_for_programs(down: Clone) -> None:
    done = down.cli("status", "--json")
    assert (done.returncode, said(done)) == (8, ["planaria: the suite is down; make up starts it"])
    assert json.loads(done.stdout) == {"state": "down", "said": "the suite is down; make up starts it"}


def test_an_encoder_that_cannot_be_had_is_named_with_where_it_was_set(tmp_path: Path) -> None:
    (tmp_path / "planaria.yaml").write_text("streams: {a: {encoder: nvenc}, b: {width: 640}, c: {renderer: egl}}\n")
    (tmp_path / ".env").write_text("METABONK_HEADLESS_ENCODER=nvenc\n")
    refused, no_egl = "encoder nvenc: no NVIDIA driver here (libcuda.so.1 is missing)", "renderer egl: no driver serves"
    places = {name: where for name, (_, where) in load_plan(tmp_path, clean_environ()).producers.items()}
    assert next_step(refused, places["a"]).startswith(f" ({tmp_path}/planaria.yaml: streams.a); encoder: auto takes ")
    assert next_step(refused, places["b"]).startswith(" (METABONK_HEADLESS_ENCODER, .env); encoder: auto takes ")
    assert next_step(no_egl, places["c"]).startswith(f" ({tmp_path}/planaria.yaml: streams.c); renderer: cpu ")
    assert next_step("no first picture within 5 s", places["a"]) == next_step(refused, {}) == ""


@pytest.mark.skipif(not no_nvidia_driver(), reason="with an NVIDIA driver it may serve")
def test_a_stream_whose_encoder_cannot_be_had_names_the_next_step(down: Clone) -> None:
    down.write_settings(streams={"bad": {"encoder": "nvenc"}})
    done = down.cli("up")
    assert (done.returncode, down.living()) == (8, [])
    assert said(done)[0].startswith("planaria: headless_agent bad: encoder nvenc: no NVIDIA driver here")
    assert "planaria.yaml: streams.bad); encoder: auto" in said(done)[0] and "make gpu-check" in said(done)[0]


def test_a_name_too_long_for_a_socket_is_refused(down: Clone) -> None:
    down.write_settings(streams={"c" * 64: {}})
    done = down.cli("up")
    if len(str(down.root)) < 20:
        pytest.skip("the checkout's path is so short that every name fits")
    assert (done.returncode, down.living()) == (2, [])
    assert "too long for a socket" in said(done)[0]


def test_a_run_directory_in_disorder_is_one_line(down: Clone) -> None:
    (down.root / "run/fingerprint").unlink(missing_ok=True)
    (down.root / "run/fingerprint").mkdir()
    done = down.cli("up")
    (down.root / "run/fingerprint").rmdir()
    assert (done.returncode, down.living(), len(said(done))) == (1, [], 1), done.stderr
    assert "Traceback" not in done.stderr


def test_a_producer_that_cannot_play_is_named_with_its_last_words_and_all_is_ended(down: Clone) -> None:
    down.write_settings(producer=HOPELESS)
    done = down.cli("up")
    assert done.returncode == 8, done.stderr
    assert "headless_agent omega-0: " in said(done)[0]
    assert "no first picture within 0.001 s" in done.stderr and "run/log/go2rtc.log" in done.stderr
    assert down.living() == []


def test_a_go2rtc_that_is_no_go2rtc_is_refused(down: Clone, tmp_path: Path) -> None:
    fake = tmp_path / "go2rtc"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    done = down.cli("up", environ={"GO2RTC_BIN": str(fake)})
    assert (done.returncode, down.living()) == (2, [])
    assert "GO2RTC_BIN" in said(done)[0]


def test_a_go2rtc_that_dies_at_once_is_named_with_its_last_words(down: Clone, tmp_path: Path) -> None:
    fake = tmp_path / "go2rtc"
    fake.write_text(
        '#!/bin/sh\ncase "$1" in *v*rsion) echo "go2rtc version 1.9.14";; *) echo "no memory"; exit 1;; esac\n'
    )
    fake.chmod(0o755)
    done = down.cli("up", environ={"GO2RTC_BIN": str(fake), "PLANARIA_UP_LIMIT_S": "4"})
    assert (done.returncode, down.living()) == (8, []), done.stderr
    assert said(done)[0].startswith("planaria: go2rtc: ") and "no memory" in done.stderr


def test_a_read_only_checkout_is_named(down: Clone) -> None:
    shutil.rmtree(down.root / "run")
    done = _in_read_only(down)
    assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr
    assert "cannot be written to" in done.stderr
    assert down.living() == []


def _in_read_only(clone: Clone) -> subprocess.CompletedProcess[str]:
    """`cli.py up` in a checkout that can't be written: by mount for root, who ignores modes, else by mode."""
    if os.geteuid():
        clone.root.chmod(0o500)
        try:
            return clone.cli("up")
        finally:
            clone.root.chmod(0o700)
    mount = 'mount --bind "$PWD" "$PWD" && mount -o remount,ro,bind "$PWD"'
    script = f'{mount} && cd "$PWD" && .venv/bin/python scripts/cli.py up'
    return clone.run("unshare", "--mount", "sh", "-c", script)


def test_a_wrong_setting_is_one_line_in_the_foreground_too(down: Clone) -> None:
    down.write_settings(wrokers=3)
    done = down.cli("up", "--foreground")
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, "")


@pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN")
@pytest.mark.parametrize(
    ("told", "code", "said_so"),
    [
        (
            {"port": "51999"},
            2,
            "tun_pump: PLANARIA_TUN_PORT (or port: under tunnel: in planaria.yaml)=51999: another program",
        ),
        ({"hosts": "/nonexistent/hosts"}, 3, "tun_pump: hosts: "),
    ],
)
def test_a_program_that_no_waiting_mends_is_said_at_once(
    down: Clone, told: dict[str, str], code: int, said_so: str
) -> None:
    place = nat.Place("taken")
    try:
        with place.entered():
            taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with taken:
            taken.bind(("0.0.0.0", 51999))
            down.write_settings(
                roles="tun", tunnel={"address": "10.77.0.1/24", "peers": {"bob": {"allowed": "10.77.0.2/32"}}, **told}
            )
            agent = {"AGENT_ID": "alice", "SIGNALING_URL": "ws://127.0.0.1:1/ws/signal"}
            limit = {"PLANARIA_UP_LIMIT_S": "30"}  # only what is given up before is not Unhealthy
            done = down.run(*place.command(".venv/bin/python", "scripts/cli.py", "up"), environ={**agent, **limit})
    finally:
        place.end()
    assert (done.returncode, down.living()) == (code, []), done.stderr
    (line,) = said(done)
    assert line.startswith(f"planaria: {said_so}") and done.stderr.splitlines()[-1] == line


@pytest.mark.skipif(bool(nat.why_not() or not os.access("/dev/net/tun", os.W_OK)), reason="needs root, TUN")
def test_a_token_that_the_signalling_server_refuses_is_one_line_and_one_that_it_takes_is_none(
    down: Clone, tmp_path: Path
) -> None:
    bob = {"allowed": "10.77.0.2/32", "reach": ["tcp/22"]}
    down.write_settings(roles="tun", tunnel={"address": "10.77.0.1/24", "peers": {"bob": bob}})
    place, right = nat.Place("refused"), "the-token-of-this-room"
    try:
        with place.entered(), hub_rig.process(tmp_path / "hub", command=ALONE, SIGNALING_TOKENS=right) as hub:
            agent = {"AGENT_ID": "alice", "SIGNALING_URL": hub.ws("/ws/signal"), "PLANARIA_UP_LIMIT_S": "30"}
            wrong = down.cli("up", environ=agent | {"SIGNALING_TOKEN": "another-token"})
            living = down.living()
            well = down.cli("up", environ=agent | {"SIGNALING_TOKEN": right})
            until(lambda: 'dropped_packets_total{peer="bob",reason="by_reach"} 0' in metrics(down), 15, 0.2)
            down.cli("down")
    finally:
        place.end()
    assert (wrong.returncode, living) == (2, []), wrong.stderr
    (line,) = said(wrong)
    assert (
        line.startswith("planaria: tunnel: the signalling server") and "(invalid token): set SIGNALING_TOKEN " in line
    )
    assert well.returncode == 0 and "tunnel to bob: peer not connected" in well.stdout, well


def metrics(clone: Clone) -> str:
    """What its warden tells Prometheus, the rules of nft with it, which it reads every few seconds."""
    with contextlib.closing(http.client.HTTPConnection(clone.metrics, timeout=5)) as asked:
        asked.request("GET", "/metrics")
        return asked.getresponse().read().decode()
