"""A running suite that faults are done to: who is in it, whether it is healthy, and who watches it meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from procs import proc
from procs.errors import Unhealthy
from procs.kinds import Address
from scripts import health, reach, roles, suite
from scripts.plan import Plan, load_plan
from tests.clone import EVERY_ROLE, Clone
from tests.faults import invariants
from tests.faults.far_end import FarEnd
from tests.faults.faults import Fault, together
from tests.faults.invariants import WAITING
from tests.rig import clean_environ
from tests.viewers import RtspViewer

CAPTURE = "cam"
COMMAND = (
    "ffmpeg -nostdin -v error -re -f lavfi -i testsrc2=size=160x90:rate=15 -c:v libx264 -preset ultrafast"
    " -tune zerolatency -g 8 -b:v 100k -f mpegts pipe:1"
)
# A low ceiling for producers, so that a leak is seen within seconds.
SETTINGS = {"roles": EVERY_ROLE, "workers": 1, "captures": {CAPTURE: COMMAND}, "memory_mb": "headless_agent=300"}
FRESH_S = 0.5  # a picture that is older does not count as now
LOOK_EVERY_S, SELDOM_S = 0.02, 0.3
JOIN_EVERY_S = 0.05
PROXIES, ASK_LIMIT_S = 2, 2.0


class Watching:
    """Somebody who watches a stream and connects again whenever they are cut off. For use in a `with` block."""

    def __init__(self, rtsp: Address, stream: str) -> None:
        self._rtsp, self.stream = rtsp, stream
        self._viewers: list[RtspViewer] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._stay, daemon=True)

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for viewer in self._viewers[-1:]:
            viewer.leave()

    def _stay(self) -> None:
        while not self._over.wait(JOIN_EVERY_S):
            if not self._viewers or self._viewers[-1].ended:
                viewer = RtspViewer(self._rtsp, self.stream)
                viewer.start()
                self._viewers.append(viewer)

    def times_ns(self, since_ns: int = 0) -> list[int]:
        """When pictures came, on CLOCK_MONOTONIC: the last one before `since_ns`, and all later ones."""
        arrivals = [arrival.at_ns for viewer in self._viewers[-8:] for arrival in viewer.arrivals[-20_000:]]
        before = [at for at in arrivals if at < since_ns]
        return [*before[-1:], *(at for at in arrivals if at >= since_ns)]

    def is_fresh(self, since_ns: int = 0) -> bool:
        """Whether pictures come right now, and one has come since then."""
        arrivals = [viewer.arrivals[-1].at_ns for viewer in self._viewers[-2:] if viewer.arrivals]
        return bool(arrivals) and arrivals[-1] > max(since_ns, time.monotonic_ns() - FRESH_S * 1e9)

    def gap_ms(self, since_ns: int) -> float:
        """The longest time without a picture since then, the present one included."""
        times = [*self.times_ns(since_ns), time.monotonic_ns()]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0) / 1e6


@dataclass
class Recovery:
    """How a suite came back from faults, in ms since the first of them."""

    new_pid_ms: dict[str, float] = field(default_factory=dict)
    """Name of each process that was hit -> when there was another one of that name."""
    healthy_ms: float | None = None
    gap_ms: float = 0.0
    missing: str = ""
    """What was still wrong at the deadline."""


class Subject:
    """The suite of a clone, with viewers on some of its streams."""

    def __init__(self, clone: Clone, watching: tuple[Watching, ...] = (), far: FarEnd | None = None) -> None:
        self.root, self.watching, self.far = clone.root, watching, far
        self.plan: Plan = load_plan(clone.root, clean_environ())
        self._expected: set[str] = set()

    def look(self) -> invariants.Look:
        """Its processes, now."""
        return invariants.look(self.root)

    def targets(self) -> dict[str, int]:
        """Its living processes by name."""
        return {name: pid for pid, name in invariants.names(self.look()).items()}

    def settle(self, within_s: float = 20.0) -> dict[str, int]:
        """Wait until it is healthy and nothing in it changes any more; what is there then is what has to be there
        from now on. Returns the targets."""
        self._expected = set()
        deadline = time.monotonic() + within_s
        before: dict[str, int] = {}
        while True:
            why, now = self.why_unhealthy(), self.targets()
            why = why or next((f"{name} is not yet alone" for name in now if WAITING in name), "")
            if not why and now == before:
                self._expected = set(now)
                return now
            assert time.monotonic() < deadline, f"not healthy within {within_s:g} s: {why or 'it keeps changing'}"
            before = now
            time.sleep(0.5)

    def why_unhealthy(self, gone: Mapping[str, int] | None = None, since_ns: int = 0) -> str:
        """What is wrong now, the cheap questions first; '' if all is well. `gone`: name -> pid that must not be it;
        `since_ns`: when the newest picture has to be from at least."""
        seen = self.look()
        pids = {name: pid for pid, name in invariants.names(seen).items()}
        if missing := self._expected - pids.keys():
            return f"there is no {', '.join(sorted(missing))}"
        if old := [name for name, pid in (gone or {}).items() if pids.get(name) == pid]:
            return f"still the same {', '.join(old)}"
        if stopped := [name for name, pid in pids.items() if seen[pid].state in "Tt"]:
            return f"{', '.join(stopped)} is stopped"
        if rows := self._not_serving():
            return f"{', '.join(rows)} does not serve yet"
        if dry := [each.stream for each in self.watching if not each.is_fresh(since_ns)]:
            return f"no picture of {', '.join(dry)}"
        if self.far and not self.far.is_fresh(since_ns):
            return "no packet comes back through the tunnel"
        return self._not_answering()

    def _not_serving(self) -> list[str]:
        """Processes of ours whose run has not served yet (procs/life.py, CrashRow). Told by the locks they hold."""
        run = self.root / "run"
        names = [name for held in invariants.locks_held(run).values() for name in held]
        return [name for name in names if (run / f"{name}.crashes").exists()]

    def _not_answering(self) -> str:
        try:
            states = {process.name: process.state for process in suite.processes(self.root)}
        except Unhealthy as error:
            return str(error)
        on = {name: state for name, state in states.items() if not roles.is_off(name, self.plan.suite.roles)}
        if idle := [f"{name} {state}" for name, state in on.items() if state not in ("STARTING", "RUNNING")]:
            return f"supervisord: {', '.join(idle)}"
        with contextlib.suppress(http.client.HTTPException):
            return health.why_not_serving(self.root, self.plan) or self._not_reached()
        return "go2rtc: answers with rubbish"

    def _not_reached(self) -> str:
        """What of the way from the hub to go2rtc is still missing: whoever is killed there is missed by the others."""
        state = reach.link_state(self.root)
        if state is None or state.workers < PROXIES:
            return f"ws_link knows {state.workers if state else 'of no'} proxies"
        at = self.plan.wall.hub.listen
        try:
            with contextlib.closing(http.client.HTTPConnection(at.host, at.port, timeout=ASK_LIMIT_S)) as connection:
                connection.request("GET", "/metrics")
                figures = connection.getresponse().read().decode()
        except OSError as error:
            return f"hub: {error}"
        there = f"planaria_hub_devices_online 1\nplanaria_hub_data_links {PROXIES}"
        lines = "\n".join(line for line in figures.splitlines() if not line.startswith("#"))
        return "" if there in lines else "the hub has not both data connections of the device"

    def recover(self, faults: Mapping[str, Fault], within_s: float) -> Recovery:
        """Wait until each process that was hit is another one and all is well, or the time is over."""
        first_ns = min(fault.at_ns for fault in faults.values())
        gone = {name: fault.pid for name, fault in faults.items()}
        found = Recovery()
        all_new_ns = 0
        while True:
            used_s = time.thread_time()
            self._note_new_pids(gone, first_ns, found)
            if waited_for := gone.keys() - found.new_pid_ms.keys():  # nobody is asked: who is dead lets us wait
                found.missing = f"no new {', '.join(sorted(waited_for))}"
            else:
                all_new_ns = all_new_ns or time.monotonic_ns()  # what the old ones have sent last is no sign of the new
                found.missing = self.why_unhealthy(gone, all_new_ns)
            now_ms = (time.monotonic_ns() - first_ns) / 1e6
            found.gap_ms = max((each.gap_ms(first_ns) for each in self.watching), default=0.0)
            if all_new_ns and not found.missing:
                found.healthy_ms = now_ms
                return found
            if now_ms > within_s * 1000:
                return found
            # To look takes work where there are many processes; what comes back needs the processor more than we.
            # And what takes seconds need not be known to the hundredth.
            waited_s = now_ms / 1000
            time.sleep(max(LOOK_EVERY_S, 3 * (time.thread_time() - used_s), min(SELDOM_S, waited_s / 10)))

    def _note_new_pids(self, gone: Mapping[str, int], first_ns: int, found: Recovery) -> None:
        if len(found.new_pid_ms) < len(gone):
            now = self.targets()
            at_ms = (time.monotonic_ns() - first_ns) / 1e6
            for name, pid in gone.items():
                if now.get(name, pid) != pid:
                    found.new_pid_ms.setdefault(name, at_ms)


STAY = ("supervisord", "warden", "keeper", "go2rtc")  # they see the others come and go, and must not grow by that
DESCRIPTORS_MORE, FILES_MORE = 3, 3  # a leak of one a restart is three times that
MEMORY_MORE = {"go2rtc": 16e6}  # Go collects its garbage when it likes
OTHERS_MORE = 4e6
ROUND_S, GROWN_UP_S = 20.0, 3.0


def growth(subject: Subject, restarts: int, pause_s: float = 0.0) -> list[str]:
    """Kill all others together, again and again, until there were so many restarts; returns what has grown by that.

    `pause_s`: between two rounds. What is killed ten times running before it was heard of is paced, as it should be,
    and so is who calls a hub that never stays.
    """
    found: list[str] = []
    _kill_others(subject)  # first once: what is made once and kept is no leak
    stay = _grown_up(subject)
    before = {name: (invariants.descriptors(pid), proc.rss_bytes(pid)) for name, pid in stay.items()}
    files = invariants.files(subject.root / "run")
    done = 0
    while done < restarts:
        time.sleep(pause_s)
        done += _kill_others(subject)
    for name, (descriptors, rss) in before.items():
        pid = stay[name]
        if (now := subject.targets().get(name)) != pid:
            found.append(f"{name} was pid {pid} and is {now}, though nobody has killed it")
        elif (more := invariants.descriptors(pid) - descriptors) > DESCRIPTORS_MORE:
            found.append(f"{name} has {more} files more open after {done} restarts")
        elif (grown := proc.rss_bytes(pid) - rss) > MEMORY_MORE.get(name, OTHERS_MORE):
            found.append(f"{name} has grown by {grown / 1e6:.1f} MB after {done} restarts")
    more_files = sorted(invariants.files(subject.root / "run") - files)
    if len(more_files) > FILES_MORE:
        found.append(f"run/ has more in it after {done} restarts: {', '.join(more_files)[:300]}")
    return found


def _grown_up(subject: Subject) -> dict[str, int]:
    """Who stays, once each has opened all that it opens in its first moments, heartbeats last."""
    deadline = time.monotonic() + ROUND_S
    while True:
        stay = {name: pid for name, pid in subject.targets().items() if name in STAY}
        ages = [its.age_s for pid in stay.values() if (its := proc.stat(pid))]
        if len(ages) == len(stay) and min(ages) > GROWN_UP_S:
            return stay
        assert time.monotonic() < deadline, f"one of {', '.join(stay)} is always new"
        time.sleep(LOOK_EVERY_S)


def _kill_others(subject: Subject) -> int:
    """Kill all that do not stay, at once; returns how many."""
    pids = subject.targets()
    names = [name for name in pids if name not in STAY]
    with together(pids, dict.fromkeys(names, "killed")) as done:
        recovery = subject.recover(done, ROUND_S)
    assert not recovery.missing, f"{', '.join(names)} killed: {recovery.missing}"
    return len(names)


@contextlib.contextmanager
def watched(clone: Clone, *streams: str, far: FarEnd | None = None) -> Iterator[Subject]:
    """The suite of a clone that is up, with a viewer on each of these streams, once all of them see pictures; `far`:
    the other end of its tunnel, if it has one."""
    host, _, port = clone.rtsp.rpartition(":")
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(Watching(Address(host, int(port)), stream)) for stream in streams]
        subject = Subject(clone, tuple(viewers), far)
        subject.settle()
        yield subject
