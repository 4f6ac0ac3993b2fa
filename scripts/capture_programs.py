"""The part of supervisord's configuration that follows from the settings: one program for each capture."""

from __future__ import annotations

import shlex
from pathlib import Path

from scripts.suite_settings import Plan

FOLDER = "run/supervisor.d"  # supervisord.conf includes what is in it
HEAD = "; Written by `make up` from the captures of planaria.yaml.\n"

# It counts as running at once, so that supervisord never gives it up; procs/life.py paces one that does not serve.
PROGRAM = """
[program:capture_{name}]
command={command}
directory={root}
autorestart=true
startsecs=0
stopsignal=KILL
redirect_stderr=true
stdout_logfile={root}/run/log/capture_{name}.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2
"""


def to_supervisor(root: Path, plan: Plan) -> str:
    """The text of the file. supervisord splits a command as a shell would, but for % which stands for a variable."""
    text = HEAD
    for name, words in plan.captures.items():
        fifo = root / plan.suite.fifo_dir / f"{name}.ts"
        command = shlex.join(["/bin/sh", str(root / "scripts/fifo_writer.sh"), str(fifo), *words])
        text += PROGRAM.format(name=name, command=command.replace("%", "%%"), root=str(root).replace("%", "%%"))
    return text
