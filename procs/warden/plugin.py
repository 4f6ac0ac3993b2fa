"""Inside supervisord: a dead process is replaced within milliseconds, a crash loop is paced, and nothing is given up.

supervisord.conf loads it as an [rpcinterface:...]. Stock supervisord sleeps up to a second between an exit and the
restart, adds 1, 2, 3, ... s where the process was young, and gives up for good after `startretries`. Here:

- a signal (SIGCHLD above all) and every change of a process's state end the sleep of its main loop (select(2) on a
  pipe), so that the next turn of the loop, which restarts, comes at once;
- how long a program waits is decided by pacing.Row alone: BACKOFF's own delay is replaced, a late crash (EXITED, which
  supervisord would restart at once for ever) is held in BACKOFF too, and FATAL becomes BACKOFF;
- a listening socket that supervisord holds for a program (fcgi-program) stays open while the program is dead, so that
  whoever connects then waits for the next one instead of being refused;
- once a second, and after each change, the warden is sent a table of all processes (an event of type `planaria`), and
  its answer says who serves. One that does not answer is killed: only supervisord can notice a frozen warden.

Everything is called by supervisord's one thread. What fails here is logged and must not end supervisord's loop.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from typing import Any

from supervisor import events
from supervisor.datatypes import RestartUnconditionally
from supervisor.states import ProcessStates, SupervisorStates, getProcessStateDescription

from procs.warden import waker
from procs.warden.pacing import Row

TABLE_EVERY_S = 1.0
NEWS_EVERY_S = 0.02  # the same, where there is a turn, while the warden may know that somebody has begun to serve
YOUNG_S = 5.0  # who has not begun by then is not waited for so eagerly
WARDEN_LIMIT_S = 3.0  # without an answer from the warden
WARDEN_START_S = 15.0  # the same for its first answer: a slow machine has to import it
STOOD_STILL_S = 2.5  # our loop turns once a second at least
DEATHS_KEPT = 200
EVENT_TYPE = "planaria"


class _Run:
    """One life of a program. (No dataclass: importing those would cost supervisord 10 ms of its start.)"""

    def __init__(self, since_s: float) -> None:
        self.pid = 0  # known only after the fork
        self.since_s = since_s
        self.served = False


class _Program:
    """What we know of one program of supervisord's."""

    def __init__(self) -> None:
        self.row = Row()
        self.run: _Run | None = None
        self.restarts = 0
        self.wait_until_s = 0.0
        self.last: dict[str, Any] | None = None  # of its ends


