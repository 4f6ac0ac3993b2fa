"""python -m procs.proxy --instance N: carries requests of the hub to go2rtc, until killed."""

from procs import life
from procs.proxy import options, shell

if __name__ == "__main__":
    life.run("proxy", options.load, shell.serve, lambda settings: str(settings.instance))
