"""From packets to the speaker: the jitter buffer, concealment, the cursor. Time is simulated."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from procs.audio_io.jitter import CAPACITY, Jitter, stretched
from procs.audio_io.player import Player
from procs.audio_io.sound import BLOCK, BLOCK_S, RATE, Cursor, Pcm
from procs.media.conceal import FADE, Concealer

PACKET = 2 * BLOCK
PACKET_S = PACKET / RATE


def voice(samples: int, start: int = 0, hz: float = 150.0) -> Pcm:
    """Something that repeats itself as a voice does: a tone with overtones."""
    phase = 2 * np.pi * hz * np.arange(start, start + samples) / RATE
    made: Pcm = (6000 * np.sin(phase) + 3000 * np.sin(2 * phase) + 1500 * np.sin(3 * phase)).astype(np.int16)
    return made


def ramp(start: int, samples: int = PACKET) -> Pcm:
    """Samples that tell their place."""
    return (np.arange(start, start + samples) % 30_000).astype(np.int16)


class Time:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def arrivals(seconds: float, ppm: float, jitter_s: float, loss: float, seed: int) -> Iterator[tuple[float, int]]:
    """When which packet comes from a backend whose clock is faster by `ppm`."""
    chance = random.Random(seed)
    packets = [
        (n * PACKET_S / (1 + ppm / 1e6) + chance.random() * jitter_s, n) for n in range(int(seconds / PACKET_S) + 9)
    ]
    return iter(sorted(packet for packet in packets if chance.random() >= loss))


def listen(coming: Iterator[tuple[float, int]], seconds: float) -> tuple[Jitter, list[int]]:
    """A jitter buffer through all of that, and its depth at each block of the last half."""
    jitter, depths, silence = Jitter(), [], np.zeros(PACKET, np.int16)
    due, n = next(coming)
    for block in range(int(seconds / BLOCK_S)):
        now = block * BLOCK_S + 0.0003
        while due <= now:
            jitter.put(silence, response=1, timestamp=n * PACKET, first=n == 0, now=due)
            due, n = next(coming, (float("inf"), 0))
        jitter.take(BLOCK, now)
        if block * BLOCK_S > seconds / 2:
            depths.append(jitter.depth * 1000 // RATE)
    return jitter, depths


@pytest.mark.parametrize("ppm", [200, -500])
def test_drifting_clocks_of_ten_minutes(ppm: int) -> None:
    jitter, depths = listen(arrivals(600, ppm, 0.0, 0.0, 1), 600)
    assert jitter.underruns == 0 and jitter.lost == jitter.late == jitter.dropped == 0
    assert min(depths) >= 5 and max(depths) - min(depths) <= 75, (min(depths), max(depths))
    assert abs(jitter.faster * 1e6 - ppm) < 60


def test_loss_and_jitter() -> None:
    jitter, depths = listen(arrivals(60, 0, 0.06, 0.02, 2), 60)
    share = jitter.lost / RATE / 60
    assert 0.01 < share < 0.04, share
    assert jitter.underruns <= 3
    assert np.median(depths) < 150, np.median(depths)


def spoken(jitter: Jitter, now: float) -> list[int]:
    """The samples of a block; -1 for what was lost."""
    samples: list[int] = []
    for piece in jitter.take(BLOCK, now).pieces:
        samples += [-1] * piece if isinstance(piece, int) else piece.tolist()
    return samples


def test_order_is_mended_and_what_is_late_or_twice_is_left_out() -> None:
    jitter = Jitter()
    origin = 2**32 - 3 * PACKET  # wraps on the way
    for n in (0, 2, 1, 2, 4):
        jitter.put(ramp(n * PACKET), response=1, timestamp=(origin + n * PACKET) % 2**32, first=n == 0, now=1.0)
    heard = [sample for block in range(9) for sample in spoken(jitter, 1.0 + block * BLOCK_S)]
    jitter.put(ramp(3 * PACKET), response=1, timestamp=0, first=False, now=1.2)
    heard += spoken(jitter, 1.2)
    assert heard[: 3 * PACKET] == ramp(0, 3 * PACKET).tolist()
    assert heard[3 * PACKET : 4 * PACKET] == [-1] * PACKET
    assert heard[4 * PACKET :] == ramp(4 * PACKET).tolist()
    assert (jitter.lost, jitter.late, jitter.underruns) == (PACKET, PACKET, 0)


def test_a_stall_skips_nothing_and_a_burst_is_bounded() -> None:
    jitter = Jitter()
    heard: list[int] = []
    for block in range(200):
        now = block * BLOCK_S
        if block % 2 == 0 and not 20 <= block < 60:  # 0.8 s of nothing, then all of it at once
            for n in [block // 2] if block != 60 else range(10, 31):
                jitter.put(ramp(n * PACKET), response=1, timestamp=n * PACKET, first=n == 0, now=now)
        heard += spoken(jitter, now)
    assert heard == ramp(0, len(heard)).tolist() and jitter.underruns == 1
    for n in range(100, 100 + 40 * 25):
        jitter.put(ramp(n * PACKET), response=1, timestamp=n * PACKET, first=False, now=4.0)
    assert CAPACITY - PACKET < jitter.depth <= CAPACITY
    assert jitter.dropped > 9 * RATE


def test_whatever_timestamps_come_it_stays_bounded() -> None:
    chance = random.Random(3)
    player, clock = Player(time := Time()), 0
    for _ in range(3000):
        time.now += chance.choice((0.0, BLOCK_S, 0.3))
        clock = (clock + chance.choice((BLOCK, PACKET, -PACKET, 7, 10**6, 2**31))) % 2**32
        kind = chance.randrange(12)
        if kind < 6:
            pcm = ramp(0, chance.choice((0, 1, BLOCK, 5760)))
            player.play(pcm, response=chance.randrange(3), timestamp=clock, first=kind == 0)
        elif kind < 10:
            assert player.pull(0.05).shape == (BLOCK,)
        else:
            (player.flush, player.pause, player.resume, player.finish)[chance.randrange(4)]()
        cursor = player.cursor
        assert 0 <= cursor.buffered_ms <= 31_000 and cursor.heard_ms >= 0


def test_the_cursor_tells_what_has_left_the_speaker() -> None:
    player = Player(time := Time())
    latency = 0.1

    def hear(blocks: int) -> Cursor:
        for _ in range(blocks):
            player.pull(latency)
            time.now += BLOCK_S
        return player.cursor

    def say(response: int, packets: int) -> None:
        for n in range(packets):
            player.play(voice(PACKET), response=response, timestamp=n * PACKET, first=n == 0)

    assert player.cursor == Cursor(0, "done", 0, 0)
    say(1, 25)
    assert hear(15) == Cursor(1, "playing", 200, 800)  # 300 ms taken, a third on its way
    player.pause()
    assert not player.pull().tolist()[-1]
    assert hear(10) == Cursor(1, "paused", 300, 700)
    player.resume()
    assert hear(10).state == "playing"
    player.flush()
    assert hear(10) == Cursor(1, "flushed", 500, 0)
    say(2, 5)
    say(3, 5)
    player.finish()
    assert hear(9) == Cursor(2, "playing", 80, 320)
    assert hear(10) == Cursor(3, "playing", 80, 120)
    assert hear(6) == Cursor(3, "done", 200, 0)
    assert player.figures.underruns == 0 and player.figures.concealed_ms == 0


def test_a_gap_goes_on_in_the_same_voice_fades_and_never_clicks() -> None:
    player = Player(time := Time())
    sent = voice(PACKET * 30)
    steepest = np.abs(np.diff(sent.astype(int))).max()
    blocks = []
    for block in range(60):
        n = block // 2
        if block % 2 == 0 and n not in (10, 15, 16, 17, 18, 19):
            player.play(sent[n * PACKET :][:PACKET], response=1, timestamp=n * PACKET, first=n == 0)
        if block == 56:
            player.flush()
        blocks.append(player.pull().astype(int))
        time.now += BLOCK_S
    heard = np.concatenate(blocks)
    assert np.abs(np.diff(heard)).max() < 2 * steepest
    for lost in (10, 15):  # where it is heard moves a little with the clocks' drift
        gap = heard[4 * BLOCK + lost * PACKET :][: BLOCK // 2]
        shifts = [sent[lost * PACKET + shift :][: BLOCK // 2] for shift in range(-80, 80)]
        assert max(np.corrcoef(gap, wanted)[0, 1] for wanted in shifts) > 0.98
    assert not heard[-3 * BLOCK :].any()
    assert player.figures.lost_ms + player.figures.concealed_ms > 0


def test_concealment_is_silence_after_60_ms() -> None:
    concealer = Concealer()
    concealer.join(voice(RATE // 10))
    gap = np.concatenate([concealer.make(BLOCK) for _ in range(5)])
    assert np.abs(gap[:BLOCK]).max() > 5000 and not gap[FADE:].any()
    loud = [int(np.abs(gap[start : start + 240]).max()) for start in range(0, FADE, 240)]
    assert loud == sorted(loud, reverse=True)


def test_a_block_is_stretched_without_being_heard() -> None:
    for taken in (BLOCK - 1, BLOCK + 1):
        made = stretched(voice(taken), BLOCK)
        wanted = voice(RATE)[np.rint(np.arange(BLOCK) * taken / BLOCK).astype(int)]
        assert len(made) == BLOCK and np.abs(made.astype(int) - wanted).max() < 400


def test_responses_that_are_never_spoken_leave_nothing_behind() -> None:
    jitter = Jitter()
    for response in range(5000):  # paused, say
        jitter.put(ramp(0), response=response, timestamp=0, first=True, now=1000.0)
    assert len(jitter._marks) <= CAPACITY // PACKET + 1
    assert jitter.response_at(jitter.at)[0] == 5000 - CAPACITY // PACKET
