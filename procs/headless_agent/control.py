"""Commands to a running producer: over the bus at its own endpoint, and SIGUSR1 for a keyframe."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from procs.locks import try_hold

LOCK_RETRY_S = 1.0


class Wishes:
    """What others want of the next picture. Written by the control thread, taken by the main loop."""

    def __init__(self) -> None:
        self._keyframe = False
        self._bitrate = 0

    def want_keyframe(self) -> None:
        """Ask for a keyframe."""
        self._keyframe = True

    def want_bitrate(self, bits_per_s: int) -> None:
        """Ask for a bit rate; the newest wins."""
        self._bitrate = bits_per_s

    def take_keyframe(self) -> bool:
        """Whether one is wanted; asked once."""
        wanted, self._keyframe = self._keyframe, False
        return wanted

    def take_bitrate(self) -> int:
        """The wanted rate, or 0; asked once."""
        wanted, self._bitrate = self._bitrate, 0
        return wanted


def listen_to_signals(wishes: Wishes) -> None:
    """SIGUSR1 makes the next picture a keyframe."""
    signal.signal(signal.SIGUSR1, lambda _number, _frame: wishes.want_keyframe())


def listen_to_bus(instance: str, run_dir: Path, wishes: Wishes, describe: Callable[[], dict[str, object]]) -> None:
    """Serve the control endpoint from a thread of its own, so that the picture loop never waits for ZeroMQ."""
    arguments = (instance, run_dir, wishes, describe)
    threading.Thread(target=_serve, args=arguments, name="control", daemon=True).start()


def _serve(instance: str, run_dir: Path, wishes: Wishes, describe: Callable[[], dict[str, object]]) -> None:
    # A copy run by hand beside the stream must not take the endpoint over: binding would cut the first one off.
    while try_hold(run_dir / f"headless_agent-{instance}.control.lock") is None:
        time.sleep(LOCK_RETRY_S)
    # Imported here, after the first frame: ZeroMQ and msgspec cost 90 ms.
    import msgspec
    import zmq

    from procs import bus, rpc
    from procs.messages.limits import MAX_REASON
    from procs.messages.requests import Bitrate, Command, Description, Keyframe, Reply

    def obey(command: Command) -> Reply | None:
        if isinstance(command, Keyframe):
            wishes.want_keyframe()
        elif isinstance(command, Bitrate):
            wishes.want_bitrate(command.bits_per_s)
        else:
            told = {name: of[:MAX_REASON] if isinstance(of, str) else of for name, of in describe().items()}
            return Reply(id=0, ok=True, body=msgspec.convert(told, Description))
        return None

    responder = rpc.Responder(zmq.Context.instance(), run_dir, bus.control_of(instance))
    while True:
        responder.serve(obey, wait_s=1.0)
