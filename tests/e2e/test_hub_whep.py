"""WHEP: a player that knows only HTTP and SDP, and a device that knows only JSON."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest

from tests import hub_rig
from tests.hub_rig import CHEAP_HUB, Answer, Http, Process, Talker
from tests.rig import until

SDP, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
TURN = "turn:turn.example.com:3478?transport=udp,turn:turn.example.com:3478?transport=tcp"
NUMBERS = itertools.count()
INSTANCE = "0123456789abcdef"
OFFER = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=ice-ufrag:abcd\r\na=mid:0\r\n"
    "a=recvonly\r\n"
)
ANSWERED = OFFER.replace("recvonly", "sendonly").replace("abcd", "efgh")
HOST = "candidate:1 1 udp 2130706431 192.168.1.7 49152 typ host"
HUB = ("-c", "from procs.hub.viewers import whep\nwhep.ANSWER_S = 1.0\n" + CHEAP_HUB[1])


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub with STUN and TURN, which does not wait for long."""
    run_dir = tmp_path_factory.mktemp("hub")
    stun = "stun:stun.example.com"
    with hub_rig.process(
        run_dir, command=HUB, PLANARIA_COMPAT="1", STUN_URLS=stun, TURN_URLS=TURN, TURN_SECRET="a secret"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def owner(hub: Process) -> Http:
    """Whose devices they are."""
    return hub.http.new_user("owner")


@pytest.fixture
def cam(hub: Process, owner: Http) -> str:
    """A device of this test's own."""
    device_id = f"cam {next(NUMBERS)}"
    hub_rig.paired(hub, owner, device_id)
    return device_id


def posted(who: Http, cam: str, offer: str | bytes = OFFER, kind: str = SDP, query: str = "") -> Answer:
    """An offer."""
    path = f"/api/devices/{urllib.parse.quote(cam, safe='')}/whep{query}"
    return who("POST", path, offer if isinstance(offer, bytes) else offer.encode(), headers={"Content-Type": kind})


def patched(who: Http, place: str, text: str, kind: str = FRAGMENT) -> Answer:
    """A fragment."""
    return who("PATCH", place, text.encode(), headers={"Content-Type": kind})


class Player(threading.Thread):
    """Posts an offer, and waits for what comes back."""

    def __init__(self, who: Http, cam: str, query: str = "") -> None:
        super().__init__(daemon=True)
        self._asked = (who, cam, OFFER, SDP, query)
        self._answers: list[Answer] = []
        self.start()

    def answer(self) -> Answer:
        """What came back."""
        self.join(hub_rig.LIMIT_S)
        (answer,) = self._answers
        return answer

    def run(self) -> None:
        self._answers.append(posted(*self._asked))


def played(owner: Http, cam: str, at: Talker, *found: Mapping[str, Any] | None) -> tuple[str, Answer]:
    """A session: its id, and what the player got. `found`: the device's candidates."""
    player = Player(owner, cam)
    session = str(at.hear("watch_request")["payload"]["session_id"])
    assert at.hear("signal_offer")["payload"]["sdp"] == {"type": "offer", "sdp": OFFER}
    at.say("signal_answer", {"session_id": session, "sdp": {"type": "answer", "sdp": ANSWERED}})
    for candidate in found:
        at.say("signal_ice", {"session_id": session, "candidate": candidate})
    return session, player.answer()


def test_a_player_sees_the_device(hub: Process, owner: Http, cam: str) -> None:
    with hub_rig.device(hub, cam, instance=INSTANCE) as at:
        found = {"candidate": HOST, "sdpMid": "0", "sdpMLineIndex": 0}
        session, answer = played(owner, cam, at, found, None)
        assert (answer.status, answer.headers["Content-Type"]) == (201, SDP)
        assert answer.body.decode() == f"{ANSWERED}a={HOST}\r\na=end-of-candidates\r\n"
        place = answer.headers["Location"]
        assert (
            place == f"/api/devices/{cam.replace(' ', '%20')}/whep/{session}"
            and answer.headers["Accept-Patch"] == FRAGMENT
        )
        links = answer.headers.get_all("Link") or []
        assert links[0] == '<stun:stun.example.com>; rel="ice-server"' and len(links) == 3
        assert all(f"<{url}>" in link for url, link in zip(TURN.split(","), links[1:], strict=True))
        assert all('credential-type="password"' in link and 'username="' in link for link in links[1:])

        assert patched(owner, place, f"a=ice-ufrag:abcd\r\nm=video 9 X 0\r\na=mid:0\r\na={HOST}\r\n").status == 204
        told = at.hear("signal_ice")["payload"]["candidate"]
        assert (told["candidate"], told["sdpMid"]) == (HOST, "0")
        assert patched(owner, place, "a=end-of-candidates\r\n").status == 204
        assert at.hear("signal_ice")["payload"]["candidate"] is None
        assert owner("DELETE", place).status == 200
        assert at.hear("watch_ended")["payload"] == {"session_id": session, "reason": "user_ended"}
        assert owner("DELETE", place).status == 404 and patched(owner, place, "").status == 404


def test_a_page_of_another_site_may_play_with_a_token_and_not_with_a_cookie(
    hub: Process, owner: Http, cam: str
) -> None:
    path = f"/api/devices/{urllib.parse.quote(cam)}/whep"
    other = {"Origin": "https://player.example", "Sec-Fetch-Site": "cross-site", "Content-Type": SDP}
    for asked in (path, f"{path}/some-session"):
        allowed = hub.http("OPTIONS", asked, headers=other | {"Access-Control-Request-Method": "POST"})
        assert allowed.status == 204 and allowed.headers["Access-Control-Allow-Origin"] == "*"
        assert allowed.headers["Access-Control-Allow-Methods"] == "POST, PATCH, DELETE"
        assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]
    with hub_rig.device(hub, cam) as at:
        _, answer = played(owner, cam, at, None)
        assert owner("DELETE", answer.headers["Location"]).headers["Access-Control-Allow-Origin"] == "*"
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Location", "Link"} <= set(exposed) and "Access-Control-Allow-Credentials" not in answer.headers
    for refused, status in ((posted(hub.http, cam), 401), (posted(owner, cam, kind="text/plain"), 415)):
        assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (status, "*")
    login = {"username": "owner", "password": "a good password"}
    cookie = str(hub.http("POST", "/api/session", login).headers["Set-Cookie"]).partition(";")[0]
    answer = hub.http("POST", path, OFFER.encode(), headers=other | {"Cookie": cookie})
    assert (answer.status, answer.detail) == (403, "This request comes from another site's page")
    assert "Access-Control-Allow-Origin" not in owner("GET", "/api/devices").headers


