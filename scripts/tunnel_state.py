"""How the tunnel is, for `make status`: what tun_pump says of its peers, and what the rules of nft have dropped."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from procs.messages.warden import TunnelState
from procs.tun_pump import firewall, ruleset
from procs.warden.tunnel import REFUSED

NOT_CONFIGURED = (
    "not configured: it needs its address and its peers under `tunnel:` in planaria.yaml (README: A tunnel to peers)"
)
COLUMNS = ("PEER", "STATE", "PLANE", "PATH", "ADDRESS", "MTU", "ROUND TRIP", "SENT", "RECEIVED", "REKEYS", "DROPPED")
NFT_S = 5.0


def gather(state: TunnelState, run_dir: Path) -> dict[str, Any]:
    """As `status --json` has it. What the rules have dropped, only root is told."""
    found: dict[str, Any] = msgspec.to_builtins(state)
    by_rules = dropped_by_rules(state.interface) if (run_dir / firewall.MADE).exists() else {}
    for peer in found["peers"]:
        if count := by_rules.get(peer["peer"]):
            peer["dropped"]["by_reach"] = count
    if count := by_rules.get(None):
        found["dropped"]["by_subnets"] = count
    return found


def dropped_by_rules(interface: str) -> dict[str | None, int]:
    """Packets by the peer whose `reach` they were beyond, and under None those beyond `subnets`, since tun_pump was
    started; nothing where nft tells nothing."""
    command = ["nft", "-j", "list", "table", "inet", ruleset.name(interface)]
    try:
        said = subprocess.run(command, capture_output=True, timeout=NFT_S, check=True).stdout
        rules = [each["rule"] for each in json.loads(said)["nftables"] if "rule" in each]
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    found: Counter[str | None] = Counter()
    for rule in rules:
        packets = sum(each["counter"]["packets"] for each in rule["expr"] if "counter" in each)
        found[None if rule["chain"] == "passing" else rule.get("comment", "")] += packets
    return found


def away(tunnel: dict[str, Any]) -> list[str]:
    """Why peers are; in full, since what is to be done about it comes last."""
    return [f"tunnel to {its['peer']}: {its['why']}" for its in tunnel["peers"] if its["why"]]


def notes(tunnel: dict[str, Any]) -> list[str]:
    """What there is to be said below the table: where it is, and why a peer's packets go by another plane than 3."""
    where = f"{tunnel['interface']} {' '.join(tunnel['addresses'])}" if tunnel["interface"] else NOT_CONFIGURED
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
