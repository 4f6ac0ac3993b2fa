"""python -m procs.hub: serves devices and people until killed."""

from procs import life
from procs.hub import options
from procs.hub.shell import serve

if __name__ == "__main__":
    life.run("hub", options.load, serve)
