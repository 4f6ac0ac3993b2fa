#!/usr/bin/env python3
"""The suite from a shell: up, status, logs, password, keyframe, bitrate. (Down: scripts/down.py, which needs nothing.)
And from agent to agent, with or without a suite: connect, listen, send-file, receive, ping, bench, peers.

scripts/cli.py up                        start everything, wait until it serves, say where
scripts/cli.py up --foreground           start everything and be its supervisord: for containers and systemd
scripts/cli.py status --json             processes and streams, for programs
scripts/cli.py password                  show the password made for the hub's first account, once
scripts/cli.py password --reset          make it another one, and show that
scripts/cli.py keyframe omega-0          the next picture is a keyframe
scripts/cli.py bitrate omega-0 2M        encode at another rate from the next picture on
scripts/cli.py connect bob               talk to another agent; each such verb has its own --help
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import own_python

if __name__ == "__main__":
    own_python.become()

from procs import bus, log, proc, rpc
from procs.capture import place
from procs.errors import ConfigError, DeadlineExceeded, LinkLost, PlanariaError, Unhealthy
from procs.flags import command_line
from procs.keeper import start
from procs.keeper.pace import Row
from procs.kinds import BITRATE
from procs.messages.requests import Bitrate, Command, Keyframe
from procs.settings import ROOT
from procs.warden import options as warden
from scripts import (
    addresses,
    admin_password,
    capture_programs,
    go2rtc_binary,
    health,
    listeners,
    service,
    suite,
    voice,
    wall,
)
from scripts import status as show_status
from scripts.fingerprint import fingerprint
from scripts.go2rtc_generate_config import configuration, find_ffmpeg, to_yaml, write_atomically
from scripts.peer import known
from scripts.peer import parser as between_agents
from scripts.plan import Plan, load_plan

UNDER_SYSTEMD = "NOTIFY_SOCKET"  # set where systemd starts us (scripts/planaria.service)


def say(text: str) -> None:
    """One line of progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


def up(arguments: argparse.Namespace) -> None:
    """Bring the suite up as the settings say, or leave it as it is if it already is."""
    if arguments.foreground and UNDER_SYSTEMD in os.environ:
        time.sleep(Row(ROOT / "run/supervisord.starts").next_start())  # systemd 252 has but one pause, a short one
    with suite.exclusive(ROOT):
        plan = load_plan(ROOT, os.environ)
        voice.install(ROOT, plan.suite.roles)
        needed = _prepare_if_needed(plan)
        if arguments.foreground:
            _stay(plan, needed)
        try:
            since = log.timestamp() if needed else ""
            if needed:
                say("starting supervisord")
                start.start(ROOT, plan.environment)
            health.wait(ROOT, plan, plan.suite.up_limit_s, say, since)
        except (PlanariaError, OSError):
            if needed:
                suite.kill_all(ROOT)  # nothing half-started; the log stays
                say("everything was ended; the logs are in run/log")
            raise
    show_status.show(show_status.gather(ROOT, plan))
    addresses.show(ROOT / "run", plan, admin_password.take(ROOT / "run") if "hub" in plan.suite.roles else "")


def _stay(plan: Plan, needed: bool) -> NoReturn:
    """Go on as supervisord. Whether the suite serves is for `status` to say; a container's HEALTHCHECK asks it."""
    if not needed:
        pid = proc.supervisord(ROOT)
        raise ConfigError(f"--foreground (command line): the suite is up already, as pid {pid}; make down ends it")
    addresses.show(ROOT / "run", plan, "")  # what stands here is kept in logs, which are no place for a password
    if "hub" in plan.suite.roles:
        say("the password made for admin at a first start: scripts/cli.py password shows it, once")
    say("going on as supervisord")
    suite.become(ROOT, plan.environment)


