"""speech_tts as a published backend sees it: by a client that was written from the description of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import io
import itertools
import json
import os
import signal
import subprocess
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from pocketsphinx import Decoder
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from procs import proc
from procs.speech.tts import synthesis
from tests import moshi_client, rig, speech_rig
from tests.moshi_client import Full, Gone
from tests.speech_rig import Service

pytestmark = [pytest.mark.needs("flite", "espeak-ng", "ffmpeg")]
REPLY = "Good morning, my friend — I paid $25, didn't I? Yes! <break time='1s'/> See you tomorrow"
WORDS = REPLY.split(" ")
STEP_S = 0.08


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with speech_rig.service("tts", tmp_path_factory.mktemp("tts"), PLANARIA_SPEECH_SESSIONS="2") as started:
        yield started


def sound(messages: list[dict[str, Any]]) -> NDArray[np.float32]:
    """All of a reply."""
    return np.array([number for each in messages if each["type"] == "Audio" for number in each["pcm"]], np.float32)


def loudness(floats: NDArray[np.float32], start_s: float, stop_s: float) -> float:
    """Of a part."""
    part = floats[int(start_s * 24_000) : int(stop_s * 24_000)].astype(np.float64)
    return float(np.sqrt(np.mean(part**2))) if len(part) else 0.0


def spoken(tts: Service, words: list[str], voice: str = "slt") -> list[dict[str, Any]]:
    return asyncio.run(moshi_client.spoken(tts.url, words, voice=voice))


@pytest.mark.parametrize("voice", ["slt", "rms", "awb", "kal", "espeak:fr", "unmute-prod-website/p329_022.wav"])
def test_a_reply_comes_with_the_time_of_each_word_before_its_sound(tts: Service, voice: str) -> None:
    began = time.monotonic()
    reply = spoken(tts, WORDS, voice)
    took_s = time.monotonic() - began
    texts = [each for each in reply if each["type"] == "Text"]
    said = [word for word in WORDS if "break" not in word and "time=" not in word]
    assert [each["text"] for each in texts] == said
    assert all(each["start_s"] <= each["stop_s"] for each in texts)
    assert all(a["stop_s"] <= b["start_s"] + 0.002 for a, b in itertools.pairwise(texts))
    assert {each["type"] for each in reply} == {"Text", "Audio"}
    assert all(len(each["pcm"]) == 1920 for each in reply if each["type"] == "Audio")
    steps = 0
    for each in reply:
        steps += each["type"] == "Audio"
        assert each["type"] == "Audio" or steps * STEP_S <= each["start_s"] + 0.001 < (steps + 1) * STEP_S + 0.001
    whole = sound(reply)
    spans = {each["text"]: (each["start_s"], each["stop_s"]) for each in texts}
    assert all(loudness(whole, *spans[word]) > 0.01 for word in ("Good", "morning,", "friend", "tomorrow"))
    assert spans["See"][0] - spans["Yes!"][1] > 1.0  # the break
    assert loudness(whole, spans["Yes!"][1] + 0.1, spans["See"][0] - 0.1) < 0.001
    print(f"{voice}: {len(whole) / 24_000:.2f} s of sound in {took_s:.2f} s, real-time factor"
          f" {took_s * 24_000 / len(whole):.3f}")  # fmt: skip


ALIGNED = (
    "remind me to call my mother at six",
    "who wrote the book on the table",
    "how far is the moon from the earth",
)


@pytest.mark.parametrize("voice", ["slt", "rms"])
def test_the_times_of_words_are_those_that_a_forced_alignment_finds(tts: Service, voice: str) -> None:
    errors_s = []
    for text in ALIGNED:
        reply = spoken(tts, text.split(), voice)
        aligner = Decoder(samprate=16_000, loglevel="FATAL")
        aligner.set_align_text(text)
        aligner.start_utt()
        at_16_khz = soxr.resample(np.rint(sound(reply) * 32_768).astype(np.int16), 24_000, 16_000)
        aligner.process_raw(at_16_khz.tobytes(), False, True)
        aligner.end_utt()
        starts = [segment.start_frame / 100 for segment in aligner.seg() if not segment.word.startswith("<")]
        told = [each["start_s"] for each in reply if each["type"] == "Text"]
        errors_s += [abs(a - b) for a, b in zip(told, starts, strict=True)]
    ordered = sorted(errors_s)
    print(f"{voice}: {ordered[len(ordered) // 2] * 1000:.0f} ms (p50), {ordered[-1] * 1000:.0f} ms at worst")
    assert ordered[len(ordered) // 2] < 0.025 and ordered[len(ordered) * 9 // 10] < 0.06


def test_all_formats_and_a_post_are_the_same_sound(tts: Service, tmp_path: Path) -> None:
    words = ["One,", "two", "and", "three."]
    whole = sound(spoken(tts, words))

    async def binary(form: str) -> list[bytes]:
        async with moshi_client.session(f"{tts.url}/api/tts_streaming?format={form}&voice=slt") as session:
            await session.socket.send("One, two and")  # raw text, as is understood, too
            await session.socket.send("three.")
            await session.socket.send(b"\0")
            return [frame async for frame in session.socket if isinstance(frame, bytes)]

    raw = np.frombuffer(b"".join(asyncio.run(binary("Pcm"))), "<f4")
    assert np.array_equal(raw, whole)
    packed = [msgspec.msgpack.decode(frame) for frame in asyncio.run(binary("OggOpusMessagePack"))]
    assert packed[0] == {"type": "Ready"} and [each["text"] for each in packed if each["type"] == "Text"] == words
    for name, body in (
        ("bare", b"".join(asyncio.run(binary("OggOpus")))),
        ("packed", b"".join(each["data"] for each in packed if each["type"] == "OggOpus")),
    ):
        file = tmp_path / f"{name}.ogg"
        file.write_bytes(body)
        decoder = ["ffmpeg", "-v", "error", "-xerror", "-i", str(file), "-ar", "24000", "-f", "s16le", "-"]
        decoded = np.frombuffer(subprocess.run(decoder, capture_output=True, check=True).stdout, "<i2")
        assert abs(len(decoded) - len(whole)) <= 1920
        assert np.corrcoef(decoded[: len(whole)], (whole * 32768)[: len(decoded)])[0, 1] > 0.9
    status, answer = tts.call("POST", "/api/tts_streaming", {"text": " ".join(words), "voice": "slt"})
    with wave.open(io.BytesIO(answer)) as file_read:
        assert (status, file_read.getframerate(), file_read.getnchannels()) == (200, 24_000, 1)
    assert np.array_equal(np.frombuffer(answer[44:], "<i2"), np.rint(whole * 32768).astype(np.int16))


def test_there_is_room_for_two_and_a_third_is_told_so(tts: Service) -> None:
    address = f"{tts.url}/api/tts_streaming?format=PcmMessagePack"

    async def crowd() -> None:
        async with moshi_client.session(address) as one:
            await one.ready()
            async with moshi_client.session(address) as two, moshi_client.session(address) as three:
                await two.ready()
                with pytest.raises(Full):
                    await three.ready()
                assert await three.rest() == []
                assert tts.json("GET", "/api/modules_info")[0]["used_slots"] == 2
                assert tts.call("POST", "/api/tts_streaming", {"text": "no", "voice": "slt"})[0] == 503
            await asyncio.to_thread(rig.until, lambda: tts.figure("py_open_channels") == 1)
            async with moshi_client.session(address) as four:
                await four.ready()

    asyncio.run(crowd())


def test_what_is_no_request_is_said_and_costs_nobody_else(tts: Service) -> None:
    async def fails(path: str, *frames: bytes) -> str:
        async with moshi_client.session(f"{tts.url}/api/tts_streaming?{path}") as session:
            await session.ready()
            for frame in frames:
                await session.socket.send(frame)
            return str([each for each in await session.rest() if each["type"] == "Error"])

    async def all_of_it() -> None:
        good = asyncio.create_task(moshi_client.spoken(tts.url, ["Nobody", "minds."]))
        pack = moshi_client.packed
        form = "format=PcmMessagePack"
        assert "not a message" in await fails(form, b"\xc1 rubbish")
        assert "embeddings" in await fails(form, pack("Voice", embeddings=[0.5], shape=[1]))
        assert "not a message" in await fails(form, pack("Text", text=7))
        assert "voice does not exist" in await fails(f"{form}&voice=espeak:xx", pack("Text", text="Hi."))
        async with moshi_client.session(f"{tts.url}/api/tts_streaming?{form}") as session:
            await session.ready()
            with contextlib.suppress(ConnectionClosed):  # before all of it was taken, or after
                await session.socket.send(bytes(4_000_000))
            assert await session.rest() == []
            assert session.socket.close_code == 1009, "too big"
        assert len(sound(await good)) > 10_000

    asyncio.run(all_of_it())
    for query, words in (("format=MP3", b"OggOpusMessagePack"), ("format=Pcm", b"takes a WebSocket, or a POST")):
        status, said = tts.call("GET", f"/api/tts_streaming?{query}")
        assert status == 400 and words in said
    for body in (b"{", {"voice": "slt"}, {"text": "x", "voice": "espeak:../x"}, {"text": "x" * 70_000}):
        assert tts.call("POST", "/api/tts_streaming", body)[0] == 400
    status, said = tts.call("POST", "/api/tts_streaming", {"text": "x", "voice": "espeak:xx"})
    assert status == 400 and b"espeak-ng --voices" in said
    status, said = tts.call("POST", "/api/tts_streaming", {"text": "x", "voice": "espeak:en+nobody"})
    assert status == 400 and b"--voices=variant" in said
    assert tts.call("POST", "/api/tts_streaming", {"text": "x", "voice": "espeak:en+f2"})[0] == 200
    status, said = tts.call("POST", "/api/tts_streaming", {"text": "x", "format": "mp3"})
    assert status == 400 and b"must be one of wav, OggOpus, Pcm" in said


def test_a_voice_that_is_not_here_is_said_to_be_spoken_by_another(tts: Service) -> None:
    for voice, speaks in (("kal", "kal"), ("unmute/charles.wav", "espeak:fr"), ("nobody", "slt"), ("nobody", "slt")):
        line = http.client.HTTPConnection("127.0.0.1", tts.port, timeout=20)
        line.request("POST", "/api/tts_streaming", json.dumps({"text": "Hi.", "voice": voice, "format": "Pcm"}))
        answer = line.getresponse()
        assert (answer.headers["X-Voice"], len(answer.read()) % 4, answer.status) == (speaks, 0, 200)
        line.close()
    said = [json.loads(row) for row in tts.log.read_text().splitlines() if "one of ours speaks" in row]
    told = [(row["asked_for"], row["speaks"]) for row in said]
    assert [told.count(pair) for pair in (("unmute/charles.wav", "espeak:fr"), ("nobody", "slt"))] == [1, 1]
    assert "kal" not in dict(told)


def test_texts_that_are_hostile_are_spoken_or_left_out(tts: Service) -> None:
    for words in (
        ["--help"],
        ["$(reboot)", "`ls`;"],
        ["[[hh", "ax]]"],
        ["\0\x1b[2J", "hi"],
        ["日本語", "😀"],
        ["x" * 9000],
    ):
        for voice in ("kal", "espeak:en-us"):
            reply = spoken(tts, words, voice)
            assert [each["text"] for each in reply if each["type"] == "Text"] == [
                word for word in words if word.split()
            ]


def test_a_caller_that_leaves_frees_its_slot_and_its_synthesisers(tts: Service) -> None:
    async def leaves() -> None:
        async with moshi_client.session(f"{tts.url}/api/tts_streaming?format=PcmMessagePack") as session:
            await session.ready()
            await session.send("Text", text="and on and on it goes " * 1000)
            assert (await session.next())["type"] == "Text"
            session.socket.transport.abort()

    asyncio.run(leaves())
    rig.until(lambda: tts.figure("py_open_channels") == 0 and not rig.children(tts.process.pid))


def test_a_service_that_is_slow_to_get_ready_or_dies_in_the_middle(tts: Service, tmp_path: Path) -> None:
    with speech_rig.service("tts", tmp_path / "run") as other:

        async def slow_then_dead() -> None:
            os.kill(other.process.pid, signal.SIGSTOP)
            address = f"{other.url}/api/tts_streaming?format=PcmMessagePack"
            asyncio.get_running_loop().call_later(1.0, os.kill, other.process.pid, signal.SIGCONT)
            async with moshi_client.session(address) as session:
                await session.ready()
                await session.send("Text", text="This will never be heard to its end. " * 50)
                while (await session.next())["type"] != "Audio":
                    pass
                os.kill(other.process.pid, signal.SIGKILL)
                await session.rest()
                with pytest.raises(Gone):
                    await session.next()

        asyncio.run(slow_then_dead())
        killed = time.monotonic()
        with speech_rig.service("tts", tmp_path / "run", port=other.port) as again:
            print(f"serves again {time.monotonic() - killed:.2f} s after kill -9, started at once")
            assert len(sound(spoken(again, ["Here", "again."]))) > 10_000


FAKE = """#!/bin/sh
echo "$@" >> {seen}
case "$*" in *{mark}*) [ -e {seen}.once ] || {{ touch {seen}.once; kill -9 $$; }};; esac
exec {real} "$@"
"""


def test_a_synthesiser_that_is_killed_is_started_once_more_and_never_shown_the_text_where_others_see_it(
    tmp_path: Path,
) -> None:
    programs, seen = tmp_path / "bin", tmp_path / "seen"
    programs.mkdir()
    real = subprocess.run(["sh", "-c", "command -v flite"], capture_output=True, text=True, check=True).stdout.strip()
    fake = programs / "flite"
    fake.write_text(FAKE.format(seen=seen, real=real, mark="rms"))
    fake.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    with speech_rig.service("tts", tmp_path / "run", PATH=path) as tts:
        assert len(sound(spoken(tts, ["confidential", "matters."], "rms"))) > 10_000
        assert Path(f"{seen}.once").exists() and "once more" in tts.log.read_text()
        assert "rms" in seen.read_text() and "confidential" not in seen.read_text()
        fake.write_text("#!/bin/sh\necho no voice today >&2\nexit 7\n")
        reply = spoken(tts, ["Hello."], "rms")
        assert [(each["type"], each.get("message")) for each in reply] == [("Error", "flite: no voice today")]
        fake.write_text("#!/bin/sh\nexec sleep 1000\n")

        async def leaves() -> None:
            async with moshi_client.session(f"{tts.url}/api/tts_streaming?format=PcmMessagePack") as session:
                await session.ready()
                await session.send("Text", text="Hello.")
                await asyncio.to_thread(rig.until, lambda: rig.children(tts.process.pid))

        asyncio.run(leaves())
        rig.until(lambda: not rig.children(tts.process.pid), within_s=synthesis.LIMIT_S / 2)


def test_without_flite_it_says_which_package_brings_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="apt-get install flite"), speech_rig.service(
        "tts", tmp_path / "run", PATH=str(tmp_path)
    ):  # fmt: skip
        pass


@pytest.mark.long
def test_a_caller_that_never_reads_is_let_go_and_costs_no_memory(tts: Service) -> None:
    async def never_reads() -> None:
        address = f"{tts.url}/api/tts_streaming?format=PcmMessagePack"
        async with connect(address, max_queue=1, ping_interval=None) as socket:
            before = proc.rss_bytes(tts.process.pid)
            for _ in range(100):
                await socket.send(moshi_client.packed("Text", text="and on and on it goes. " * 50))
            gone = functools.partial(rig.until, lambda: tts.figure("py_open_channels") == 0, within_s=90)
            await asyncio.to_thread(gone)
            assert proc.rss_bytes(tts.process.pid) - before < 16 * 1024 * 1024

    asyncio.run(never_reads())
