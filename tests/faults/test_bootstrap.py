"""bootstrap.sh where something is missing, after a kill, and with nothing to do. A fake python stands in for pip."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
TOOLS = (
    *("sh", "cat", "cksum", "date", "dirname", "flock", "grep", "id", "ln", "mkdir", "mv", "readlink", "rm", "sed"),
    "tail",
)

# Logs what it is asked for, and fails where a file of that name says so: too-old, no-ensurepip, slow-pip, pip-fails
# (with what that holds), die-in-download, die-in-pip (which installs). What has no wheel is downloaded as what no-wheel
# says. `until-told` holds a word that must be in `told` before an installation ends.
FAKE_PYTHON = """#!/bin/sh
here={here}
echo "$*" >>"$here/log"
case "$*" in
    -V) echo Python 3.99 ;;
    *'import venv, ensurepip'*) [ ! -e "$here/no-ensurepip" ] ;;
    *version_info*) [ ! -e "$here/too-old" ] ;;
    *'import sys, pip'*) [ ! -e "$here/slow-pip" ] ;;
    '-m venv .venv') mkdir -p .venv/bin; ln -s "$0" .venv/bin/python ;;
    '-m pip download'*)
        if [ -e "$here/die-in-download" ]; then kill -9 "$PPID"; fi
        if [ -e "$here/pip-fails" ]; then echo 'ERROR: no such thing' >&2; exit 1; fi
        mkdir -p .venv/download
        if [ -e "$here/no-wheel" ]; then cat <"$here/no-wheel" >".venv/download/thing-1.tar.gz"; fi ;;
    '-m pip install'*)
        if [ -e "$here/die-in-pip" ]; then kill -9 "$PPID"; fi
        if [ -e "$here/until-told" ]; then
            echo 'Collecting thing==1.2 (from -r requirements.txt (line 3))'
            turns=0
            until grep -q "$(cat "$here/until-told")" "$here/told" || [ $((turns += 1)) = 9999 ]; do :; done
        fi
        if [ -e "$here/pip-fails" ]; then cat "$here/pip-fails" >&2; echo 'ERROR: no such thing' >&2; exit 1; fi ;;
