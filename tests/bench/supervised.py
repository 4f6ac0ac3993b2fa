"""A tunnel as a suite has it, for the bench of tunnels: tun_pump at both ends, and a session in a child of webrtc_peer,
with the bus between the two."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from procs.agent.planes import LANE
from tests import hub_rig
from tests.bench.peers_ground import FAR, LIMIT_S, Wire
from tests.homes import SIGNAL_ALONE, TOKEN, Home
from tests.rig import free_port, until


@contextmanager
def supervised(wire: Wire, tunnel: Sequence[tuple[str, str, int]]) -> Iterator[list[Home]]:
    """Both ends, with these names of interfaces, addresses and MTUs, once packets take the fast lane."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="planaria-bench-")))
        with wire.far.entered():
            told: dict[str, Any] = {"PLANARIA_HUB": f"0.0.0.0:{free_port()}", "SIGNALING_TOKENS": TOKEN}
            told["PLANARIA_HUB_INSECURE"] = "1"  # nobody else is in this network
            hub = stack.enter_context(hub_rig.process(folder / "hub", command=SIGNAL_ALONE, **told))
        homes = []
        for end, (me, other) in enumerate((("alice", "bob"), ("bob", "alice"))):
            name, address, mtu = tunnel[end]
            peers = {other: {"allowed": [f"{tunnel[1 - end][1]}/32"]}}
            own: dict[str, Any] = {"interface": name, "address": [f"{address}/24"], "mtu": str(mtu), "peers": peers}
            homes.append(Home(me, wire[end], folder, f"ws://{FAR}:{hub.port}/ws/signal", **own))
            stack.callback(homes[end].end)
        for home in homes:
            until(lambda home=home: home.session().plane == LANE, LIMIT_S)  # type: ignore[misc]
        yield homes
