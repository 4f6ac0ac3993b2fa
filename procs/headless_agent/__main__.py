"""python -m procs.headless_agent: one stream of H.264 on stdout, until killed."""

from procs import life
from procs.headless_agent import options


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
