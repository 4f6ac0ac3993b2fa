"""go2rtc's configuration: what is in it, and what can't be talked into it."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from supervisor.options import ServerOptions

from procs.errors import ConfigError, NotHere
from scripts import exec_go2rtc, roles
from scripts.capture_programs import files
from scripts.exec_sources import exec_line, producer_words
from scripts.go2rtc_generate_config import ALLOW_PATHS, configuration, main, to_yaml, write_atomically
from scripts.plan import load_plan
from tests.rig import clean_environ

HERE = Path("/srv/planaria")
FFMPEG = Path("/usr/bin/ffmpeg")


def generated(tmp_path: Path, document: dict[str, Any] | None = None, /, **environ: str) -> dict[str, Any]:
    """The configuration as go2rtc would read it."""
    (tmp_path / "planaria.yaml").write_text(yaml.safe_dump(document or {}))
    plan = load_plan(tmp_path, environ)
    loaded: dict[str, Any] = yaml.safe_load(to_yaml(configuration(HERE, plan, FFMPEG)))
    return loaded


def test_the_published_default_is_six_streams_called_omega(tmp_path: Path) -> None:
    streams = generated(tmp_path)["streams"]
    assert list(streams) == [f"omega-{i}" for i in range(6)]
    wrapper = "/srv/planaria/scripts/go2rtc_exec_headless_agent.sh"
    assert streams["omega-3"] == f"exec:{wrapper} omega-3#killsignal=9#killtimeout=1"


def test_a_gop_cache_is_asked_for_only_where_there_is_one(tmp_path: Path) -> None:
    plan = load_plan(tmp_path, {"PLANARIA_WORKERS": "1"})
    assert configuration(HERE, plan, FFMPEG, gop_cache=True)["streams"]["omega-0"].endswith("#gop=1")
    assert "gop" not in configuration(HERE, plan, FFMPEG)["streams"]["omega-0"]


def test_published_variables_choose_number_and_name(tmp_path: Path) -> None:
    environ = {"METABONK_DEFAULT_WORKERS": "2", "METABONK_INSTANCE_PREFIX": "cam"}
    assert list(generated(tmp_path, **environ)["streams"]) == ["cam-0", "cam-1"]


def test_it_listens_on_loopback_and_lets_in_as_little_as_will_do(tmp_path: Path) -> None:
    config = generated(tmp_path)
    assert [config[part]["listen"] for part in ("api", "rtsp", "webrtc")] == [
        "127.0.0.1:1984",
        "127.0.0.1:8554",
        "127.0.0.1:8555",
    ]
    assert config["exec"]["allow_paths"] == ["/srv/planaria/scripts/go2rtc_exec_headless_agent.sh"]
    assert config["api"]["allow_paths"] == ["/", *ALLOW_PATHS]
    assert not {"/api/config", "/api/restart", "/api/exit", "/api/exec", "/api/log", "/api/ffmpeg"} & set(ALLOW_PATHS)
    assert config["webrtc"]["ice_servers"] == [], "nothing asks a server out there"


def test_only_what_was_set_is_on_the_command_line_and_one_streams_options_win(tmp_path: Path) -> None:
    document = {
        "workers": 2,
        "producer": {"fps": 25, "force_sw": True},
        "streams": {"omega-1": {"fps": 60, "width": 640}},
    }
    streams = generated(tmp_path, document, METABONK_HEADLESS_FPS="30")["streams"]
    assert " omega-0 --fps 30 --force-sw#" in streams["omega-0"], (
        "the environment is stronger than the file's common part"
    )
    assert " omega-1 --width 640 --fps 60 --force-sw#" in streams["omega-1"]


def test_a_path_with_a_blank_is_quoted_and_one_that_go2rtc_cannot_run_is_refused(tmp_path: Path) -> None:
    plan = load_plan(tmp_path, {"PLANARIA_WORKERS": "1"})
    chosen = plan.producers["omega-0"]
    quoted = exec_line(producer_words(Path("/srv/my suite"), "omega-0", *chosen))
    assert quoted.startswith("exec:'/srv/my suite/scripts/go2rtc_exec_headless_agent.sh' omega-0#")
    for bad in ("/srv/it's", "/srv/a#b", '/srv/"x"', "/srv/100%", "/srv/a\nb", "/srv/$HOME"):
        with pytest.raises(ConfigError, match="a plainer path"):
            exec_line(producer_words(Path(bad), "omega-0", *chosen))


def test_a_login_opens_wider_listeners_and_nothing_less_does(tmp_path: Path) -> None:
    wide = {"PLANARIA_GO2RTC_API": "0.0.0.0:1984"}
    with pytest.raises(ConfigError, match="without a login"):
        generated(tmp_path, **wide)
    with pytest.raises(ConfigError, match="set both or neither"):
        generated(tmp_path, **wide, PLANARIA_GO2RTC_USERNAME="a")
    config = generated(tmp_path, **wide, PLANARIA_GO2RTC_USERNAME="a", PLANARIA_GO2RTC_PASSWORD="b")
    assert config["api"]["username"] == "a" and config["rtsp"]["password"] == "b"


@pytest.mark.parametrize(
    "source",
    [
        "exec:id",
        "echo:id",
        "expr:1",
        "ffmpeg:/etc/passwd",
        "rtsp://a b",
        "rtsp://u:topsecret p@a",
        "rtsp://a#exec:id",
        "rtsp://a/{x}",
        "rtsp:",
        ["rtsp://u:topsecret@a"],
        {},
        {"url": "rtsp://u:topsecret@a"},
    ],
)
def test_sources_that_could_run_or_read_something_are_refused(tmp_path: Path, source: object) -> None:
    with pytest.raises(ConfigError, match=r"sources\.x: must be") as caught:
        generated(tmp_path, {"sources": {"x": source}})
    assert "topsecret" not in str(caught.value)


def test_a_cameras_password_comes_from_the_environment_and_stays_one_word(tmp_path: Path) -> None:
    document = {"sources": {"door": "rtsp://user:${DOOR_PASSWORD}@192.0.2.7/stream1"}}
    assert (
        generated(tmp_path, document, DOOR_PASSWORD="a%3Ab")["streams"]["door"] == "rtsp://user:a%3Ab@192.0.2.7/stream1"
    )
    with pytest.raises(ConfigError, match=r"\$\{DOOR_PASSWORD\} .* is set neither"):
        generated(tmp_path, document)
    for bad in ("pa: ss", "a#b", "a@b", "a/b", '"', "a\nb", "${HOME}", "\x1b"):
        with pytest.raises(ConfigError, match="holds a character that a URL cannot have"):
            generated(tmp_path, document, DOOR_PASSWORD=bad)


@pytest.mark.parametrize("login", ["a b", "\ud800", "ä", "${HOME}", "a{b", "a\nb"])
def test_a_login_that_go2rtc_might_read_otherwise_is_refused(tmp_path: Path, login: str) -> None:
    with pytest.raises(ConfigError, match="PLANARIA_GO2RTC_USERNAME"):
        generated(tmp_path, PLANARIA_GO2RTC_USERNAME=login, PLANARIA_GO2RTC_PASSWORD="x")


def test_a_file_is_played_by_our_wrapper_and_ffmpeg_itself_may_not_be_run(tmp_path: Path) -> None:
    film = tmp_path / "a film.mp4"
    film.touch()
    config = generated(tmp_path, {"workers": 0, "sources": {"film": {"file": str(film)}}})
    wrapper = "/srv/planaria/scripts/go2rtc_exec_file.sh"
    assert config["streams"]["film"] == f"exec:{wrapper} /usr/bin/ffmpeg '{film}'#killsignal=9#killtimeout=1"
    assert str(FFMPEG) not in config["exec"]["allow_paths"]
    wrong: list[dict[str, Any]] = [{"file": "film.mp4"}, {"file": "/x#y"}, {"file": str(tmp_path)}, {"file": []}]
    for bad in [*wrong, {"file": str(film), "x": "1"}]:
        with pytest.raises(ConfigError, match=r"sources\.film"):
            generated(tmp_path, {"sources": {"film": bad}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers: 2024-13-45", "workers='2024-13-45'"),
        ("workers: 0b_", "workers='0b_'"),
        ("workers: " + "9" * 5000, "workers="),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("workers: 1\nworkers: 2", "line 2: 'workers' stands twice"),
        ("? [a]\n: 1", "line 1: a key must be plain text"),
        ("workers: [", "line 1"),
        ("- 1", "must be 'key: value' lines, not a list"),
        ("\x00", "planaria.yaml"),
        ("&a [*a]", "planaria.yaml"),
    ],
)
def test_yaml_that_is_odd_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "planaria.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_plan(tmp_path, {})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_yaml_keys_and_values_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "planaria.yaml").write_text(
        "workers: 0\nstreams: {007: {width: 320}, yes: {force_sw: true}, empty: }\n"
    )
    producers = load_plan(tmp_path, {}).producers
    assert list(producers) == ["007", "yes", "empty"]
    assert producers["007"][0].width == 320 and producers["yes"][0].force_sw


def test_go2rtc_is_started_only_with_a_configuration_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "go2rtc.yaml"
    text = to_yaml({"api": {"listen": "127.0.0.1:1984"}})
    write_atomically(path, text)
    assert yaml.safe_load(exec_go2rtc.whole(path)) == {"api": {"listen": "127.0.0.1:1984"}}
    for broken in (text[:-3], text.replace("1984", "1985"), "", "api: {}\n", "\n" + text):
        path.write_text(broken)
        with pytest.raises(ConfigError, match="is not as it was written"):
            exec_go2rtc.whole(path)


def test_an_instance_id_and_a_duration_make_no_sense_for_a_stream(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the stream's name is its instance id"):
        generated(tmp_path, {"streams": {"a": {"instance_id": "b"}}})
    with pytest.raises(ConfigError, match="runs for as long as it is watched"):
        generated(tmp_path, {"producer": {"duration": 3}})


def test_a_file_is_replaced_as_a_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("old")
    write_atomically(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777, list(tmp_path.iterdir())) == ("new", 0o600, [path])


def test_the_script_prints_writes_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.environ", clean_environ(PLANARIA_SETTINGS=str(tmp_path / "planaria.yaml")))
    (tmp_path / "planaria.yaml").write_text("workers: 1\n")
    assert main(["--out", "-", "--instance-prefix", "cam"]) == 0
    assert list(yaml.safe_load(capsys.readouterr().out)["streams"]) == ["cam-0"]
    assert main(["--out", str(tmp_path / "new/go2rtc.yaml")]) == 0
    assert (tmp_path / "new/go2rtc.yaml").is_file()
    assert main(["--workers", "-3"]) == 2
    assert main(["--mode", "telepathy"]) == 2
    assert main(["--out", "/proc/nowhere/x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"wrote {tmp_path / 'new/go2rtc.yaml'}"
    assert len(lines) == 4 and "--workers='-3'" in lines[1] and "--mode" in lines[2] and "/proc/nowhere" in lines[3]


SCRIPTS = "/srv/planaria/scripts"
END = "#killsignal=9#killtimeout=1"


def test_a_template_takes_the_producers_place_behind_our_wrapper(tmp_path: Path) -> None:
    environ = {"METABONK_GO2RTC_EXEC_CMD": "render --id {instance_id} --title 'a b'", "PLANARIA_WORKERS": "2"}
    config = generated(tmp_path, {"streams": {"lobby": {}}}, **environ)
    assert config["streams"] == {
        "lobby": f"exec:{SCRIPTS}/go2rtc_exec_headless_agent.sh lobby{END}",
        "omega-0": f"exec:{SCRIPTS}/go2rtc_exec_raw.sh -- render --id omega-0 --title 'a b'{END}",
        "omega-1": f"exec:{SCRIPTS}/go2rtc_exec_raw.sh -- render --id omega-1 --title 'a b'{END}",
    }
    wrappers = [f"{SCRIPTS}/go2rtc_exec_headless_agent.sh", f"{SCRIPTS}/go2rtc_exec_raw.sh"]
    assert config["exec"]["allow_paths"] == wrappers, "never the command itself"
    packed = generated(tmp_path, **environ, METABONK_GO2RTC_EXEC_WRAP="mpegts")["streams"]["omega-0"]
    assert packed.startswith(f"exec:{SCRIPTS}/go2rtc_exec_mpegts.sh -- render --id omega-0 ")


@pytest.mark.parametrize(
    "bad", ["render", "render --id {instance}", "render '{instance_id}", "{instance_id} # x", "a$b {instance_id}"]
)
def test_a_template_that_cannot_be_used_is_one_line(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError, match=r"instance_id|go2rtc can start nothing") as caught:
        generated(tmp_path, METABONK_GO2RTC_EXEC_CMD=bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        ("headless-agent", ""),
        ("headless", ""),
        ("headless_egl", " --renderer egl"),
        ("headless-agent-mpegts", " --out mpegts"),
        ("headless-mpegts", " --out mpegts"),
    ],
)
def test_published_profiles(tmp_path: Path, profile: str, options: str) -> None:
    streams = generated(tmp_path, METABONK_GO2RTC_EXEC_PROFILE=profile)["streams"]
    assert streams["omega-5"] == f"exec:{SCRIPTS}/go2rtc_exec_headless_agent.sh omega-5{options}{END}"


@pytest.mark.parametrize("profile", ["egl-vpf", "headless-vpf", "headless-egl-vpf"])
def test_a_profile_that_needs_what_is_not_here_says_so(tmp_path: Path, profile: str) -> None:
    with pytest.raises(NotHere, match=r"encoder vpf: "):
        generated(tmp_path, METABONK_GO2RTC_EXEC_PROFILE=profile)


def test_a_wrapper_of_ones_own_goes_around_the_producer_too(tmp_path: Path) -> None:
    wrapper = tmp_path / "pack.sh"
    wrapper.touch(mode=0o755)
    environ = {"METABONK_GO2RTC_EXEC_WRAPPER": str(wrapper), "METABONK_GO2RTC_EXEC_WRAP": "mpegts"}
    config = generated(tmp_path, {"workers": 1}, **environ)
    assert config["streams"]["omega-0"].startswith(f"exec:{wrapper} -- {SCRIPTS}/go2rtc_exec_headless_agent.sh omega-0")
    assert config["exec"]["allow_paths"] == [str(wrapper)]
    wrapper.chmod(0o644)
    with pytest.raises(ConfigError, match=r"exec_wrapper='.*pack.sh': is no program"):
        generated(tmp_path, {"workers": 1}, **environ)


def test_fifo_mode_reads_pipes_and_captures_add_theirs(tmp_path: Path) -> None:
    document = {
        "workers": 2,
        "mode": "fifo",
        "fifo_dir": "/streams",
        "captures": {"omega-1": "grab", "desk": "grab -x"},
    }
    config = generated(tmp_path, document)
    assert config["streams"] == {
        name: f"exec:{SCRIPTS}/go2rtc_exec_fifo.sh /streams/{name}.ts{END}" for name in ("omega-0", "omega-1", "desk")
    }
    seen = generated(tmp_path, document, METABONK_GO2RTC_FIFO_DIR="/elsewhere")["streams"]
    assert " /elsewhere/desk.ts#" in seen["desk"]
    document["mode"] = "exec"
    with pytest.raises(ConfigError, match="omega-1: is named as two kinds of stream"):
        generated(tmp_path, document)


def test_captures_become_programs_of_supervisord(tmp_path: Path) -> None:
    """Whatever stands in a command reaches it as it is: read back by supervisord's own parser and by a shell."""
    command = "sh -c 'grab 100% ; true # no\n[program:evil]\ncommand=touch x' \"it's\""
    (tmp_path / "planaria.yaml").write_text(yaml.safe_dump({"captures": {"desk": command}, "fifo_dir": "a b ;c"}))
    made = files(tmp_path, load_plan(tmp_path, {}))
    assert made.pop(roles.NAME)
    assert set(made) == {"captures.conf", "desk.sh"}
    folder = tmp_path / "run/supervisor.d"
    folder.mkdir(parents=True)
    (tmp_path / "run/log").mkdir()
    for name, text in made.items():
        (folder / name).write_text(text)
    (tmp_path / "supervisord.conf").write_text("[supervisord]\n[include]\nfiles=run/supervisor.d/*.conf\n")
    options = ServerOptions()
    options.realize(["-c", str(tmp_path / "supervisord.conf")])
    (group,) = options.process_group_configs
    (program,) = group.process_configs
    assert (program.name, program.stopsignal, program.autorestart.__name__) == (
        "capture_desk",
        9,
        "RestartUnconditionally",
    )
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/fifo_writer.sh").write_text('printf "%s\\0" "$@"\n')
    said = subprocess.run(shlex.split(program.command), capture_output=True, text=True, check=True).stdout
    assert said.split("\0")[:-1] == [str(tmp_path / "a b ;c/desk.ts"), *shlex.split(command)]


@pytest.mark.parametrize("bad", ["", "''", "grab 'x", ["grab"], {"a": "b"}])
def test_a_capture_that_is_no_command_is_one_line(tmp_path: Path, bad: object) -> None:
    with pytest.raises(ConfigError, match=r"captures\.x: must be a command"):
        generated(tmp_path, {"captures": {"x": bad}})


def test_without_pages(tmp_path: Path) -> None:
    assert generated(tmp_path, PLANARIA_NO_UI="1")["api"]["allow_paths"] == ALLOW_PATHS


def test_with_nothing_to_start_nothing_may_be_started(tmp_path: Path) -> None:
    assert generated(tmp_path, PLANARIA_WORKERS="0")["exec"]["allow_paths"] == ["/nonexistent"]
