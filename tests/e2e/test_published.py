"""The command lines under which this was published (notes on the older headless producer, section 4), as they were
written, with our paths: each is run in a clone, and what comes out is played."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from procs import proc
from procs.errors import ConfigError
from scripts.start import address_of
from tests import rig
from tests.clone import Clone
from tests.decoding import frames_of, seen_in
from tests.rig import clean_environ, until
from tests.viewers import RtspViewer

pytestmark = pytest.mark.timeout(300)  # the first one may have to install from the package index
needs_egl = pytest.mark.needs("libEGL.so.1", "libEGL_mesa.so.0", "libOpenGL.so.0")
H264 = (
    "ffmpeg -v error -re -f lavfi -i testsrc2=size=320x180:rate=30 -c:v libx264 -preset ultrafast -tune zerolatency"
    " -pix_fmt yuv420p -g 30 -f h264 pipe:1"
)


@pytest.fixture
def ready(down: Clone) -> Clone:
    """The clone with everything installed and nothing running."""
    return down


def written(clone: Clone, *command: str, **environ: str) -> bytes:
    """What a command in the clone writes to stdout, until it ends."""
    done = subprocess.run(
        command, cwd=clone.root, env=clean_environ(**environ), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


OPTIONS = shlex.split(
    "--instance-id agent-0 --width 320 --height 180 --fps 30 --gop 30 --bitrate 2M --renderer cpu --encoder auto"
    " --device-idx 0 --force-sw --stdout-chunk 65536 --debug --duration 1"
)


def test_the_producer_takes_every_published_option_and_variable(ready: Clone) -> None:
    agent = [".venv/bin/python", "-m", "procs.headless_agent"]
    assert len(frames_of(written(ready, *agent, *OPTIONS))) >= 20
    variables = {
        "INSTANCE_ID": "agent-7", "HEADLESS_W": "320", "HEADLESS_H": "180", "HEADLESS_FPS": "30", "HEADLESS_GOP": "15",
        "HEADLESS_BITRATE": "1M", "HEADLESS_RENDERER": "cpu", "HEADLESS_ENCODER": "ffmpeg", "EGL_DEVICE_IDX": "0",
        "HEADLESS_FORCE_SW": "1", "HEADLESS_CHUNK": "4096", "HEADLESS_DEBUG": "1", "FFMPEG_FPS_MODE": "cfr",
        "FFMPEG_LOGLEVEL": "error", "NVENC_PRESET": "p1", "NVENC_TUNE": "ll", "NVENC_RC": "cbr", "NVENC_BUFSIZE": "2M",
        "X264_PRESET": "ultrafast", "X264_TUNE": "zerolatency",
    }  # fmt: skip
    stream = written(ready, *agent, "--duration", "3", **{f"METABONK_{name}": v for name, v in variables.items()})
    assert sum(picture.keyframe for picture in seen_in(stream)) >= 2, "a GOP of 15"


@needs_egl
def test_the_agents_wrapper_takes_a_name_and_options(ready: Clone) -> None:
    stream = written(ready, "scripts/go2rtc_exec_headless_agent.sh", "omega-0", *OPTIONS[2:], "--renderer", "egl")
    assert all(picture.stamp and picture.stamp.frame == picture.code.frame for picture in seen_in(stream))


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_the_mpegts_wrapper_packs_what_a_command_writes(ready: Clone, dashes: list[str]) -> None:
    command = ["scripts/go2rtc_exec_mpegts.sh", *dashes, *H264.replace("-f h264", "-t 1 -f h264").split()]
    done = subprocess.run(command, cwd=ready.root, env=clean_environ(), capture_output=True, timeout=60, check=False)
    assert (done.returncode, len(frames_of(done.stdout))) == (7, 30), "the end of a command is told, after its pictures"


GENERATOR = "scripts/go2rtc_generate_config.py"


def generated(clone: Clone, *options: str, **environ: str) -> dict[str, str]:
    """The streams of the configuration that the published generator's options give."""
    text = written(clone, GENERATOR, *options, "--out", "-", **environ)
    streams: dict[str, str] = yaml.safe_load(text)["streams"]
    return streams


def test_the_generator_takes_every_published_option_and_variable(ready: Clone, tmp_path: Path) -> None:
    options = shlex.split(
        "--workers 2 --instance-prefix cam --mode fifo --fifo-dir temp/streams --fifo-container mpegts"
        " --container-fifo-dir /streams"
    )
    streams = generated(ready, *options)
    wrapper = f"'{ready.root}/scripts/go2rtc_exec_fifo.sh'"
    assert streams == {f"cam-{i}": f"exec:{wrapper} /streams/cam-{i}.ts#killsignal=9#killtimeout=1" for i in range(2)}
    variables = {
        "METABONK_DEFAULT_WORKERS": "2", "METABONK_INSTANCE_PREFIX": "cam", "METABONK_GO2RTC_MODE": "fifo",
        "METABONK_STREAM_FIFO_DIR": "temp/streams", "METABONK_FIFO_CONTAINER": "mpegts",
        "METABONK_GO2RTC_FIFO_DIR": "/streams",
    }  # fmt: skip
    assert generated(ready, **variables) == streams
    ours = ["--exec-wrap", "mpegts", "--exec-wrapper", "scripts/go2rtc_exec_mpegts.sh"]
    packed = generated(ready, "--workers", "1", "--exec-cmd-template", "render {instance_id}", *ours)
    assert packed["omega-0"].startswith(f"exec:'{ready.root}/scripts/go2rtc_exec_mpegts.sh' -- render omega-0#")
    out = tmp_path / "go2rtc.yaml"
    written(ready, GENERATOR, METABONK_GO2RTC_CONFIG=str(out))
    assert len(yaml.safe_load(out.read_text())["streams"]) == 6


