"""The Compose files of the voice backend: ports, health checks, mounts, secrets and what is mounted agree with each
other, with the Dockerfile, and with the commands that stand in their heads."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from procs.settings import ROOT
from procs.voice import config, voices
from tests import dockerfile
from tests.container import DOCKERFILE, STAGES, defaults
from tests.rig import clean_environ

AUTOCONNECT = ROOT / "docker/docker-compose.autoconnect.yml"
PROD = ROOT / "docker/docker-compose.prod.yml"
EXAMPLE = ROOT / "scripts/devices.example.json"
BOTH = pytest.mark.parametrize("file", [AUTOCONNECT, PROD], ids=lambda file: file.stem)


def known_voice(name: str) -> str:
    """It need not say how to be. Raises Refused for one that there is not."""
    voices.find(name)
    return ""


def services(file: Path) -> dict[str, dict[str, Any]]:
    """All of them, each knob as it is where nobody turned it."""
    return dict(yaml.safe_load(defaults(file.read_text()))["services"])


def variables(service: dict[str, Any]) -> dict[str, str]:
    """Those that have a value."""
    return dict(entry.split("=", 1) for entry in service.get("environment", []) if "=" in entry)


def mounts(service: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What is mounted, where, and how."""
    split = (entry.split(":") for entry in service.get("volumes", []))
    return [(parts[0], parts[1], parts[2] if len(parts) > 2 else "rw") for parts in split]


@BOTH
def test_the_port_outside_leads_to_the_one_that_is_listened_on_and_asked_for_health(file: Path) -> None:
    for name, service in services(file).items():
        check = " ".join(service["healthcheck"]["test"])
        inside = [entry.split(":")[-1] for entry in service.get("ports", [])]
        if "PORT" in variables(service):
            assert inside == [variables(service)["PORT"]]
            assert "os.environ['PORT']}/v1/health" in check, "polled where it listens, wherever that is"
        elif inside:
            assert re.findall(r"127\.0\.0\.1:(\d+)/", check) == inside, name


def test_monitoring_is_not_to_be_had_from_elsewhere() -> None:
    for service in services(PROD).values():
        if "monitoring" in service.get("profiles", []):
            assert all(entry.startswith("127.0.0.1:") for entry in service["ports"])


def test_two_backends_get_a_port_each_and_share_nothing_but_the_store() -> None:
    voice = services(PROD)["voice"]
    low, high = voice["ports"][0].split(":")[0].split("-")
    assert int(high) - int(low) + 1 == voice["deploy"]["replicas"] == 2
    assert [entry for entry in voice["tmpfs"] if entry.startswith("/app/run:")], "sockets and locks are each one's own"
    assert [where for what, where, how in mounts(voice) if how == "rw"] == ["/config"]
    assert "container_name" not in voice


