"""The voice backend's leader when things die: its children, its zygote, itself, its store, another backend. Real
processes; the children only dial and beat (tests/voice_children.py)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from procs import proc
from procs.voice import sayings
from procs.voice.leases import LEASE_S
from tests import voice_rig
from tests.rig import until
from tests.voice_rig import Backend, FakeDevice


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    """One device."""
    with voice_rig.devices() as (made,):
        yield made


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """Services that are up."""
    with voice_rig.services() as made:
        yield made


def children_of(backend: Backend) -> list[int]:
    """The pids of its conversations."""
    (zygote,) = proc.children(backend.process.pid)
    return proc.children(zygote)


def _has(backend: Backend, text: str) -> bool:
    return text in backend.lines("kitchen")


def _called(device: FakeDevice, times: int) -> bool:
    return device.calls == times


def test_a_killed_child_is_back_with_what_was_said(tmp_path: Path, device: FakeDevice, environ: dict[str, str]) -> None:
    with voice_rig.backend(tmp_path, device.entry("kitchen"), environ=environ) as its:
        its.until_state("kitchen", "connected")
        for number in range(1, 4):
            its("POST", "/v1/devices/kitchen/say", {"text": f"line {number}"})
            until(functools.partial(_has, its, f"line {number}"))
            os.kill(until(lambda: children_of(its))[0], signal.SIGKILL)
            until(functools.partial(_called, device, number + 1))
            its.until_state("kitchen", "connected")
        said = list(dict.fromkeys(its.lines("kitchen")))  # killed before it told that it has begun, it is said again
        assert said == ["line 1", "line 2", "line 3"], "each child counts on where the one before was"
        assert device.most == 1, "never a second connection"


def test_a_killed_leader_goes_on_at_once_with_lines_and_mutes(
    tmp_path: Path, device: FakeDevice, environ: dict[str, str]
) -> None:
    with voice_rig.backend(tmp_path, device.entry("kitchen"), environ=environ) as its:
        its.until_state("kitchen", "connected")
        its("POST", "/v1/devices/kitchen/say", {"text": "kept"})
        its("POST", "/v1/devices/kitchen/mute")
        until(lambda: _is_stored(its, "kept"))
        before = children_of(its)
        its.kill()
        until(lambda: not any(proc.stat(pid) for pid in before))
        with contextlib.closing(sqlite3.connect(its.folder / "run/voice.sqlite")) as store, store:
            assert store.execute("UPDATE voice_leases SET until = until + 3600").rowcount == 1
        its.start()
        until(lambda: device.calls == 2)  # its own lease is no obstacle, however long it is
        its.wait()
        its.until_state("kitchen", "connected")
        assert (its.lines("kitchen"), its.device("kitchen")["muted"]) == (["kept"], True)
        assert device.most == 1


def _is_stored(its: voice_rig.Backend, text: str) -> bool:
    """Whether it would outlive everybody."""
    with contextlib.closing(sqlite3.connect(f"file:{its.folder}/run/voice.sqlite?mode=ro", uri=True)) as store:
        return bool(store.execute("SELECT 1 FROM voice_lines WHERE text = ?", (text,)).fetchall())


def test_a_leader_whose_zygote_dies_ends_and_its_children_with_it(
    tmp_path: Path, device: FakeDevice, environ: dict[str, str]
) -> None:
    with voice_rig.backend(tmp_path, device.entry("kitchen"), environ=environ) as its:
        its.until_state("kitchen", "connected")
        (zygote,) = proc.children(its.process.pid)
        os.kill(zygote, signal.SIGKILL)
        assert its.process.wait(5) == 15
        until(lambda: device.now == 0)
        its.start()
        until(lambda: device.now == 1)


def test_a_child_that_stands_still_or_crashes_is_replaced(
    tmp_path: Path, device: FakeDevice, environ: dict[str, str]
) -> None:
    with voice_rig.backend(tmp_path, device.entry("kitchen"), environ=environ) as its:
        its.until_state("kitchen", "connected")
        its("POST", "/v1/devices/kitchen/say", {"text": "freeze"})
        until(lambda: device.calls == 1 + sayings.DEATHS)
        its.until_state("kitchen", "connected")
        its("POST", "/v1/devices/kitchen/say", {"text": "crash"})
        until(lambda: device.calls == 1 + 2 * sayings.DEATHS)
        assert "signal 11" in its.said()
        assert its.said().count("not said: conversations died") == 2, "and the next one is told nothing of it"
        assert its.metric("worker_hard_errors_total") == sayings.DEATHS
        assert device.most == 1


def test_devices_json_is_followed_and_the_others_are_left_alone(tmp_path: Path, environ: dict[str, str]) -> None:
    with voice_rig.devices(3) as (one, two, three), voice_rig.backend(tmp_path, environ=environ) as its:
        idle = "idle: not configured: there is no devices.json"
        until(lambda: its("GET", "/v1/health").json["message"] == idle)
        its.write(one.entry("one"), two.entry("two"))
        until(lambda: one.now == two.now == 1)
        its.write(one.entry("one"), two.entry("two", voice="Quiz show"), three.entry("three"))
        until(lambda: three.now == 1 and two.calls == 2)
        its.write(one.entry("one"), two.entry("two", prot=1), {**three.entry("three"), "port": 70000})
        until(lambda: its("GET", "/v1/devices/status").json["problems"])
        its.file.write_text('{"devices": [')
        until(lambda: "line 1" in its("GET", "/v1/devices/status").json["problems"][0])
        assert "devices[1].prot: unknown field" in its.said()
        assert "devices[2].port=70000: must be 1 to 65535" in its.said()
        assert (one.calls, two.calls, three.calls) == (1, 2, 1), "no conversation was ended by a mistake"
        assert one.now == two.now == three.now == 1
        its.write(three.entry("three"))
        until(lambda: one.now == two.now == 0)
        assert (three.now, three.calls) == (1, 1)


def test_a_device_that_is_away_holds_nobody_up(tmp_path: Path, device: FakeDevice, environ: dict[str, str]) -> None:
    gone = {"name": "gone", "host": "127.0.0.1", "port": 1, "reconnect_delay": 0.1}
    once = {"name": "once", "host": "127.0.0.1", "port": 1, "auto_reconnect": False}
    with voice_rig.backend(tmp_path, gone, once, device.entry("kitchen"), environ=environ) as its:
        its.until_state("kitchen", "connected")
        its.until_state("once", "over")
        its.until_state("gone", "waiting")
        assert its.device("gone")["problem"]
        born = its.metric('planaria_voice_born_total{device="once"}')
        health = its("GET", "/v1/health")
        assert (health.status, health.json["status"]) == (200, "degraded"), "it can serve"
        assert "2 of 3 devices are not connected" in health.json["message"]
        assert its.metric('planaria_voice_born_total{device="once"}') == born == 1
        its("POST", "/v1/devices/once/reconnect")
        until(lambda: its.metric('planaria_voice_born_total{device="once"}') == 2)


def test_health_says_what_is_down(tmp_path: Path, device: FakeDevice) -> None:
    nobody = dict(_nobody())
    with voice_rig.backend(tmp_path, device.entry("kitchen"), environ=nobody) as its:
        its.until_state("kitchen", "connected")
        answer = its("GET", "/v1/health")
        assert (answer.status, answer.json["status"], answer.json["ok"]) == (503, "unhealthy", False)
        for name in ("STT", "TTS", "LLM"):
            assert f"{name} is down (" in answer.json["message"]


def _nobody() -> Iterator[tuple[str, str]]:
    for name, scheme in (("STT", "ws"), ("TTS", "ws"), ("LLM", "http")):
        yield f"KYUTAI_{name}_URL", f"{scheme}://127.0.0.1:1"


# Two backends


@pytest.mark.long  # on PostgreSQL, and with conversations, it is in e2e and in test_voice_kills.py
def test_of_two_backends_one_calls_and_the_other_takes_over(
    tmp_path: Path, device: FakeDevice, environ: dict[str, str]
) -> None:
    shared = {**environ, "PLANARIA_VOICE_STORE": f"sqlite:///{tmp_path}/shared.sqlite"}
    with (
        voice_rig.backend(tmp_path / "a", device.entry("kitchen"), environ=shared) as one,
        voice_rig.backend(tmp_path / "b", device.entry("kitchen"), environ=shared) as two,
    ):
        until(lambda: "elsewhere" in _states(one, two) and "connected" in _states(one, two))
        first, second = (one, two) if one.device("kitchen")["state"] == "connected" else (two, one)
        first("POST", "/v1/devices/kitchen/say", {"text": "said by the first"})
        until(lambda: second.lines("kitchen") == ["said by the first"])
        assert second("POST", "/v1/devices/kitchen/say", {"text": "x"}).status == 409
        time.sleep(LEASE_S + 1)
        assert (device.now, device.calls) == (1, 1), "as long as it lives it keeps the device"
        first.kill()
        took = voice_rig.seconds_until(lambda: device.calls == 2)
        assert took < LEASE_S + 1
        second.until_state("kitchen", "connected")
        assert second.lines("kitchen") == ["said by the first"]
        first.start()
        first.wait()
        first.until_state("kitchen", "elsewhere")
        assert (device.most, device.calls) == (1, 2)


def _states(*backends: Backend) -> set[str]:
    return {its.device("kitchen")["state"] for its in backends}


def test_a_leader_that_stands_still_keeps_no_device_from_the_other(
    tmp_path: Path, device: FakeDevice, environ: dict[str, str]
) -> None:
    """It can't end its conversations, which would go on beside those of whoever took its leases over."""
    shared = {**environ, "PLANARIA_VOICE_STORE": f"sqlite:///{tmp_path}/shared.sqlite"}
    with voice_rig.backend(tmp_path / "a", device.entry("kitchen"), whole=True, environ=shared) as one:
        until(lambda: device.now == 1)
        time.sleep(LEASE_S + 1)
        assert (device.now, device.calls) == (1, 1), "a lease that is renewed ends nothing"
        with voice_rig.backend(tmp_path / "b", device.entry("kitchen"), environ=shared):
            os.kill(one.process.pid, signal.SIGSTOP)
            until(lambda: device.calls == 2, LEASE_S + 5)
            assert device.most == 1


