"""python -m procs.keeper: brings supervisord back when it dies, on a bare machine. supervisord starts it."""

from procs import life
from procs.keeper import keeper

if __name__ == "__main__":
    # Not bound to supervisord, which it has to outlive; and it waits for a former keeper in its own way.
    life.run("keeper", keeper.load, keeper.keep, singleton=False, bound=False)
