"""The suite as a service of systemd, as far as that goes without one: the unit, and what is asked of systemctl."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import time
from pathlib import Path

import pytest

from procs import proc
from procs.errors import ConfigError
from scripts import service, suite
from tests.clone import Clone
from tests.rig import clean_environ, until

pytestmark = pytest.mark.timeout(300)  # alone, the first one installs from the package index
FAKE = """#!/bin/sh
echo "$@" >>{asked}
case " $* " in *" is-active "*) cat {state} ;; *" {fails} "*) echo "Job failed." >&2; exit 1 ;; esac
"""


class Systemctl:
    """A program on PATH that writes down what it is asked, and fails as it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.state = folder, folder / "asked", folder / "state"
        self.state.write_text("inactive\n")
        self.fails("nothing")

    def fails(self, verb: str) -> None:
        """Have one verb fail from now on."""
        path = self.folder / "systemctl"
        asked, state = shlex.quote(str(self.asked)), shlex.quote(str(self.state))
        path.write_text(FAKE.format(asked=asked, state=state, fails=verb))
        path.chmod(0o755)

    def verbs(self) -> list[str]:
        """What it was asked since the last time, without the options that are always there."""
        text = self.asked.read_text() if self.asked.exists() else ""
        self.asked.unlink(missing_ok=True)
        assert all("--no-ask-password" in line for line in text.splitlines())
        return [re.sub(r"--user |--no-ask-password ", "", line) for line in text.splitlines()]


@pytest.fixture
def systemctl(tmp_path: Path) -> Systemctl:
    """A fake one, in a folder of its own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return Systemctl(folder)


def as_if_installed(clone: Clone, systemctl: Systemctl, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run commands in a clone where systemd's folders are empty ones of this test, and systemctl is the fake."""
    config = systemctl.folder.parent / "config"
    if os.geteuid() == 0:  # root's unit lies in /etc: in a mount of our own
        units = systemctl.folder.parent / "units"
        units.mkdir(exist_ok=True)
        folder = shlex.quote(str(units))
        text = f"mkdir -p /etc/systemd/system; mount --bind {folder} /etc/systemd/system && {' && '.join(commands)}"
        whole = ["unshare", "--mount", "sh", "-c", text]
    else:
        units = config / "systemd/user"
        whole = ["sh", "-c", " && ".join(commands)]
    path = f"{systemctl.folder}:{os.environ['PATH']}"
    return clone.run(*whole, environ={"PATH": path, "XDG_CONFIG_HOME": str(config)})


