"""The part of supervisord's configuration that follows from the settings: one program for each capture, and what runs
here at all (scripts/roles.py).

A command stands in a script of its own. In supervisord's configuration ` ;` and ` #` would end it, a new line would
begin something else, and % means a variable.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from scripts import roles
from scripts.plan import Plan

FOLDER = "run/supervisor.d"  # supervisord.conf includes what is in it
HEAD = "; Written by `make up` from the captures of planaria.yaml.\n"

# It counts as running at once, so that supervisord never gives it up; procs/life.py paces one that does not serve.
PROGRAM = """
; While this capture is down nobody sees {name}: its viewers stay connected, and wait.
[program:capture_{name}]
command=/bin/sh "%(here)s/{name}.sh"
autorestart=true
startsecs=0
stopsignal=KILL
redirect_stderr=true
stdout_logfile=%(here)s/../log/capture_{name}.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2
"""
_SCRIPT = """\
# Written by `make up` from the captures of planaria.yaml.
cd "${{0%/*}}/../.." || exit 1
exec /bin/sh scripts/fifo_writer.sh {words}
"""


def files(root: Path, plan: Plan) -> dict[str, str]:
    """Name -> text of what is to stand in FOLDER."""
    found = {roles.NAME: roles.conf(plan.suite.roles, plan.wall.hub.listen, plan.told, plan.without)}
    if "streams" not in plan.suite.roles:
        return found
    found["captures.conf"] = HEAD + "".join(PROGRAM.format(name=name) for name in plan.captures)
    for name, words in plan.captures.items():
        fifo = root / plan.suite.fifo_dir / f"{name}.ts"
        found[f"{name}.sh"] = _SCRIPT.format(words=shlex.join([str(fifo), *words]))
    return found
