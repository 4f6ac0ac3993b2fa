"""python -m procs.ws_link: keeps one connection to the hub, until killed."""

from procs import life
from procs.ws_link import options, shell

if __name__ == "__main__":
    life.run("ws_link", options.load, lambda settings, alive: shell.serve(settings, alive.run_dir, alive.serving))
