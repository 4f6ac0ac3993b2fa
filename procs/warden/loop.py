"""The warden's loop: it hears, looks, lets the policy decide, and ends whom that says."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Protocol

import zmq

from procs import bus, journal, log, proc, rpc, settings
from procs.errors import ParentGone, Refused
from procs.messages.requests import Command, Look, Reply, Restart
from procs.messages.warden import Sounding, TunnelState, Watching, decode_to_warden
from procs.warden import go2rtc, metrics, notify, table
from procs.warden.history import RESTARTED, History
from procs.warden.limits import GO2RTC_EVERY_S, LIMITS, STACK_S, SUPERVISORD_EVERY_S, kind_of
from procs.warden.listener import READY, Listener, answer
from procs.warden.options import Warden
from procs.warden.policy import GO2RTC, SUPERVISORD, Policy, Verdict
from procs.warden.relatives import Relatives
from procs.warden.restarts import REMEMBERED_S, Restarts
from procs.warden.state import State

TURN_S = 0.5
LOOK_EVERY_S = 1.0
WEIGH_EVERY_S = 5.0
BEATS_A_TURN = 500  # a flood must not keep us from everything else
ANSWERS_A_TURN = 20
LAST_WORDS_S = 0.05  # from our answer to the end of ourselves: it has to go out
OLD_S = 3.0  # a table that supervisord has kept for us while we were away
_LIBC = ctypes.CDLL(None)


class Alive(Protocol):
    """What we tell of ourselves (life.Alive)."""

    def beat(self) -> None:
        """The loop turns."""

    def serving(self) -> None:
        """We watch."""


def watch(chosen: Warden, alive: Alive) -> None:
    """Watch until killed."""
    loop = _Loop(chosen)
    metrics.serve(chosen.metrics, loop.state.text)
    alive.serving()
    os.write(1, READY)
    while True:
        alive.beat()
        loop.turn()


class _Loop:
    """Nothing of it lasts: a new warden is told by supervisord, and by heartbeats, within a second."""

    def __init__(self, chosen: Warden) -> None:
        self._chosen, self._run_dir = chosen, settings.run_dir()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._beats = bus.binder(context, zmq.PULL, self._run_dir, bus.WARDEN_HEARTBEAT)
        self._poller = zmq.Poller()
        self._poller.register(0, zmq.POLLIN)
        self._poller.register(self._beats, zmq.POLLIN)
        self._asked = rpc.Responder(context, self._run_dir, bus.WARDEN_STATE)
        self._is_told = False  # by supervisord, of what there is; until then whoever asks waits
        self._listener = Listener()
        self._policy = Policy(chosen.memory or {}, chosen.stall_limit_s, _escalations(self._run_dir))
        self._history = History()
        self._history.recall(journal.read(self._run_dir, 0))
        self._history.written = _restarted(self._run_dir)
        self._restarts = Restarts(self._history.written, time.monotonic())
        self._relatives = Relatives(self._poller)
        self.state = State(self._run_dir, self._policy, self._history)
        self._poller.register(self.state.wanted, zmq.POLLIN)
        login = f"{chosen.username}:{chosen.password}" if chosen.username else ""
        self._go2rtc = go2rtc.Watcher(chosen.api, login)
        self._notify = notify.Notifier(os.environ.get("NOTIFY_SOCKET", ""))
        self._strangers: set[str] = set()
        self._has_news = False  # somebody serves who did not
        self._noted = 0  # the last of supervisord's deaths
        self._looked_at = self._weighed_at = 0.0
        self._left: list[tuple[str, int, float]] = []  # producers that have ended: name, pid, when
        self._asked_for_stack: list[tuple[float, Verdict]] = []
        self._last_words: tuple[float, Verdict] | None = None  # an end that is ours too, and when it is due

    def turn(self) -> None:
        """Wait for something to happen, and do what follows from it."""
        ready = dict(self._poller.poll(int((LAST_WORDS_S if self._last_words else TURN_S) * 1000)))
        if 0 in ready:
            self._read_events()
        if self._beats in ready:
            self._hear()
        self._left += [(name, pid, time.monotonic()) for name, pid in self._relatives.gone(ready)]
        self._take_looks()
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._policy.see_stopped(self._relatives.look(), now)
        if now - self._weighed_at >= WEIGH_EVERY_S:
            self._weighed_at = now
            for pid in (*self._policy.watched, self._relatives.supervisord):
                # What is shared counts whole here: below the ceiling it need not be known how much that is, which
                # would cost the kernel a walk through all of the memory.
                used = proc.rss_bytes(pid)
                self._policy.see_memory(pid, used if used <= self._policy.ceiling(pid) else proc.pss_bytes(pid))
            self.state.tunnel.look(now)
            _LIBC.malloc_trim(0)  # we are to stay small for as long as the machine runs; 5 us
        for verdict in self._policy.decide(now):
            self._end(verdict, now)
        self._insist(now)
        if self.state.wanted in ready:
            self.state.print(now)
        for _ in range(ANSWERS_A_TURN if self._is_told else 0):
            if not self._asked.serve(self._obey, wait_s=0):
                break
        if self._has_news and self._policy.has_served(self._relatives.pid_of(GO2RTC)):
            self._notify.ready()
        self._has_news = False

    # --- supervisord's events --------------------------------------------------------------------------

    def _read_events(self) -> None:
        data = os.read(0, 65536)
        if not data:
            raise ParentGone("supervisord has closed our events")
        for event in self._listener.feed(data):
            try:
                told = table.decode(event.payload)
                if told:
                    self._take(told)
            except Refused as error:
                self.state.refused += 1
                log.warning(f"an event of supervisord's that is none: {error}")
            os.write(1, answer(table.answer(self._policy.serving(), self._noted)))

    def _take(self, told: table.Table) -> None:
        now = time.monotonic()
        if told.supervisord != os.getppid():
            raise Refused("a table of somebody else's")
        if not 0 <= now - told.at <= OLD_S:
            return  # a new one is on its way
        self._policy.see_supervisord(told.supervisord, now)
        self._notify.watchdog()
        for death in told.deaths:
            if death.serial > self._noted:
                self._noted = death.serial
                self._ended(death.name, death.pid, death.kind, death.reason, death.at)
        self._greet(told)
        boss = self._relatives.pid_of(GO2RTC)
        self._policy.see_processes(self._relatives.update(told))
        if self._relatives.pid_of(GO2RTC) not in (0, boss):
            self._go2rtc.hurry()
        self._sign(os.getpid(), now)
        self._policy.see_failures({row.name: row.failures for row in told.processes})
        for pid, at in self._relatives.early_signs():
            self._sign(pid, at)
        self.state.rows = told.processes
        if not self._is_told:
            self._is_told = True
            self._asked.wait_with(self._poller)

    def _greet(self, told: table.Table) -> None:
        """Say once of a program that nothing is known of it; supervision goes on with what is seen from outside."""
        for name in {row.name for row in told.processes if kind_of(row.name) not in LIMITS} - self._strangers:
            self._strangers.add(name)
            log.warning(
                f"{name}: not in procs/warden/limits.py; unless it sends heartbeats, a hang will not be noticed"
            )

    # --- signs of life ---------------------------------------------------------------------------------

    def _hear(self) -> None:
        for _ in range(BEATS_A_TURN):
            try:
                beat = decode_to_warden(self._beats.recv(zmq.DONTWAIT))
            except zmq.Again:
                return
            except Refused as error:
                self.state.refused += 1
                log.warning(f"a heartbeat that is none: {error}")
                continue
            if isinstance(beat, Watching):
                if beat.pid == self._relatives.pid_of("webrtc_peer"):
                    self.state.watched.take(beat, time.monotonic())
            elif isinstance(beat, TunnelState):
                if beat.pid == self._relatives.pid_of("tun_pump"):
                    self.state.tunnel.take(beat, time.monotonic())
            elif isinstance(beat, Sounding):
                if beat.pid == self._relatives.pid_of("audio_io"):
                    self.state.sounded.take(beat, time.monotonic())
            elif self._relatives.is_ours(beat, time.monotonic()):
                self._policy.see_processes(self._relatives.known())
                self._sign(beat.pid, time.monotonic())
                if beat.dropped:
                    self.state.dropped[beat.pid] = beat.dropped

    def _sign(self, pid: int, at: float) -> None:
        if not self._policy.see_sign(pid, at):
            return
        self._has_news = True
        if self._relatives.is_supervised(pid):
            # Have supervisord ask us now: a kill from here on says nothing about the program (procs/warden/pacing.py).
            self._relatives.kill(self._relatives.supervisord, signal.SIGCHLD)
        self._is_up(pid, at)

    def _is_up(self, pid: int, at: float) -> None:
        if up := self._history.serves(self._policy.watched[pid].known.name, pid, at):
            journal.append(self._run_dir, process=up.process, event="up", pid=pid, ms=up.ms, at=up.at)

    def _take_looks(self) -> None:
        while self._go2rtc.looks:
            look = self._go2rtc.looks.popleft()
            pid = self._relatives.pid_of(GO2RTC)
            if look.streams is None or not pid or look.at < self._relatives.since(pid):
                continue
            self._sign(pid, look.at)
            self._tell_crashes(look)
            makers = self._relatives.makers(look.streams)
            self._policy.see_streams(look.streams, makers, look.at, self._relatives.readers())
            self.state.streams = look.streams

    def _tell_crashes(self, look: go2rtc.Look) -> None:
        """go2rtc ends a producer when its last viewer leaves. One that ended while there were viewers has crashed."""
        for name, pid, at in [each for each in self._left if each[2] < look.at]:
            if any(stream.watched_by for stream in self._streams_of(pid, look)):
                self._ended(name, pid, "ended", "go2rtc does not say how", at)
                for each in list(self._policy.watched.values()):
                    if each.known.name == name and each.served_at is not None:
                        self._is_up(each.known.pid, each.served_at)  # its successor was quicker than this look
        self._left = [each for each in self._left if each[2] >= look.at]

    def _streams_of(self, pid: int, look: go2rtc.Look) -> list[go2rtc.Stream]:
        made = self._policy.made_by(pid)
        return [stream for name, stream in (look.streams or {}).items() if name in made]

    # --- what others ask of us -------------------------------------------------------------------------

    def _obey(self, command: Command) -> Reply:
        """Raises Refused."""
        if isinstance(command, Look):
            return Reply(id=0, ok=True, body=self.state.told(time.monotonic()))
        if isinstance(command, Restart):
            self._restart(command, time.monotonic())
            return Reply(id=0, ok=True)
        raise Refused(f"the warden takes no {type(command).__name__}")

    def _restart(self, asked: Restart, now: float) -> None:
        pids = {each.known.pid for each in self._policy.watched.values() if each.known.name == asked.process}
        if asked.process == SUPERVISORD:
            pids = {self._relatives.supervisord}
        if not self._restarts.is_due(asked, pids, now):
            return
        verdict = Verdict(asked.pid, asked.process, RESTARTED, asked.why)
        if asked.pid in (os.getpid(), self._relatives.supervisord):
            self._last_words = (now + LAST_WORDS_S, verdict)
        elif not self._end(verdict, now):
            raise Refused(f"{asked.process} has just ended by itself")
        self._restarts.note(asked, now)

    # --- ends ------------------------------------------------------------------------------------------

    def _ended(self, name: str, pid: int, kind: str, reason: str, at: float) -> None:
        down = self._history.ended(name, pid, kind, reason, at)
        self.state.dropped.pop(pid, None)
        if not down:
            return
        self.state.ended(name, down.kind, down.reason)
        journal.append(
            self._run_dir, process=name, event="down", pid=pid, kind=down.kind, reason=down.reason, at=down.at
        )

    def _end(self, verdict: Verdict, now: float) -> bool:
        """End a process; whoever has started it starts it again. Whether it was still there."""
        log.warning(f"ending {verdict.name}: {verdict.reason}", pid=verdict.pid, kind=verdict.kind)
        self._history.blame(verdict.name, verdict.pid, verdict.kind, verdict.reason, now)
        if verdict.name == SUPERVISORD or verdict.pid == os.getpid():
            # It can't say so itself, and we die with it. Its keeper may be stopped as well, and is needed now.
            journal.append(
                self._run_dir,
                process=verdict.name,
                event="down",
                pid=verdict.pid,
                kind=verdict.kind,
                reason=verdict.reason,
            )
            self._relatives.kill(self._relatives.pid_of("keeper"), signal.SIGCONT)
        if verdict.asks_for_stack:
            self._asked_for_stack.append((now, verdict))
        return self._relatives.kill(verdict.pid, signal.SIGABRT if verdict.asks_for_stack else signal.SIGKILL)

    def _insist(self, now: float) -> None:
        """Kill those who were asked where they hang, and could not even say that."""
        if self._last_words and now >= self._last_words[0]:
            (_, verdict), self._last_words = self._last_words, None  # we may outlive it by a turn
            self._end(verdict, now)
        due = [verdict for at, verdict in self._asked_for_stack if now - at >= STACK_S]
        self._asked_for_stack = [(at, verdict) for at, verdict in self._asked_for_stack if now - at < STACK_S]
        for verdict in due:
            self._relatives.kill(verdict.pid, signal.SIGKILL)


def _escalations(run_dir: Path) -> dict[str, float]:
    """Who was ended by a former warden for the sake of others, so lately that it must not be done again. When exactly
    does not matter: the time begins anew."""
    every_s = {GO2RTC: GO2RTC_EVERY_S, SUPERVISORD: SUPERVISORD_EVERY_S}
    lines = {name: journal.read(run_dir, time.time() - every) for name, every in every_s.items()}
    found = {
        name for name in every_s for line in lines[name] if (line["process"], line.get("kind")) == (name, "escalated")
    }
    return dict.fromkeys(found, time.monotonic())


def _restarted(run_dir: Path) -> set[tuple[str, int]]:
    """Name and pid of those whose restart a former warden was asked for lately."""
    lines = journal.read(run_dir, time.time() - REMEMBERED_S)
    return {(line["process"], int(line["pid"])) for line in lines if line.get("kind") == RESTARTED}