esac
"""


class Machine:
    """A copy of what bootstrap.sh reads, and a PATH with one fake python3 on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.path = folder, folder / "checkout", folder / "path"
        (self.root / "scripts").mkdir(parents=True)
        for name in ("scripts/bootstrap.sh", *(path.name for path in REPO.glob("requirements*.txt"))):
            shutil.copy(REPO / name, self.root / name)
        self.path.mkdir()
        for name in TOOLS:
            if found := shutil.which(name):
                (self.path / name).symlink_to(found)
        self.python = self.path / "python3"
        self.python.write_text(FAKE_PYTHON.format(here=folder))
        self.python.chmod(0o755)

    def has(self, trouble: str) -> None:
        (self.folder / trouble).touch()

    def mended(self, trouble: str) -> None:
        (self.folder / trouble).unlink()

    def asked(self) -> list[str]:
        """What python was asked for since the last call."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def bootstrap(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "scripts" / "bootstrap.sh", *words],
            env={"PATH": str(self.path), **environ},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Exit 2 and one line."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


def pip_calls(asked: list[str]) -> list[str]:
    """What was to be installed: what is only downloaded changes nothing."""
    return [line for line in asked if line.startswith("-m pip install")]


def test_the_first_run_installs_the_locked_requirements(machine: Machine) -> None:
    done = machine.bootstrap()
    assert (done.returncode, done.stdout) == (0, "")
    assert "making .venv with Python 3.99" in done.stderr
    assert "installing requirements.txt" in done.stderr
    (pip,) = pip_calls(machine.asked())
    assert "--require-hashes -r requirements.txt" in pip


@pytest.mark.parametrize("trouble", ["", "pip-fails"])
def test_a_slow_pip_is_replaced_where_a_quick_one_can_be_had(machine: Machine, trouble: str) -> None:
    machine.has("slow-pip")
    if trouble:
        machine.has(trouble)
    done = machine.bootstrap()
    first, second = pip_calls(machine.asked())
    assert "--require-hashes" in first and first.endswith("-r /dev/stdin") and second.endswith("-r requirements.txt")
    assert (done.returncode, done.stderr.count("ERROR")) == ((1, 1) if trouble else (0, 0)), "the second's alone"


def test_the_second_run_is_silent_and_starts_no_python(machine: Machine) -> None:
    machine.bootstrap()
    machine.asked()
    done = machine.bootstrap()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.asked() == []


def test_dev_is_a_superset(machine: Machine) -> None:
    machine.bootstrap()
    machine.asked()
    assert machine.bootstrap("dev").returncode == 0
    assert "-r requirements-dev.txt" in pip_calls(machine.asked())[0]
    for words in ([], ["dev"]):
        assert machine.bootstrap(*words).stderr == ""
    assert machine.asked() == []


@pytest.mark.parametrize("extra", ["voice", "cuda", "dev"])
def test_what_was_installed_once_is_kept_whatever_is_asked_for_next(machine: Machine, extra: str) -> None:
    machine.bootstrap(extra)
    for other in {"voice", "cuda", "dev"} - {extra}:
        machine.bootstrap(other)
    machine.asked()
    for words in ([], ["voice"], ["cuda"], ["dev", "cuda"]):
        assert machine.bootstrap(*words).stderr == ""
    assert machine.asked() == []


def test_what_was_installed_once_is_kept_up_to_date(machine: Machine) -> None:
    machine.bootstrap("cuda")
    machine.asked()
    with (machine.root / "requirements-cuda.txt").open("a") as lock:
        lock.write("# changed\n")
    done = machine.bootstrap()
    assert "to download" not in done.stderr, "most of it is there"
    (pip,) = pip_calls(machine.asked())
    assert pip.endswith("--no-index --find-links .venv/download -r requirements-cuda.txt")


def test_what_is_added_is_downloaded_before_anything_is_changed(machine: Machine) -> None:
    machine.bootstrap()
    machine.asked()
    assert machine.bootstrap("voice").returncode == 0
    first, second = [line for line in machine.asked() if line.startswith("-m pip")]
    assert first.startswith("-m pip download ") and first.endswith("--dest .venv/download -r requirements-voice.txt")
    assert second.endswith("--no-index --find-links .venv/download -r requirements-voice.txt")
    assert not (machine.root / ".venv/download").exists()


def test_what_has_no_wheel_is_built_with_the_index_at_hand(machine: Machine) -> None:
    machine.bootstrap()
    machine.has("no-wheel")
    machine.asked()
    assert machine.bootstrap("voice").returncode == 0
    (pip,) = pip_calls(machine.asked())
    assert "--no-index" not in pip and "--find-links .venv/download" in pip


def test_a_download_that_is_broken_off_leaves_what_was_there_and_is_told_of_once(machine: Machine) -> None:
    machine.bootstrap("voice")
    stamp = (machine.root / ".venv/stamp").read_text()
    machine.has("die-in-download")
    assert machine.bootstrap("cuda").returncode == -9
    machine.mended("die-in-download")
    machine.asked()
    assert (machine.root / ".venv/stamp").read_text() == stamp
    assert machine.bootstrap().stderr == "bootstrap: CUDA=1 was not finished: make up CUDA=1 does it\n"
    assert machine.asked() == [] and machine.bootstrap().stderr == ""
    assert "not finished" not in machine.bootstrap("cuda").stderr
    (pip,) = pip_calls(machine.asked())
    assert pip.endswith("-r requirements-cuda.txt")


def test_while_another_one_downloads_what_is_finished_is_not_waited_for(machine: Machine) -> None:
    if not shutil.which("flock"):
        pytest.skip("needs flock")
    machine.bootstrap()
    begun = machine.root / ".venv/cuda-begun"
    begun.touch()
    with subprocess.Popen(["flock", machine.root / "requirements.txt", "cat"], stdin=subprocess.PIPE) as other:
        while subprocess.run(["flock", "-n", machine.root / "requirements.txt", "true"], check=False).returncode == 0:
            assert other.poll() is None
        assert machine.bootstrap().stderr == "" and begun.exists()


def test_what_cuda_costs_is_said_before_it_is_installed(machine: Machine) -> None:
    machine.bootstrap()
    machine.has("die-in-pip")
    assert "(250 MB to download for CUDA, 0.5 GB on the disk: minutes, once)" in machine.bootstrap("cuda").stderr
    machine.mended("die-in-pip")
    machine.asked()
    assert "CUDA=1 was not finished: make up CUDA=1 does it" in machine.bootstrap().stderr
    assert "cuda" not in pip_calls(machine.asked())[0]


@pytest.mark.parametrize("driver", [None, "libcuda.so.1 (libc6,x86-64) => /usr/lib/libcuda.so.1"])
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a driver here")
def test_without_a_driver_cuda_is_installed_all_the_same_and_this_is_said(machine: Machine, driver: str | None) -> None:
    ldconfig = machine.path / "ldconfig"
    ldconfig.write_text(f"#!/bin/sh\necho '{driver}'\n")
    ldconfig.chmod(0o755)
    done = machine.bootstrap("voice", "cuda")
    assert ("no NVIDIA driver here: CUDA is installed all the same" in done.stderr) == (driver is None)
    (pip,) = pip_calls(machine.asked())
    assert pip.endswith("-r requirements.txt -r requirements-voice.txt -r requirements-cuda.txt")


@pytest.mark.parametrize("trouble", ["die-in-download", "die-in-pip", "pip-fails"])
def test_what_was_there_before_a_kill_or_a_failure_is_there_after_it(machine: Machine, trouble: str) -> None:
    machine.bootstrap("cuda")
    machine.has(trouble)
    assert machine.bootstrap("voice").returncode
    machine.mended(trouble)
    assert machine.bootstrap().returncode == 0
    machine.asked()
    assert machine.bootstrap("cuda").stderr == ""
    assert machine.asked() == []


def test_who_waited_for_another_bootstrap_keeps_what_that_one_installed(machine: Machine) -> None:
    if not shutil.which("flock"):
        pytest.skip("needs flock")
    many = [
        subprocess.Popen([machine.root / "scripts" / "bootstrap.sh", extra], env={"PATH": str(machine.path)})
        for extra in ("voice", "cuda", "dev")
    ]
    assert [one.wait(30) for one in many] == [0] * 3
    machine.asked()
    assert machine.bootstrap("dev", "cuda").stderr == ""


def test_a_changed_lock_is_installed_into_the_same_venv(machine: Machine) -> None:
    machine.bootstrap()
    machine.asked()
    with (machine.root / "requirements.txt").open("a") as lock:
        lock.write("# changed\n")
    assert machine.bootstrap().returncode == 0
    asked = machine.asked()
    assert len(pip_calls(asked)) == 1
    assert "-m venv .venv" not in asked


def test_killed_in_the_middle_it_makes_the_venv_anew(machine: Machine) -> None:
    machine.has("die-in-pip")
    assert machine.bootstrap().returncode == -9
    machine.mended("die-in-pip")
    half_made = machine.root / ".venv" / "half-made"
    half_made.touch()
    machine.asked()
    assert machine.bootstrap().returncode == 0
    assert "-m venv .venv" in machine.asked()
    assert not half_made.exists()
    assert machine.bootstrap().stderr == ""


def test_killed_during_an_update_it_makes_the_venv_anew(machine: Machine) -> None:
    machine.bootstrap()
    machine.has("die-in-pip")
    assert machine.bootstrap("dev").returncode == -9
    machine.mended("die-in-pip")
    machine.asked()
    assert machine.bootstrap().returncode == 0
    assert "-m venv .venv" in machine.asked()


def test_a_venv_whose_interpreter_has_gone_is_made_anew(machine: Machine) -> None:
    machine.bootstrap()
    (machine.root / ".venv" / "bin" / "python").unlink()
    machine.asked()
    assert machine.bootstrap().returncode == 0
    assert "-m venv .venv" in machine.asked()


def test_a_checkout_that_moved_makes_its_venv_anew(machine: Machine) -> None:
    machine.bootstrap()
    machine.asked()
    machine.root = machine.root.rename(machine.folder / "elsewhere")
    assert machine.bootstrap().returncode == 0
    assert "-m venv .venv" in machine.asked()


def test_a_link_to_the_venv_of_another_checkout_is_replaced_and_that_one_stays(machine: Machine) -> None:
    other = machine.folder / "other"
    machine.bootstrap()
    (machine.root / ".venv").rename(other)
    (other / "stamp").write_text("2 another checkout")
    (machine.root / ".venv").symlink_to(other)
    assert machine.bootstrap().returncode == 0
    assert (other / "bin/python").exists()
    assert not (machine.root / ".venv").is_symlink()


def test_a_venv_made_by_hand_is_kept(machine: Machine) -> None:
    (machine.root / ".venv" / "bin").mkdir(parents=True)
    (machine.root / ".venv" / "bin" / "python").symlink_to(machine.python)
    assert machine.bootstrap().returncode == 0
    asked = machine.asked()
    assert len(pip_calls(asked)) == 1
    assert "-m venv .venv" not in asked


def test_several_at_once_install_once(machine: Machine) -> None:
    if not shutil.which("flock"):
        pytest.skip("needs flock")
    many = [
        subprocess.Popen(
            [machine.root / "scripts" / "bootstrap.sh"], env={"PATH": str(machine.path)}, stderr=subprocess.DEVNULL
        )
        for _ in range(5)
    ]
    assert [one.wait(30) for one in many] == [0] * 5
    assert len(pip_calls(machine.asked())) == 1


def test_python_names_the_interpreter(machine: Machine) -> None:
    mine = machine.python.rename(machine.folder / "mine")
    assert machine.bootstrap(PYTHON=str(mine)).returncode == 0


def test_without_flock(machine: Machine) -> None:
    (machine.path / "flock").unlink(missing_ok=True)
    assert machine.bootstrap().returncode == 0


def test_no_python(machine: Machine) -> None:
    machine.python.unlink()
    text = refused(machine.bootstrap())
    assert "no Python 3.11 or newer found" in text
    assert "PYTHON=/path/to/python3" in text


def test_only_an_old_python(machine: Machine) -> None:
    machine.has("too-old")
    assert "no Python 3.11 or newer found" in refused(machine.bootstrap())
    assert not (machine.root / ".venv").exists()


def test_no_venv_module(machine: Machine) -> None:
    machine.has("no-ensurepip")
    assert "apt-get install python3-venv" in refused(machine.bootstrap())
    assert not (machine.root / ".venv").exists()


def test_an_argument_nobody_knows(machine: Machine) -> None:
    assert "unknown argument: prod. Usage:" in refused(machine.bootstrap("prod"))


@pytest.mark.skipif(os.geteuid() == 0, reason="file modes do not bind root")
def test_a_read_only_checkout(machine: Machine) -> None:
    machine.root.chmod(0o555)
    try:
        assert "is read-only for" in refused(machine.bootstrap())
    finally:
        machine.root.chmod(0o755)


def test_pip_that_fails_is_shown_and_tried_again_in_the_same_venv(machine: Machine) -> None:
    machine.has("pip-fails")
    done = machine.bootstrap()
    assert done.returncode == 1
    assert "ERROR: no such thing" in done.stderr
    assert done.stderr.endswith("pip could not install requirements.txt (see above): mend that, then run this again\n")
    machine.mended("pip-fails")
    machine.asked()
    assert machine.bootstrap().returncode == 0
    asked = machine.asked()
    assert len(pip_calls(asked)) == 1
    assert "-m venv .venv" not in asked


BROKEN = "WARNING: Retrying (Retry(total={}, connect=None)) after connection broken by '{}': /simple/thing/\n"
UNREACHED = (
    # pip 23 and pip 26
    "NewConnectionError('<HTTPSConnection at 0x7f>: Failed to establish: [Errno -3] Temporary failure in resolution')",
    "NameResolutionError(\"HTTPSConnection(host='x'): Failed ([Errno -3] Temporary failure in resolution)\")",
)


@pytest.mark.parametrize("said", UNREACHED)
def test_an_index_that_cannot_be_reached_is_one_line_with_the_cause(machine: Machine, said: str) -> None:
    lines = [BROKEN.format(left, said) for left in (1, 0, 1, 0)]
    (machine.folder / "pip-fails").write_text("".join(lines))
    done = machine.bootstrap()
    assert done.returncode == 1
    _, _, last = done.stderr.splitlines()
    assert last.startswith("bootstrap: the package index can't be reached (Temporary failure in resolution): ")


def test_a_connection_that_broke_once_is_not_what_it_failed_of(machine: Machine) -> None:
    (machine.folder / "pip-fails").write_text(BROKEN.format(4, UNREACHED[0]))
    assert "ERROR: no such thing" in machine.bootstrap().stderr


@pytest.mark.parametrize("is_terminal", [False, True])
def test_it_tells_how_far_pip_is_and_how_long_it_took(machine: Machine, is_terminal: bool) -> None:
    """A clock that goes 5 s at each look."""
    (machine.folder / "until-told").write_text("20 s")
    for name, text in {
        "date": f"echo . >>{machine.folder}/looks; echo $((5 * $(grep -c . {machine.folder}/looks)))",
        "sleep": "exit 0",
    }.items():
        (machine.path / name).unlink(missing_ok=True)
        (machine.path / name).write_text(f"#!/bin/sh\n{text}\n")
        (machine.path / name).chmod(0o755)
    ours, theirs = os.openpty() if is_terminal else os.pipe()
    command = [machine.root / "scripts/bootstrap.sh"]
    with (
        (machine.folder / "told").open("wb", 0) as told,
        subprocess.Popen(command, env={"PATH": str(machine.path)}, stderr=theirs, stdout=theirs) as running,
        contextlib.suppress(OSError),  # a terminal without a program
    ):
        os.close(theirs)
        while said := os.read(ours, 4096):
            told.write(said)
    os.close(ours)
    assert running.returncode == 0
    shown = (machine.folder / "told").read_bytes()
    if is_terminal:
        assert b"\r\033[Kbootstrap: collecting thing==1.2: 20 s\r" in shown
    else:
        assert b"\nbootstrap: collecting thing==1.2: 20 s so far\n" in shown and b"\r" not in shown
        assert b"15 s" not in shown, "each 10 s"
    assert b"bootstrap: install: done in" in shown
