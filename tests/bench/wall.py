"""What the proxy bench stands on: nginx, `ssh -R` to an sshd of our own, and hub, ws_link and two proxies."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from procs.settings import ROOT
from procs.wire import challenge
from procs.ws_link import identity
from tests import rig
from tests.bench.http_clients import Address
from tests.bench.measure import cpu_s

SIZES = {"small": 200, "middle": 64 * 1024, "large": 300_000_000}
STARTED_S = 20.0
WORKERS = 2
PASSWORD = "correct horse battery"
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""
SSHD = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
"""


class Way(NamedTuple):
    """A way to the files. `pids`: who works for it, by name, beside the client."""

    port: int
    prefix: str
    token: str
    pids: Mapping[str, list[int]]

    def to(self, name: str) -> Address:
        """A file, or another path."""
        return Address(self.port, self.prefix + name, self.token)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far."""
        return {name: sum(map(cpu_s, pids)) for name, pids in self.pids.items()}


@contextlib.contextmanager
def started(command: Iterable[str | Path], environ: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends, by its pid, when we are through."""
    with log.open("ab") as out:
        running = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, env=dict(environ), stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
    try:
        yield running
    finally:
        for pid in (running.pid, *rig.children(running.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        running.wait()


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for child in rig.children(pid):
        found += family(child)
    return found


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Way]:
    """Static files of SIZES."""
    port = rig.free_port()
    (folder / "files").mkdir()
    block = os.urandom(1 << 20)
    for name, size in SIZES.items():
        with (folder / "files" / name).open("wb") as file:
            for at in range(0, size, len(block)):
                file.write(block[: size - at])
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    os.chmod(folder, 0o755)  # its workers may be somebody else
    with started(["nginx", "-c", folder / "nginx.conf", "-e", folder / "nginx.log"], os.environ, folder / "out") as run:
        _wait_for(Address(port, "/small", ""), run, folder / "nginx.log")
        yield Way(port, "/", "none", {"nginx": rig.children(run.pid)})


@contextlib.contextmanager
def ssh(folder: Path, to: Way) -> Iterator[Way]:
    """The same through `ssh -R`: the client's connections end at sshd, and the device's ssh makes them to nginx."""
    at, port = rig.free_port(), rig.free_port()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    (folder / "sshd.conf").write_text(SSHD.format(port=at, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it
    options: list[str] = [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "ControlPath=none",
    ]
    options += ["ExitOnForwardFailure=yes", "BatchMode=yes"]
    client: list[str | Path] = ["ssh", "-F", "/dev/null", "-N", "-p", str(at), "-i", folder / "user", "-R"]
    client += [f"127.0.0.1:{port}:127.0.0.1:{to.port}", *(word for each in options for word in ("-o", each))]
    log = folder / "ssh.log"
    with started([shutil.which("sshd") or "sshd", "-D", "-e", "-f", folder / "sshd.conf"], os.environ, log) as server:
        _until_it_listens(at, server, log)
        with started([*client, f"{getpass.getuser()}@127.0.0.1"], os.environ, log) as running:
            _wait_for(Address(port, "/small", ""), running, log)
            yield to._replace(port=port, pids={**to.pids, "ssh": family(running.pid), "sshd": family(server.pid)})


class Running(NamedTuple):
    """A hub, and how to make others find it."""

    pid: int
    port: int
    environ: Mapping[str, str]
    log: Path


@contextlib.contextmanager
def hub(folder: Path, **more: str) -> Iterator[Running]:
    """A hub that keeps its things in folder/run. `more`: variables for it and for those who use its environment."""
    run, port = folder / "run", rig.free_port()
    run.mkdir(mode=0o700, exist_ok=True)
    environ = rig.clean_environ(
        PLANARIA_RUN_DIR=str(run),
        PLANARIA_HUB=f"127.0.0.1:{port}",
        PLANARIA_ADMIN_PASSWORD=PASSWORD,
        BACKEND_URL=f"ws://127.0.0.1:{port}/ws/device",
        DEVICE_ID="",
        **more,
    )
    log = folder / "planaria.log"
    with started([sys.executable, "-m", "procs.hub"], environ, log) as running:
        _wait_for(Address(port, "/health", ""), running, log)
        yield Running(running.pid, port, environ, log)


@contextlib.contextmanager
def planaria(folder: Path, to: Way, go2rtc: rig.Go2rtc | None = None) -> Iterator[Way]:
    """The same through our hub, with a ws_link and two proxies."""
    run = folder / "run"
    run.mkdir(mode=0o700)
    rules = {"url": f"http://127.0.0.1:{to.port}", "prefix": "/files", "rules": ["GET,HEAD /**"]}
    (run / "proxy.json").write_text(json.dumps({"upstreams": {"files": rules}}))
    own = identity.load(run)
    verifier = challenge.verifier(own.secret, own.device_id).to_text()
    adopt = {"device_id": own.device_id, "verifier": verifier, "name": own.device_id}
    (run / "hub-adopt.json").write_text(json.dumps(adopt))
    go2rtc_http = go2rtc.url("").rstrip("/") if go2rtc else "http://127.0.0.1:9"
    programs = [["procs.ws_link"], *(["procs.proxy", "--instance", str(number)] for number in range(WORKERS))]
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(hub(folder, GO2RTC_HTTP=go2rtc_http))
        runs = [
            stack.enter_context(started([sys.executable, "-m", *words], ours.environ, ours.log)) for words in programs
        ]
        pids = {"hub": [ours.pid], "ws_link": [runs[0].pid], "proxy": [each.pid for each in runs[1:]]}
        token = log_in(ours.port)["access_token"]
        way = Way(ours.port, f"/api/devices/{own.device_id}/proxy/files/", token, {**to.pids, **pids})
        _wait_for(way.to("small"), runs[-1], ours.log)
        yield way


def log_in(port: int) -> dict[str, Any]:
    """What the hub answers to its admin."""
    body = json.dumps({"username": "admin", "password": PASSWORD}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/auth/login", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=STARTED_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _until_it_listens(port: int, running: subprocess.Popen[bytes], log: Path) -> None:
    def listens() -> bool:
        _still_there(running, log)
        with contextlib.suppress(OSError):
            Address(port, "/", "").connect().close()
            return True
        return False

    rig.until(listens, STARTED_S)


def _wait_for(address: Address, running: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        _still_there(running, log)
        url = f"http://127.0.0.1:{address.port}{address.target}"
        asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {address.token}"})
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    rig.until(answers, STARTED_S)


def _still_there(running: subprocess.Popen[bytes], log: Path) -> None:
    assert running.poll() is None, f"ended with {running.returncode}: {log.read_text(errors='replace')[-2000:]}"