class Rpc:
    """What supervisord serves as `planaria` over its socket."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def look(self) -> str:
        """Every process, as the warden is told too: {"supervisord": pid, "at": seconds, "processes": [...]}

        @return string table   JSON; times are those of CLOCK_MONOTONIC.
        """
        return json.dumps(self._plugin.table())


class Plugin:
    """One a supervisord."""

    def __init__(self, supervisord: Any) -> None:
        self._supervisord, self._options = supervisord, supervisord.options
        self.log = self._options.logger
        self._programs: dict[str, _Program] = {}
        self._statuses: dict[int, int] = {}
        self._blamed: dict[int, str] = {}  # those that we have killed: pid -> why
        self._deaths: list[dict[str, Any]] = []
        self._serial = 0
        self._table_at_s, self._is_due = 0.0, True
        self._answered_at_s = self._turned_at_s = time.monotonic()
        groups = [group for group in supervisord.process_groups.values() if hasattr(group, "socket_manager")]
        self._listening = [group.socket_manager.get_socket() for group in groups]  # it closes what nobody refers to
        self._wake = waker.start(self._options, self.turn)
        self._wait, self._options.waitpid = self._options.waitpid, self._waitpid
        events.subscribe(events.ProcessStateEvent, self._changed)

    # --- called by the waker, in every turn of supervisord's loop --------------------------------------

    def turn(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._is_due or now - self._table_at_s >= self._every_s(now):
            self._send_table(now)
        self._watch_warden(now)
        self._turned_at_s = now

    def _send_table(self, now: float) -> None:
        if any(pool.event_buffer for pool in self._pools()):
            return  # one waits already: a warden that is away must not find a heap of old ones
        self._is_due, self._table_at_s = False, now
        table = self.table()
        table["deaths"] = self._deaths
        events.notify(events.RemoteCommunicationEvent(EVENT_TYPE, json.dumps(table)))
        self._wake()  # it is handed over in the next turn

    def _every_s(self, now: float) -> float:
        """A kill is none of a program's failures once that serves, so it has to be known soon: the warden sends SIGCHLD
        when it hears of one, which makes a turn."""
        runs = [program.run for program in self._programs.values() if program.run]
        return NEWS_EVERY_S if any(not run.served and now - run.since_s < YOUNG_S for run in runs) else TABLE_EVERY_S

    def _pools(self) -> list[Any]:
        """The event listeners that are wardens."""
        groups = self._supervisord.process_groups.values()
        return [group for group in groups if getattr(group.config, "result_handler", None) is take]

    def _watch_warden(self, now: float) -> None:
        for process in (process for pool in self._pools() for process in pool.processes.values()):
            run = self._program(process).run
            if not run or run.pid != process.pid:
                continue
            silent_s = now - max(self._answered_at_s, run.since_s)
            limit_s = WARDEN_LIMIT_S if self._answered_at_s > run.since_s else WARDEN_START_S
            if now - self._turned_at_s > STOOD_STILL_S:
                self._answered_at_s = now  # it was we who did not listen
            elif silent_s > limit_s:
                self._blamed[process.pid] = f"no answer for {silent_s:.1f} s"
                self.log.warn(f"the warden has not answered for {silent_s:.1f} s: killing it")
                os.kill(process.pid, signal.SIGKILL)
                self._answered_at_s = now

    # --- called by supervisord at each change of a process's state -------------------------------------

    def _changed(self, event: Any) -> None:
        try:
            self._note(event.process, type(event))
        except Exception as error:  # or supervisord would go down in the middle of its own work
            self.log.error(f"planaria: {type(error).__name__}: {error}")
        self._is_due = True
        self._wake()

    def _note(self, process: Any, kind: Any) -> None:
        program = self._program(process)
        if kind is events.ProcessStateStartingEvent:
            program.restarts += program.last is not None
            program.run, program.wait_until_s = _Run(time.monotonic()), 0.0
        elif kind in (events.ProcessStateExitedEvent, events.ProcessStateBackoffEvent, events.ProcessStateFatalEvent):
            self._ended(process, program, kind)
        elif kind is events.ProcessStateRunningEvent and program.run:
            # What says nothing of itself counts as serving once it has lived for its startsecs.
            program.run.served = program.run.served or process.config.startsecs > 0
        elif kind is events.ProcessStateStoppedEvent:  # by a person: it stays so
            program.run = None

    def _ended(self, process: Any, program: _Program, kind: Any) -> None:
        now = time.monotonic()
        if kind is not events.ProcessStateFatalEvent:  # which follows a BACKOFF, and is no end of its own
            pause_s = self._died(process, program, now)
            program.wait_until_s = now + pause_s
        if self._options.mood <= SupervisorStates.RESTARTING:
            return  # it is going down
        pause_s = max(0.0, program.wait_until_s - now)
        if kind is events.ProcessStateExitedEvent:
            if not pause_s or not _is_restarted(process):
                return  # supervisord does so itself, in its next turn
            process.state = ProcessStates.BACKOFF
        process.state = ProcessStates.BACKOFF
        # supervisord's clock may be set back; it then shortens a delay to `backoff` seconds from now
        process.backoff = math.ceil(pause_s)
        process.delay = time.time() + pause_s if pause_s else 0
        process.config.startretries = sys.maxsize

    def _died(self, process: Any, program: _Program, now: float) -> float:
        """Write down how it ended; returns how long to wait."""
        run, program.run = program.run, None
        status = self._statuses.pop(process.pid, None)
        kind, reason = _in_words(status, process.spawnerr)
        if process.pid in self._blamed:
            kind, reason = "silent", self._blamed.pop(process.pid)
        age_s = now - run.since_s if run else 0.0
        pause_s = program.row.ended(killed=kind in ("killed", "silent"), served=bool(run and run.served), age_s=age_s)
        self._serial += 1
        program.last = {"kind": kind, "reason": reason, "at": now}
        death = {"serial": self._serial, "name": _name(process), "pid": process.pid, "served": bool(run and run.served)}
        self._deaths = [*self._deaths, {**death, **program.last}][-DEATHS_KEPT:]
        return pause_s

    def _waitpid(self) -> tuple[Any, Any]:
        pid, status = self._wait()
        if pid in self._options.pidhistory:
            self._statuses[pid] = status
        return pid, status

    def _program(self, process: Any) -> _Program:
        program = self._programs.setdefault(_name(process), _Program())
        if program.run and not program.run.pid:
            program.run.pid = process.pid  # known only after the fork
        return program

    def table(self) -> dict[str, Any]:
        """Every process, as it is now."""
        now = time.monotonic()
        groups = self._supervisord.process_groups.values()
        rows = [self._row(process, now) for group in groups for process in group.processes.values()]
        return {"supervisord": os.getpid(), "at": now, "processes": sorted(rows, key=lambda row: row["name"])}

    def _row(self, process: Any, now: float) -> dict[str, Any]:
        program = self._program(process)
        return {
            "name": _name(process),
            "state": getProcessStateDescription(process.state),
            "pid": process.pid,
            "since": program.run.since_s if program.run else 0.0,
            "restarts": program.restarts,
            "failures": program.row.failures,
            "wait_s": round(max(0.0, program.wait_until_s - now), 1),
            "last": program.last,
            "begun": bool(process.laststart),
        }

    # --- called by supervisord with each answer of the warden ------------------------------------------

    def answered(self, answer: Any) -> None:
        """Take what the warden says: {"served": [[name, pid], ...], "noted": the last death that it knows of}."""
        self._answered_at_s = time.monotonic()
        for name, pid in answer.get("served", ()):
            run = self._programs[name].run if name in self._programs else None
            if run and run.pid == pid:
                run.served = True
        noted = answer.get("noted", 0)
        self._deaths = [death for death in self._deaths if death["serial"] > noted]


_plugin: Plugin | None = None  # supervisord's result handlers are plain functions


def make(supervisord: Any, **_: Any) -> Rpc:
    """What supervisord.conf names as rpcinterface_factory."""
    global _plugin
    _plugin = Plugin(supervisord)
    return Rpc(_plugin)


def take(event: Any, answer: bytes) -> None:
    """What supervisord.conf names as the warden's result_handler. An answer that is none counts as no answer."""
    if _plugin is None:
        return
    try:
        _plugin.answered(json.loads(answer))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        _plugin.log.warn(f"planaria: an answer of the warden that is none ({error}): {answer[:100]!r}")


def _name(process: Any) -> str:
    """As supervisorctl has it."""
    group = process.group.config.name if process.group else process.config.name
    return str(process.config.name if group == process.config.name else f"{group}:{process.config.name}")


def _is_restarted(process: Any) -> bool:
    """Whether supervisord is going to start it again (it has its exit status by now)."""
    autorestart = process.config.autorestart
    return autorestart is RestartUnconditionally or (
        bool(autorestart) and process.exitstatus not in process.config.exitcodes
    )


def _in_words(status: int | None, spawn_error: str | None) -> tuple[str, str]:
    """How a process ended, as one word and in words."""
    if status is None:
        return "not started", spawn_error or "it could not be started"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return "exited", f"exit {code}"
    name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
    return ("killed" if code == -signal.SIGKILL else "crashed"), name
