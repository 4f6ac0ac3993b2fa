"""The published peers against our hub: the transcripts frame by frame, a device and a viewer that know only JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import golden, hub_rig
from tests.hub_rig import Http, Process, Talker
from tests.rig import until

DEVICE = "pi-cam-001"
STUN = "stun:stun.example.com:3478"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A hub that takes the published ways."""
    run_dir = tmp_path_factory.mktemp("hub")
    with hub_rig.process(run_dir, PLANARIA_COMPAT="1", STUN_URLS=STUN) as running:
        yield running


@pytest.fixture(scope="module")
def owner(hub: Process) -> Http:
    """Somebody who owns the devices of the transcripts."""
    user = hub.http.new_user("owner")
    for device_id in (DEVICE, "asleep-001"):
        hub_rig.paired(hub, user, device_id)
    return user


def is_sister(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether a frame of ours is what the transcript has there: the same fields on the outside, and in the payload all
    that it has and nothing that it has not; values of the same types."""
    return set(ours) == set(theirs) and _is_like(ours["payload"], theirs["payload"])


def _is_like(ours: object, theirs: object) -> bool:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return set(ours) == set(theirs) and all(_is_like(ours[name], theirs[name]) for name in theirs)
    return type(ours) is type(theirs)


class Stage:
    """Plays a transcript: says what its peer said, holds what the hub says against what it said there."""

    def __init__(self, device: Talker, viewer: Talker, token: str) -> None:
        self.at = {"device": device, "viewer": viewer}
        self.token = token
        self.session = ""

    def say(self, channel: str, frame: dict[str, Any]) -> None:
        """Send a frame of the transcript, with this run's token and session."""
        payload = dict(frame["payload"])
        if "token" in payload:
            payload["token"] = self.token
        if "session_id" in payload:
            payload["session_id"] = self.session
        self.at[channel].ws.send(json.dumps(frame | {"payload": payload}))

    def hears(self, channel: str, theirs: dict[str, Any], *, alike: bool = True) -> dict[str, Any]:
        """The next frame there, held against the transcript's."""
        ours = self.at[channel].hear()
        assert ours["type"] == theirs["type"], (ours, theirs)
        assert list(ours) == list(theirs), "the order of fields"
        assert not alike or is_sister(ours, theirs), (ours, theirs)
        return ours


def frames(channel: str, kind: str, sender: str = "") -> list[dict[str, Any]]:
    """Frames of a transcript, by type and sender."""
    return [
        said.frame
        for said in golden.transcript(channel)
        if not said.is_close and said.frame["type"] == kind and sender in ("", said.sender)
    ]


def test_the_transcripts(hub: Process, owner: Http) -> None:
    with hub_rig.talking(hub, "/ws/device") as device, hub_rig.talking(hub, "/ws/viewer") as viewer:
        stage = Stage(device, viewer, owner.token)
        for channel in ("device", "viewer"):
            stage.say(channel, frames(channel, "hello")[0])
            acknowledged = stage.hears(channel, frames(channel, "hello_ack")[0])
        assert acknowledged["payload"]["user_id"] == str(owner("POST", "/api/auth/renew").json["user"]["id"])
        stage.say("device", frames("device", "heartbeat")[0])
        assert stage.hears("device", frames("device", "heartbeat_ack")[0])["request_id"] is None
        stage.say("device", frames("device", "capabilities")[0])

        for number, why in enumerate(("Device not found", "Device is offline")):
            stage.say("viewer", frames("viewer", "watch_request")[number])
            said = stage.hears("viewer", frames("viewer", "error")[number])
            assert (said["payload"]["message"], said["request_id"]) == (why, f"r{number + 1}")

        stage.say("viewer", frames("viewer", "watch_request")[2])
        # The lists of servers are longer there: this hub has one.
        ready = stage.hears("viewer", frames("viewer", "watch_ready")[0], alike=False)
        wanted = stage.hears("device", frames("device", "watch_request")[0], alike=False)
        stage.session = ready["payload"]["session_id"]
        assert ready["request_id"] == "r3" and wanted["payload"]["session_id"] == stage.session
        assert ready["payload"] == {"session_id": stage.session, "mode": "p2p", "ice_servers": [{"urls": STUN}]}
        assert wanted["payload"]["user_id"] == acknowledged["payload"]["user_id"]

        both_ways = (("viewer", "signal_offer", "device"), ("device", "signal_answer", "viewer"))
        for sender, kind, receiver in (
            *both_ways,
            ("viewer", "signal_ice", "device"),
            ("device", "signal_ice", "viewer"),
        ):
            frame = frames(sender, kind, sender)[0]
            stage.say(sender, frame)
            heard = stage.hears(receiver, frames(receiver, kind, "hub")[0])
            assert heard["payload"] == frame["payload"] | {"session_id": stage.session}
        stage.say("viewer", frames("viewer", "signal_ice", "viewer")[0])  # the last: no more candidates
        device.hear("signal_ice")
        for said in frames("device", "proxy_http_resp"):  # to nobody: refused, and the link lives
            stage.say("device", said)
            assert "nobody" in device.hear("error")["payload"]["message"]

        stage.say("viewer", frames("viewer", "end_watch")[0])
        ended = stage.hears("device", frames("device", "watch_ended")[0])
        assert ended["payload"] == {"session_id": stage.session, "reason": "user_ended"}

        with hub_rig.device(hub, DEVICE, device_secret="mysecret123"):
            (close,) = [said.frame for said in golden.transcript("device") if said.is_close]
            assert device.closing() == (close["close"], close["reason"])


def test_the_first_secret_is_kept_and_a_wrong_one_turned_away(hub: Process, owner: Http) -> None:
    hub_rig.paired(hub, owner, "secretive")
    with hub_rig.device(hub, "secretive", device_secret="first") as first:
        for hello in ({"device_secret": "second"}, {}, {"device_secret": ""}):
            with hub_rig.talking(hub, "/ws/device") as other:
                other.say("hello", {"device_id": "secretive", **hello})
                assert other.closing() == (1008, "Wrong credential")
        assert first.is_alive(), "a stranger has replaced it"
    hub.restart()
    with hub_rig.device(hub, "secretive", device_secret="first"):
        pass
    owner.token = hub.http.as_user("owner", "a good password").token


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ({"type": "heartbeat", "payload": {}}, "Expected hello message"),
        ({"type": "hello", "payload": {}}, "Missing device_id"),
        ({"type": "hello", "payload": {"device_id": ""}}, "Missing device_id"),
        ({"type": "hello", "payload": {"device_id": None}}, "Missing device_id"),
        ({"type": "hello"}, "Missing device_id"),
        ({"type": "hello", "payload": {"device_id": "nobody knows me"}}, "Device not found"),
        ({"type": "hello", "payload": {"device_id": DEVICE, "caps": "mux1"}}, "Malformed hello"),
        ({"no": "type"}, "Expected hello message"),
        ("no object", "Expected hello message"),
    ],
)
def test_a_first_frame_that_is_no_hello(hub: Process, first: object, reason: str) -> None:
    with hub_rig.talking(hub, "/ws/device") as talker:
        talker.ws.send(json.dumps(first))
        assert talker.closing() == (1008, reason)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ({"type": "hello", "payload": {"token": "made up"}}, "Invalid token"),
        ({"type": "hello", "payload": {}}, "Expected hello message"),
        ({"type": "heartbeat", "payload": {}}, "Expected hello message"),
        ("", "Expected hello message"),
    ],
)
def test_a_viewer_that_may_not(hub: Process, first: object, reason: str) -> None:
    with hub_rig.talking(hub, "/ws/viewer") as talker:
        talker.ws.send(json.dumps(first))
        assert talker.closing() == (1008, reason)


