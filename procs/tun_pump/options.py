"""What the tunnel is told, by run/tunnel.json, which `make up` writes, or by flags."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from procs import settings
from procs.agent import network
from procs.agent.network import Tunnel
from procs.environment import from_environment
from procs.flags import command_line, parse_flags
from procs.settings import Layers

EXAMPLES = """\
  python -m procs.tun_pump
  python -m procs.tun_pump --address 10.77.0.1/24,fd77::1/64 --allowed "bob=10.77.0.2/32,fd77::2/128 eve=10.77.0.3" \\
      --reach "bob=tcp/22,80,192.168.7.0/24:icmp eve="

exit codes: 2 bad option, 3 no /dev/net/tun or nft, or not allowed to use it, 1 anything else"""


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Tunnel:
    """Settings of this process. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    parser = command_line("tun_pump", "Owns the tunnel's interface.", EXAMPLES)
    flags = parse_flags(parser, Tunnel, sys.argv[1:] if argv is None else argv)
    environment, env_file = from_environment(environ)
    path = settings.run_dir(environ) / network.NAME
    document = settings.written(path)
    return network.check(settings.load(Tunnel, Layers(flags, environment, env_file, document, str(path))))