def commands(file: Path) -> str:
    """What the head of a file tells one to do, but for Docker's part."""
    head = file.read_text().split("\nname:")[0]
    lines = re.findall(r"^#   (.+)$", head, re.M)
    return "\n".join(line for line in lines if not line.startswith("docker "))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what these files are about."""
    for name in ("docker", "scripts/devices.example.json"):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("config", "secrets"))
        else:
            shutil.copy2(source, target)
    return tmp_path


@BOTH
@pytest.mark.needs("openssl")
def test_every_mounted_path_is_there_once_the_head_is_followed(file: Path, checkout: Path) -> None:
    said = yaml.safe_load(defaults(file.read_text()))
    secrets = {name: each["file"] for name, each in said.get("secrets", {}).items()}
    outside = [what for each in said["services"].values() for what, _, _ in mounts(each) if what[0] in "./"]
    wanted = [checkout / "docker" / path for path in (*outside, *secrets.values())]
    assert wanted and not all(path.exists() for path in wanted), "not all of it is in the repository"
    done = subprocess.run(["sh", "-euc", commands(file)], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path for path in wanted if not path.exists()] == []
    devices = checkout / "docker/config/devices.json"
    parsed = config.parse(devices.read_text(), known_voice)
    assert parsed.problems == [] and len(parsed.devices) == 3
    assert not any(each.enabled for each in parsed.devices.values()), "127.0.0.1 is nobody in a container"
    for path in secrets.values():
        assert len((checkout / "docker" / path).read_text().strip()) >= 24
    if file == PROD:
        password = (checkout / "docker/secrets/postgres-password").read_text().strip()
        store = (checkout / "docker/secrets/voice-store").read_text()
        assert store == f"postgresql://planaria:{password}@postgres/planaria\n"
        user = variables(services(PROD)["postgres"])
        assert (user["POSTGRES_USER"], user["POSTGRES_DB"]) == ("planaria", "planaria") and "postgres" in services(PROD)


def test_the_readme_tells_one_to_do_the_same() -> None:
    part = (ROOT / "docker/README.md").read_text().partition("## A voice backend\n")[2]
    done, asked = re.findall(r"```sh\n(.*?)```", part, re.S)[:2]
    assert "\n".join(line for line in done.splitlines() if not line.startswith("docker ")) == commands(AUTOCONNECT)
    assert set(re.findall(r"\$(\w+)", asked)) == {"KEY", "FILE"} == set(re.findall(r"^(\w+)=", done + asked, re.M))


@BOTH
def test_what_is_mounted_is_declared_and_has_a_place(file: Path) -> None:
    said = yaml.safe_load(file.read_text())
    named = {what for each in services(file).values() for what, _, _ in mounts(each) if what[0] not in "./"}
    assert named == set(said.get("volumes", {}))
    (made,) = [i.rest for i in STAGES[-1] if i.name == "RUN" and "mkdir" in i.rest]
    places = {where for _, where, _ in mounts(services(file)["voice"]) if not where.startswith("/app/run")}
    assert places <= set(made.split()), "in an image that is read-only nothing else can be mounted"


@BOTH
def test_the_file_of_devices_is_on_a_mount_that_can_be_written(file: Path) -> None:
    voice = services(file)["voice"]
    devices = Path(variables(voice)["REMOTE_DEVICES_CONFIG"])
    assert [how for _, where, how in mounts(voice) if where == str(devices.parent)] == ["rw"]


def test_every_secret_is_one_of_its_service() -> None:
    said = yaml.safe_load(PROD.read_text())
    used = set()
    for name, service in said["services"].items():
        files = [value for key, value in variables(service).items() if key.endswith("_FILE")]
        if name == "prometheus":
            files += re.findall(r"credentials_file: (\S+)", (ROOT / "docker/prometheus/prometheus.yml").read_text())
        assert files == [f"/run/secrets/{each}" for each in service.get("secrets", [])], name
        used |= set(service.get("secrets", []))
    assert used == set(said["secrets"])


def test_prometheus_and_grafana_find_what_they_look_for() -> None:
    found = services(PROD)
    (job,) = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())["scrape_configs"]
    (names,) = job["dns_sd_configs"]
    assert names["names"] == ["voice"] and str(names["port"]) == variables(found["voice"])["PORT"]
    folder = ROOT / "docker/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:" + found["prometheus"]["ports"][0].split(":")[-1]
    (provider,) = yaml.safe_load((folder / "dashboards/voice.yml").read_text())["providers"]
    assert ("./grafana", provider["options"]["path"], "ro") in mounts(found["grafana"])
    dashboard = json.loads((ROOT / "docker/grafana/voice.json").read_text())
    told = set(re.findall(r'"uid": "([^"]*)"', json.dumps(dashboard["panels"])))
    choices = {f"${{{each['name']}}}": each for each in dashboard["templating"]["list"] if each["type"] == "datasource"}
    assert told and told <= {source["uid"], *choices}, "panels ask what is provided, or what somebody chooses"
    assert {each["query"] for each in choices.values()} <= {source["type"]}


def test_every_knob_is_in_the_table() -> None:
    known = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (ROOT / "docker/README.md").read_text().partition("## Knobs")[2]))
    for file in (AUTOCONNECT, PROD):
        knobs = set(re.findall(r"\$\{(\w+)", file.read_text()))
        assert knobs and knobs <= known, f"{file.name}: {knobs - known}"


def test_the_image_has_what_speech_and_sound_need() -> None:
    runs = " ".join(i.rest for i in STAGES[-1] if i.name == "RUN")
    assert {"flite", "espeak-ng", "libportaudio2"} <= set(runs.split())
    assert "scripts/bootstrap.sh voice" in runs
    copied = next(i for i in dockerfile.stages(DOCKERFILE)[-1] if i.name == "COPY").words()
    assert "requirements-voice.txt" in copied


def test_the_example_has_every_field_and_no_problem() -> None:
    parsed = config.parse(EXAMPLE.read_text(), known_voice)
    assert parsed.problems == [] and [each.enabled for each in parsed.devices.values()] == [True, False, False]
    entries = json.loads(EXAMPLE.read_text())["devices"]
    assert entries[0].keys() == set(config.Device._fields), "the first has all of them"


# --- scripts/start_autoconnect.sh ------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """The script in a checkout where nothing is installed, and a Python that says how it was called."""
    for name, text in {
        "scripts/start_autoconnect.sh": (ROOT / "scripts/start_autoconnect.sh").read_text(),
        "scripts/bootstrap.sh": '[ "$*" = voice ]\n',
        ".venv/bin/python": '#!/bin/sh\necho "$PWD $REMOTE_DEVICES_CONFIG $PYTHONPATH $*"\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def begun(root: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """What becomes of the script, called from elsewhere."""
    command = [str(root / "scripts/start_autoconnect.sh"), *words]
    env = {name: value for name, value in clean_environ().items() if name != "REMOTE_DEVICES_CONFIG"}
    return subprocess.run(
        command, cwd=root / "elsewhere", env=env | environ, capture_output=True, text=True, timeout=20, check=False
    )


def test_without_devices_it_says_how_to_make_them(alone: Path) -> None:
    done = begun(alone)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no {alone}/devices.json" in done.stderr and "scripts/devices.example.json" in done.stderr


def test_it_goes_on_as_the_voice_backend(alone: Path) -> None:
    (alone / "devices.json").write_text("{}")
    done = begun(alone, "--port", "8000")
    assert done.stdout == f"{alone} {alone}/devices.json {alone} -m procs.voice --port 8000\n", done.stderr
    (alone / ".venv/bin/python").write_text(
        "#!/bin/sh\necho usage: python -m procs.voice; echo ${PLANARIA_PARENT-python} $*\n"
    )
    assert begun(alone, "--help").stdout == "usage: scripts/start_autoconnect.sh\nscripts/start_autoconnect.sh --help\n"


def test_the_file_may_be_named_by_the_environment_or_by_env(alone: Path) -> None:
    other = alone / "elsewhere/mine.json"
    (alone / ".env").write_text('REMOTE_DEVICES_CONFIG="/nowhere/from-env.json"\n')
    assert "there is no /nowhere/from-env.json" in begun(alone).stderr
    assert "there is no" in begun(alone, REMOTE_DEVICES_CONFIG="mine.json").stderr
    other.write_text("{}")
    assert f" {other} " in begun(alone, REMOTE_DEVICES_CONFIG="mine.json").stdout, "as seen from where one stands"
