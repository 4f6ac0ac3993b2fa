"""How probable it is that a speaker has finished, from how long they have been silent. Pure.

The published recogniser predicts whether a pause of at least 0.5, 1, 2 and 3 s has come, and the published backend
takes the third for the end of a turn above 0.6 and for an interruption below 0.4. Ours knows silence and nothing of
what was said, so it has the third cross 0.6 after the silence that was set, and the others in proportion.
"""

from __future__ import annotations

SHARES = (0.5, 0.75, 1.0, 1.5)  # of that silence, after which each crosses
_LEFT = 0.39  # of doubt, at that moment


def scores(silence_s: float, pause_s: float) -> list[float]:
    """The four of a Step."""
    return [round(1.0 - _LEFT ** (silence_s / (pause_s * share)), 4) for share in SHARES]
