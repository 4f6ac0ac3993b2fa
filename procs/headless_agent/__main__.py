"""python -m procs.headless_agent: one stream of H.264 on stdout, until killed."""

import gc
import signal

gc.disable()  # until the first frame: imports leave nothing to collect, and looking for it costs 5 ms
signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until then every picture is a keyframe anyway

from procs import life, log  # noqa: E402
from procs.headless_agent import options  # noqa: E402


def main(chosen: options.Producer, alive: life.Alive) -> None:
    """PyAV is imported here: by now we are bound to our parent, and what cannot be had has been refused."""
    log.configure(f"headless_agent {chosen.instance_id}", debug=chosen.debug)
    options.need_encoder(chosen.encoder)
    from procs.headless_agent.producer import produce

    produce(chosen, alive)


if __name__ == "__main__":
    # No lock: a copy may be run by hand beside the stream. Short pauses: go2rtc holds the stream's lock meanwhile.
    life.run("headless_agent", options.load, main, options.Producer.name, singleton=False, pause_cap_s=1.0)
