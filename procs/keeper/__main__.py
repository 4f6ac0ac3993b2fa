"""python -m procs.keeper: brings supervisord back when it dies, on a bare machine. supervisord starts it."""

from procs import life
from procs.keeper import keeper

if __name__ == "__main__":
    life.run("keeper", keeper.load, keeper.keep, bound=False)  # to supervisord, which it has to outlive