def test_without_a_store_conversations_end_before_another_may_call(
    tmp_path: Path, device: FakeDevice, environ: dict[str, str]
) -> None:
    """Its children live as long as its lease does: whoever took the lease over must never find them there."""
    shared = {**environ, "PLANARIA_VOICE_STORE": f"sqlite:///{tmp_path}/shared.sqlite"}
    with voice_rig.backend(tmp_path / "a", device.entry("kitchen"), environ=shared) as one:
        until(lambda: device.now == 1)
        with voice_rig.backend(tmp_path / "b", device.entry("kitchen"), environ=shared):
            # Somebody who writes and writes: neither backend can renew or take anything.
            locked = sqlite3.connect(tmp_path / "shared.sqlite", isolation_level=None)
            locked.execute("BEGIN IMMEDIATE")
            until(lambda: device.now == 0, LEASE_S + 2)
            locked.execute("ROLLBACK")
            locked.close()
            until(lambda: device.now == 1)
            assert device.most == 1
            assert one.process.poll() is None, "without a store it waits"


def test_a_store_that_is_away_for_a_moment_ends_nothing(
    tmp_path: Path, device: FakeDevice, environ: dict[str, str]
) -> None:
    with voice_rig.backend(tmp_path, device.entry("kitchen"), environ=environ) as its:
        its.until_state("kitchen", "connected")
        locked = sqlite3.connect(tmp_path / "run/voice.sqlite", isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        its("POST", "/v1/devices/kitchen/say", {"text": "said meanwhile"})
        until(lambda: its.metric("planaria_voice_lines_unwritten") >= 1)
        time.sleep(1.5)
        locked.execute("ROLLBACK")
        locked.close()
        until(lambda: its.metric("planaria_voice_lines_unwritten") == 0)
        assert (device.calls, its.lines("kitchen")) == (1, ["said meanwhile"])


# Browsers


def test_browsers_talk_and_one_too_many_is_told_so_at_once(tmp_path: Path, environ: dict[str, str]) -> None:
    limit = {**environ, "PLANARIA_VOICE_BROWSERS": "2"}
    with voice_rig.backend(tmp_path, environ=limit) as its, contextlib.ExitStack() as stack:
        url = f"ws://127.0.0.1:{its.port}/v1/realtime"
        first, second = (stack.enter_context(connect(url, subprotocols=["realtime"], proxy=None)) for _ in range(2))  # type: ignore[list-item]
        for number in range(300):  # more than goes to a child at once, and most before it is there
            first.send(f"frame {number}")
        assert [first.recv(timeout=10) for _ in range(300)] == [f"frame {number}" for number in range(300)]
        assert its.metric("planaria_voice_browsers") == 2
        with pytest.raises(InvalidStatus) as refused:
            connect(url, subprotocols=["realtime"], proxy=None)  # type: ignore[list-item]
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"]
        second.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            second.recv(timeout=10)
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "goodbye")
        first.send("crash")
        with pytest.raises(ConnectionClosed) as closed:
            first.recv(timeout=10)
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1011
        until(lambda: its.metric("planaria_voice_browsers") == 0)
        third = stack.enter_context(connect(url, subprotocols=["realtime"], proxy=None))  # type: ignore[list-item]
        third.send("there is room again")
        assert third.recv(timeout=10) == "there is room again"
        third.close()
        until(lambda: children_of(its) == [])


def test_a_browser_that_reads_nothing_is_closed_and_costs_no_memory(tmp_path: Path, environ: dict[str, str]) -> None:
    async def scenario(port: int) -> None:
        small = socket.socket()  # what the kernel keeps for it costs time and no memory of ours
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        small.connect(("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=small)
        head = (
            "GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: realtime\r\n\r\n"
        )
        writer.write(head.encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        frame = b"\x81\xfe\xea\x60" + bytes(4) + b"x" * 60_000  # masked with zeros; it comes back
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(60):
                while True:
                    writer.write(frame)
                    await writer.drain()
                    await asyncio.sleep(0.005)  # twelve megabytes a second are enough to be told of
        writer.transport.abort()

    with voice_rig.backend(tmp_path, environ=environ) as its:
        before = proc.rss_bytes(its.process.pid)
        asyncio.run(scenario(its.port))
        until(lambda: its.metric("planaria_voice_browsers") == 0, 30)
        status = Path(f"/proc/{its.process.pid}/status").read_text()
        peak = 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        print(f"{(peak - before) / 1e6:.1f} MB more at the most")
        assert peak < before + 60e6
        assert its("GET", "/").status == 200