def test_a_device_is_seen_to_come_and_go(hub: Process, owner: Http) -> None:
    hub_rig.paired(hub, owner, "comes-and-goes")
    with hub_rig.device(hub, "comes-and-goes"):
        shown = owner("GET", "/api/devices/comes-and-goes/status").json
        assert shown["is_online"] is True and shown["last_seen"]
    until(lambda: not owner("GET", "/api/devices/comes-and-goes/status").json["is_online"])
    # What is written down of it may be some seconds old.
    until(lambda: owner("GET", "/api/devices/comes-and-goes/status").json["last_seen"])


def test_everybody_else_of_a_session_hears_that_one_has_gone(hub: Process, owner: Http) -> None:
    hub_rig.paired(hub, owner, "watched")
    with hub_rig.device(hub, "watched") as device:
        with hub_rig.viewer(hub, owner.token) as viewer:
            viewer.say("watch_request", {"device_id": "watched"})
            session = viewer.hear("watch_ready")["payload"]["session_id"]
        device.hear("watch_request")
        ended = device.hear("watch_ended")["payload"]
        assert ended == {"session_id": session, "reason": "viewer_disconnected"}
        with hub_rig.viewer(hub, owner.token) as viewer:
            viewer.say("watch_request", {"device_id": "watched"})
            session = viewer.hear("watch_ready")["payload"]["session_id"]
            device.ws.close()
            assert viewer.hear("watch_ended")["payload"] == {"session_id": session, "reason": "device_disconnected"}
            assert viewer.is_alive()


OFFER = {"type": "offer", "sdp": "v=0"}
Spoken = list[tuple[str, dict[str, object]]]
OF_VIEWERS: Spoken = [("signal_offer", {"sdp": OFFER}), ("signal_ice", {"candidate": None}), ("end_watch", {})]
OF_DEVICES: Spoken = [
    ("signal_answer", {"sdp": OFFER | {"type": "answer"}}),
    ("signal_ice", {"candidate": None}),
    ("watch_ended", {"reason": "error"}),
]


def test_a_session_is_between_two(hub: Process, owner: Http) -> None:
    """Neither another viewer nor another device can speak in it, not even with its id."""
    hub_rig.paired(hub, owner, "one")
    stranger = hub.http.new_user("stranger")
    hub_rig.paired(hub, stranger, "other")
    with (
        hub_rig.device(hub, "one") as one,
        hub_rig.device(hub, "other") as other,
        hub_rig.viewer(hub, owner.token) as viewer,
        hub_rig.viewer(hub, stranger.token) as listener,
    ):
        viewer.say("watch_request", {"device_id": "one"})
        session = viewer.hear("watch_ready")["payload"]["session_id"]
        one.hear("watch_request")
        listener.say("watch_request", {"device_id": "one"})
        assert listener.hear("error")["payload"]["message"] == "Device not found"
        for talker, spoken in ((listener, OF_VIEWERS), (other, OF_DEVICES)):
            for kind, payload in spoken:
                talker.say(kind, {"session_id": session} | payload)
                assert talker.hear("error")["payload"]["message"] == "no such session"
        assert one.is_alive() and viewer.is_alive()
        viewer.say("signal_offer", {"session_id": session, "sdp": OFFER})
        assert one.hear()["payload"] == {"session_id": session, "sdp": OFFER}
