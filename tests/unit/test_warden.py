"""What the warden reads and writes: supervisord's events, go2rtc's answers, the journal, metrics."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from procs import journal, proc
from procs.errors import ConfigError, Refused
from procs.kinds import Address
from procs.messages.warden import Heartbeat
from procs.settings import Layers, load
from procs.warden import go2rtc, metrics, notify, relatives, state, table
from procs.warden.history import Down, History, Up
from procs.warden.listener import Listener, answer
from procs.warden.options import Warden
from procs.warden.policy import Policy
from tests.rig import free_port, until


def event(payload: str, name: str = "REMOTE_COMMUNICATION") -> bytes:
    """As supervisord writes one."""
    head = f"ver:3.0 server:supervisor serial:21 pool:warden poolserial:10 eventname:{name} len:{len(payload)}\n"
    return (head + payload).encode()


@given(st.lists(st.text(alphabet='ab:\n {}"', max_size=50), max_size=5), st.integers(1, 20))
def test_events_are_put_together_however_they_are_cut(payloads: list[str], step: int) -> None:
    data, listener = b"".join(map(event, payloads)), Listener()
    found = [each for at in range(0, len(data), step) for each in listener.feed(data[at : at + step])]
    assert [each.payload for each in found] == payloads


@pytest.mark.parametrize("data", [b"rubbish\n", b"len:9999999 name:X\n", b"len:-1 eventname:X\n", b"x" * 2000])
def test_an_event_without_sense_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        Listener().feed(data)


def test_an_answer_is_as_long_as_it_says() -> None:
    assert answer(b"{}") == b"RESULT 2\n{}READY\n"
    assert json.loads(table.answer([("go2rtc", 5)], 7)) == {"served": [["go2rtc", 5]], "noted": 7}


def test_tables_are_ours_or_nobodys() -> None:
    assert table.decode("type:other\n{}") is None
    told = table.decode('type:planaria\n{"supervisord": 3, "at": 1.5, "processes": [], "deaths": []}')
    assert told and told.supervisord == 3
    for text in ("", "[]", "{}", "\xff", '{"supervisord": "x"}', "[" * 5000):
        with pytest.raises(Refused):
            table.decode(f"type:planaria\n{text}")


@given(st.binary(max_size=300))
def test_whatever_answers_instead_of_go2rtc_is_refused(body: bytes) -> None:
    try:
        found = go2rtc.decode(body)
    except Refused:
        return
    assert found == {}, "nothing else is an answer"


def test_go2rtcs_answer_is_summed_up() -> None:
    body = {
        "a": {
            "producers": [{"source": "exec:'/a b/x' 'c d' -e#killsignal=9", "bytes_recv": 5}],
            "consumers": [{"senders": [{"drops": 2}, {}]}],
        },
        "b": {"producers": [{"url": "exec:y 'not closed"}], "consumers": None},
        "c": {"producers": None},
    }
    assert go2rtc.decode(json.dumps(body).encode()) == {
        "a": go2rtc.Stream(1, 5, True, 2, ("c d", "-e")),
        "b": go2rtc.Stream(0, None, True, 0),
        "c": go2rtc.Stream(0, None, False, 0),
    }


def test_a_go2rtc_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            go2rtc.ask(Address(*mute.getsockname()), "")
        assert time.monotonic() - began < 3 * go2rtc.LIMIT_S


def test_the_times_of_the_journal_are_those_of_what_happened(tmp_path: Path) -> None:
    now = time.monotonic()
    journal.append(tmp_path, process="a", event="down", pid=1, at=now - 0.5)
    journal.append(tmp_path, process="a", event="up", pid=2, ms=300, at=now - 0.2)
    down, up = (datetime.fromisoformat(line["time"]) for line in journal.read(tmp_path, 0))
    assert abs((up - down).total_seconds() - 0.3) < 0.05 and time.time() - up.timestamp() >= 0.2


def test_the_journal_survives_torn_lines_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(tmp_path, process="a", event="down", pid=1, kind="killed", reason="SIGKILL")
    with (tmp_path / journal.NAME).open("a") as file:
        file.write('{"time": "2026-01-01T00:00:00.000Z", "proc')  # a full disk
    journal.append(tmp_path, process="a", event="up", pid=2, ms=12.345)
    assert [(line["event"], line["pid"], line.get("ms")) for line in journal.read(tmp_path, 0)] == [
        ("down", 1, None),
        ("up", 2, 12.3),
    ]
    assert journal.read(tmp_path, time.time() + 60) == []
    monkeypatch.setattr(journal, "MAX_BYTES", 1000)
    for number in range(100):
        journal.append(tmp_path, process="a", event="up", pid=number, ms=1)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3000
    assert journal.read(tmp_path, 0)[-1]["pid"] == 99
    journal.append(tmp_path / "nowhere", process="a", event="up", pid=1, ms=1)  # raises nothing


def test_recoveries_are_measured_from_the_first_end_to_the_next_sign() -> None:
    history = History()
    history.blame("a", 1, "silent", "no sign of life for 4.0 s", 9.0)
    assert history.ended("a", 1, "killed", "SIGKILL", 10.0) == Down("a", 1, "silent", "no sign of life for 4.0 s", 10.0)
    assert history.serves("a", 1, 10.1) is None, "a last word of the dead"
    history.ended("a", 2, "exited", "exit 1", 11.0)
    assert history.serves("a", 3, 12.5) == Up("a", 3, 2500.0, 12.5)
    assert history.serves("a", 3, 13.0) is None
    assert dict(history.restarts) == {("a", "silent"): 1, ("a", "exited"): 1}
    later = History()
    later.recall([{"event": "down", "process": "a", "kind": "killed"}, {"event": "up", "process": "a", "ms": 70}])
    assert (dict(later.restarts), later.recoveries["a"].sum_s) == ({("a", "killed"): 1}, 0.07)
    text = metrics.histogram("recovery_seconds", "help", history.recoveries)
    assert 'planaria_recovery_seconds_bucket{process="a",le="2.0"} 0' in text
    assert 'planaria_recovery_seconds_bucket{process="a",le="5.0"} 1' in text
    assert 'planaria_recovery_seconds_count{process="a"} 1' in text


def test_labels_are_escaped() -> None:
    text = metrics.family("x", "gauge", "help", [({"process": 'a"b\\c\nd'}, 1.5)])
    assert text.splitlines()[-1] == 'planaria_x{process="a\\"b\\\\c\\nd"} 1.5'


def test_metrics_are_served_and_nothing_else() -> None:
    address = Address("127.0.0.1", free_port())
    metrics.serve(address, lambda: "planaria_up 1\n")

    def get(method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*address, timeout=5)
        try:
            connection.request(method, path)
            found = connection.getresponse()
            return found.status, found.read()
        except ConnectionRefusedError:
            return 0, b""
        finally:
            connection.close()

    until(lambda: get("GET", "/metrics")[0])
    assert get("GET", "/metrics") == (200, b"planaria_up 1\n")
    assert [get("GET", "/other")[0], get("POST", "/metrics")[0]] == [404, 405]
    with socket.create_connection(address) as slow:  # says nothing: it is dropped, and the next one served
        assert get("GET", "/metrics")[0] == 200
        assert slow.recv(10) == b""


def test_systemd_hears_of_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        notifier = notify.Notifier(str(tmp_path / "notify"))
        notifier.ready()
        notifier.watchdog()
        assert [systemd.recv(100), systemd.recv(100)] == [b"READY=1", b"WATCHDOG=1"]
    notifier.watchdog()  # nobody there
    notify.Notifier("").ready()


@pytest.mark.parametrize(
    ("words", "speaks"),
    [
        (["python", "-m", "procs.headless_agent", "--instance-id", "omega-1"], True),
        (["my-renderer", "--id=omega-1"], True),
        (["my-renderer", "--id", "omega-10"], False),
        (["my-renderer", "x-omega-1"], False),
        (["sh", "-c", "make /srv/omega-1.ts"], True),
    ],
)
def test_a_stream_is_found_in_a_command_line(words: list[str], speaks: bool) -> None:
    assert relatives.names(words, "omega-1") is speaks


@given(st.integers(1, 700_000))
@settings(max_examples=20)
def test_an_event_that_is_too_long_is_passed_over(step: int) -> None:
    """supervisord would hand it to the next warden, and that would die of it too."""
    data, listener = event("a") + event("x" * 1_100_000, "LARGE") + event("b"), Listener()
    found = [each for at in range(0, len(data), step + 1000) for each in listener.feed(data[at : at + step + 1000])]
    assert [(each.name, each.payload) for each in found] == [
        ("REMOTE_COMMUNICATION", "a"),
        ("LARGE", ""),
        ("REMOTE_COMMUNICATION", "b"),
    ]


def test_only_who_stays_stopped_counts_as_stopped() -> None:
    """cpulimit stops and continues a process ten times a second."""
    own = relatives.Relatives(zmq.Poller())
    own.supervisord = os.getpid()
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            for runs, seen in ((False, True), (False, True), (True, False), (True, False), (False, True)):
                if runs:
                    child.send_signal(signal.SIGCONT)
                    until(lambda: (its := proc.stat(child.pid)) and its.state == "S")
                child.send_signal(signal.SIGSTOP)
                until(lambda: (its := proc.stat(child.pid)) and its.state == "T")
                assert (child.pid in own.look()) is seen
        finally:
            child.kill()


def test_supervisord_is_told_of_like_any_other(tmp_path: Path) -> None:
    journal.append(tmp_path, process="supervisord", event="down", pid=7, kind="killed", reason="SIGKILL")
    policy = Policy()
    policy.see_supervisord(os.getpid(), 10.0)
    now = state.State(tmp_path, policy, History())
    now = state.State(tmp_path, policy, History())
    (row,) = now.told(10.5).processes
    assert (row.name, row.restarts_hour, row.last_end, row.state) == ("supervisord", 1, "SIGKILL", "SERVING")


def test_nobody_is_ours_by_having_no_parent() -> None:
    """While go2rtc is down, its pid is 0, as is that of init's parent."""
    beat = Heartbeat(program="x", instance="", pid=1, serving=True)
    assert not relatives.Relatives(zmq.Poller()).is_ours(beat, 0.0)


