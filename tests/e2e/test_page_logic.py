"""What the page computes, in the browser that computes it: modules of the real hub, imported and called."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import hub_rig
from tests.e2e.chromium import chromium

pytestmark = pytest.mark.needs("chromium")
Run = Callable[..., Any]
# Sunday evening in Berlin, where it is an hour later than in UTC.
NOW = "Date.UTC(2026, 10, 22, 17, 30)"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Evaluates an expression with a module as `it`, in a page of the hub's origin."""
    with hub_rig.process(tmp_path_factory.mktemp("hub")) as hub, chromium() as browser:
        page = browser.new_context(timezone_id="Europe/Berlin", locale="en-GB").new_page()
        page.goto(f"http://127.0.0.1:{hub.port}/health")

        def evaluate(module: str, expression: str) -> Any:
            return page.evaluate(f"async () => {{ const it = await import('/page/{module}'); return {expression}; }}")

        yield evaluate


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("it.span(0)", "0 s"),
        ("it.span(-5)", "0 s"),
        ("it.span(59.9)", "59 s"),
        ("it.span(60)", "1 min"),
        ("it.span(3599)", "59 min"),
        ("it.span(3600)", "1 h"),
        ("it.span(2 * 3600 + 5 * 60)", "2 h 5 min"),
        ("it.span(23 * 3600 + 59 * 60)", "23 h"),
        ("it.span(86400)", "1 day"),
        ("it.span(3.9 * 86400)", "3 days"),
        ("it.count(1, 'device')", "1 device"),
        ("it.count(0, 'device')", "0 devices"),
        ("it.bytes(640e3)", "640 kB"),
        ("it.bytes(12.4e6)", "12 MB"),
        ("it.bytes(1.25e9)", "1.3 GB"),
        ("it.sentence('no such stream')", "No such stream."),
        ("it.sentence('There is none.')", "There is none."),
        ("it.sentence('connecting…')", "Connecting…"),
        ("it.sentence(' ')", ""),
        ("it.rate(640e3)", "640 kbit/s"),
        ("it.rate(2.14e6)", "2.1 Mbit/s"),
        ("it.shortly(239.6)", "240 ms"),
        ("it.shortly(1234)", "1.2 s"),
        ("it.shortly(34_000)", "34 s"),
    ],
)
def test_numbers_in_words(run: Run, expression: str, words: str) -> None:
    assert run("words.js", expression) == words


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("2026-11-22T17:02:00", "18:02"),
        ("2026-11-22T17:02:00.123456", "18:02"),
        ("2026-11-22T17:02:00Z", "18:02"),
        ("2026-11-22T18:02:00+01:00", "18:02"),
        ("2026-11-21T23:30:00", "00:30"),  # it is today in Berlin
        ("2026-11-21T22:59:00", "yesterday 23:59"),
        ("2026-11-16T08:00:00", "Monday 09:00"),
        ("2026-11-15T08:00:00", "15 Nov 09:00"),
        ("2026-10-24T23:30:00", "25 Oct 01:30"),  # before the clocks changed
        ("2025-11-22T17:02:00", "22 Nov 2025"),
        ("2026-11-23T17:02:00", "23 Nov 18:02"),  # of a clock that is ahead
    ],
)
def test_moments_in_words(run: Run, at: str, words: str) -> None:
    assert run("words.js", f"it.moment(it.timeOf('{at}'), {NOW})") == words


def test_a_change_of_clocks_makes_no_other_day(run: Run) -> None:
    """On 25 October 2026 clocks in Berlin go back, and the day has 25 hours."""
    monday = "Date.UTC(2026, 9, 25, 23, 10)"  # ten past midnight
    assert run("words.js", f"it.moment(it.timeOf('2026-10-24T22:10:00'), {monday})") == "yesterday 00:10"


