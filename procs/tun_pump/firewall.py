"""The rules of nft that are ours, and forwarding: set before a packet of a peer's passes, or none passes.

They are the kernel's, and stay as they are whoever is killed; the next start replaces them, all at once.
"""

from __future__ import annotations

from pathlib import Path

from procs.agent.network import Tunnel
from procs.errors import NotHere
from procs.tun_pump import forwarding, ruleset

LIMIT_S = 5.0
MADE = "tun_pump.nft"  # in run/: how to take away what we have made, which outlives us


def apply(tunnel: Tunnel, run_dir: Path) -> bool:
    """Have the rules that are wanted, and none that were; whether there are any. Raises NotHere."""
    made, wanted = run_dir / MADE, ruleset.rules(tunnel)
    before = made.read_text() if made.exists() else ""
    if wanted:
        away = ruleset.away(tunnel.interface)
        if away not in before:
            made.write_text(before + away)
        _nft(before + away + wanted, f"{_wanting(tunnel)}: nft", "leave that out")
        made.write_text(away)
    forwarding.apply(ruleset.forwarded(tunnel), _wanting(tunnel), run_dir)
    if before and not wanted:
        _nft(before, "rules of nft stay", "take them away by hand")
        made.unlink()
    return bool(wanted)


def _wanting(tunnel: Tunnel) -> str:
    """By which keys."""
    return ", ".join(name for name in ("reach", "subnets", "masquerade") if getattr(tunnel, name))


def _nft(text: str, what: str, otherwise: str) -> None:
    import subprocess  # here: few need it, and packets are waiting

    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=text, text=True, capture_output=True, timeout=LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHere(f"{what}: {error}; install nftables, or {otherwise}") from None
    if done.returncode:
        raise NotHere(f"{what}: {done.stderr.strip().partition(chr(10))[0]}; it needs root or CAP_NET_ADMIN")
