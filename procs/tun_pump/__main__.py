"""python -m procs.tun_pump: owns the tunnel's interface, until killed."""

from procs import life
from procs.tun_pump import interface, options

if __name__ == "__main__":
    life.run("tun_pump", options.load, interface.serve)
