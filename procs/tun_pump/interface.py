"""The first that the process does: it takes the interface and the UDP port, and gives up the rights that this needs.

Nothing is imported here that takes long: from the moment that the interface is open the kernel keeps packets for us
(procs/agent/tun.py, QUEUE) that would be lost before.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from procs import log, prctl
from procs.agent import netlink, tun
from procs.agent.device import TunDevice
from procs.agent.network import Tunnel
from procs.tun_pump import firewall, hosts, number
from procs.tun_pump.guard import Guard

if TYPE_CHECKING:
    import zmq

    from procs.agent.lane.port import Port

PORT_KEY = "PLANARIA_TUN_PORT (or port: under tunnel: in planaria.yaml)"


class Claimed(NamedTuple):
    """What there is before anything else, as others need time to come back to it."""

    device: TunDevice
    port: Port
    bus: zmq.Socket[bytes]


class Alive(Protocol):
    """What life.run gives a process."""

    run_dir: Path

    def beat(self) -> None:
        """The main loop turns."""

    def serving(self) -> None:
        """The work is there to be had."""


def serve(tunnel: Tunnel, alive: Alive) -> None:
    """Be the pump, for ever. What needs root is done before there is a thread that could keep its rights."""
    device = _claim(tunnel, alive.run_dir) if tunnel.address else None
    port = bound(tunnel, alive.run_dir) if device else None
    guard = Guard(tunnel.interface) if device and firewall.apply(tunnel, alive.run_dir) else None
    if device:
        hosts.apply(tunnel, alive.run_dir)
    with contextlib.suppress(OSError):  # where even that is forbidden there is nothing to be dropped
        prctl.drop_privileges()
    if guard:
        guard.start()

    claimed = Claimed(device, port, _met(alive.run_dir)) if device and port else None

    from procs.tun_pump import shell

    shell.serve(tunnel, claimed, alive)


def bound(tunnel: Tunnel, run_dir: Path) -> Port:
    """The UDP port, with buffers as large as root may have them. Raises ConfigError."""
    from procs.agent.lane.port import Port

    return number.bound(tunnel, run_dir, lambda wanted: Port(wanted, tunnel.udp_range, PORT_KEY))


def _met(run_dir: Path) -> zmq.Socket[bytes]:
    """Where sessions come back to, which takes them a while, in which the rest is imported."""
    import zmq

    from procs import bus

    return bus.work_binder(zmq.Context(), run_dir, bus.TUN_PUMP_PACKETS)


def mark_of(run_dir: Path) -> str:
    """By which an interface is known as ours: as its alias, whoever lists it sees whose it is."""
    return f"{netlink.OURS} {run_dir.resolve()}"[:255]


def release(run_dir: Path) -> list[str]:
    """Take away what outlives us: names, forwarding, rules of nft, and the interface. Returns the interfaces' names.
    Raises OSError, NotHere."""
    hosts.apply(Tunnel(), run_dir)
    firewall.apply(Tunnel(), run_dir)
    return tun.release(mark_of(run_dir))


def _claim(tunnel: Tunnel, run_dir: Path) -> TunDevice:
    device, elsewhere = tun.claim(tunnel, mark_of(run_dir))
    for network in elsewhere:
        log.warning("this machine has another route there, which stays", prefix=str(network))
    for network in {each for many in tunnel.allowed.values() for each in many if not each.prefixlen}:
        log.info("a default route through the tunnel is for you to make", prefix=str(network))
    return device