def test_a_device_that_goes_on_looking_is_not_waited_for(hub: Process, owner: Http, cam: str) -> None:
    with hub_rig.device(hub, cam) as at:
        _, answer = played(owner, cam, at, {"candidate": HOST, "sdpMid": "0"})
        assert answer.body.decode() == f"{ANSWERED}a={HOST}\r\n"


def test_the_stream_is_asked_for(hub: Process, owner: Http, cam: str) -> None:
    with hub_rig.device(hub, cam) as at:
        player = Player(owner, cam, "?stream=omega-1")
        wanted = at.hear("watch_request")["payload"]
        assert wanted["stream"] == "omega-1"
        at.say("watch_ended", {"session_id": wanted["session_id"], "reason": "error", "why": "no stream omega-1"})
        answer = player.answer()
        assert answer.status == 502 and "no stream omega-1" in answer.detail
        at.say("capabilities", {"device_id": cam, "streams": {"omega-0": {}}})
        assert at.is_alive()
        assert posted(owner, cam, query="?stream=omega-1").status == 404


def test_who_may_not(hub: Process, owner: Http, cam: str) -> None:
    stranger = hub.http.new_user("stranger")
    assert posted(hub.http, cam).status == 401
    assert posted(stranger, cam).status == 404 and posted(owner, "none").status == 404
    answer = posted(owner, cam)
    assert (answer.status, answer.detail) == (503, "Device offline") and answer.headers["Retry-After"]
    with hub_rig.device(hub, cam) as at:
        _, answer = played(owner, cam, at, None)
        place = answer.headers["Location"]
        assert stranger("DELETE", place).status == 404 and hub.http("DELETE", place).status == 401
        share = f"/api/devices/{urllib.parse.quote(cam)}/shares/stranger"
        assert owner("PUT", share, {"role": "viewer"}).status == 200
        assert stranger("DELETE", place).status == 404, "somebody else's session"
        session, answer = played(stranger, cam, at, None)
        assert answer.status == 201, "who may look, may watch"
        assert owner("DELETE", share).status == 200
        assert at.hear("watch_ended")["payload"] == {"session_id": session, "reason": "error"}
        assert owner("DELETE", place).status == 200


