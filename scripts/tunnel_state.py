"""How the tunnel is, for `make status`: what tun_pump says of its peers."""

from __future__ import annotations

import re
from typing import Any

from procs.agent.settings import AgentSettings
from procs.messages.tunnel import OF_SERVER, UNDECIDED
from procs.messages.warden import TunnelState
from procs.warden.tunnel import REFUSED

PLACE = "its address and its peers under `tunnel:` in planaria.yaml"
COLUMNS = ("PEER", "STATE", "PLANE", "PATH", "ADDRESS", "MTU", "ROUND TRIP", "SENT", "RECEIVED", "REKEYS", "DROPPED")
_REFUSED = re.compile(rf"{OF_SERVER}(.*\btokens?\b.*)")


def is_told(said: TunnelState) -> bool:
    """Whether the signalling server has answered, or it is known that it does not; also where nobody is to be met."""
    return not said.peers or any(its.is_up or its.why not in UNDECIDED for its in said.peers)


def why_refused(said: TunnelState) -> str:
    """What is wrong with our token for the signalling server, and what to do; "" if nothing is, as far as is known."""
    found = [match[1] for its in said.peers if (match := _REFUSED.match(its.why))]
    return _in_words(found[0]) if found else ""


def needs(agent: AgentSettings) -> list[str]:
    """What a machine without a tunnel lacks for one."""
    told = {"AGENT_ID": agent.agent_id, "SIGNALING_URL": agent.signaling_url}
    lacked = " and ".join(variable for variable, value in told.items() if not value)
    return [PLACE, f"{lacked} in .env"] if lacked else [PLACE]


def away(tunnel: dict[str, Any]) -> list[str]:
    """Why peers are; in full, since what is to be done about it comes last."""
    why = {its["peer"]: its["why"] for its in tunnel["peers"] if its["why"]}
    return [
        f"tunnel to {peer}: {_in_words(match[1]) if (match := _REFUSED.match(its)) else its}"
        for peer, its in why.items()
    ]


def _in_words(refusal: str) -> str:
    return (
        f"the signalling server of SIGNALING_URL takes no token of ours ({refusal}): set SIGNALING_TOKEN in .env to one"
        " of its SIGNALING_TOKENS, the same on all peers"
    )


def notes(tunnel: dict[str, Any]) -> list[str]:
    """What there is to be said below the table: where it is, and why a peer's packets go by another plane than 3."""
    where = f"{tunnel['interface']} {' '.join(tunnel['addresses'])}"
    if not tunnel["interface"]:
        where = f"not configured: it needs {', and '.join(tunnel['needs'])} (README: A tunnel to peers)"
    slow = [each for each in tunnel["peers"] if each["slow"]]
    return [
        f"tunnel: {where}{_at_port(tunnel)}",
        *(f"tunnel to {its['peer']}: by plane {its['plane']}, as {its['slow']}" for its in slow),
    ]


def row(its: dict[str, Any]) -> tuple[str, ...]:
    """The cells of one peer, under COLUMNS."""
    round_trip_ms = its["round_trip_ms"]
    return (
        its["peer"],
        "up" if its["is_up"] else "down",
        str(its["plane"]) if its["is_up"] else "-",
        its["path"] or "-",
        its["remote"] or "-",
        str(its["mtu"] or "-"),
        "-" if round_trip_ms is None else f"{round_trip_ms:.1f} ms",
        f"{its['sent_bytes'] / 1e6:.1f} MB",
        f"{its['received_bytes'] / 1e6:.1f} MB",
        str(its["lane"].get("rekeys", 0)),
        _reasons(its["dropped"] | {f"{reason}_record": its["lane"].get(reason, 0) for reason in REFUSED}),
    )


def _at_port(tunnel: dict[str, Any]) -> str:
    port = f", port {tunnel['port']}/udp" if tunnel["port"] else ""
    return f"{port}; dropped: {_reasons(tunnel['dropped'])}" if any(tunnel["dropped"].values()) else port


def _reasons(dropped: dict[str, int]) -> str:
    """How many, and why."""
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "0"