def test_a_template_without_instance_id_is_one_line(ready: Clone) -> None:
    done = ready.run(GENERATOR, "--exec-cmd-template", "render", "--out", "-")
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, "")
    assert "--exec-cmd-template='render' (command line): must be a command with {instance_id} in it" in done.stderr


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize(
    "settings",
    [
        {"exec_cmd_template": f"{H264} -metadata title={{instance_id}}", "exec_wrap": "mpegts"},
        {"exec_cmd_template": f"{H264} -metadata title={{instance_id}}", "exec_wrap": "raw"},
        {"exec_profile": "headless-agent-mpegts"},
        {"exec_profile": "headless-agent", "exec_wrap": "mpegts", "exec_wrapper": "scripts/go2rtc_exec_mpegts.sh"},
        pytest.param({"exec_profile": "headless_egl"}, marks=needs_egl),
    ],
)
def test_what_is_generated_plays_through_go2rtc_and_leaves_no_orphan(settings: dict[str, str]) -> None:
    producer = {"width": 320, "height": 180, "fps": 30}
    with rig.go2rtc({"workers": 1, "producer": producer, **settings}) as running:
        viewer = RtspViewer(running.rtsp, "omega-0")
        viewer.start()
        until(lambda: len(viewer.arrivals) > 20, 20)
        below = proc.descendants(running.process.pid)
        (direct,) = rig.children(running.process.pid)
        os.kill(direct, signal.SIGKILL)
        seen = len(viewer.arrivals)
        until(lambda: len(viewer.arrivals) > seen + 20, 20)
        until(lambda: not _alive(below))
        below = proc.descendants(running.process.pid)
        running.process.kill()
        running.process.wait()
        until(lambda: not _alive(below))


def _alive(pids: set[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and proc.is_alive(pid)]


# --- start.py ---------------------------------------------------------------------------------------


def start(clone: Clone, *options: str, **environ: str) -> subprocess.Popen[bytes]:
    """scripts/start.py in a clone."""
    with (clone.root / "start.log").open("wb") as log:
        return subprocess.Popen(
            ["scripts/start.py", *options],
            cwd=clone.root,
            env=clean_environ(**environ),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


@pytest.mark.parametrize(
    "ending",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, marks=pytest.mark.long),
    ],
)
def test_start_plays_until_it_ends_however_that_is(down: Clone, ending: signal.Signals) -> None:
    options = shlex.split(
        "--mode play --workers 2 --go2rtc --go2rtc-mode exec --go2rtc-exec-profile headless-agent --no-ui"
    )
    running = start(down, *options, "--go2rtc-url", f"http://{down.api}")
    until(lambda: down.cli("status").returncode == 0, 60)
    assert len(seen_in(down.stream("omega-1"), 5, rtsp_transport="tcp")) == 5
    with urllib.request.urlopen(f"http://{down.api}/api/streams", timeout=5) as answer:
        assert len(json.load(answer)) == 2
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{down.api}/", timeout=5)
    running.send_signal(ending)
    running.wait(20)
    until(lambda: not down.living())


def test_start_without_go2rtc_looks_at_the_one_that_runs(down: Clone) -> None:
    url = f"http://{down.api}"
    done = down.run("scripts/start.py", "--no-go2rtc", "--go2rtc-url", url)
    assert (done.returncode, len(done.stderr.splitlines())) == (8, 1) and f"no go2rtc answers at {url}" in done.stderr
    assert down.make("up").returncode == 0
    before = down.living()
    done = down.run("scripts/start.py", environ={"METABONK_GO2RTC": "0", "METABONK_GO2RTC_URL": url})
    assert (done.returncode, down.living()) == (0, before)
    assert "serves omega-0, omega-1" in done.stdout and "nothing was started" in done.stdout


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--go2rtc-url", "ftp://x"], 2, "--go2rtc-url='ftp://x' (command line): must be http://HOST:PORT"),
        (["--go2rtc-mode", "file"], 2, "PLANARIA_GO2RTC_MODE='file' (environment): must be one of exec, fifo"),
        (["--go2rtc-exec-cmd", "render"], 2, "must be a command with {instance_id} in it"),
        (["--mode", "fly"], 2, "--help lists what there is"),
    ],
)
def test_start_with_a_wrong_option_is_one_line(down: Clone, options: list[str], code: int, said: str) -> None:
    done = down.run("scripts/start.py", *options)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1)
    assert said in done.stderr


def test_docker_is_asked_for_only_when_told_and_named_when_missing(down: Clone, tmp_path: Path) -> None:
    done = down.run("scripts/start.py", "--docker", environ={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    if done.returncode == 3:
        assert "there is no docker with compose here" in done.stderr
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$PLANARIA_WORKERS $@"\n')
    (tmp_path / "docker").chmod(0o755)
    done = down.run("scripts/start.py", "--docker", "--workers", "3", environ={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    words = "3 compose -p planaria-go2rtc -f docker/docker-compose.go2rtc.exec.yml up --build --remove-orphans"
    assert done.stdout.splitlines()[-1] == words


@pytest.mark.parametrize(
    ("url", "address"),
    [("http://localhost:1984", "127.0.0.1:1984"), ("http://[::1]:5/", "[::1]:5"), ("http://192.0.2.1", "192.0.2.1:80")],
)
def test_a_url_becomes_an_address(url: str, address: str) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize("url", ["https://a:1", "http://a:x", "http://u:p@a:1", "http://a:1/go2rtc", "127.0.0.1:1984"])
def test_a_url_that_is_no_address_of_go2rtc_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="must be http://HOST:PORT"):
        address_of(url)
