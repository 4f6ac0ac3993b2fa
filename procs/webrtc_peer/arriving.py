"""Whether what is sent arrives, by what the viewer reports. Pure.

A viewer may be heard and see nothing: where its pair and ours are not the same one, or a way leads in one direction
only, its reports come while its pictures are lost, and ICE needs half a minute to notice.
"""

from __future__ import annotations

FEWEST = 10  # packets that were sent, of which the viewer has seen none


class Arriving:
    """To one viewer. `missing_s`: for how long its reports have said that nothing arrives any more."""

    def __init__(self) -> None:
        self.missing_s = 0.0
        self._highest, self._sent, self._sent_then = -1, 0, 0
        self._since: float | None = None

    def sent(self, packets: int) -> None:
        """So many have gone out, in all."""
        self._sent = packets

    def reported(self, highest: int, now: float) -> None:
        """The highest sequence number that the viewer has seen."""
        if highest != self._highest:
            self._highest, self._sent_then, self._since = highest, self._sent, None
        elif self._since is None and self._sent - self._sent_then >= FEWEST:
            self._since = now
        self.missing_s = 0.0 if self._since is None else now - self._since