def test_what_is_no_time_is_none(run: Run) -> None:
    assert run("words.js", "['', null, undefined, 'soon'].map(it.timeOf).every(Number.isNaN)")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("{state: 'online', connected_at: '2026-11-22T17:27:00'}", "online for 3 min"),
        ("{state: 'online', connected_at: null}", "online"),
        ("{state: 'offline', last_seen: '2026-11-21T17:02:00'}", "offline since yesterday 18:02"),
        ("{state: 'offline', last_seen: null}", "offline"),
        ("{state: 'never seen', last_seen: null}", "never seen"),
    ],
)
def test_devices_in_words(run: Run, device: str, words: str) -> None:
    assert run("words.js", f"it.deviceState({device}, {NOW})") == words


def test_streams_in_words(run: Run) -> None:
    idle, runs = "{is_running: false, watchers: 0}", "{is_running: true, watchers: 0}"
    assert run("words.js", "it.streams([])") == "no streams"
    assert run("words.js", f"it.streams([{idle}])") == "1 stream"
    assert run("words.js", f"it.streams([{idle}, {runs}])") == "1 of 2 streams running"
    states = f"[{idle}, {runs}, {{is_running: true, watchers: 2}}].map(it.streamState)"
    assert run("words.js", states) == ["idle", "running", "2 watching"]


@pytest.mark.parametrize(
    ("process", "text", "tone"),
    [
        ("{state: 'SERVING', wait_s: 0}", "serving", "good"),
        ("{state: 'HANGING', wait_s: 0}", "hangs", "bad"),
        ("{state: 'BACKOFF', wait_s: 3.2}", "failed, again in 4 s", "bad"),
        ("{state: 'Unheard_of', wait_s: 0}", "unheard_of", "idle"),
    ],
)
def test_processes_in_words(run: Run, process: str, text: str, tone: str) -> None:
    assert run("words.js", f"it.processState({process})") == {"text": text, "tone": tone}


@pytest.mark.parametrize(
    ("device", "text", "tone"),
    [
        ("{state: 'connected', turn: 'waiting_for_user', is_muted: false}", "connected for 3 min, listens", "good"),
        ("{state: 'connected', turn: 'user_speaking'}", "connected for 3 min, somebody speaks", "good"),
        ("{state: 'connected', turn: 'waiting_for_user', is_muted: true}", "connected for 3 min, muted", "good"),
        ("{state: 'connected', turn: 'bot_speaking', is_muted: true}", "connected for 3 min, muted, speaks", "good"),
        ("{state: 'connected', turn: 'constructor'}", "connected for 3 min", "good"),
        ("{state: 'connecting', turn: ''}", "not connected for 3 min, connecting", "waits"),
        ("{state: 'waiting', turn: ''}", "not connected for 3 min, tries again", "bad"),
        ("{state: 'over', turn: ''}", "not connected for 3 min, tries no more", "bad"),
        ("{state: 'elsewhere', turn: ''}", "held by another voice backend", "idle"),
        ("{state: 'disabled', is_muted: true}", "disabled", "idle"),
        ("{state: 'constructor', turn: ''}", "constructor", "idle"),
    ],
)
def test_voice_devices_in_words(run: Run, device: str, text: str, tone: str) -> None:
    assert run("voicewords.js", f"it.voiceState({device}, 190)") == {"text": text, "tone": tone}
    if tone != "idle":
        assert " for " not in run("voicewords.js", f"it.voiceState({device}, NaN).text")


@pytest.mark.parametrize(
    ("device", "faults"),
    [
        ("state: 'connected', problem: 'the device sends no sound'", ["The device sends no sound."]),
        ("state: 'waiting', problem: 'refuses the token'", ["Refuses the token."]),
        ("state: 'disabled', problem: 'refuses the token'", []),
        ("state: 'elsewhere', problem: 'another backend has it'", []),  # as its state says
        ("state: 'connected', microphone: 'no card', speaker: 'ok'", ["Microphone: no card"]),
        ("state: 'waiting', microphone: 'no card', speaker: 'ok'", []),  # as it was
        ("state: 'connected', services: {stt: 'full', llm: 'down'}", ["Hearing (stt): full"]),
    ],
)
def test_what_is_wrong_with_a_voice_device(run: Run, device: str, faults: list[str]) -> None:
    """But for what is wrong everywhere: nothing there thinks."""
    given = f"{{problem: '', microphone: '', speaker: '', services: {{}}, {device}}}"
    assert run("voicewords.js", f"it.deviceFaults({given}, {{llm: 'down'}})") == faults


