"""python -m procs.warden: what supervisord.conf starts as its event listener. It ends what hangs."""

from procs import life
from procs.warden import loop, options

if __name__ == "__main__":
    life.run("warden", options.load, loop.watch)
