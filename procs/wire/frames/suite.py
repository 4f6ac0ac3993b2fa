"""How the processes of a suite do, and restarting one: what a device tells its hub, and what it is asked."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from procs.wire.envelope import Payload
from procs.wire.scalars import Count, Number, ProcessName, Text, Time, Word


class Recovery(msgspec.Struct, frozen=True, omit_defaults=True):
    """How long a process took to serve again each time: a histogram, and of the times themselves median and worst."""

    bounds_s: Annotated[list[Number], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    counts: Annotated[list[Count], msgspec.Meta(max_length=65)] = []  # the last: of those above the last bound
    p50_ms: Number | None = None
    worst_ms: Number | None = None


class Process(msgspec.Struct, frozen=True):
    """One process of a suite, as its warden sees it."""

    name: ProcessName
    pid: Count  # 0: it does not run
    state: Word  # SERVING, HANGING, or supervisord's: RUNNING, STARTING, BACKOFF, STOPPED, ...
    age_s: Number
    restarts_hour: Count
    restarts: Count  # that are known of
    last_end: Text  # why it ended last; "" if it has not
    last_end_at: Time
    memory: Count  # bytes (RSS)
    failures: Count  # starts in a row that failed
    wait_s: Number  # until it is started again
    recovery: Recovery = Recovery()


class TunnelPeer(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a device's tunnel to one of its peers does. Nothing but the name is known of one that has never been up."""

    peer: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    is_up: bool = False  # packets go to it
    why: Text = ""  # it is not
    plane: Count = 0
    path: Word = ""  # direct, or relayed
    remote: Annotated[str, msgspec.Meta(max_length=100)] = ""  # an address and a port: for owners only
    round_trip_ms: Number | None = None  # None: not known, and so the rates
    sent_bits_per_s: Number | None = None
    received_bits_per_s: Number | None = None
    dropped: Annotated[dict[Word, Count], msgspec.Meta(max_length=16)] = {}  # packets, by reason


class WatchedStream(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the watch sessions of one of a device's streams do."""

    stream: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]  # only shown
    viewers: Count
    direct: Count = 0  # of them, and so
    relayed: Count = 0  # the others are still connecting
    bits_per_s: Number = 0.0  # to all of them
    loss: Number = 0.0  # fraction of packets, of the one who loses most


class SuiteWatch(Payload, frozen=True):
    """suite_watch, hub to device: send `suite` now, and for so long whenever it changes."""

    for_s: Annotated[float, msgspec.Meta(ge=0, le=60)]


class Suite(Payload, frozen=True):
    """suite, device to hub: how its processes are. `troubles`: what is wrong though all of them live. The rest is of
    devices that have it: the peers of their tunnel, and who watches which stream by WebRTC."""

    max_bytes: ClassVar[int] = 256 * 1024

    at: Time
    processes: Annotated[list[Process], msgspec.Meta(max_length=500)]
    troubles: Annotated[list[Text], msgspec.Meta(max_length=100)] = msgspec.field(default_factory=list)
    tunnel: Annotated[list[TunnelPeer], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    watching: Annotated[list[WatchedStream], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)


class SuiteRestart(Payload, frozen=True):
    """suite_restart, hub to device, with a request_id: kill this process, which is started again. It is safe to send
    again: it names the pid."""

    process: ProcessName
    pid: Annotated[int, msgspec.Meta(gt=0, lt=2**31)]


class SuiteRestarted(Payload, frozen=True):
    """suite_restarted, device to hub, with the request_id of suite_restart: it was killed, or why not."""

    ok: bool
    reason: Text = ""


class SuiteEvent(Payload, frozen=True, omit_defaults=True):
    """suite_event, device to hub: a process had ended and serves again."""

    process: ProcessName
    pid: Count
    reason: Text
    took_ms: Number | None = None