def test_metrics_are_text_whatever_a_command_line_holds() -> None:
    address = Address("127.0.0.1", free_port())
    metrics.serve(address, lambda: os.fsdecode(b"caf\xe9"))
    until(lambda: "caf?" in metrics_of(address))


def metrics_of(address: Address) -> str:
    """What is served there."""
    try:
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return connection.recv(65536).decode()
    except OSError:
        return ""


def test_a_process_makes_the_stream_whose_words_it_has() -> None:
    """A name alone says little: `movies` and `omega-0` stand in the path of a file, and a file need not be called as
    its stream is."""

    def made_by(*words: str) -> go2rtc.Stream:
        return go2rtc.Stream(1, 5, True, 0, words)

    streams = {
        "omega-0": made_by("omega-0", "--fps", "30"),
        "film": made_by("/v/ffmpeg", "/movies/omega-0/holiday.mp4"),
        "movies": made_by("/v/ffmpeg", "/movies/omega-0/broken.mp4"),
        "cam": made_by("/temp/streams/cam.ts"),
        "streams": made_by("/temp/streams/streams.ts"),
        "sub": made_by("--", "my-renderer", "--id", "omega-0", "--fps", "30"),
        "far": go2rtc.Stream(1, 5, False, 0),
        "odd": made_by("--", "something", "else"),
    }
    python = ["python", "-m"]
    for words, made in (
        ([*python, "procs.headless_agent", "--instance-id", "omega-0", "--fps", "30"], {"omega-0"}),
        (["/bin/sh", "/x/scripts/go2rtc_exec_headless_agent.sh", "omega-0", "--fps", "30"], {"omega-0"}),
        (["/v/ffmpeg", "-nostdin", "-i", "file:/movies/omega-0/holiday.mp4", "-c", "copy"], {"film"}),
        ([*python, "procs.capture.read_fifo", "/temp/streams/cam.ts"], {"cam"}),
        ([*python, "procs.capture", "--raw", "--", "my-renderer", "--id", "omega-0", "--fps", "30"], {"sub"}),
        (["unheard-of", "--title=odd"], {"odd"}),  # behind a wrapper that somebody wrote
        (["unheard-of", "far"], set()),
        ([], set()),
    ):
        assert relatives.owned(words, streams) == made, words


@pytest.mark.parametrize(
    "text", ["go2rtc", "go2rtc=", "go2rtc=1.5", "go2rtc=0", "nosuch=100", "go2rtc=100;", "capture=99999999"]
)
def test_a_bad_ceiling_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"memory=.*must be .*go2rtc.*with megabytes from 16 to 1000000"):
        load(Warden, Layers(document={"memory": text}, document_name="x"))


def test_ceilings_are_read() -> None:
    chosen = load(Warden, Layers(document={"memory": "go2rtc=100,capture=300"}))
    assert chosen.memory == {"go2rtc": 100_000_000, "capture": 300_000_000}


def test_a_program_that_is_off_here_is_no_process_that_somebody_has_stopped(tmp_path: Path) -> None:
    told = state.State(tmp_path, Policy(), History())
    row = table.Row("tun_pump", "STOPPED", 0, 0.0, 0, 0, 0.0)
    told.rows = [row, structs.replace(row, name="off", begun=False)]
    assert [each.name for each in told.told(1.0).processes] == ["tun_pump"]
