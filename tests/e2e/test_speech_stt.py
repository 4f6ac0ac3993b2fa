"""speech_stt as a published backend sees it: what flite says is heard, through everything that sound goes through; what
is no speech is not; and nothing that a caller does is felt by another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from procs.media.ogg import OggWriter
from procs.media.opus import Encoder
from procs.speech.stt.pocket import Pocket
from tests import moshi_client, speech_rig
from tests.moshi_client import Full, Session
from tests.rig import until
from tests.speech_rig import Service
from tests.spoken import MOST_WRONG, RATE, Sound, speech, wav, wrong

pytestmark = [pytest.mark.needs("flite")]
SENTENCES: list[str] = json.loads(Path(__file__).with_name("sentences.json").read_text())
PATH = "/api/asr-streaming"
STEP = 1920
SILENCE: Sound = np.zeros(RATE, np.int16)


@pytest.fixture(scope="module")
def stt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with speech_rig.service("stt", tmp_path_factory.mktemp("stt"), PLANARIA_SPEECH_SESSIONS="2") as started:
        yield started


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with speech_rig.service("tts", tmp_path_factory.mktemp("tts")) as started:
        yield started


def packed(pcm: Sound) -> bytes:
    """An Audio message, as moshi_client has it but by numpy."""
    numbers = np.empty(len(pcm), [("type", "u1"), ("value", ">f4")])
    numbers["type"], numbers["value"] = 0xCA, pcm.astype(np.float32) / 32768
    return b"\x82\xa4type\xa5Audio\xa3pcm" + struct.pack(">BI", 0xDD, len(pcm)) + numbers.tobytes()


def pieces(pcm: Sound) -> Iterator[bytes]:
    """Steps of sound, as messages."""
    return (packed(pcm[at : at + STEP]) for at in range(0, len(pcm), STEP))


def opus(pcm: Sound) -> Iterator[bytes]:
    """The same as an Ogg-Opus stream, in pieces that end anywhere."""
    writer, encoder = OggWriter(1), Encoder()
    stream = b"".join(writer.write([packet]) for packet in encoder.encode(pcm))
    return (moshi_client.packed("OggOpus", data=stream[at : at + 700]) for at in range(0, len(stream), 700))


async def until_marker(session: Session, messages: Iterator[bytes]) -> list[dict[str, Any]]:
    """Everything told of these and the silence after them, until a marker after them is back."""

    async def send() -> None:
        for message in messages:
            await session.socket.send(message)
        await session.send("Marker", id=1)
        for message in pieces(np.tile(SILENCE, 2)):
            await session.socket.send(message)

    sending = asyncio.create_task(send())
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] != "Marker":
        found.append(await session.next())
    await sending
    return found


async def heard(stt: Service, messages: Iterator[bytes]) -> list[dict[str, Any]]:
    """The same in a session of its own."""
    async with moshi_client.session(f"{stt.url}{PATH}") as session:
        await session.ready()
        return await until_marker(session, messages)


def words(told: Sequence[dict[str, Any]]) -> list[str]:
    return [each["text"] for each in told if each["type"] == "Word"]


async def spoken(tts: Service, text: str, voice: str) -> Sound:
    """What the synthesiser makes of it."""
    told = await moshi_client.spoken(tts.url, text.split(), voice=voice)
    floats = np.array([number for each in told if each["type"] == "Audio" for number in each["pcm"]])
    return (floats * 32767).astype(np.int16)


@pytest.mark.parametrize("sentences", [SENTENCES[:2], pytest.param(SENTENCES, marks=pytest.mark.long)], ids=len)
def test_what_is_spoken_is_heard_through_tts_opus_and_websockets(
    stt: Service, tts: Service, sentences: list[str]
) -> None:
    async def rate(text: str, voice: str) -> float:
        sound = np.concatenate([SILENCE[: RATE // 2], await spoken(tts, text, voice)])
        found = words(await heard(stt, opus(sound)))
        print(f"{voice} {wrong(text.split(), found):.2f}  {text} | {' '.join(found)}")
        return wrong(text.split(), found)

    async def voice_by_voice(voice: str) -> list[float]:
        return [await rate(text, voice) for text in sentences]

    async def both() -> tuple[list[float], list[float]]:
        return await asyncio.gather(voice_by_voice("slt"), voice_by_voice("rms"))

    rates = asyncio.run(both())
    print(f"word error rate: slt {np.mean(rates[0]):.3f}, rms {np.mean(rates[1]):.3f}, mean {np.mean(rates):.3f}")
    assert np.mean(rates) <= MOST_WRONG


def test_silence_noise_and_tones_are_a_pause_without_words(stt: Service) -> None:
    random, time_s = np.random.default_rng(9), np.arange(2 * RATE) / RATE
    noise = [random.normal(0, 32768 * 10 ** (-below / 20), 2 * RATE) for below in (20, 40)]
    tones = [8000 * np.sin(2 * np.pi * hertz * time_s) for hertz in (150, 440, 1000)]
    whole = np.concatenate([np.zeros(2 * RATE), *noise, *tones]).clip(-32768, 32767).astype(np.int16)
    told = asyncio.run(heard(stt, pieces(whole)))
    steps = [each for each in told if each["type"] == "Step"]
    assert len(steps) >= len(whole) // STEP and {each["type"] for each in told} == {"Step", "Marker"}
    assert min(each["prs"][2] for each in steps) > 0.6


def test_pauses_come_after_words(stt: Service) -> None:
    sound = np.concatenate([SILENCE, speech(SENTENCES[0]), SILENCE])
    first = asyncio.run(heard(stt, pieces(sound)))
    steps = [each["prs"][2] for each in first if each["type"] == "Step"]
    assert min(steps) < 0.4 and steps[0] > 0.6 and steps[-1] > 0.6
    at = [each["type"] for each in first].index("Word")
    over = next(index for index, each in enumerate(first) if index > 20 and each.get("prs", [0] * 4)[2] > 0.6)
    assert at < over, "whoever goes by the pause has the words"
    times = [each["start_time"] for each in first if each["type"] == "Word"]
    assert times == sorted(times) and 0.8 < times[0] < 1.2
    assert sum(each["type"] == "EndWord" for each in first) == len(times)


def test_what_was_heard_before_changes_nothing() -> None:
    recogniser = Pocket()

    def recognised(sound: bytes) -> list[tuple[str, float, float]]:
        recogniser.begin()
        for at in range(0, len(sound), 1024):
            recogniser.take(sound[at : at + 1024])
        recogniser.end()
        return list(recogniser.segments())

    first = recognised(wav(SENTENCES[1], "slt"))
    recognised(wav(SENTENCES[9], "awb"))
    assert recognised(wav(SENTENCES[1], "slt")) == first


def test_a_third_caller_is_told_that_there_is_no_room(stt: Service) -> None:
    async def crowd() -> None:
        async with moshi_client.session(f"{stt.url}{PATH}") as one, moshi_client.session(f"{stt.url}{PATH}") as two:
            await one.ready()
            await two.ready()
            with pytest.raises(Full):
                await heard(stt, iter(()))
            assert stt.json("GET", "/api/modules_info")[0]["used_slots"] == 2
            assert stt.call("POST", PATH, b"x")[0] == 503

    asyncio.run(crowd())
    until(lambda: stt.figure("asr_open_channels") == 0)
    assert words(asyncio.run(heard(stt, pieces(speech("hello"))))), "and then there is"


BAD: dict[str, bytes | str] = {
    "no msgpack": b"\xc1\xff",
    "of no kind": moshi_client.packed("Sing"),
    "no numbers": moshi_client.packed("Audio", pcm=["a"]),
    "no sample": packed(SILENCE[:2])[:-4] + struct.pack(">f", float("nan")),
    "words": "hello",
    "too long": bytes(10_000_000),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_message_ends_its_own_session_with_a_reason(stt: Service, what: str) -> None:
    async def send() -> tuple[list[dict[str, Any]], list[dict[str, Any]], int | None]:
        async with moshi_client.session(f"{stt.url}{PATH}") as good, moshi_client.session(f"{stt.url}{PATH}") as bad:
            await good.ready()
            await bad.ready()
            with contextlib.suppress(ConnectionClosed):
                await bad.socket.send(BAD[what])
            told = await bad.rest()
            return told, await until_marker(good, pieces(SILENCE)), bad.socket.close_code

    told, others, code = asyncio.run(send())
    assert code == (1009 if what == "too long" else 1008)
    assert [each["type"] for each in told] == ([] if what == "too long" else ["Error"])
    assert others[-1]["type"] == "Marker"


def test_a_broken_ogg_page_costs_only_itself(stt: Service) -> None:
    sound = np.concatenate([SILENCE, speech(SENTENCES[0]), SILENCE])
    stream = list(opus(sound))
    stream.insert(3, moshi_client.packed("OggOpus", data=b"OggS" + bytes(range(256)) * 4))
    assert words(asyncio.run(heard(stt, iter(stream)))) == SENTENCES[0].split()


def test_a_whole_file_is_answered_with_its_words(stt: Service, tmp_path: Path) -> None:
    file = tmp_path / "said.wav"
    subprocess.run(["flite", "-voice", "rms", "-t", SENTENCES[4], "-o", file], check=True)
    status, body = stt.call("POST", PATH, file.read_bytes())
    told = json.loads(body)
    assert (status, words(told)) == (200, SENTENCES[4].split())
    assert [each["type"] for each in told] == ["Word", "EndWord"] * (len(told) // 2)
    for data in (b"", b"hello", file.read_bytes()[:30], b"#EXTM3U\n/etc/passwd\n"):
        status, body = stt.call("POST", PATH, data)
        assert status == 400 and "sound" in json.loads(body)["error"]


def test_a_file_on_its_way_has_a_slot(stt: Service) -> None:
    """Else any number of them would be held in memory."""
    with socket.create_connection(("127.0.0.1", stt.port)) as slow:
        slow.sendall(f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n".encode())
        until(lambda: stt.figure("asr_open_channels") == 1)
    until(lambda: stt.figure("asr_open_channels") == 0)


def test_who_is_let_in(stt: Service, tmp_path: Path) -> None:
    key = "a-key-that-nobody-guesses"
    with speech_rig.service("stt", tmp_path, PLANARIA_SPEECH_KEY=key) as keyed:
        shown = [{"kyutai-api-key": key}, {"Authorization": f"Bearer {key}"}, {"kyutai-api-key": "public_token"}, {}]
        shown += [{"kyutai-api-key": "\xff\xfe"}]
        assert [keyed.call("GET", "/metrics", **each)[0] for each in shown] == [200, 200, 401, 401, 401]
        assert keyed.call("GET", f"/metrics?auth_id={key}")[0] == 401, "not in an address, which is logged"
        with pytest.raises(InvalidStatus, match="401"):
            asyncio.run(heard(keyed, iter(())))
    assert stt.call("GET", "/metrics")[0] == 200
    assert stt.call("GET", "/metrics", Origin="https://example.org")[0] == 401, "no page in a browser of this machine"