@pytest.mark.parametrize(
    ("offer", "kind", "status", "said"),
    [
        (OFFER, "application/json", 415, SDP),
        (OFFER, "text/plain", 415, SDP),
        ("", SDP, 400, "v=0"),
        (b"\xff\xfe", SDP, 400, "UTF-8"),
        (OFFER.replace("video", "audio"), SDP, 400, "no video"),
        (OFFER.replace("recvonly", "sendonly"), SDP, 400, "takes no video"),
        (OFFER + "a=x\r\n" * 20_000, SDP, 413, ""),
    ],
)
def test_an_offer_that_is_none(
    hub: Process, owner: Http, cam: str, offer: str | bytes, kind: str, status: int, said: str
) -> None:
    answer = posted(owner, cam, offer, kind)
    assert answer.status == status and said in answer.detail


def test_a_fragment_that_is_none(hub: Process, owner: Http, cam: str) -> None:
    with hub_rig.device(hub, cam) as at:
        _, answer = played(owner, cam, at, None)
        place = answer.headers["Location"]
        assert patched(owner, place, "a=end-of-candidates", SDP).status == 415
        assert patched(owner, place, "{}").status == 400
        assert patched(owner, place, f"a={HOST}\n" * 65).status == 400
        assert patched(owner, place, "a=ice-ufrag:other\r\n").status == 422, "that would be a restart"
        assert owner("GET", place).status == 405


def test_a_device_that_does_not_answer(hub: Process, owner: Http, cam: str) -> None:
    with hub_rig.device(hub, cam) as at:
        answer = posted(owner, cam)
        assert answer.status == 504
        assert at.hear("watch_ended")["payload"]["reason"] == "timeout"
        assert until_free(hub)


def test_a_player_that_leaves_frees_the_device(hub: Process, owner: Http, cam: str) -> None:
    with hub_rig.device(hub, cam) as at:
        asking = HTTPConnection("127.0.0.1", hub.port, timeout=hub_rig.LIMIT_S)
        headers = {"Content-Type": SDP, "Authorization": f"Bearer {owner.token}"}
        asking.request("POST", f"/api/devices/{urllib.parse.quote(cam)}/whep", OFFER, headers)
        session = at.hear("signal_offer")["payload"]["session_id"]
        asking.close()
        assert at.hear("watch_ended")["payload"] == {"session_id": session, "reason": "user_ended"}
        assert until_free(hub)


def until_free(hub: Process) -> bool:
    """Once there is no session."""
    until(lambda: hub.metric("watch_sessions") == 0)
    return True


def test_a_session_outlives_the_hub(hub: Process, owner: Http, cam: str) -> None:
    with hub_rig.device(hub, cam, instance=INSTANCE) as at:
        session, answer = played(owner, cam, at, None)
        place = answer.headers["Location"]
        until(lambda: session in kept(hub))
        hub.kill()
    hub.start()
    hub.wait()
    with hub_rig.device(hub, cam, instance=INSTANCE) as at:
        assert patched(owner, place, f"a={HOST}\r\n").status == 204
        assert at.hear()["payload"]["session_id"] == session
        assert owner("DELETE", place).status == 200
        assert at.hear()["payload"] == {"session_id": session, "reason": "user_ended"}


def kept(hub: Process) -> set[str]:
    """The sessions that the store knows to go on."""
    with closing(sqlite3.connect(f"file:{hub.run_dir / 'hub.sqlite'}?mode=ro", uri=True)) as store:
        return {row[0] for row in store.execute("SELECT session_id FROM watches WHERE ended_at IS NULL")}


def test_nothing_unforeseen_was_logged(hub: Process) -> None:
    assert '"trace"' not in hub.said() and "never retrieved" not in hub.said()
