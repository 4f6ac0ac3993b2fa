"""python -m procs.headless_agent: one stream of H.264 on stdout, until killed."""

import gc

gc.disable()  # until the first frame: imports make nothing to collect, and looking for it costs 5 ms

from procs import life  # noqa: E402
from procs.headless_agent import options  # noqa: E402


def main() -> None:
    """Settings, then the life of a producer. No lock: a copy may be run by hand beside the stream."""
    from procs.headless_agent.producer import produce

    life.run(
        "headless_agent",
        options.load,
        produce,
        instance=lambda chosen: chosen.instance_id,
        singleton=False,
        pause_cap_s=1.0,  # go2rtc holds the stream's lock while we wait
        hang_limit_s=options.HANG_LIMIT_S,
    )


if __name__ == "__main__":
    main()