def _prepare_if_needed(plan: Plan) -> bool:
    """Lay out all that supervisord needs, with nothing of ours alive any more, unless the suite runs and serves with
    just these settings. Returns whether supervisord is to be started."""
    files, binary = _files(plan)
    captures = capture_programs.files(ROOT, plan)
    wanted = fingerprint(ROOT, plan, files, captures, binary)
    path = ROOT / "run/fingerprint"
    if proc.supervisord(ROOT):
        same = path.exists() and path.read_text() == wanted
        why = health.why_not_back(ROOT, plan, say) if same else "the settings have changed"
        if not why:
            _lay_out(files, captures, binary)  # what the next start of each will read
            say("already up")
            return False
        # before what runs is ended; a supervisord that was started by hand has no mark
        _refuse_taken(plan, ours={*proc.marked(ROOT), proc.supervisord(ROOT)})
        say(f"{why}: restarting")
    if UNDER_SYSTEMD not in os.environ:
        service.refuse_if_active(ROOT)
    suite.kill_all(ROOT)
    _refuse_taken(plan)
    _lay_out(files, captures, binary)
    write_atomically(path, wanted)
    suite.precompile(ROOT)
    return True


def _refuse_taken(plan: Plan, ours: Collection[int] = ()) -> None:
    for each in plan.listeners:
        if each.tcp:  # tun_pump, which has a port of UDP alone, says itself that it is taken
            listeners.refuse_taken(each, ours)


def _files(plan: Plan) -> tuple[dict[str, str], Path | None]:
    """Name -> text of what processes find in run/, and the go2rtc that is to run, if one is."""
    found = {warden.NAME: plan.for_warden(), **plan.wall.files(ROOT / "run", plan.suite.roles)}
    if "streams" not in plan.suite.roles:
        return found, None
    for name in plan.producers:
        bus.address(ROOT / "run", bus.control_of(name))  # refuses a name too long for a socket in this directory
    if not plan.suite.container_fifo_dir:
        for path in plan.fifos.values():
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"fifo_dir={str(plan.suite.fifo_dir)!r}: cannot be made: {error.strerror}") from None
            place.make(path)  # refuses what is there and no FIFO
    binary = go2rtc_binary.find_or_fetch(ROOT, plan.environment, say)
    gop_cache = go2rtc_binary.has_gop_cache(binary)
    found["go2rtc.yaml"] = to_yaml(configuration(ROOT, plan, find_ffmpeg(plan.suite), gop_cache=gop_cache))
    return found, binary


def _lay_out(files: dict[str, str], captures: dict[str, str], binary: Path | None) -> None:
    """Put in run/ what scripts/exec_go2rtc.py, the warden, the proxies, the hub and supervisord start from."""
    for name, text in files.items():
        write_atomically(ROOT / "run" / name, text)
    if wall.ADOPT not in files:  # or a hub would go on taking in a device that is no longer beside it
        (ROOT / "run" / wall.ADOPT).unlink(missing_ok=True)
    folder = ROOT / capture_programs.FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    for old in set(os.listdir(folder)) - captures.keys():
        (folder / old).unlink()
    for name, text in captures.items():
        write_atomically(folder / name, text)
    if binary:
        link = ROOT / "run/.go2rtc.new"
        link.unlink(missing_ok=True)
        link.symlink_to(binary)
        os.replace(link, ROOT / "run/go2rtc")


def _running_plan() -> Plan:
    """The settings with the environment that the running suite was started with, which need not be ours."""
    return load_plan(ROOT, suite.environment(ROOT) or os.environ)


def status(arguments: argparse.Namespace) -> None:
    """What runs, and how many watch what. Exits 8 when something does not serve."""
    agent = known.agent_status()
    if not proc.supervisord(ROOT) and agent:
        _agent_alone(arguments, agent)
        return
    plan = _running_plan()
    try:
        _refuse_while_down()
        answer = {"state": "up"} | show_status.gather(ROOT, plan) | ({"agent": agent} if agent else {})
    except Unhealthy as error:
        if arguments.json:
            print(json.dumps({"state": "down", "said": str(error)}))
        raise
    if arguments.json:
        print(json.dumps(answer))
    else:
        show_status.show(answer)
        if agent:
            known.show_agent(agent)
    if why := health.why_not_serving(ROOT, plan):
        raise Unhealthy(f"{why}; {health.remedy(why, answer['processes'])}")
    for process in answer["processes"]:
        if process["state"] not in show_status.WELL:
            raise Unhealthy(f"{process['name']}: {process['state']}: {process['said']}")


