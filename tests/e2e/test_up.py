"""`make up` in a clean clone, as a person runs it, and what becomes of it; what it refuses is in test_up_refused.py."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from procs import proc
from procs.kinds import Address
from scripts import health, suite
from scripts.suite_settings import Suite
from tests.clone import Clone, link_venv, said
from tests.decoding import seen_in
from tests.rig import clean_environ, until
from tests.viewers import RtspViewer

pytestmark = pytest.mark.timeout(300)  # the first `make up` installs from the package index


# The README's first command. What costs half a minute of a processor is pip's work, and the same for everybody: it is
# done once a run at the checkout itself, before any test.
@pytest.mark.parametrize("is_installed", [True, pytest.param(False, marks=pytest.mark.long)])
def test_make_up_in_a_clean_clone_plays(tmp_path: Path, is_installed: bool) -> None:
    clone = Clone(tmp_path)
    if is_installed:
        link_venv(tmp_path)
        (tmp_path / ".venv/stamp").unlink()  # pip has to see for itself
    try:
        done = clone.make("up")
        assert done.returncode == 0, done.stderr
        assert "installing" in done.stderr and "waiting for a first picture of omega-0" in done.stderr, (
            "it shows progress"
        )
        assert "go2rtc" in done.stdout and "serving" in done.stdout
        assert (
            clone.stream("omega-0") in done.stdout and f"http://{clone.api}/" in done.stdout and "next" in done.stdout
        )
        seen = seen_in(clone.stream("omega-0"), 10, rtsp_transport="tcp")
        assert all(picture.stamp and picture.stamp.frame == picture.code.frame for picture in seen)
    finally:
        suite.kill_all(clone.root)


@pytest.fixture
def upped(clone: Clone) -> Clone:
    """The clone as it is after `make up`, whatever a test before has left of it."""
    if not proc.supervisord(clone.root):
        clone.write_settings()
        assert clone.make("up").returncode == 0
        until(lambda: clone.living() == clone.supervised())  # the producer that make up has asked for a picture is gone
    return clone


def test_supervisorctl_works_from_the_root(upped: Clone) -> None:
    done = upped.run(".venv/bin/supervisorctl", "-c", "supervisord.conf", "status")
    states = dict(line.split()[:2] for line in done.stdout.splitlines())
    assert states["go2rtc"] in ("RUNNING", "STARTING") and states["audio_io"] == "STOPPED"  # its role is off


def test_up_again_leaves_everything_as_it_is(upped: Clone) -> None:
    before = upped.living()
    done = upped.make("up")
    assert (done.returncode, upped.living()) == (0, before)
    assert "already up" in done.stderr


def test_two_at_once_give_one_copy(clone: Clone) -> None:
    clone.make("down")
    both = [
        subprocess.Popen(
            ["make", "up"], cwd=clone.root, env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for one in both:
        one.communicate(timeout=120)
    assert [one.returncode for one in both] == [0, 0]
    assert clone.living() == clone.supervised()


def test_status_for_people_and_programs(upped: Clone) -> None:
    viewer = RtspViewer(suite_address(upped.rtsp), "omega-1")
    viewer.start()
    until(lambda: viewer.arrivals, 20)
    answer = json.loads(upped.cli("status", "--json").stdout)
    by_name = {process["name"]: process for process in answer["processes"]}
    assert by_name.keys() >= {"supervisord", "go2rtc", "warden", "keeper"}
    assert by_name["go2rtc"]["state"] == "SERVING" and by_name["go2rtc"]["heartbeat_age_s"] < 4
    assert by_name["go2rtc"]["rss_bytes"] > 1_000_000 and by_name["go2rtc"]["restarts_last_hour"] >= 0
    watched = {stream["name"]: stream["watched_by"] for stream in answer["streams"]}
    assert watched == {f"omega-{i}": int(i == 1) for i in range(6)}
    producers = {stream["name"]: stream["producer"] for stream in answer["streams"]}
    its = producers.pop("omega-1")
    assert (its["said"], its["width"], its["fps"], its["renderer"]) == ("", 320, 30, "cpu")
    assert its["encoder"] and its["bitrate"] > 0 and its["frames"] > 0 and its["dropped"] >= 0
    assert set(producers.values()) == {None}  # nobody watches them
    table = upped.make("status").stdout
    assert f"omega-1  1           {its['encoder']} 320x180 30/s 6 Mbit/s, dropped " in table
    assert "PROCESS" in table and "omega-1  1" in table and "headless_agent omega-1  serving" in table


def suite_address(text: str) -> Address:
    """host:port as the viewers take it."""
    host, _, port = text.rpartition(":")
    return Address(host, int(port))


def test_commands_reach_a_watched_stream_and_say_why_not_otherwise(upped: Clone) -> None:
    viewer = RtspViewer(suite_address(upped.rtsp), "omega-2")
    viewer.start()
    until(lambda: viewer.arrivals, 20)
    assert upped.cli("keyframe", "omega-2").returncode == 0
    assert upped.cli("bitrate", "omega-2", "500k").returncode == 0
    wrong = upped.cli("bitrate", "omega-2", "abc")
    assert (wrong.returncode, said(wrong)[0]) == (2, "planaria: RATE='abc' (command line): must be " + BITS)
    nobody = upped.cli("keyframe", "omega-5")
    assert nobody.returncode == 8
    assert "omega-5: nobody watches it" in said(nobody)[0]
    unknown = upped.cli("keyframe", "lobby")
    assert unknown.returncode == 2
    assert "STREAM='lobby' (command line): is no stream of this suite; there are omega-0, " in said(unknown)[0]


BITS = "bits per second from 10k to 200M, such as 800k, 2.5M or 6000000"


def test_two_clones_live_side_by_side(upped: Clone, tmp_path: Path) -> None:
    other = Clone(tmp_path)
    other.install()
    try:
        done = other.make("up")
        assert done.returncode == 0, done.stderr
        first = seen_in(upped.stream("omega-0"), 3, rtsp_transport="tcp")
        second = seen_in(other.stream("omega-0"), 3, rtsp_transport="tcp")
        assert len(first) == len(second) == 3
        before = upped.living()
        assert other.make("down").returncode == 0
        assert (other.living(), upped.living()) == ([], before)
    finally:
        suite.kill_all(other.root)


def test_changed_settings_restart_it(upped: Clone) -> None:
    upped.write_settings(workers=2)
    done = upped.make("up")
    assert "settings have changed" in done.stderr
    assert "omega-1" in done.stdout and "omega-2" not in done.stdout
    upped.write_settings()
    assert upped.make("up").returncode == 0


def test_what_was_changed_over_the_api_is_healed(upped: Clone) -> None:
    def listed() -> set[str]:
        return set(health.get_json(Suite(api=suite_address(upped.api)), "/api/streams"))

    ours = listed()
    for _ in range(2):
        for method, query in (("DELETE", "src=omega-0"), ("PUT", "name=x&src=rtsp://127.0.0.1:1/x")):
            request = urllib.request.Request(f"http://{upped.api}/api/streams?{query}", method=method)
            with contextlib.suppress(urllib.error.HTTPError):  # go2rtc does it, then fails to write it down
                urllib.request.urlopen(request, timeout=10).close()
        assert listed() == ours - {"omega-0"} | {"x"}
        done = upped.make("up")
        assert done.returncode == 0 and "its streams were changed from outside: omega-0, x: restarting" in done.stderr
        assert listed() == ours


def test_a_changed_secret_restarts_it_and_a_missing_one_is_named(clone: Clone) -> None:
    clone.write_settings(sources={"door": "rtsp://user:${DOOR_PASSWORD}@127.0.0.1:1/x"})
    missing = clone.cli("up")
    assert missing.returncode == 2
    assert (
        "${DOOR_PASSWORD} (" in said(missing)[0] and "is set neither in .env nor in the environment" in said(missing)[0]
    )
    for secret in ("hunter2", "hunter3"):
        (clone.root / ".env").write_text(f"DOOR_PASSWORD={secret}\n")
        done = clone.make("up")
        assert done.returncode == 0 and "settings have changed" in done.stderr
        assert secret in (clone.root / "run/go2rtc.yaml").read_text()
        assert "already up" in clone.make("up").stderr
        assert "hunter" not in done.stdout + done.stderr
    files = [path for path in (clone.root / "run").rglob("*") if path.is_file() and not path.is_symlink()]
    (written,) = [path for path in files if b"hunter" in path.read_bytes()]
    assert written.stat().st_mode & 0o777 == 0o600, "it is written down once, for us alone"
    (clone.root / ".env").unlink()
    clone.write_settings()
    assert clone.make("up").returncode == 0


def test_a_configuration_that_is_broken_or_gone_never_opens_go2rtc_to_the_world(clone: Clone) -> None:
    assert clone.make("up").returncode == 0
    path, log = clone.root / "run/go2rtc.yaml", clone.root / "run/log/go2rtc.log"
    (go2rtc,) = _go2rtcs(clone)
    for breakage, why in (("api: [\n", "is not as it was written"), (None, "No such file or directory")):
        already = len(log.read_text())
        path.unlink()
        if breakage is not None:
            path.write_text(breakage)
        with contextlib.suppress(ProcessLookupError):  # none has come back since
            os.kill(go2rtc, signal.SIGKILL)
        until(lambda already=already, why=why: why in log.read_text()[already:])  # type: ignore[misc]
        assert "run make up" in log.read_text().splitlines()[-1]
        assert not _go2rtcs(clone), "none runs rather than one with its defaults, which are open to the world"
    assert clone.make("up").returncode == 0


def test_a_configuration_changed_by_hand_is_put_right_without_a_restart(clone: Clone) -> None:
    assert clone.make("up").returncode == 0
    path, before = clone.root / "run/go2rtc.yaml", clone.living()
    written = path.read_text()
    path.write_text(written + "# mine\n")
    assert "already up" in clone.make("up").stderr
    assert (path.read_text(), clone.living()) == (written, before)


def test_children_of_go2rtc_get_neither_its_lock_nor_its_configuration(upped: Clone) -> None:
    viewer = RtspViewer(suite_address(upped.rtsp), "omega-3")
    viewer.start()
    until(lambda: viewer.arrivals, 20)
    (producer,) = [p.pid for p in suite.producers(upped.root) if p.name == "headless_agent omega-3"]
    held = []
    for entry in Path(f"/proc/{producer}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            held.append(os.readlink(entry))
    assert held and not [target for target in held if "go2rtc" in target], held


def test_another_process_at_the_same_port_of_another_address_does_not_matter(upped: Clone) -> None:
    with socket.create_server(("127.0.0.2", suite_address(upped.api).port)):
        assert upped.cli("status").returncode == 0
        assert "already up" in upped.make("up").stderr


def test_a_file_that_cannot_be_played_is_named(clone: Clone) -> None:
    clone.write_settings(sources={"film": {"file": "/etc/passwd"}})
    done = clone.cli("up")
    assert done.returncode == 8
    assert said(done)[0].startswith("planaria: film: rtsp://") and "Invalid data" in done.stderr
    clone.write_settings()
    assert clone.make("up").returncode == 0


def _go2rtcs(clone: Clone) -> list[int]:
    binary = (clone.root / "run/go2rtc").resolve()
    found = []
    for pid in clone.living():
        with contextlib.suppress(OSError):  # gone meanwhile
            found += [pid] if os.readlink(f"/proc/{pid}/exe") == str(binary) else []
    return found


def test_a_frozen_go2rtc_is_seen_at_once_and_replaced_by_itself(clone: Clone) -> None:
    assert clone.make("up").returncode == 0
    (frozen,) = _go2rtcs(clone)
    os.kill(frozen, signal.SIGSTOP)
    began = time.monotonic()
    status = clone.cli("status")
    if time.monotonic() - began < 2:
        assert status.returncode == 8 and "go2rtc" in said(status)[0]
    until(lambda: _go2rtcs(clone) not in ([], [frozen]), 10)
    until(lambda: clone.cli("status").returncode == 0, 10)


def test_a_supervisord_started_by_hand_is_one_of_ours(clone: Clone) -> None:
    assert clone.make("down").returncode == 0
    assert clone.run(".venv/bin/supervisord", "-c", "supervisord.conf").returncode == 0
    until(lambda: clone.cli("status").returncode == 0, 20)
    assert "already up" in clone.make("up").stderr
    assert clone.make("down").returncode == 0
    assert clone.living() == [] and not proc.supervisord(clone.root)
    assert clone.make("up").returncode == 0


def test_down_needs_nothing_that_was_installed(upped: Clone) -> None:
    (upped.root / ".venv").rename(upped.root / ".venv-away")
    try:
        assert set(upped.supervised()) <= set(upped.living())
        assert upped.make("down").returncode == 0
        assert upped.living() == []
        assert (
            "nothing is installed here yet; make up does it" in upped.run("python3", "scripts/cli.py", "status").stderr
        )
    finally:
        (upped.root / ".venv-away").rename(upped.root / ".venv")
    assert upped.make("up").returncode == 0


def test_down_ends_everything_on_a_disk_that_went_read_only(upped: Clone) -> None:
    if os.geteuid():
        pytest.skip("only root can make a mount read-only")
    assert set(upped.supervised()) <= set(upped.living())
    mount = 'mount --bind "$PWD" "$PWD" && mount -o remount,ro,bind "$PWD"'
    done = upped.run("unshare", "--mount", "sh", "-c", f'{mount} && cd "$PWD" && make down')
    assert done.returncode == 0 and "no lock against a make up" in done.stderr
    assert upped.living() == []
    assert upped.make("up").returncode == 0


def test_a_venv_that_is_none_does_not_run_in_circles(clone: Clone) -> None:
    (clone.root / ".venv").rename(clone.root / ".venv-away")
    try:
        (clone.root / ".venv/bin").mkdir(parents=True)
        (clone.root / ".venv/bin/python").symlink_to(sys._base_executable)  # type: ignore[attr-defined]
        done = clone.run("python3", "scripts/cli.py", "status")
        assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
        shutil.rmtree(clone.root / ".venv")
    finally:
        (clone.root / ".venv-away").rename(clone.root / ".venv")


def test_run_is_for_us_alone_whoever_made_it(clone: Clone) -> None:
    (clone.root / "run").chmod(0o755)
    assert clone.make("up").returncode == 0
    assert (clone.root / "run").stat().st_mode & 0o777 == 0o700


def test_kill_9_of_go2rtc_or_supervisord_brings_it_back(upped: Clone) -> None:
    viewer = RtspViewer(suite_address(upped.rtsp), "omega-0")
    viewer.start()
    until(lambda: viewer.arrivals, 20)
    (go2rtc,) = _go2rtcs(upped)
    os.kill(go2rtc, signal.SIGKILL)
    until(lambda: _serves_with_another_pid(upped, go2rtc), 20)
    assert seen_in(upped.stream("omega-0"), 3, rtsp_transport="tcp")
    viewer = RtspViewer(suite_address(upped.rtsp), "omega-0")
    viewer.start()
    until(lambda: viewer.arrivals, 20)
    before, (go2rtc,) = upped.living(), _go2rtcs(upped)
    assert len(before) == len(upped.supervised()) + 1, "and a producer"
    os.kill(proc.supervisord(upped.root), signal.SIGKILL)
    until(lambda: _serves_with_another_pid(upped, go2rtc), 20)
    assert seen_in(upped.stream("omega-0"), 3, rtsp_transport="tcp")
    until(lambda: upped.living() == upped.supervised() and not set(before) & set(upped.living()), 20)


def test_supervisord_and_its_keeper_killed_end_everything_and_make_up_starts_it(clone: Clone) -> None:
    assert clone.make("up").returncode == 0
    keeper = next(p.pid for p in suite.processes(clone.root) if p.name == "keeper")
    supervisord = proc.supervisord(clone.root)
    os.kill(supervisord, signal.SIGSTOP)  # or it would have another keeper within milliseconds
    for pid in (keeper, supervisord):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not clone.living())
    down = clone.cli("status")
    assert (down.returncode, said(down)) == (8, ["planaria: the suite is down; make up starts it"])
    assert clone.make("up").returncode == 0, "a stale pid file and socket are no obstacle"


def _serves_with_another_pid(clone: Clone, old: int) -> bool:
    done = clone.cli("status", "--json")
    if done.returncode:
        return False
    answer = next(process for process in json.loads(done.stdout)["processes"] if process["name"] == "go2rtc")
    return bool(answer["pid"] != old and answer["state"] == "SERVING")


def test_down_leaves_nothing(upped: Clone) -> None:
    viewer = RtspViewer(suite_address(upped.rtsp), "omega-0")
    viewer.start()
    until(lambda: viewer.arrivals, 20)
    assert len(upped.living()) == len(upped.supervised()) + 1, "and a producer"
    events = upped.root / "run/events.jsonl"
    already = len(events.read_bytes()) if events.exists() else 0
    assert upped.make("down").returncode == 0
    assert upped.living() == []
    assert not events.exists() or not events.read_bytes()[already:], "what is ended on purpose has not crashed"
    mentioned = [pid for pid in os.listdir("/proc") if pid.isdigit() and _mentions(pid, upped.root)]
    assert mentioned == []
    assert upped.make("down").returncode == 0, "down twice is fine"


def test_in_the_foreground_it_is_supervisord_and_nothing_outlives_it(down: Clone) -> None:
    log = down.root / "foreground.log"
    with log.open("wb") as out:
        foreground = subprocess.Popen(
            [".venv/bin/python", "scripts/cli.py", "up", "--foreground"],
            cwd=down.root,
            env=clean_environ(),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    until(lambda: down.cli("status").returncode == 0, 20)
    assert proc.supervisord(down.root) == foreground.pid
    before = down.living()
    assert "already up" in down.make("up").stderr
    assert down.living() == before == down.supervised() and foreground.pid in before
    again = down.cli("up", "--foreground")
    assert (again.returncode, len(said(again))) == (2, 1)
    assert f"the suite is up already, as pid {foreground.pid}; make down ends it" in said(again)[0]
    viewer = RtspViewer(suite_address(down.rtsp), "omega-0")
    viewer.start()
    until(lambda: viewer.arrivals, 20)
    text = log.read_text()
    assert f"http://{down.api}/stream.html?src=omega-0" in text and "INF [rtsp] listen" in text
    until(lambda: '"tag": "headless_agent omega-0"' in log.read_text())
    assert "INF [rtsp] listen" in (down.root / "run/log/go2rtc.log").read_text(), "and in the file, for make logs"
    assert len(down.living()) == len(down.supervised()) + 1, "and a producer"
    foreground.kill()
    foreground.wait()
    until(lambda: not down.living())


def test_changed_settings_replace_one_in_the_foreground(down: Clone) -> None:
    command = [".venv/bin/python", "scripts/cli.py", "up", "--foreground"]
    foreground = subprocess.Popen(
        command, cwd=down.root, env=clean_environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: down.cli("status").returncode == 0, 20)
    down.write_settings(workers=1)
    done = down.make("up")
    assert done.returncode == 0 and "settings have changed: restarting" in done.stderr
    assert foreground.wait(5) == -signal.SIGKILL
    assert down.living() == down.supervised(), "once"


def _mentions(pid: str, root: Path) -> bool:
    try:
        return str(root).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


# A first picture so large that it can't be there in time.
def test_a_frozen_supervisord_does_not_freeze_us(clone: Clone) -> None:
    assert clone.make("up").returncode == 0
    pid = 0

    def is_said() -> bool:
        """Whether it is, of one that is frozen now: by the time that one is asked, it may be another one already."""
        nonlocal pid
        if pid := proc.supervisord(clone.root):
            os.kill(pid, signal.SIGSTOP)
        done = clone.cli("status")
        return done.returncode == 8 and "supervisord does not answer" in said(done)[0]

    until(is_said, 90)
    assert (
        clone.make("up").returncode == 0
    )  # the warden has ended it, and the keeper has started another, or it does so
    assert proc.supervisord(clone.root) not in (0, pid)
    os.kill(proc.supervisord(clone.root), signal.SIGSTOP)
    assert clone.make("down").returncode == 0
    assert clone.living() == []