def unit_of(systemctl: Systemctl) -> Path:
    """Where the unit is then."""
    folder = "units" if os.geteuid() == 0 else "config/systemd/user"
    return systemctl.folder.parent / folder / service.NAME


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("is_system", [True, False], ids=["system", "user"])
@pytest.mark.parametrize("name", ["plain", "a clone", "50%n of $HOME; #1 {ü} [%H]"])
def test_systemd_reads_the_unit_as_it_is_meant(tmp_path: Path, name: str, is_system: bool) -> None:
    root = tmp_path / name
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").symlink_to("/bin/true")
    unit = tmp_path / service.NAME
    unit.write_text(service.rendered(root, is_system=is_system, user="root"))
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    scope = [] if is_system else ["--user"]
    verify = ["systemd-analyze", *scope, "--man=no", "--generators=no", "verify", str(unit)]
    done = subprocess.run(
        verify,
        env=clean_environ(XDG_RUNTIME_DIR=str(runtime)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    about = [line for line in done.stderr.splitlines() if service.NAME in line]
    assert (done.returncode, about) == (0, []), done.stderr
    broken = unit.read_text().replace("Restart=always", "Restart=allways").replace("/python", "/nosuch")
    unit.write_text(broken)
    done = subprocess.run(verify, env=clean_environ(XDG_RUNTIME_DIR=str(runtime)), capture_output=True, text=True)
    assert done.returncode and "allways" in done.stderr and f"{root}/.venv/bin/nosuch" in done.stderr


def test_a_users_unit_asks_for_nothing_that_only_root_may(tmp_path: Path) -> None:
    system, user = (service.rendered(tmp_path, is_system=both, user="me") for both in (True, False))
    assert "User=me" in system and "ProtectSystem=" in system and "WantedBy=multi-user.target" in system
    assert not re.search(r"^(User|Protect\w+|ReadWritePaths|RestrictSUIDSGID)=", user, re.M)
    assert "WantedBy=default.target" in user and "NoNewPrivileges=yes" in user
    for unit in (system, user):
        assert "@" not in re.sub(r"^#.*", "", unit, flags=re.M)


def test_a_path_that_no_unit_can_hold_is_refused(tmp_path: Path) -> None:
    for name in ("a\nb", "end ", "a'b", 'a"b', "a\\b"):
        with pytest.raises(ConfigError, match="move the checkout"):
            service.rendered(tmp_path / name, is_system=True, user="root")


def test_one_command_installs_it_and_one_takes_it_away(down: Clone, systemctl: Systemctl) -> None:
    done = as_if_installed(down, systemctl, "make service", "make service", "make service-off", "make service-off")
    assert done.returncode == 0, done.stderr
    once = ["daemon-reload", f"enable {service.NAME}", f"stop {service.NAME}", f"restart {service.NAME}"]
    assert systemctl.verbs() == [*once, *once, f"disable --now {service.NAME}", "daemon-reload"]
    assert not unit_of(systemctl).exists() and "this checkout is no service" in done.stderr


def test_it_takes_the_place_of_what_make_up_started(clone: Clone, systemctl: Systemctl) -> None:
    assert clone.make("up").returncode == 0
    done = as_if_installed(clone, systemctl, "make service")
    assert done.returncode == 0 and clone.living() == []
    unit = unit_of(systemctl)
    assert f"WorkingDirectory={clone.root}\n" in unit.read_text() and unit.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in unit.parent.iterdir()] == [service.NAME]


def test_make_up_and_make_down_know_of_it(down: Clone, systemctl: Systemctl) -> None:
    systemctl.state.write_text("active\n")
    up = as_if_installed(down, systemctl, "make service", ".venv/bin/python scripts/cli.py up")
    assert up.returncode == 2 and "planaria: systemd runs this suite: systemctl" in up.stderr
    assert down.living() == []
    systemctl.verbs()
    assert as_if_installed(down, systemctl, "make down").returncode == 0
    assert systemctl.verbs() == [f"stop {service.NAME}"], "or it would be back at once"
    suite.kill_all(down.root)
    assert down.make("up").returncode == 0, "where it is no service all is as ever"
    systemctl.fails("stop")
    done = as_if_installed(down, systemctl, "python3 scripts/down.py")
    assert done.returncode == 8 and down.living() == [], "everything is ended all the same"
    assert re.search(
        r"planaria: systemd starts it again: systemctl (--user )?stop planaria \(Job failed\.\)", done.stderr
    )


def test_what_systemd_refuses_is_one_line(down: Clone, systemctl: Systemctl) -> None:
    systemctl.fails("restart")
    done = as_if_installed(down, systemctl, "python3 scripts/service.py install")
    assert done.returncode == 8
    assert done.stderr.splitlines()[-1].startswith(
        f"planaria: systemctl restart {service.NAME}: Job failed.; journalctl"
    )


def test_another_checkouts_service_is_left_alone(down: Clone, systemctl: Systemctl) -> None:
    unit = unit_of(systemctl)
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text("[Service]\nWorkingDirectory=/another\n")
    done = as_if_installed(down, systemctl, "python3 scripts/service.py remove", "python3 scripts/service.py install")
    assert done.returncode == 2 and "belongs to another checkout" in done.stderr
    assert unit.read_text().endswith("/another\n") and systemctl.verbs() == []


def test_without_systemd_it_says_what_there_is_instead(down: Clone, tmp_path: Path) -> None:
    for name in ("sh", "python3"):
        (tmp_path / name).symlink_to(subprocess.check_output(["sh", "-c", f"command -v {name}"], text=True).strip())
    done = down.run(".venv/bin/python", "scripts/service.py", "install", environ={"PATH": str(tmp_path)})
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1) and "no systemd here; make up" in done.stderr


def test_as_the_unit_starts_it_it_says_that_it_is_ready_and_lives(down: Clone, tmp_path: Path) -> None:
    """The test plays systemd: it runs ExecStart with a socket to be told at, and kills what falls silent."""
    unit = service.rendered(down.root, is_system=True, user="root")
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.M)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(20)
        environ = clean_environ(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="10000000")
        running = subprocess.Popen(
            shlex.split(line), cwd=down.root, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while b"READY=1" not in told.recv(4096).split(b"\n"):
                pass
            assert down.cli("status").returncode == 0, "it is ready when it serves"
            assert running.pid == proc.supervisord(down.root), "the process that systemd watches"
            for _ in range(3):
                asked = time.monotonic()
                while b"WATCHDOG=1" not in told.recv(4096).split(b"\n"):
                    pass
                assert time.monotonic() - asked < 3
        finally:
            running.kill()
            running.wait()
    until(lambda: not down.living())


def test_a_row_of_failed_starts_is_paced_where_systemd_has_but_one_pause(down: Clone) -> None:
    down.write_settings(wrokers=3)
    row = down.root / "run/supervisord.starts"
    row.write_text(json.dumps([5, 60, time.clock_gettime(time.CLOCK_BOOTTIME)]))
    took = []
    for environ in ({}, {"NOTIFY_SOCKET": "/nowhere"}):
        began = time.monotonic()
        assert down.cli("up", "--foreground", environ=environ).returncode == 2
        took.append(time.monotonic() - began)
    assert took[1] > took[0] + 1.5, "half of 4 s at least"
    assert json.loads(row.read_text())[0] == 6
    row.unlink()