def _refuse_while_down() -> None:
    """Raise Unhealthy without a supervisord."""
    if proc.supervisord(ROOT):
        return
    if any("procs.keeper" in proc.words(pid) for pid in proc.marked(ROOT)):
        raise Unhealthy("supervisord has died, and its keeper is about to start it again")
    raise Unhealthy("the suite is down; make up starts it")


def _agent_alone(arguments: argparse.Namespace, agent: dict[str, Any]) -> None:
    """An agent needs no suite. Raises LinkLost when its server does not answer."""
    if arguments.json:
        print(json.dumps({"state": "down", "agent": agent, "suite": None}))
    else:
        known.show_agent(agent)
        print("the suite is down; make up starts it")
    if not agent["answers"]:
        raise LinkLost(f"{agent['server']}: {agent['said']}")


def logs(arguments: argparse.Namespace) -> None:
    """Become `tail`, following every log from now on."""
    files = sorted(str(path) for path in (ROOT / "run/log").glob("*.log"))
    if not files:
        raise Unhealthy("there are no logs yet; make up starts the suite")
    os.execvp("tail", ["tail", "-n", "20", "-F", *files])


def password(arguments: argparse.Namespace) -> None:
    """Show the password made for the hub's first account, admin, once; --reset makes it another one."""
    plan = _running_plan()
    if "hub" not in plan.suite.roles:
        raise ConfigError("password (command line): the role hub is off here; ask the machine that runs the hub")
    if arguments.reset:
        print(admin_password.reset(plan.wall.hub, ROOT / "run"))
    elif made := admin_password.take(ROOT / "run"):
        print(made)
    else:
        raise Unhealthy(
            "there is none to be shown: it was shown already, PLANARIA_ADMIN_PASSWORD was set, or the hub has not"
            " started yet; scripts/cli.py password --reset makes another one"
        )


def keyframe(arguments: argparse.Namespace) -> None:
    """Ask a running producer for a keyframe."""
    _command(arguments.stream, Keyframe())


def bitrate(arguments: argparse.Namespace) -> None:
    """Change a running producer's bit rate."""
    try:
        bits_per_s = BITRATE.parse(arguments.rate)
    except ValueError:
        raise ConfigError(f"RATE={arguments.rate!r} (command line): must be {BITRATE.allowed}") from None
    _command(arguments.stream, Bitrate(bits_per_s=bits_per_s))


def _command(stream: str, command: Command) -> None:
    plan = _running_plan()
    if stream not in plan.producers:
        kind = "comes from elsewhere and takes no commands" if stream in plan.streams else "is no stream of this suite"
        raise ConfigError(f"STREAM={stream!r} (command line): {kind}; there are {', '.join(plan.producers) or 'none'}")
    _refuse_while_down()
    with rpc.Requester(ROOT / "run", bus.control_of(stream)) as requester:
        try:
            requester.ask(command)
        except DeadlineExceeded as error:
            raise Unhealthy(f"{stream}: nobody watches it, so its producer does not run ({error})") from None
    say(f"{stream}: done")


def _parser() -> argparse.ArgumentParser:
    parser = command_line("cli.py", "The suite from a shell.", (__doc__ or "").partition("\n\n")[2])
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in (up, status, logs, password, keyframe, bitrate):
        sub = verbs.add_parser(verb.__name__, help=(verb.__doc__ or "").rstrip("."), description=verb.__doc__)
        sub.set_defaults(verb=verb)
        if verb is up:
            sub.add_argument(
                "--foreground", action="store_true", help="become supervisord, with all logs on stdout too"
            )
        if verb is status:
            sub.add_argument("--json", action="store_true", help="one JSON object, for programs")
        if verb is password:
            sub.add_argument("--reset", action="store_true", help="a new one, for one that is lost; ends its log-ins")
        if verb in (keyframe, bitrate):
            sub.add_argument("stream", metavar="STREAM", help="such as omega-0; it must be watched by somebody")
        if verb is bitrate:
            sub.add_argument("rate", metavar="RATE", help=BITRATE.allowed)
    between_agents.add(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is that of procs/errors.py."""
    log.configure("make", style="text")
    try:
        arguments = _parser().parse_args(sys.argv[1:] if argv is None else argv)
        arguments.verb(arguments)
    except PlanariaError as error:
        print(f"planaria: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `make status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:  # disk full, a directory where a file should be, ...
        print(f"planaria: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
