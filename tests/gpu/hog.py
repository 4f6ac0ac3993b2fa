"""python -m tests.gpu.hog SPARE: takes all device memory but SPARE MiB, says how much, and holds it until its stdin
ends. Plain allocations, as every program makes them."""

from __future__ import annotations

import sys

from tests.gpu.stage import asked, driver, free_mb

MB = 1 << 20
CHUNKS_MB = (8192, 1024, 128, 16, 2)


def take(spare_mb: int) -> int:
    """How many MiB were taken."""
    cuda = driver()
    asked(cuda.cuInit(0))
    asked(cuda.cuCtxSetCurrent(asked(cuda.cuDevicePrimaryCtxRetain(asked(cuda.cuDeviceGet(0))))))
    taken = 0
    for chunk in CHUNKS_MB:
        while free_mb() - spare_mb >= chunk and not int(cuda.cuMemAlloc(chunk * MB)[0]):
            taken += chunk
    return taken


if __name__ == "__main__":
    print(take(int(sys.argv[1])), flush=True)
    sys.stdin.read()
