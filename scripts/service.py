#!/usr/bin/env python3
"""The suite as a service of systemd, which starts it with the machine and again whenever it ends.

scripts/service.py install         for the whole machine as root, else for this user (make service)
scripts/service.py remove          end it and take it away (make service-off)
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from procs import log
from procs.errors import ConfigError, NotHere, PlanariaError, Unhealthy
from procs.settings import ROOT
from scripts import suite

NAME = "planaria.service"
TEMPLATE = ROOT / "scripts" / NAME
SYSTEM_ONLY = "# system only"
ASK_LIMIT_S = 30.0
START_LIMIT_S = 200.0  # above the unit's own TimeoutStartSec


class Place(NamedTuple):
    """Where a unit is kept, and who is asked about it."""

    path: Path
    is_system: bool

    def systemctl(self, *words: str, limit_s: float = ASK_LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Ask systemd. Never for a password: who may not is told so."""
        command = ["systemctl", *([] if self.is_system else ["--user"]), "--no-ask-password", *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 1, "", str(error))

    def typed(self, verb: str) -> str:
        """What a person types to do it."""
        return f"systemctl {verb} planaria" if self.is_system else f"systemctl --user {verb} planaria"


def places() -> list[Place]:
    """Where a unit of ours may be: this user's first, unless we are root."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    of_user = Place(config / "systemd/user" / NAME, False)
    of_system = Place(Path("/etc/systemd/system") / NAME, True)
    return [of_user, of_system] if os.geteuid() else [of_system]


def rendered(root: Path, *, is_system: bool, user: str) -> str:
    """The unit for a checkout. Raises ConfigError for a path that can't stand in one."""
    text = str(root)
    if re.search(r"""[\x00-\x1f\x7f"'\\]""", text) or text != text.strip():  # of a program it takes no quotes either
        raise ConfigError(f"{text!r}: systemd takes no such path; move the checkout")
    values = {
        "ROOT": text.replace("%", "%%"),
        "ROOT_WORD": _word(text),
        "PYTHON": _word(f"{text}/.venv/bin/python"),
        "CLI": _word(f"{text}/scripts/cli.py").replace(
            "$", "$$"
        ),  # $ means nothing in what is run, but in what it gets
        "USER": user,
        "TARGET": "multi-user.target" if is_system else "default.target",
    }
    unit = TEMPLATE.read_text()
    if not is_system:
        unit = re.sub(rf"^{SYSTEM_ONLY}.*?(?=^$)", "", unit, flags=re.M | re.S)
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], unit)


def _word(text: str) -> str:
    """One word of a unit's line."""
    return '"' + text.replace("%", "%%") + '"'


def installed(root: Path) -> Place | None:
    """Where this checkout's unit is, if it is a service."""
    line = f"WorkingDirectory={str(root).replace('%', '%%')}"
    for place in places():
        if line in _lines(place.path):
            return place
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def refuse_if_active(root: Path) -> None:
    """Raise ConfigError where systemd runs this suite: a second one beside it would take its place in turn with it."""
    place = installed(root)
    if place and place.systemctl("is-active", NAME).stdout.strip() in ("active", "activating", "reloading"):
        raise ConfigError(f"systemd runs this suite: {place.typed('restart')} starts it with what has changed")


def stop(root: Path) -> str:
    """Have systemd stop it, if it runs it, or what is ended would be back at once; returns what to say if it won't."""
    if (place := installed(root)) and (done := place.systemctl("stop", NAME)).returncode:
        return f"systemd starts it again: {place.typed('stop')} ({_last(done)})"
    return ""


def install() -> None:
    """Make it a service, with nothing of it running outside, and start it."""
    place, owner = places()[0], pwd.getpwuid(ROOT.stat().st_uid)
    if not shutil.which("systemctl"):
        raise NotHere("there is no systemd here; make up starts the suite, and its keeper keeps it")
    if place.path.exists() and installed(ROOT) != place:
        raise ConfigError(f"{place.path} belongs to another checkout; make service-off there takes it away")
    as_owner = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    if subprocess.run(["sh", str(ROOT / "scripts/bootstrap.sh")], check=False, **as_owner).returncode:  # type: ignore[call-overload]
        raise NotHere("what the suite needs could not be installed (see above)")
    text = rendered(ROOT, is_system=place.is_system, user=owner.pw_name)
    place.path.parent.mkdir(parents=True, exist_ok=True)
    new = place.path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o644)
    os.replace(new, place.path)
    if (done := place.systemctl("daemon-reload")).returncode:
        place.path.unlink()
        raise NotHere(f"systemd does not run here ({_last(done)}); make up starts the suite, and its keeper keeps it")
    for words in (["enable", NAME], ["stop", NAME]):
        _must(place, *words)
    with suite.exclusive(ROOT):
        suite.kill_all(ROOT)
    print("  starting it", file=sys.stderr, flush=True)
    _must(place, "restart", NAME, limit_s=START_LIMIT_S)
    print(f"  {place.path} is installed, and serves; {place.typed('status')}, make status, make down", file=sys.stderr)
    if not place.is_system:
        print("  for it to start with the machine, before you log in: loginctl enable-linger", file=sys.stderr)


def _must(place: Place, *words: str, limit_s: float = ASK_LIMIT_S) -> None:
    done = place.systemctl(*words, limit_s=limit_s)
    if done.returncode:
        journal = f"journalctl {'-u' if place.is_system else '--user-unit'} planaria"
        raise Unhealthy(f"systemctl {' '.join(words)}: {_last(done)}; {journal} says why")


def _last(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]


def remove() -> None:
    """End it, and take it away."""
    place = installed(ROOT)
    if not place:
        print("  this checkout is no service", file=sys.stderr)
        return
    try:
        _must(place, "disable", "--now", NAME)
    finally:
        place.path.unlink()
    _must(place, "daemon-reload")
    print(f"  {place.path} is gone; make up starts the suite without systemd", file=sys.stderr)


def main() -> int:
    """Install or remove; the exit code is that of procs/errors.py."""
    verb = {"install": install, "remove": remove}.get(" ".join(sys.argv[1:]))
    if not verb:
        print((__doc__ or "").strip())
        return 0 if sys.argv[1:2] in (["-h"], ["--help"]) else 2
    log.configure("make", style="text")
    try:
        verb()
    except PlanariaError as error:
        print(f"planaria: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"planaria: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
