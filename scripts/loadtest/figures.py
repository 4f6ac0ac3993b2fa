"""What a user's log of a conversation says of the backend. Pure: times are seconds of one clock, whichever that is.

The five figures of the published load test have its definitions; a reply is what came from its response.created on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from procs.wire import realtime

# As the published client calls them; ours follow.
PUBLISHED = ("stt_latency", "vad_latency", "llm_latency", "tts_start_latency", "tts_realtime_factor")
OURS = (
    "end_of_speech_to_sound",  # of the user's, to the first sound of the reply
    "barge_in_quiet",  # from the first sound of who speaks over the bot, to the last that the bot sent
    "barge_in_told",  # the same, to unmute.interrupted_by_vad
    "barge_in_sound_after",  # seconds of sound that came after that
    "cough_gap",  # longest wait for sound between a cough and the end of a reply that went on
    "reconnect",  # from the beginning of a new connection, to session.updated
    "late",  # this program's own: how late it sent, at worst in a conversation
)
WITHOUT_UNIT = ("tts_realtime_factor",)


class Heard(NamedTuple):
    """One event, when it came."""

    at: float
    kind: type[realtime.Event]
    samples: int = 0  # of sound
    text: str = ""


class Spoken(NamedTuple):
    """When the user said something: the first page of sound was sent, and the last."""

    began: float
    ended: float


@dataclass(frozen=True)
class Summary:
    """All that is told of one figure."""

    count: int
    mean: float
    median: float
    p90: float
    p95: float


def summary(values: Sequence[float]) -> Summary | None:
    """Of the values of one figure; None of none. Percentiles are interpolated."""
    if not values:
        return None
    median, p90, p95 = (float(each) for each in np.percentile(values, [50, 90, 95]))
    return Summary(len(values), float(np.mean(values)), median, p90, p95)


def first(heard: Iterable[Heard], kind: type[realtime.Event], since: float) -> Heard | None:
    """The first event of a kind that came then or later. A transcription without a word is none."""
    for each in heard:
        if each.at >= since and each.kind is kind and (each.text or kind is not realtime.Transcription):
            return each
    return None


def reply_to(heard: Sequence[Heard], spoken: Spoken) -> list[Heard]:
    """What came of the reply to it, from its response.created to the end of its sound; [] if there is none.

    A backend may take a breath for the end. The reply to the half of it, which the other half interrupts, is not the
    one that counts, unless no other comes.
    """
    begun = [at for at, each in enumerate(heard) if each.kind is realtime.ResponseCreated and each.at >= spoken.began]
    if not begun:
        return []
    start = next((at for at in begun if heard[at].at >= spoken.ended), begun[-1])
    reply = [heard[start]]
    for each in heard[start + 1 :]:
        if each.kind in (realtime.ResponseCreated, realtime.Interrupted):
            break
        reply.append(each)
        if each.kind is realtime.AudioDone:
            break
    return reply


def of_turn(heard: Sequence[Heard], spoken: Spoken) -> dict[str, float]:
    """The figures of something that was asked and answered. One that can't be known is not there."""
    reply = reply_to(heard, spoken)
    if not reply:
        return {}
    found = {"vad_latency": reply[0].at - spoken.ended}
    if word := first(heard, realtime.Transcription, spoken.began):
        found["stt_latency"] = word.at - spoken.began
    sounds = [each for each in reply if each.kind is realtime.AudioDelta]
    if text := first(reply, realtime.TextReady, 0.0):
        found["llm_latency"] = text.at - reply[0].at
        if sounds:
            found["tts_start_latency"] = sounds[0].at - text.at
    if sounds:
        found["end_of_speech_to_sound"] = sounds[0].at - spoken.ended
    if sounds and (took := sounds[-1].at - sounds[0].at) > 0:
        found["tts_realtime_factor"] = _seconds(sounds) / took
    return found


def of_barge_in(heard: Sequence[Heard], began: float) -> dict[str, float]:
    """The figures of speaking over the bot from then on; {} where it did not notice, or had said all that there was."""
    after = [each for each in heard if each.at >= began]
    told = next((at for at, each in enumerate(after) if each.kind is realtime.Interrupted), None)
    if told is None or any(each.kind is realtime.AudioDone for each in after[:told]):
        return {}
    end = next((at for at in range(told, len(after)) if after[at].kind is realtime.ResponseCreated), len(after))
    sounds = [each for each in after[:end] if each.kind is realtime.AudioDelta]
    late = [each for each in after[told:end] if each.kind is realtime.AudioDelta]
    return {
        "barge_in_quiet": sounds[-1].at - began if sounds else 0.0,
        "barge_in_told": after[told].at - began,
        "barge_in_sound_after": _seconds(late),
    }


def of_cough(heard: Sequence[Heard], began: float) -> dict[str, float]:
    """The figures of a cough that began then; {} where the reply did not go on to its end."""
    after = [each for each in heard if each.at >= began]
    end = next((at for at, each in enumerate(after) if each.kind is realtime.AudioDone), None)
    if end is None or any(each.kind is realtime.Interrupted for each in after[:end]):
        return {}
    times = [began, *(each.at for each in after[:end] if each.kind is realtime.AudioDelta)]
    return {"cough_gap": max((b - a for a, b in itertools.pairwise(times)), default=0.0)}


def _seconds(sounds: Iterable[Heard]) -> float:
    return sum(each.samples for each in sounds) / realtime.RATE