def test_recovery_in_words(run: Run) -> None:
    assert run("words.js", "it.recovery({counts: [0, 0]})") == "no restart remembered"
    assert run("words.js", "it.recovery({})") == "no restart remembered"
    told = "{counts: [0, 3, 1], p50_ms: 180, worst_ms: 6400}"
    assert run("words.js", f"it.recovery({told})") == "back 4 times, half within 180 ms, worst 6.4 s"


def test_a_histogram_has_a_scale(run: Run) -> None:
    told = "{bounds_s: [0.1, 1, 30], counts: [0, 3, 1, 0], p50_ms: 180}"
    words = "back 4 times, half within 180 ms; bars from under 100 ms to over 30 s"
    assert run("words.js", f"it.recovery({told})") == words


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "type something other than blanks"),
        ("x" * 64, ""),
        ("🐙" * 64, ""),  # 128 units of UTF-16
        ("🐙" * 65, "these are 65 characters; shorten it to 64"),
    ],
)
def test_names_are_as_long_as_the_hub_counts(run: Run, name: str, fault: str) -> None:
    assert run("words.js", f"it.nameFault('{name}', 64)") == fault


def test_what_devices_call_themselves_is_no_code_of_ours(run: Run) -> None:
    """Names that every object of JavaScript has."""
    assert run("words.js", "it.processState({state: 'constructor', wait_s: 0}).text") == "constructor"
    assert run("words.js", "[it.capability('constructor'), it.capability('mux1')]") == [
        "constructor",
        "live tunnel (mux1)",
    ]
    assert run("words.js", "[it.loss('constructor'), it.loss('proxy:proxy_0')]") == [
        "Nothing is lost.",
        "What it carries breaks off for a moment.",
    ]


DEVICES = """[
    ['b', 'Barn', 'offline', []],
    ['z', 'Yard', 'online', [['omega-0', false], ['Gate', true]]],
    ['a', 'Yard', 'online', [['omega-1', false]]],
    ['c', 'attic', 'never seen', []],
].map(([device_id, device_name, state, streams]) => ({device_id, device_name, state,
    streams: streams.map(([name, is_running]) => ({name, is_running}))}))"""


def test_devices_stand_in_order(run: Run) -> None:
    """Who is there first, then by name whatever its case, then by id."""
    assert run("fleet.js", f"{DEVICES}.sort(it.inOrder).map((device) => device.device_id)") == ["a", "z", "c", "b"]


@pytest.mark.parametrize(
    ("query", "found"),
    [("", "bzac"), ("yard", "za"), ("YARD gate", "z"), ("omega", "za"), ("b", "b"), ("  ", "bzac"), (".*", "")],
)
def test_search(run: Run, query: str, found: str) -> None:
    expression = f"{DEVICES}.filter((device) => it.isMeant(device, {query!r})).map((device) => device.device_id)"
    assert "".join(run("fleet.js", expression)) == found


def test_the_stream_that_stands_for_a_device(run: Run) -> None:
    """One that runs; else the first."""
    assert run("fleet.js", f"{DEVICES}.map((device) => it.mainStream(device)?.name)") == [None, "Gate", "omega-1", None]


def test_attempts_to_come_back_are_spread(run: Run) -> None:
    least = run("live.js", "[0, 1, 2, 3, 20].map((failures) => it.retryDelay(failures, 0))")
    most = run("live.js", "[0, 1, 2, 3, 20].map((failures) => it.retryDelay(failures, 1))")
    assert least == [0.3] * 5
    assert most == pytest.approx([0.6, 0.9, 1.5, 2.7, 10])


