"""Whatever a hub sends, and in whatever order proxies live and die: no exception, and one answer for each request."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from procs.messages.work import JobDone, Ready
from procs.wire import challenge
from procs.wire.frames.device import ProxyHttp
from procs.ws_link import jobs, streams
from procs.ws_link.identity import Identity
from procs.ws_link.link import End, Noted, Session
from tests.examples import some_of

ME = Identity("d", "s", "0123456789abcdef")
KEYS = challenge.keys(ME.secret, ME.device_id)
TYPES = ["hello_ack", "challenge", "proxy_http", "paired", "error", "data_ticket", "pairing_code", "heartbeat_ack"]
TYPES += ["watch_request", "signal_offer", "signal_ice", "watch_ended", "hello", "capabilities"]
TYPES += ["suite_watch", "suite_restart", "suite"]
NAMES = ["device_id", "server_time", "nonce", "rid", "path", "method", "body_b64", "headers", "timeout_ms", "caps"]
NAMES += ["mux", "signature", "code", "session_id", "sdp", "candidate", "message", "ice_servers", "user_id"]
NAMES += ["for_s", "process", "pid"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40) | st.just("d"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=4),
    max_leaves=12,
)
FRAMES = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES), "payload": st.dictionaries(st.sampled_from(NAMES), VALUES) | VALUES},
    optional={"request_id": VALUES, "ts": VALUES},
)


@given(st.lists(FRAMES.map(json.dumps) | st.text() | st.binary().map(lambda b: b.decode("latin1")), max_size=8))
@settings(max_examples=some_of(300), deadline=None)
def test_no_frame_is_an_exception(texts: list[str]) -> None:
    one = Session(ME, KEYS, 0.0, has_suite=True)
    one.hello("", show_secret=False)
    for number, text in enumerate(texts):
        for event in one.received(text, float(number)):
            assert event is not None
            if isinstance(event, Noted):
                assert event.kind and len(event.kind) < 60
        assert all(not isinstance(event, End) for event in one.tick(float(number), {}))


@given(VALUES | st.dictionaries(st.text(), st.fixed_dictionaries({"producers": VALUES, "consumers": VALUES})))
@settings(max_examples=some_of(200), deadline=None)
def test_whatever_go2rtc_says_can_be_announced(listed: Any) -> None:
    told = streams.announced(listed)
    streams.substance(told)
    Session(ME, KEYS, 0.0).capabilities(0.0, told)


STEPS = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 9), st.sampled_from(["GET", "POST"]), st.integers(1, 20_000)),
    st.tuples(st.just("ready"), st.integers(0, 2), st.integers(1, 3), st.integers(0, 3)),
    st.tuples(st.just("done"), st.integers(0, 2), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("gone"), st.integers(0, 2), st.just(0), st.just(0)),
    st.tuples(st.just("pass"), st.integers(1, 4000), st.just(0), st.just(0)),
)


@given(st.lists(STEPS, max_size=80))
@settings(max_examples=some_of(300), deadline=None)
def test_each_request_is_answered_exactly_once(steps: list[tuple[str, int, Any, int]]) -> None:
    table, now, rids = jobs.Jobs(), 0.0, Counter[str]()
    answered, handed = Counter[str](), Counter[str]()

    def note(actions: list[jobs.Action]) -> None:
        for action in actions:
            if isinstance(action, jobs.Answer):
                answered[action.rid] += 1
            else:
                handed[action.job.rid] += 1
                assert action.job.method == "GET" or handed[action.job.rid] == 1, "a POST twice"
                assert not answered[action.job.rid], "work for nobody"

    for what, one, two, three in steps:
        if what == "take" and not rids[str(one)]:
            rids[str(one)] += 1
            note(table.take(ProxyHttp(rid=str(one), method=two, timeout_ms=three), now))
        elif what == "ready":
            note(table.ready(Ready(worker=str(one), pid=two, capacity=three), now))
        elif what == "done" and rids[str(two)]:
            note(table.done(str(one), JobDone(rid=str(two), status=200), b"", now))
        elif what == "gone":
            note(table.gone(str(one), now))
        elif what == "pass":
            now += one / 1000
            note(table.tick(now))
    note(table.tick(now + 1000))
    assert answered == rids
