"""docker/ without Docker: the image made by what the Dockerfile says, and containers of it in namespaces, under the
conditions that a Compose file asks for. Root only.

Not done here: apt-get (this machine's own programs serve instead), the pull of the base image, and Compose itself.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from procs.settings import ROOT
from tests import dockerfile
from tests.clone import link_compiled, link_venv
from tests.rig import children, clean_environ, command_line, until

DOCKERFILE = ROOT / "docker/Dockerfile"
COMPOSE = ROOT / "docker/docker-compose.go2rtc.exec.yml"
STAGES = dockerfile.stages(DOCKERFILE)


def service(file: Path = COMPOSE) -> dict[str, Any]:
    """What a Compose file is about: its first service."""
    return dict(next(iter(yaml.safe_load(file.read_text())["services"].values())))


def defaults(text: str) -> str:
    """A value of the Compose file as it is where no knob is set."""
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text)


def environment(file: Path) -> dict[str, str]:
    """Every variable that Compose passes in, with nothing set outside: most are empty."""
    given = (defaults(entry).partition("=") for entry in service(file)["environment"])
    return {name: value for name, _, value in given}


# $1: a folder that becomes the root, with this machine's programs in it. $2: where the image is. $3: its Python's home.
ROOT_OF_ITS_OWN = """
set -eu
mount -t tmpfs tmpfs "$1"
for top in /*; do
    case $top in
    /app | /config | /dev | /proc | /run | /settings | /streams | /sys | /tls | /tmp | "/*") continue ;;
    esac
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
mkdir "$1/config" "$1/settings" "$1/streams" "$1/tls"
for what in config settings tls; do mount --bind "$2/$what" "$1/$what"; done
for what in app settings tls; do mount -o remount,bind,ro "$1/$what"; done
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
        self.config, self.settings, self.tls = folder / "config", folder / "settings", folder / "tls"
        for made in (self.app, self.root, self.config, self.settings, self.tls):
            made.mkdir(mode=0o755)
        os.chown(self.config, 1000, 1000)
        self.environ: dict[str, str] = {}
        listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0")
        self._context = [name for name in names if name and (ROOT / name).is_file()]

    def seed(self) -> None:
        """Have pip find everything, so that it downloads nothing, and compileall what is compiled of the same files: it
        compares each file's time and size with what it has."""
        link_venv(self.app, Path("/app"), locked="requirements-voice.txt")  # what the Dockerfile asks for
        (self.app / ".venv/stamp").unlink()
        link_compiled(self.app)

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
    """A container of it under the conditions of a Compose file: user, no capabilities, read-only but for its tmpfs and
    its volumes, which outlive it, and process numbers of its own."""

    def __init__(
        self, image: Image, environ: Mapping[str, str], *, file: Path = COMPOSE, init: bool = service()["init"]
    ) -> None:
        self._init, stage, said = init, STAGES[-1], service(file)
        self._check: list[str] = said["healthcheck"]["test"][1:]
        self.environ = {**clean_environ(), **image.environ, **environ}
        mounts = [defaults(entry).partition(":") for entry in said["tmpfs"]]
        tmpfs = "".join(f'mount -t tmpfs -o noexec,nosuid,nodev,{o} tmpfs "$1{path}"\n' for path, _, o in mounts)
        script = ROOT_OF_ITS_OWN + READ_ONLY + tmpfs + _volumes(image, file) + BECOME
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

    def ended(self) -> None:
        """Return once it has ended with its first process, as it has to."""
        self.process.wait(20)

    def main(self) -> int:
        """Its first process, by our numbers."""
        (pid,) = until(self._first)
        return pid

    def _first(self) -> list[int]:
        assert self.process.poll() is None, f"it has ended: {self.log.read_text()}"
        return children(self.process.pid)

    def supervisord(self) -> int:
        """Its supervisord, by our numbers."""
        if not self._init:
            return self.main()
        (pid,) = until(lambda: children(self.main()))
        return pid

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as its user."""
        command = self._inside(*words)
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60, check=False)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in it, as its user; what it writes to stdout can be read."""
        return subprocess.Popen(self._inside(*words), env=self.environ, stdout=subprocess.PIPE, text=True)

    def _inside(self, *words: str) -> list[str]:
        into = ["nsenter", f"--target={self.main()}", "--mount", "--pid", "--root", "--wd"]
        return [*into, *self._as_user, *words]

    def health(self) -> int:
        """The exit code of its health check."""
        return self.execute(*self._check).returncode

    def go2rtc(self) -> int:
        """Its go2rtc, by our numbers."""
        (pid,) = until(lambda: [p for p in children(self.supervisord()) if command_line(p)[:1] == ["/app/run/go2rtc"]])
        return pid

    def kill(self) -> None:
        """End it, as Docker would."""
        for pid in children(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(20)


def _volumes(image: Image, file: Path) -> str:
    """Mount the named volumes of a Compose file, each made at its first use as Docker does: like what it covers."""
    lines, named = "", yaml.safe_load(file.read_text()).get("volumes", {})
    for entry in service(file)["volumes"]:
        name, _, path = defaults(entry).partition(":")
        if name not in named:
            continue  # a folder of the host's
        volume = image.folder / "volumes" / f"{file.name}.{name}"
        if not volume.exists():
            covered = (image.folder / path.lstrip("/")).stat()
            volume.mkdir(parents=True, mode=covered.st_mode & 0o777)
            os.chown(volume, covered.st_uid, covered.st_gid)
        lines += f'mount --bind {shlex.quote(str(volume))} "$1{path}"\n'
    return lines