# Runs a schedule for so many seconds of a made-up clock; each fetch takes 0.1 s. Returns [second, key] of each.
SIMULATION = """((it, seen, forS, outcome) => {
    const schedule = new it.Schedule(), fetched = [];
    for (const [key, isRunning] of seen) schedule.see(key, isRunning);
    let now = 0;
    while (now < forS) {
        const { key, waitS } = schedule.next(now);
        if (!key) {
            if (waitS === Infinity) break;
            now += waitS + 1e-6;
            continue;
        }
        fetched.push([now, key]);
        schedule.started(key, now);
        now += 0.1;
        schedule.ended(key, now, outcome(key));
    }
    return fetched;
})"""
GOOD = "() => ({ isGood: true })"


def fetches(run: Run, seen: str, for_s: int, outcome: str = GOOD) -> list[tuple[float, str]]:
    """What a schedule fetches, and when."""
    return [(at, key) for at, key in run("thumbs.js", f"{SIMULATION}(it, {seen}, {for_s}, {outcome})")]


def gaps(all_of_it: list[tuple[float, str]], key: str) -> list[float]:
    """Between the fetches of one picture."""
    times = [at for at, its in all_of_it if its == key]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def test_a_stream_that_runs_is_fetched_every_other_second(run: Run) -> None:
    assert gaps(fetches(run, "[['a', true]]", 60), "a") == pytest.approx([2.0] * 29, abs=0.01)


def test_an_idle_stream_is_fetched_every_thirty_seconds(run: Run) -> None:
    assert gaps(fetches(run, "[['a', false]]", 100), "a") == pytest.approx([30.0] * 3, abs=0.01)


def test_streams_that_run_come_first(run: Run) -> None:
    first = fetches(run, "[['a', false], ['b', true], ['c', false], ['d', true]]", 1)[:4]
    assert [key for _, key in first] == ["b", "d", "a", "c"]


def test_less_than_one_request_a_second_whatever_is_on_screen(run: Run) -> None:
    seen = "Array.from({length: 60}, (_, i) => [`stream ${i}`, i % 2 === 0])"
    all_of_it = fetches(run, seen, 1500)
    assert len([at for at, _ in all_of_it if at < 10]) <= 16, "a burst at first, and a small one"
    assert len([at for at, _ in all_of_it if at >= 60]) < 1440
    for i in range(60):
        between = gaps(all_of_it, f"stream {i}")
        assert between, "nobody is forgotten"
        assert min(between) >= (30 if i % 2 else 2)


def test_one_at_a_time(run: Run) -> None:
    steps = """(() => {
        const schedule = new it.Schedule();
        schedule.see('a', true);
        schedule.see('b', true);
        const first = schedule.next(0).key;
        schedule.started(first, 0);
        const meanwhile = schedule.next(100).waitS === Infinity;
        schedule.ended(first, 100, { isGood: true });
        return [first, meanwhile, schedule.next(100).key];
    })()"""
    assert run("thumbs.js", steps) == ["a", True, "b"]


def test_nothing_is_fetched_that_nobody_sees(run: Run) -> None:
    steps = """(() => {
        const schedule = new it.Schedule();
        schedule.see('a', true);
        schedule.unsee('a');
        return schedule.next(0).waitS === Infinity;
    })()"""
    assert run("thumbs.js", steps)


def test_to_scroll_there_and_back_fetches_nothing_anew(run: Run) -> None:
    steps = """(() => {
        const schedule = new it.Schedule();
        schedule.see('a', false);
        schedule.started('a', 0);
        schedule.ended('a', 0, { isGood: true });
        schedule.unsee('a');
        schedule.see('a', false);
        return schedule.next(10).waitS;
    })()"""
    assert run("thumbs.js", steps) == pytest.approx(20)


def test_what_fails_is_asked_for_ever_less_often(run: Run) -> None:
    failed = gaps(fetches(run, "[['a', true]]", 700, "() => ({ isGood: false })"), "a")
    assert failed[:4] == pytest.approx([5.1, 10.1, 20.1, 40.1], abs=0.01) and max(failed) < 301


