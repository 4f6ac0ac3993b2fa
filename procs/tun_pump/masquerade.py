"""Letting peers reach what this machine reaches, under its own address: rules of nft, and forwarding."""

from __future__ import annotations

import re
from pathlib import Path

from procs import log
from procs.agent.network import Tunnel
from procs.errors import NotHere

LIMIT_S = 5.0
MADE = "tun_pump.nft"  # in run/: the rules that we have made, which outlive us
_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def apply(tunnel: Tunnel, run_dir: Path) -> None:
    """Have the rules that are wanted, and none that were. Raises NotHere."""
    made = run_dir / MADE
    table = f"table inet planaria_{re.sub(r'[^A-Za-z0-9]', '_', tunnel.interface)}"
    away = f"add {table}\ndelete {table}\n"
    if tunnel.masquerade:
        for version in {address.version for address in tunnel.address}:
            _forward(Path("/proc/sys", _FORWARDING[version]))
        made.write_text(away)
        _nft(away + rules(table, tunnel.interface))
    elif made.exists():
        _nft(made.read_text())
        made.unlink()


def rules(table: str, interface: str) -> str:
    """For what comes out of the tunnel and goes on elsewhere."""
    return f"""{table} {{
  chain out {{
    type nat hook postrouting priority srcnat
    iifname "{interface}" oifname != "{interface}" masquerade
  }}
}}
"""


def _forward(path: Path) -> None:
    try:
        if path.read_text().strip() != "1":
            path.write_text("1")
            log.info("this machine forwards from now on", by=str(path))
    except OSError as error:
        raise NotHere(f"masquerade: {path}: {error.strerror}; have root set it to 1") from None


def _nft(text: str) -> None:
    import subprocess  # here: few need it, and packets are waiting

    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=text, text=True, capture_output=True, timeout=LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHere(f"masquerade: nft: {error}; install nftables, or leave masquerade out") from None
    if done.returncode:
        raise NotHere(f"masquerade: nft: {done.stderr.strip().partition(chr(10))[0]}; it needs root or CAP_NET_ADMIN")