def test_the_hub_may_say_when_to_come_again(run: Run) -> None:
    told = gaps(fetches(run, "[['a', true]]", 100, "() => ({ isGood: false, retryS: 60 })"), "a")
    assert told[0] == pytest.approx(60.1, abs=0.01)


def test_what_failed_is_asked_for_at_once_when_the_hub_is_back(run: Run) -> None:
    steps = """(() => {
        const schedule = new it.Schedule();
        schedule.see('a', true);
        schedule.started('a', 0);
        schedule.ended('a', 1, { isGood: false });
        schedule.forgive();
        return schedule.next(3).key;
    })()"""
    assert run("thumbs.js", steps) == "a"


REPORTS = """[
    {id: 'T', type: 'transport', selectedCandidatePairId: 'P'},
    {id: 'O', type: 'candidate-pair', localCandidateId: 'X', remoteCandidateId: 'X'},
    {id: 'P', type: 'candidate-pair', localCandidateId: 'L', remoteCandidateId: 'R', currentRoundTripTime: 0.024},
    {id: 'L', type: 'local-candidate', candidateType: 'prflx'},
    {id: 'R', type: 'remote-candidate', candidateType: FAR},
    {id: 'A', type: 'inbound-rtp', kind: 'audio', bytesReceived: 1},
    {id: 'V', type: 'inbound-rtp', kind: 'video', timestamp: 3000, bytesReceived: 500000, packetsReceived: 399,
     packetsLost: 3, frameWidth: 1280, frameHeight: 720},
]"""


@pytest.mark.parametrize(("far", "path"), [("'host'", "direct"), ("'relay'", "relayed")])
def test_what_is_measured_of_a_picture_in_words(run: Run, far: str, path: str) -> None:
    now = f"it.measured({REPORTS.replace('FAR', far)})"
    before = "{at: 1000, bytes: 0, received: 200, lost: 2}"
    assert run("stats.js", f"it.inWords({now}, {before})") == {
        "Resolution": "1280 × 720",
        "Bit rate": "2.0 Mbit/s",
        "Lost": "0.5 %",
        "Round trip": "24 ms",
        "Path": path,
    }


def test_what_is_not_measured_is_not_said(run: Run) -> None:
    """At first there is nothing to compare with; and a browser may count nothing at all."""
    assert run("stats.js", "it.inWords(it.measured([]), null)") == {}
    through_hub = "{at: 2000, bytes: 80000, width: 640, height: 360, path: 'through the hub'}"
    words = run("stats.js", f"it.inWords({through_hub}, {{at: 1000, bytes: 0}})")
    assert words == {"Resolution": "640 × 360", "Bit rate": "640 kbit/s", "Path": "through the hub"}


@pytest.mark.parametrize(("every_ms", "patience_ms"), [(33, 350), (100, 350), (1000, 3000), (4000, 5000)])
def test_how_late_a_picture_may_be(run: Run, every_ms: int, patience_ms: int) -> None:
    """Less than half a second; for a stream of few pictures a second, as long as it has been slow."""
    steps = f"""(() => {{
        const pace = new it.Pace();
        let now = 1;
        for (let i = 0; i < 50; i++) pace.came(now += {every_ms});
        return [0, {patience_ms} - 1, {patience_ms} + 1].map((late) => pace.isFrozen(now + late));
    }})()"""
    assert run("frames.js", steps) == [False, False, True]


def test_a_first_picture_says_not_yet_how_soon_the_second_is_due(run: Run) -> None:
    steps = """(() => {
        const pace = new it.Pace();
        pace.came(1);
        return [pace.isFrozen(1400), pace.isFrozen(1600)];
    })()"""
    assert run("frames.js", steps) == [False, True]


def test_what_has_not_begun_is_not_late(run: Run) -> None:
    assert run("frames.js", "new it.Pace().isFrozen(1e6)") is False
